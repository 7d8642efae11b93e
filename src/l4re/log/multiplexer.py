"""The log multiplexer: the output of many programs, line by line, in the order it was written.

Every program writes its standard output and error into one packet pipe; one thread reads all of them, one packet
per event, oldest first (see :mod:`l4re.linux.packets`). A line counts from the moment its newline was written.
"""

from __future__ import annotations

import atexit
import codecs
import os
import threading
from collections import deque
from typing import Final

from l4re._native import leaf
from l4re.closing import Closing
from l4re.linux.fd import Fd
from l4re.linux.packets import PacketReader, packet_pipe, waker
from l4re.log.console import Console
from l4re.log.lines import Farewell, Line, LineAssembler
from l4re.log.tag import PLAIN, Tag

__all__ = ["Multiplexer", "Voice", "shared_multiplexer"]

_PATIENCE = 64


class _Stream:
    """One program's pipe and what is known of its present line."""

    __slots__ = ("decoder", "farewell", "lines", "pipe", "tag")

    def __init__(self, tag: Tag, pipe: Fd) -> None:
        self.tag = tag
        self.pipe = pipe
        self.lines = LineAssembler()
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.farewell: Farewell | None = None

    def feed(self, data: bytes) -> list[Line]:
        lines = self.lines.feed(data)
        if self.farewell is None:
            return lines
        return [shown for line in lines for shown in self.farewell.feed(line)]

    def end(self) -> list[Line]:
        lines = self.lines.end()
        if self.farewell is None:
            return lines
        return [*(shown for line in lines for shown in self.farewell.feed(line)), *self.farewell.end()]


class Voice:
    """Speaks under a tag without a pipe, for what comes in messages; see `Multiplexer.voice`. Thread-safe."""

    #: Bytes that wait to be printed at most, and how many each message counts for beside its own.
    ROOM: Final = 1 << 18
    EACH: Final = 100

    __slots__ = ("_multiplexer", "lines", "lost", "room", "tag")

    def __init__(self, multiplexer: Multiplexer, tag: Tag) -> None:
        self._multiplexer = multiplexer
        self.tag = tag
        self.lines = LineAssembler()
        self.room = self.ROOM
        self.lost = 0

    def write(self, data: bytes) -> None:
        """Have the lines printed that ``data`` completes. Never waits: what there is no room for is lost."""
        self._multiplexer._say(self, data)

    def close(self) -> None:
        """Have the rest printed that did not end in a newline."""
        self._multiplexer._say(self, None)


class Multiplexer(Closing):
    """Prints what programs write to a `Console`, from a thread of its own. Thread-safe.

    ``close`` (or leaving ``with``) prints what is still there and ends the thread; programs that go on writing
    then get an error from their kernel.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._lock = threading.Lock()
        self._reader = PacketReader()
        self._streams: dict[int, _Stream] = {}
        self._wake, self._waker = waker()
        self._reader.add(self._wake.fileno())
        self._asked: list[threading.Event] = []
        self._said: deque[tuple[Voice, bytes | None]] = deque()
        self._hushed = False
        self._closing = False
        self._generation = leaf.generation()
        self._thread = threading.Thread(target=self._run, name="l4re log", daemon=True)
        self._thread.start()

    def add(self, tag: Tag) -> Fd:
        """Return a new write end for a program; who starts it closes ours afterwards.

        Raises:
            OSError: no descriptor is left.
        """
        reader, writer = packet_pipe()
        with self._lock:
            self._streams[reader.fileno()] = _Stream(tag, reader)
            self._reader.add(reader.fileno())
        return writer

    def voice(self, tag: Tag) -> Voice:
        """Return a way to print lines of one's own under ``tag``.

        When the console does not keep up, so that `Voice.ROOM` bytes wait, what comes then is lost, and a line says
        how much it was.
        """
        return Voice(self, tag)

    def _say(self, voice: Voice, data: bytes | None) -> None:
        with self._lock:
            if self._closing:
                return
            if data is not None:
                if len(data) + Voice.EACH > voice.room:
                    voice.lost += len(data)
                    return
                voice.room -= len(data) + Voice.EACH
            self._said.append((voice, data))
            if len(self._said) == 1:
                leaf.trigger(self._waker.fileno())

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything written before this call was printed; False if it took too long."""
        if self._generation != leaf.generation() or not self._thread.is_alive():
            return True
        done = threading.Event()
        with self._lock:
            self._asked.append(done)
        leaf.trigger(self._waker.fileno())
        return done.wait(timeout)

    def hush(self) -> None:
        """From now on leave out the tracebacks of programs that die of an interrupt."""
        with self._lock:
            self._hushed = True

    def close(self) -> None:
        """Print what is left, close our ends, and end the thread. A second call does nothing."""
        if self._generation != leaf.generation() or not self._thread.is_alive():
            return
        with self._lock:
            self._closing = True
            leaf.trigger(self._waker.fileno())
        self._thread.join()
        self._waker.close()

    def __repr__(self) -> str:
        return f"<Multiplexer of {len(self._streams)} programs>"

    def _run(self) -> None:
        wake = self._wake.fileno()
        patience = 0
        while True:
            for number, at_end in self._reader.wait():
                if number == wake:
                    leaf.drain(wake)
                    self._print_said()
                    patience = _PATIENCE
                else:
                    self._read(number, at_end)
            if not patience:
                continue
            # What was written before the wake-up was reported before it; only a pipe that its program has
            # enlarged can hold more. One that never stops writing cannot keep us here.
            patience -= 1
            if patience and self._reader.more:
                continue
            patience = 0
            with self._lock:
                asked, self._asked = self._asked, []
            for done in asked:
                done.set()
            if self._closing:
                break
        for stream in list(self._streams.values()):
            self._end(stream)
        self._reader.close()
        self._wake.close()

    def _print_said(self) -> None:
        """Print what was said until now."""
        with self._lock:
            said = list(self._said)
            self._said.clear()
        for voice, data in said:
            lines = voice.lines.end() if data is None else voice.lines.feed(data)
            with self._lock:
                voice.room += 0 if data is None else len(data) + Voice.EACH
                lost, voice.lost = voice.lost, 0
            if lost:
                lines.append(Line(f"[{lost} bytes were lost here]"))
            self.console.lines(voice.tag, lines)

    def _read(self, number: int, at_end: bool) -> None:
        """Take one packet."""
        with self._lock:
            stream = self._streams.get(number)
            if stream is not None and self._hushed and stream.farewell is None:
                stream.farewell = Farewell()
        if stream is None:
            return
        data = self._reader.read(number, at_end)
        if data and stream.tag is PLAIN and self.console.interactive:  # a question may end in no newline
            self.console.plain(stream.decoder.decode(data))
        elif data:
            self.console.lines(stream.tag, stream.feed(data))
        elif data is not None:
            self._reader.remove(number)
            self._end(stream)

    def _end(self, stream: _Stream) -> None:
        self.console.lines(stream.tag, stream.end())
        with self._lock:
            self._streams.pop(stream.pipe.fileno(), None)
            stream.pipe.close()


_shared: Multiplexer | None = None
_shared_lock = threading.Lock()


def shared_multiplexer() -> Multiplexer:
    """Return the multiplexer of this process that prints to ``sys.stdout``, made at the first call."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = Multiplexer()
            atexit.register(_shared.flush, 2.0)
        return _shared


def _after_fork() -> None:
    global _shared, _shared_lock
    _shared = None
    _shared_lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
