"""What a capability is: ownership, rights, transfer, validation.

Here lives the base class of everything a program can hold, and the one way a
capability leaves a process (:class:`Export`) and enters one
(:func:`import_capability`). The room promises that rights only shrink on the
way, that what arrives is believed only as far as the kernel confirms it, and
that every descriptor has one owner whatever fails. What a dataspace or a gate
does is left to their rooms; each registers its importer here.
"""

from l4re.cap.capability import AtMost, Capability
from l4re.cap.owners import SharedCap, UniqueCap
from l4re.cap.transfer import (
    Export,
    capability_behind,
    export_all,
    import_all,
    import_capability,
    register_kind,
    register_room,
)

__all__ = [
    "AtMost",
    "Capability",
    "Export",
    "SharedCap",
    "UniqueCap",
    "capability_behind",
    "export_all",
    "import_all",
    "import_capability",
    "register_kind",
    "register_room",
]
