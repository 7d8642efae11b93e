"""What travels through a port: handshakes, derivations and, on a server's own port, minted ports.

Every message is one datagram of sixteen bytes with its descriptors beside it, goes
one way, and needs no answer: it queues before the server runs. A port may send:

==========  =====================================  ===============================
kind        descriptors                            meaning
==========  =====================================  ===============================
``S``       session socket, session page           this thread wants to call
``D``       server end of a new port               a port like this one, with no
                                                   more rights than this one has
``M``       server end of a new port               a port with any label and
                                                   rights; owner ports only
==========  =====================================  ===============================

The server answers nothing but, rarely, ``R``: why it refuses, before it closes.
"""

from __future__ import annotations

from enum import Enum
from struct import Struct
from typing import NamedTuple

__all__ = ["PORT_MESSAGE_BYTES", "PortKind", "PortMessage", "pack_refusal", "unpack_refusal"]

_MESSAGE = Struct("=cB6xQ")
PORT_MESSAGE_BYTES = _MESSAGE.size


class PortKind(bytes, Enum):
    """What a port message asks for."""

    SESSION = b"S"
    DERIVE = b"D"
    MINT = b"M"


#: How many descriptors each kind carries, exactly.
_DESCRIPTORS = {PortKind.SESSION: 2, PortKind.DERIVE: 1, PortKind.MINT: 1}


class PortMessage(NamedTuple):
    """One message of a holder to its server; ``label`` counts in ``M`` only."""

    kind: PortKind
    rights: int = 0
    label: int = 0

    def pack(self) -> bytes:
        """Return the datagram."""
        return _MESSAGE.pack(self.kind.value, self.rights, self.label)

    @classmethod
    def unpack(cls, data: bytes, descriptors: int) -> PortMessage | None:
        """Return what ``data`` says, or None when no honest peer sends it (with that many descriptors)."""
        if len(data) != PORT_MESSAGE_BYTES:
            return None
        letter, rights, label = _MESSAGE.unpack(data)
        try:
            kind = PortKind(letter)
        except ValueError:
            return None
        return cls(kind, rights & 15, label) if descriptors == _DESCRIPTORS[kind] else None


def pack_refusal(code: int, text: str) -> bytes:
    """Return the datagram by which a server says why it closes a port or a session."""
    return b"R" + bytes(15) + f"{code} {text}".encode()[:180]


def unpack_refusal(text: str) -> tuple[int, str]:
    """Return error code and text of a refusal; (0, text) if it has no code."""
    code, _, rest = text.partition(" ")
    return (int(code), rest) if code.isascii() and code.isdigit() and len(code) < 6 else (0, text)
