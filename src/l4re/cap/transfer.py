"""How a capability leaves a process, and how one enters.

An :class:`Export` is what travels: a kind, rights, one number and some
descriptors. Its owner decides afterwards whether the hand-over happened
(``done``) or not (``failed``); either way nothing stays behind. On the way in
the peer is believed in nothing: the room's importer asks the kernel what the
descriptors are and refuses with :class:`InvalidArgument` when they are not that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module

from l4re.cap.capability import Capability
from l4re.errors import InvalidArgument, MessageTooLong, WrongType
from l4re.linux.fd import Fd, take
from l4re.rights import Rights
from l4re.wire.items import ITEM_BYTES, ItemKind, pack_item, unpack_item

__all__ = [
    "MAX_CAPS",
    "Export",
    "Importer",
    "capability_behind",
    "export_all",
    "import_all",
    "import_capability",
    "register_kind",
    "register_room",
]

_VOID = int(ItemKind.VOID)
#: By their bits: looking one up takes a fifth of making it.
_RIGHTS = tuple(Rights(bits) for bits in range(Rights.RWSD + 1))

#: Capabilities in one message: two words each, of 63.
MAX_CAPS = 16


class Export:
    """One capability on its way out.

    ``fds`` are good until ``done()`` or ``failed()``; ``owned`` are the ones made
    for this hand-over only and closed by either, ``lent`` is who owns the others.
    ``on_sent`` runs once the
    receiver has it (a receive right closes itself then: it moves), ``on_task``
    learns the pidfd of the process it went to, where that is known.
    """

    __slots__ = ("fds", "kind", "lent", "on_sent", "on_task", "owned", "rights", "value")

    def __init__(
        self,
        kind: ItemKind,
        rights: Rights,
        value: int,
        fds: tuple[int, ...],
        *,
        owned: tuple[Fd, ...] = (),
        lent: Fd | None = None,
        on_sent: Callable[[], None] | None = None,
        on_task: Callable[[int], None] | None = None,
    ) -> None:
        self.kind = kind
        self.rights = rights
        self.value = value
        self.fds = fds
        self.owned = owned
        self.lent = lent
        self.on_sent = on_sent
        self.on_task = on_task

    def done(self) -> None:
        """The receiver has it."""
        for fd in self.owned:
            fd.close()
        if self.on_sent is not None:
            self.on_sent()

    def failed(self) -> None:
        """It was not sent; everything made for it goes away."""
        for fd in self.owned:
            fd.close()


Importer = Callable[[Rights, int, tuple[Fd, ...]], Capability]

_importers: dict[int, Importer] = {}
_rooms: dict[int, str] = {}


def register_kind(kind: ItemKind, importer: Importer) -> None:
    """Say how a capability of ``kind`` is made from what arrived.

    ``importer(rights, value, fds)`` owns the descriptors, also when it raises.
    """
    _importers[kind] = importer


def register_room(kind: ItemKind, module: str) -> None:
    """Say which module registers ``kind``; it is loaded when the first such capability arrives."""
    _rooms[kind] = module


def import_capability(kind: int, rights: Rights, value: int, fds: tuple[Fd, ...]) -> Capability:
    """Make a capability of received descriptors, which this call takes.

    Raises:
        InvalidArgument: the kind is unknown, or the descriptors are not what they claim to be.
    """
    try:
        return (_importers.get(kind) or _importer(kind))(rights, value, fds)
    except BaseException as error:
        for fd in fds:
            fd.close()
        if isinstance(error, (OSError, OverflowError)):
            raise InvalidArgument(f"received a capability that the kernel does not confirm: {error}") from error
        raise


def _importer(kind: int) -> Importer:
    if kind not in _importers and kind in _rooms:
        import_module(_rooms[kind])
    if kind not in _importers:
        raise InvalidArgument(f"received a capability of kind {kind}, which this version does not know")
    return _importers[kind]


def capability_behind(value: object) -> Capability:
    """Return the capability that ``value`` is, or (a typed proxy, a registered server object) stands for.

    Raises:
        WrongType: it is none.
    """
    if isinstance(value, Capability):
        return value
    found = value.obj_cap() if hasattr(value, "obj_cap") else getattr(value, "cap", None)
    if not isinstance(found, Capability):
        raise WrongType(f"not a capability: {value!r}")
    return found


def export_all(caps: Sequence[Capability | None]) -> tuple[bytes, list[int], list[Export]]:
    """Return the items' words, the descriptors in order, and the exports to finish.

    Raises:
        MessageTooLong: more than 16 capabilities.
    """
    if len(caps) > MAX_CAPS:
        raise MessageTooLong(f"{len(caps)} capabilities in one message; at most {MAX_CAPS} fit")
    words: list[bytes] = []
    fds: list[int] = []
    exports: list[Export] = []
    try:
        for cap in caps:
            if cap is None:
                words.append(pack_item(ItemKind.VOID, Rights(0), 0, 0))
                continue
            export = capability_behind(cap).export()
            exports.append(export)
            numbers = export.fds
            words.append(pack_item(export.kind, export.rights, len(numbers), export.value))
            fds += numbers
    except BaseException:
        for export in exports:
            export.failed()
        raise
    return b"".join(words), fds, exports


def import_all(words: bytes, fds: Iterable[int]) -> tuple[Capability | None, ...]:
    """Make the capabilities of one message; takes the descriptors, whatever happens.

    Raises:
        InvalidArgument: the items and the descriptors do not fit each other.
    """
    owners = take(tuple(fds))
    caps: list[Capability | None] = []
    used = 0
    try:
        for at in range(0, len(words), ITEM_BYTES):
            kind, rights, count, value = unpack_item(words, at)
            mine = owners[used : used + count]
            if len(mine) != count:
                raise InvalidArgument(f"item {at // ITEM_BYTES} names {count} descriptors, {len(mine)} arrived")
            used += count
            if rights >= len(_RIGHTS):
                for fd in mine:
                    fd.close()
                raise InvalidArgument(f"item {at // ITEM_BYTES} carries rights {rights:#x}, which do not exist")
            if kind == _VOID and not count:
                caps.append(None)
            else:
                caps.append(import_capability(kind, _RIGHTS[rights], value, mine))
        if used != len(owners):
            raise InvalidArgument(f"{len(owners) - used} descriptors arrived that no item names")
    except BaseException:
        for cap in caps:
            if cap is not None:
                cap.close()
        for fd in owners[used:]:
            fd.close()
        raise
    return tuple(caps)
