"""A program's output on its way to a console that another program serves."""

from __future__ import annotations

import threading

from l4re._native import leaf
from l4re.errors import L4Error, PeerGone
from l4re.gate import Gate
from l4re.linux.fd import Fd
from l4re.linux.packets import PacketReader, packet_pipe, waker, write_packet
from l4re.log import Multiplexer, Tag
from l4re.services.vcon import Vcon

__all__ = ["ConsolePump"]


class ConsolePump:
    """Sends what one program prints to a console, and to ``multiplexer`` instead once nobody serves that any more.

    A console that does not take what it is sent holds the program up, as it does upstream, and nobody else. The
    first line that comes out elsewhere says why. What a console was sent and had not shown when it died is lost.
    """

    #: Seconds that a program's last words may take to get to a console, after it has ended.
    PATIENCE = 1.0

    def __init__(self, console: Gate, multiplexer: Multiplexer) -> None:
        """Write to ``console``, which stays the caller's; one that nobody serves any more will do."""
        self._gate: Gate | None = None
        try:
            self._gate = console.dup()
        except PeerGone:
            pass
        self._multiplexer = multiplexer
        self._reader = PacketReader()
        self._wake, self._waker = waker()
        self._reader.add(self._wake.fileno())
        self._lock = threading.Lock()
        self._asked: list[threading.Event] = []
        self._instead: Fd | None = None
        self._ended = False

    def add(self, log: Tag) -> Fd:
        """Return the write end for the program; ``log`` is its tag if it has to be printed here after all."""
        pipe, writer = packet_pipe()
        self._reader.add(pipe.fileno())
        threading.Thread(target=self._run, args=(pipe, log), name=f"l4re {log.name}", daemon=True).start()
        return writer

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything written before this call was passed on; False if it took too long."""
        done = threading.Event()
        with self._lock:
            if self._ended:
                return True
            self._asked.append(done)
            leaf.trigger(self._waker.fileno())
        patience = self.PATIENCE if timeout is None else min(timeout, self.PATIENCE)
        return done.wait(patience)

    def _run(self, pipe: Fd, log: Tag) -> None:
        asked = False
        at_end = False
        while not at_end:
            for number, hung_up in self._reader.wait():
                if number == self._wake.fileno():
                    leaf.drain(number)
                    asked = True
                    continue
                data = self._reader.read(number, hung_up)
                if data:
                    self._pass_on(data, log)
                elif data is not None:
                    at_end = True
            if asked and not self._reader.more:
                asked = False
                self._answer()
        with self._lock:
            self._ended = True
        self._answer()
        for end in (pipe, self._wake, self._waker, self._instead):
            if end is not None:
                end.close()
        self._reader.close()
        if self._gate is not None:
            self._gate.close()

    def _answer(self) -> None:
        with self._lock:
            asked, self._asked = self._asked, []
        if self._instead is not None:
            self._multiplexer.flush(self.PATIENCE)
        for done in asked:
            done.set()

    def _pass_on(self, data: bytes, log: Tag) -> None:
        if self._instead is None:
            try:
                if self._gate is not None and not self._gate.gone:
                    Vcon(self._gate).write(data)
                    return
            except L4Error:
                pass
            self._instead = self._multiplexer.add(log)
            data = b"[nobody serves the console of this program any more]\n" + data
        try:
            write_packet(self._instead.fileno(), data)
        except BrokenPipeError:  # the run is over, and nobody prints any more
            pass
