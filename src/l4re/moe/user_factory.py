"""The factory of the programs of one run: memory on account, factories inside factories, logs, namespaces.

Each program has a factory object of its own, so that what it uses can be told apart; those of one run share one
account. A factory that a program had made has an account inside that of its maker, and goes, with all that was made
through it, when nobody holds it any more. Only memory is not taken back from those who hold it.
"""

from __future__ import annotations

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
from l4re.moe.quota import Account
from l4re.rights import MemAllocFlags
from l4re.services.factory import FactoryServer
from l4re.services.mem_alloc import MemoryFactory
from l4re.services.scheduler import SchedulerServer
from l4re.wire.protocols import Proto
from l4re.wire.stream import Reader, Writer

if TYPE_CHECKING:
    from l4re.gate import Channel
    from l4re.interface import Answer, Served
    from l4re.moe.services import Services
    from l4re.wire.vargs import Varg

__all__ = ["UserFactory"]

_OPCODE = Struct("=i")
_INFO = Struct("=5Q")
_MAX_NAME: Final = 200


class UserFactory(FactoryServer):
    """One program's factory. It is called by the loop's thread only."""

    def __init__(self, services: Services, account: Account, *, owns: bool = False) -> None:
        """Make objects on ``account``, which with ``owns`` is closed together with this factory."""
        super().__init__()
        self._services = services
        self._account = account
        self._owns = owns
        self._made: list[Served] = []
        self._makers_by_protocol = {
            int(Proto.DATASPACE): self._dataspace,
            int(Proto.FACTORY): self._factory,
        }
        if not owns:  # the CPUs are the root's to share out, not those of whoever has a share of the memory
            self._makers_by_protocol[int(Proto.SCHEDULER)] = self._scheduler
        #: Bytes of memory that were made here and that somebody still holds.
        self.used = 0

    @property
    def account(self) -> Account:
        """Who pays."""
        return self._account

    def charge(self, size: int) -> None:
        """Pay for memory, and remember for whom."""
        self._account.charge(size)
        self.used += size

    def refund(self, size: int) -> None:
        """Take back what was paid."""
        self._account.refund(size)
        self.used -= size

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
        if protocol in (Proto.DMA_SPACE, Proto.L4RE_DMA_SPACE):
            raise NotSupported("no DMA space: a Linux process neither sees nor chooses the addresses of a device")
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
        self._services.ledger.settle()
        account = Account(int(args[0]), within=self._account)
        return self._keep(UserFactory(self._services, account, owns=True))

    def _scheduler(self, *args: Varg) -> Capability:
        """Limit, offset, and masks of CPUs."""
        return self._keep(SchedulerServer.of(*args))

    def _keep(self, obj: Served) -> Capability:
        """Serve a new object, as long as somebody holds it and this factory is there."""
        self._made.append(obj)
        return self._services.register(obj)

    # ---- the end ----

    def on_orphaned(self) -> None:
        self._services.drop(self)

    def destroy(self) -> None:
        """Drop everything that was made here, but memory, and close the account."""
        for obj in self._made:
            self._services.drop(obj)
        self._made.clear()
        if self._owns:
            self._account.close()

    def __repr__(self) -> str:
        return f"<UserFactory {self._account!r}>"
