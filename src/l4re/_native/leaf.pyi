"""The contract of the native leaf. Times are nanoseconds; -1 waits without end."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

# ---- fork.c ----
def guard(fd: int, /) -> None: ...
def unguard(fd: int, /) -> None: ...
def generation() -> int: ...

# ---- fd.c ----
class Owner:
    closed_error: ClassVar[type[Exception]]  # what asking a closed one for its number raises
    def __new__(cls, fd: int, guarded: bool = ..., what: str = ...) -> Self: ...
    @property
    def closed(self) -> bool: ...
    @property
    def guarded(self) -> bool: ...
    @property
    def what(self) -> str: ...
    def fileno(self) -> int: ...
    def detach(self) -> int: ...
    def notify(self) -> bool: ...
    def close(self) -> None: ...

# ---- io.c ----
MAX_FDS: int
DERIVE_BYTE: int

def channel() -> tuple[int, int]: ...
def pipe() -> tuple[int, int]: ...
def send(fd: int, data: bytes | bytearray | memoryview, fds: Sequence[int] = ..., /) -> bool: ...
def recv(fd: int, /) -> tuple[bytes, tuple[int, ...]] | None: ...
def trigger(fd: int, byte: int = ..., /) -> bool: ...
def drain(fd: int, /) -> None: ...
def take_token(fd: int, /) -> bool | None: ...
def wait(fds: Sequence[int], timeout_ns: int, /) -> int: ...
def memfd_info(fd: int, /) -> tuple[int, int, int]: ...
def what(fd: int, /) -> str: ...

# ---- region.c ----
def memfd(name: str, size: int, /) -> int: ...

class Lease:
    """What a view refers to; the mapping stays mapped while one exists."""

    @property
    def mapping(self) -> Mapping: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

class Mapping:
    """A mapping of a memfd sealed against shrinking.

    ``addr`` 0 searches, any other raises FileExistsError if it is taken. ``fd`` -1: no memory, a range that keeps
    others out; with ``private`` zeroed memory of this process. A ``host`` is a mapping without memory, and the place
    is in its range: at ``addr``, or the first free one from there with ``search``.
    """

    closed_error: ClassVar[type[Exception]]  # what asking for a view raises after unmap()
    def __new__(
        cls,
        fd: int,
        size: int,
        offset: int = ...,
        writable: bool = ...,
        addr: int = ...,
        align: int = ...,
        populate: bool = ...,
        huge: bool = ...,
        private: bool = ...,
        host: Mapping | None = ...,
        search: bool = ...,
    ) -> Self: ...
    @property
    def address(self) -> int:
        """Where it begins; still the number it was after ``unmap``."""
    @property
    def size(self) -> int:
        """Bytes, exactly as asked for."""
    @property
    def mapped_size(self) -> int:
        """Bytes of address space: ``size`` rounded up to whole pages."""
    @property
    def offset(self) -> int:
        """Where in the memory it begins, in bytes."""
    @property
    def readonly(self) -> bool:
        """Whether writing through it is refused."""
    @property
    def private(self) -> bool:
        """Whether what is written stays in this process."""
    @property
    def hollow(self) -> bool:
        """Whether there is no memory behind it."""
    @property
    def kept(self) -> bool:
        """Whether it stays until ``unmap``, whoever forgets it."""
    @property
    def mapped(self) -> bool:
        """Whether it is in the address space."""
    @property
    def exports(self) -> int:
        """How many views of it are alive."""
    def unmap(self) -> bool:
        """Take it out of the address space; False: it was not there. BufferError while views are alive."""
    def cut(self, first: int, last: int, /) -> Self | None:
        """Take out bytes, whole pages but not all; what follows them is returned. BufferError while views are alive."""
    def keep(self) -> None:
        """Stay until ``unmap``."""
    def populate(self, first: int, last: int, write: bool, /) -> None:
        """Have the pages of a range present."""
    def __buffer__(self, flags: int, /) -> memoryview: ...

# ---- process.c ----
# (pid, pidfd, stage, errno); stages: 0 it runs, 1 parent gone, 2 group, 3 descriptors, 4 directory, 5 page, 6 exec
def spawn(
    path: bytes,
    argv: tuple[bytes, ...],
    envp: tuple[bytes, ...],
    fds: tuple[int, ...],
    stdio: tuple[int, int, int],
    cwd: bytes | None,
    pid_at: int,
    cpus: bytes | None,
    nice: int,
    cgroup: int,
    /,
) -> tuple[int, int, int, int]: ...

# ---- timer.c ----
def timer() -> int: ...
def set_timer(fd: int, at_ns: int, /) -> None: ...

# ---- watch.c ----
def watches() -> int: ...
def watch_memory(set: int, fd: int, /) -> int: ...
def gone(set: int, /) -> list[int]: ...

# ---- word.c ----
def load_word(buffer: Any, offset: int, /) -> int: ...
def store_word(buffer: Any, offset: int, value: int, /) -> None: ...

# ---- session.c, loop.c ----
# Why a call gave no answer.
GONE: int
SEND_TIMEOUT: int
RECEIVE_TIMEOUT: int
BUSY: int
STALE: int
BROKEN: int
REFUSED: int
FULL: int
CLOSED: int
FORKED: int
ONE_WAY: int
PAGE_BYTES: int
PAGE_LONG: int

class Session:
    """The client half of a session. Made by open_session()."""

    def call(
        self, label: int, words: bytes, data: Any, items: int, fds: Sequence[int] | None, timeout_ns: int, flags: int, /
    ) -> tuple[int, bytes, bytes, Any] | int: ...
    def post(self, label: int, words: bytes, data: Any, items: int, fds: Sequence[int] | None, /) -> int: ...
    def look(self) -> tuple[int, bytes, bytes, Any] | int | None: ...
    def withdraw(self) -> bool: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def stats(self) -> dict[str, Any]: ...
    @property
    def refusal(self) -> str: ...
    @property
    def dead(self) -> bool: ...
    @property
    def busy(self) -> bool: ...

class Caller:
    """The client's fast path: a class that derives from it has the other cases in four methods of its own."""

    _sessions: dict[int, Any]

class Memory:
    """The fields of a Dataspace, which has their meaning; those not given are None, 0 or False."""

    _fd: Any
    _size: int
    _writable: bool
    _handed_out: bool
    _name: str | None
    _hints: Any
    _made: Any
    _identity: tuple[int, int] | None

def receive_memory(type: type[Memory], kind: int, owner: type[Owner], hints: object, /) -> None: ...

class Frame:
    """The fields of an Iostream, which has their meaning."""

    def put(self, data: bytes | bytearray | memoryview, /) -> None: ...
    _label: int
    _words: bytes
    data: bytes
    caps: tuple[Any, ...]
    _reader: Any
    _writer: Any
    _long: bytes

# What they return has the arguments of Served.serve_request, and does the same for most requests.
def raw_handler(object: object, stream: type[Frame], rights: tuple[int, ...], /) -> Callable[..., Any]: ...
def typed_handler(object: object, tables: dict[int, Any], /) -> Callable[..., Any]: ...
def answer_with(type: type[tuple[Any, ...]], /) -> None: ...
def open_session(port: int, watch: int, /) -> Session | None: ...

class Source:
    """One descriptor, or one session, in a loop.

    ``taken``: a request waits for its reply. Cleared, what its handler returns is not sent; set again, ``reply``
    sends another answer.
    """

    taken: bool

    def reply(self, label: int, words: bytes, data: Any, items: int, fds: Sequence[int] | None, /) -> bool: ...
    def close(self) -> None: ...
    def mirrors(self, session: Session, /) -> bool: ...
    def held(self) -> tuple[bool, bool, bool]: ...
    @property
    def owner(self) -> Any: ...
    @property
    def broken(self) -> bool: ...
    @property
    def requests(self) -> int: ...

# What Loop.haste may be.
AT_LEISURE: int
LOOK_ONLY: int
AT_ONCE: int

class Loop:
    """The server half: session pages and descriptors in one loop. Made by open_loop()."""

    haste: int
    @property
    def served(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    @property
    def serving(self) -> Any: ...
    @property
    def request(self) -> tuple[Source, int, bytes, bytes] | None: ...
    def next(self, timeout_ns: int, /) -> Any: ...
    def run(self, timeout_ns: int, most: int, /) -> Any: ...
    def serve(self, session: Source, label: int, words: bytes, data: bytes, caps: tuple[Any, ...], /) -> Any: ...
    def idle(self) -> bool: ...
    def settle(self) -> bool: ...
    def watch(self, fd: int, owner: object, /) -> Source: ...
    def watch_pipe(self, fd: int, owner: object, /) -> Source: ...
    def accept(self, socket: int, memfd: int, owner: object, /) -> Source: ...
    def close(self) -> None: ...
    def fileno(self) -> int: ...
    def stats(self) -> dict[str, int]: ...

def open_loop(spin_us: float, /) -> Loop: ...
