"""What programs say: tags, colours, whole lines, and the multiplexer that prints many programs as one.

The room promises that a line comes out whole, once, under the tag of the program that wrote it and in the order
it was written, and that no output of a program that ended is lost. Who gets which tag is left to ``boot`` and
``ned``.
"""

from typing import TYPE_CHECKING

from l4re.log.client import Log
from l4re.on_demand import names_on_demand

if TYPE_CHECKING:
    from l4re.log.console import Console
    from l4re.log.lines import LineAssembler
    from l4re.log.multiplexer import Multiplexer, shared_multiplexer
    from l4re.log.tag import PLAIN, Tag, colour_number
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.log.console": ("Console",),
            "l4re.log.lines": ("LineAssembler",),
            "l4re.log.multiplexer": ("Multiplexer", "shared_multiplexer"),
            "l4re.log.tag": ("PLAIN", "Tag", "colour_number"),
        },
    )

__all__ = ["PLAIN", "Console", "LineAssembler", "Log", "Multiplexer", "Tag", "colour_number", "shared_multiplexer"]
