"""The factory of the programs of one run: memory on account, factories inside factories, logs, namespaces, schedulers.

Each program has a factory object of its own, so that what it uses can be told apart; those of one run share one
account. A factory that a program had made has an account inside that of its maker, and goes, with all that was made
through it, when nobody holds it any more. Only memory is not taken back from those who hold it. Everything else that
was made goes when nobody holds it.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import TYPE_CHECKING, Final

from l4re.cap import Capability
from l4re.dataspace import ToOwner
from l4re.errors import (
    InvalidArgument,
    MessageTooShort,
    NotImplementedByServer,
    NotSupported,
    OutOfMemory,
    OutOfRange,
)
from l4re.factory import MemoryInfo
from l4re.interface.meta import Meta, answer_meta
from l4re.linux.memfd import PAGE_SIZE
from l4re.linux.watch import most_watched
from l4re.log import Tag, colour_number
from l4re.moe.made import Made, ProgramLog, ProgramNamespace, ProgramScheduler
from l4re.moe.quota import Account
from l4re.rights import MemAllocFlags
from l4re.services.factory import FactoryServer
from l4re.services.mem_alloc import MemoryFactory
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.gate import Channel
    from l4re.interface import Answer
    from l4re.moe.services import Services
    from l4re.wire.vargs import Varg

__all__ = ["MAX_DEPTH", "MAX_OBJECTS", "UserFactory"]

_OPCODE = Struct("=i")
_INFO = Struct("=5Q")
_MAX_NAME: Final = 200
_MAX_TAG: Final = 32
#: Names in one namespace.
_NAMES: Final = 256
#: Objects beside memory that one program may have made, and that somebody holds; what holds
#: descriptors of the root counts for more. And how often a factory may be made by a factory.
MAX_OBJECTS: Final = 512
MAX_DEPTH: Final = 32
#: One program may have that part of what can be watched.
_SHARES: Final = 8
#: What no process can have made, and why.
_NO_DMA: Final = "no DMA space: a Linux process neither sees nor chooses the addresses of a device"
_NEVER: Final = {
    int(Proto.DMA_SPACE): _NO_DMA,
    int(Proto.L4RE_DMA_SPACE): _NO_DMA,
    int(Proto.RM): "no region map: each process has its own (env.rm), and the kernel lets no other use it",
}


class UserFactory(Made, FactoryServer):
    """One program's factory. It is called by the loop's thread only."""

    def __init__(
        self, services: Services, account: Account, *, maker: UserFactory | None = None, limited: bool = True
    ) -> None:
        """Make objects on ``account``; one that another factory made owns it, and closes it at its end.

        Only the account says how much there is if it is not ``limited``.
        """
        super().__init__()
        self._services = services
        self._account = account
        self._within = maker
        self._program: UserFactory = self if maker is None else maker._program
        self._depth: int = 0 if maker is None else maker._depth + 1
        self._made: set[Made] = set()
        self._makers_by_protocol = {
            int(Proto.DATASPACE): self._dataspace,
            int(Proto.NAMESPACE): self._namespace,
            int(Proto.FACTORY): self._factory,
            int(Proto.LOG): self._log,
        }
        if maker is None:  # the CPUs are the root's to share out, not those of whoever has a share of the memory
            self._makers_by_protocol[int(Proto.SCHEDULER)] = self._scheduler
        self._most_pieces = most_watched() // _SHARES if limited else sys.maxsize
        self._most_objects = MAX_OBJECTS if limited else sys.maxsize
        #: Pieces of memory that were made for the program, and that somebody still holds.
        self.pieces = 0
        #: Bytes of memory that were made here and that somebody still holds.
        self.used = 0
        #: Objects that were made here, or by factories made here, and that somebody still holds.
        self.objects = 0

    @property
    def account(self) -> Account:
        """Who pays."""
        return self._account

    def charge(self, size: int) -> None:
        """Pay for a piece of memory, and remember for whom.

        Raises:
            OutOfMemory: there is not so much left, or the program has too many pieces.
        """
        program = self._program
        if program.pieces >= program._most_pieces:
            raise OutOfMemory(f"a program has {program._most_pieces} dataspaces at most: all are watched; close some")
        self._account.charge(size)
        self.used += size
        program.pieces += 1

    def refund(self, size: int) -> None:
        """Take back what was paid for one."""
        self._account.refund(size)
        self.used -= size
        self._program.pieces -= 1

    # ---- requests ----

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        if label == Meta.PROTOCOL:
            out = Writer()
            return answer_meta(MemoryFactory, Reader(words), out), out.words(), b"", ()
        if label == MemoryFactory.protocol:
            if len(words) < _OPCODE.size:
                raise MessageTooShort("an allocator was asked without an opcode")
            if _OPCODE.unpack_from(words)[0]:
                raise NotImplementedByServer("an allocator knows one operation of its own, info (0)")
            self._services.ledger.settle()
            return 0, _INFO.pack(*MemoryInfo.now(self._account.limit, self._account.used)), b"", ()
        return super().serve_request(rights, label, words, data, caps)

    def create(self, protocol: int, *args: Varg) -> Capability | Channel | None:
        """Return a new object.

        Raises:
            NotSupported: a program cannot have such objects made here.
            InvalidArgument, OutOfRange: with such arguments.
            OutOfMemory: there is not enough left on the account.
        """
        if protocol in _NEVER:
            raise NotSupported(_NEVER[protocol])
        make = self._makers_by_protocol.get(protocol)
        if make is None:
            raise NotSupported(f"this factory makes no objects of protocol {protocol}")
        return make(*args)

    def _dataspace(self, *args: Varg) -> Capability:
        """Size, flags, alignment, and what it is to be called; a fourth number would be a physical address."""
        size, flags, _, name = (*args, None, None, None, None)[:4]
        if not args or not isinstance(size, int) or len(args) > 4:
            raise InvalidArgument(f"a dataspace is made with a size, flags, an alignment and a name, not {args!r}")
        if isinstance(name, int):
            raise InvalidArgument("no process chooses physical addresses on Linux")
        if size < 0 and isinstance(flags, int) and flags & MemAllocFlags.CONTINUOUS:
            size += self._account.left // PAGE_SIZE * PAGE_SIZE  # all but so much
            if size <= 0:
                raise OutOfMemory(f"{self._account.left} bytes are left of the quota of {self._account.limit}")
        if size <= 0:
            raise OutOfRange(f"a dataspace has at least one byte, not {size}")
        return ToOwner(self._services.ledger.alloc(size, self, name=str(name or "l4re")[:_MAX_NAME]))

    def _factory(self, *args: Varg) -> Capability:
        if len(args) != 1 or not isinstance(args[0], int):
            raise InvalidArgument(f"a factory is made with its quota in bytes, not {args!r}")
        if self._depth >= MAX_DEPTH:
            raise OutOfMemory(f"this factory was made by {MAX_DEPTH} others, one by the other, which is the limit")
        self._services.ledger.settle()
        account = Account(int(args[0]), within=self._account)
        try:
            return self._keep(UserFactory(self._services, account, maker=self))
        except BaseException:
            account.close()
            raise

    def _namespace(self, *args: Varg) -> Capability:
        """No arguments; upstream's do not mind some."""
        return self._keep(ProgramNamespace(entries=_NAMES, waiting=_NAMES))

    def _log(self, *args: Varg) -> Capability:
        """A tag, and a colour as a number or a word; further ones say nothing here."""
        tag, colour = (*args, None, None)[:2]
        if not isinstance(tag, str) or not isinstance(colour, int | str | None):
            raise InvalidArgument(f"a log is made with a tag and a colour, not with {args!r}")
        return self._keep(ProgramLog(self._services.log.voice(Tag(tag[:_MAX_TAG], colour_number(colour)))))

    def _scheduler(self, *args: Varg) -> Capability:
        """Limit, offset, and masks of CPUs."""
        return self._keep(ProgramScheduler.of(*args))

    def _keep(self, obj: Made) -> Capability:
        """Serve a new object as long as somebody holds it, and this factory is there if it has an end."""
        obj.maker = self
        self._count(obj.weight)
        try:
            cap = self._services.register(obj)
        except BaseException:
            self._count(-obj.weight)
            raise
        self._made.add(obj)
        return cap

    def _count(self, change: int) -> None:
        """Count an object here and with those that made this factory: a program has so many, however it makes them."""
        most = self._program._most_objects
        if self._program.objects + change > most:
            raise OutOfMemory(f"a program has {most} objects made for it at most, beside memory; close some")
        factory: UserFactory | None = self
        while factory is not None:
            factory.objects += change
            factory = factory._within

    # ---- the end ----

    def on_orphaned(self) -> None:
        """End, if a program had this factory made. Else only forget it: what it made is somebody's, or goes itself."""
        if self._within is not None:
            self._within.drop(self)
        else:
            self._services.forget(self)

    def drop(self, obj: Made) -> None:
        """Stop serving an object that was made here, and whatever it holds or made."""
        if obj not in self._made:
            return
        self._made.discard(obj)
        self._services.forget(obj)
        if isinstance(obj, UserFactory):
            obj.destroy()
        elif isinstance(obj, ProgramNamespace | ProgramLog):
            obj.close()
        self._count(-obj.weight)

    def destroy(self) -> None:
        """Drop everything that was made here, but memory, and close the account."""
        for obj in list(self._made):
            self.drop(obj)
        self._account.close()

    def __repr__(self) -> str:
        return f"<UserFactory {self._account!r}>"
