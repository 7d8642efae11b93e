"""What is typed at the run: its standard input, for the program that has the run's own log.

Programs are no part of the terminal's foreground, so none can read the terminal itself; what comes in is passed on.
"""

from __future__ import annotations

import signal
import threading

from l4re.linux.fd import Fd
from l4re.linux.packets import waker
from l4re.linux.pipes import get, input_pipe, put_all
from l4re.linux.process import wait_any

__all__ = ["Keyboard"]

_INPUT = 0
_MOST = 4096
_PATIENCE = 1.0


class Keyboard:
    """Passes standard input on to one program at a time: the first that asked and has not ended."""

    def __init__(self) -> None:
        self._readers: list[Fd] = []
        self._there = threading.Condition()
        self._over = False
        self._wake, self._waker = waker()  # the end of it wakes
        self._thread = threading.Thread(target=self._run, name="l4re input", daemon=True)
        self._thread.start()

    def add(self) -> Fd:
        """Return a descriptor to read from, for one program; who starts it closes ours afterwards."""
        reader, writer = input_pipe()
        with self._there:
            if self._over:
                writer.close()
            else:
                self._readers.append(writer)
                self._there.notify()
        return reader

    def close(self) -> None:
        """Read no more; who still reads finds the end. A second call does nothing."""
        if self._waker.closed:
            return
        with self._there:
            self._over = True
            self._there.notify()
        self._waker.close()
        self._thread.join(_PATIENCE)  # all programs are gone, unless one has left something behind that does not read

    def _run(self) -> None:
        # In the background of a terminal, reading is an error instead of a signal that stops the whole run.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTIN})
        wake = self._wake.fileno()
        while True:
            with self._there:
                self._there.wait_for(lambda: self._readers or self._over)
            if self._over or wake in wait_any([wake, _INPUT]) or not (data := get(_INPUT, _MOST)):
                break
            self._pass_on(data)
        with self._there:
            self._over = True
            for writer in self._readers:
                writer.close()
        self._wake.close()

    def _pass_on(self, data: bytes) -> None:
        while self._readers and not self._over:
            try:
                put_all(self._readers[0].fileno(), data)
                return
            except BrokenPipeError:
                with self._there:
                    self._readers.pop(0).close()
