"""META: asking an object which interfaces it has.

Every typed object answers by itself; a raw one calls `handle_meta_request` for `Meta.PROTOCOL`.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from l4re.errors import Err, MessageTooShort, error_from_code
from l4re.interface.proxy import Interface, interfaces_of
from l4re.interface.rpc import rpc
from l4re.wire.codecs import codec_for
from l4re.wire.marshal import OPCODE
from l4re.wire.scalars import U64
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.interface.iostream import Iostream

__all__ = ["Meta", "answer_meta", "handle_meta_request"]

_WORD = Struct("=Q")
_QUESTION = Struct("=i4x")
_ARGUMENT = Struct("=i4xQ")
#: Bytes of a name; leaves room in the 63 words.
_NAME_MAX = 200
_NUM_INTERFACES, _INTERFACE, _SUPPORTS = range(3)


class Meta(Interface):
    """The protocol that every object speaks beside its own: how many interfaces, which, is this one of them."""

    PROTOCOL: Final = -21
    protocol = -21

    def num_interfaces(self) -> int:
        """Return how many interfaces the object has."""
        return self._l4_ask(_QUESTION.pack(_NUM_INTERFACES))

    @rpc(opcode=_INTERFACE)
    def interface(self, index: U64) -> tuple[int, str]:
        """Return protocol and name of the ``index``-th interface, the most derived first.

        Raises:
            OutOfRange: there are fewer.
        """
        raise NotImplementedError

    def supports(self, protocol: int) -> bool:
        """Return whether the object has an interface with this protocol."""
        return self._l4_ask(_ARGUMENT.pack(_SUPPORTS, protocol & 0xFFFF_FFFF_FFFF_FFFF)) > 0

    def _l4_ask(self, words: bytes) -> int:
        """Ask a question whose answer is the reply's label."""
        label, _, data, _ = self._l4_transact(self.protocol, words)
        if label < 0:
            raise error_from_code(label, data.decode("utf-8", "replace"))
        return label


def answer_meta(interface: type[Interface], source: Reader, out: Writer) -> int:
    """Answer the META request in ``source``; return the reply's label.

    Raises:
        MessageTooShort: opcode or argument is missing.
    """
    found = interfaces_of(interface)
    opcode = source.scalar(OPCODE)
    if opcode == _NUM_INTERFACES:
        return len(found)
    if opcode == _INTERFACE:
        index = source.scalar(_WORD)
        if index >= len(found):
            return -Err.ERANGE
        codec_for(int).put(out, found[index].protocol)
        codec_for(str).put(out, found[index].__name__.encode()[:_NAME_MAX].decode(errors="ignore"))
        return 0
    if opcode == _SUPPORTS:
        protocol = source.scalar(_WORD)
        return int(any(each.protocol & 0xFFFF_FFFF_FFFF_FFFF == protocol for each in found))
    return -Err.ENOSYS


def handle_meta_request(interface: type[Interface], ios: Iostream) -> int:
    """Answer the META request in ``ios`` for an object that has ``interface``; `dispatch` returns the result."""
    try:
        return answer_meta(interface, ios._source, ios._out)
    except MessageTooShort:
        return -Err.EMSGTOOSHORT
