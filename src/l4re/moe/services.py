"""What the root task serves to its programs, from a thread of its own.

Whoever starts programs asks here for the capabilities that each of them gets. Nothing a program does can keep the
others waiting for long, or take from them more than the limits of the server and its quota allow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from l4re.errors import PeerGone
from l4re.factory import MemoryInfo
from l4re.log import Multiplexer, shared_multiplexer
from l4re.moe.ledger import Ledger
from l4re.moe.quota import Account
from l4re.moe.user_factory import UserFactory
from l4re.rights import Rights
from l4re.server import Limits, RegistryServer

if TYPE_CHECKING:
    from l4re.gate import Gate
    from l4re.interface import Served

__all__ = ["Services"]

T = TypeVar("T")

#: What one object and one holder of it may have; there may be hundreds of programs.
_LIMITS: Final = Limits(ports=1024, sessions=256, holder=256)
#: How often the loop looks once more at its end, if there is something each time.
_LAST_STEPS: Final = 64


class Services:
    """Serves objects to programs. Thread-safe; closing it ends the thread and every capability to its objects."""

    def __init__(self, *, quota: int | None = None, log: Multiplexer | None = None) -> None:
        """Give all programs together ``quota`` bytes of memory: by default, what the machine or its cgroup has.

        What they write to logs that they have made comes out at ``log``, by default on our standard output.
        """
        self.account = Account(MemoryInfo.now().mem_limit if quota is None else quota)
        self.ledger = Ledger()
        self._log = log
        self._server = RegistryServer(limits=_LIMITS)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="l4re moe", daemon=True)
        self._thread.start()

    @property
    def log(self) -> Multiplexer:
        """Where the lines of the programs' logs come out."""
        if self._log is None:
            self._log = shared_multiplexer()
        return self._log

    def factory(self, account: Account | None = None, *, limited: bool = True) -> Gate:
        """Return a capability to a new factory, for one program; the caller owns it. ``limited``: as programs are."""
        return self.serve(UserFactory(self, account or self.account, limited=limited))

    def serve(self, obj: Served, rights: Rights = Rights.RWS) -> Gate:
        """Serve an object for as long as somebody holds it, and return a capability to it; the caller owns it."""
        return self.do(lambda: self._server.registry.register_obj(obj).mint(0, rights))

    def again(self, obj: Served, rights: Rights = Rights.RWS) -> Gate:
        """Return one more capability to an object that is served, for a holder who counts by himself."""

        def mint() -> Gate:
            gate: Gate = cast(Any, obj.obj_cap()).mint(0, rights)
            return gate

        return self.do(mint)

    def do(self, function: Callable[[], T]) -> T:
        """Run ``function`` in the thread that serves, and return what it returns.

        Raises:
            PeerGone: the services were closed meanwhile.
        """
        if threading.current_thread() is self._thread:
            return function()
        results: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def act() -> None:
            try:
                results.append(function())
            except BaseException as error:
                errors.append(error)
            done.set()

        if self._thread.is_alive():
            self._server.post(act)
        while not done.wait(1.0 if self._thread.is_alive() else 0):
            if not self._thread.is_alive() and not done.is_set():
                raise PeerGone("the services of this run have ended")
        if errors:
            raise errors[0]
        return results[0]

    # ---- for the objects, in the thread that serves ----

    def register(self, obj: Served) -> Gate:
        """Serve an object and return the local capability, lent, which becomes a fresh one where it is handed out."""
        return self._server.registry.register_obj(obj)

    def forget(self, obj: Served) -> None:
        """Stop serving an object."""
        self._server.registry.unregister_obj(obj)

    # ---- the end ----

    def close(self) -> None:
        """End the thread; every capability to what was served is dead. A second call does nothing."""
        if self._server.closed:
            return
        self._closing = True
        self._server.stop()
        self._thread.join()
        self._server.close()  # only here: until now somebody may ring it
        self.ledger.close()

    def _run(self) -> None:
        while not self._closing:
            self._server.step(None)
        for _ in range(_LAST_STEPS):  # what was sent before we were told to end
            if not self._server.step(0):
                break

    def __repr__(self) -> str:
        return f"<Services on {self.account!r}>"
