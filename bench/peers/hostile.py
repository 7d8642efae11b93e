"""Clients of our servers that keep to nothing, and two that do, as hungry as those.

Written from the table of the protocol, as anybody could. None ever rests.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from l4re.wire import session as wire
from l4re.wire.port import PortKind, PortMessage
from l4re.wire.session import Field, State

from .base import ANSWER_SIZE

__all__ = ["attacks"]

_HEADER = int(Field.LONG)  # all before the long area
_CHUNK = 32
_CROWD = 16


class _Session:
    """A session that was opened as it should be."""

    def __init__(self, port: socket.socket) -> None:
        memory = os.memfd_create("bench", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(memory, wire.PAGE_BYTES)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.page = mmap.mmap(memory, wire.PAGE_BYTES)
        self.words = memoryview(self.page).cast("Q")
        self.halves = memoryview(self.page).cast("I")
        self.set_half(Field.SERVER_ASLEEP, 1)
        self.set_half(Field.VERSION, wire.VERSION)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        socket.send_fds(port, [PortMessage(PortKind.SESSION).pack()], [theirs.fileno(), memory])
        theirs.close()
        os.close(memory)

    def set_half(self, field: Field, value: int) -> None:
        self.halves[field // 4] = value

    def post(self) -> None:
        """Post an honest message, whatever the state is."""
        self.words[Field.LABEL // 8] = self.words[Field.COUNTS // 8] = 0
        self.words[Field.SIZE_CPU // 8] = ANSWER_SIZE
        sequence = wire.next_sequence(self.words[Field.STATE // 8] >> 8 & (1 << 54) - 1)
        self.words[Field.STATE // 8] = wire.state_word(sequence, State.POSTED)

    def ring(self) -> bool:
        """Wake the server; False: it has ended the session."""
        try:
            self._socket.send(wire.WAKE)
        except BlockingIOError:
            pass  # it was not taken for long
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()
        self.words.release()
        self.halves.release()
        self.page.close()

    def answered(self) -> bool:
        return self.words[Field.STATE // 8] & 0xFF == State.DONE


Step = Callable[[_Session, random.Random], bool]


def _garbage(session: _Session, dice: random.Random) -> bool:
    """Write anything anywhere, at any moment of a call."""
    session.post()
    alive = session.ring()
    for _ in range(8):
        at = dice.randrange(_HEADER - _CHUNK)
        session.page[at : at + _CHUNK] = dice.randbytes(_CHUNK)
    return alive


def _flags(session: _Session, dice: random.Random) -> bool:
    """Post, and flip all flags and states meanwhile."""
    session.post()
    alive = session.ring()
    for _ in range(8):
        session.set_half(Field.SERVER_ASLEEP, dice.getrandbits(1))
        session.set_half(Field.CLIENT_ASLEEP, dice.getrandbits(1))
        session.words[Field.STATE // 8] = session.words[Field.STATE // 8] & ~0xFF | dice.randrange(len(State))
    return alive


def _rings(session: _Session, dice: random.Random) -> bool:
    """Ring, for nothing."""
    return session.ring()


def _silent(session: _Session, dice: random.Random) -> bool:
    """Post and go away; never read an answer."""
    session.post()
    session.ring()
    return False


def _calls(session: _Session, dice: random.Random) -> bool:
    """Call, as an innocent client may."""
    session.post()
    session.ring()
    while not session.answered():
        pass
    return True


_STEPS: dict[str, Step] = {
    "calls": _calls,
    "garbage": _garbage,
    "flags": _flags,
    "rings": _rings,
    "silent": _silent,
}


def attacks(port: int, how: str, turns: Iterable[Callable[[], bool]]) -> Iterator[int]:
    """Do that through ``port`` while each turn lasts, with a new session whenever one is lost; yield the steps."""
    dice = random.Random(how)
    with socket.socket(fileno=os.dup(port)) as end:
        for lasts in turns:
            yield _crowd(end, lasts) if how == "visits" else _repeated(end, _STEPS[how], dice, lasts)


def _repeated(end: socket.socket, step: Step, dice: random.Random, lasts: Callable[[], bool]) -> int:
    session, steps = _Session(end), 0
    while lasts():
        steps += 1
        if not step(session, dice):
            session.close()
            session = _Session(end)
    session.close()
    return steps


def _crowd(end: socket.socket, lasts: Callable[[], bool]) -> int:
    """Call once and be gone, as innocent threads may do, a crowd of them at the same time."""
    waiting: deque[_Session] = deque()
    steps = 0
    while lasts():
        waiting.append(_Session(end))
        waiting[-1].post()
        waiting[-1].ring()
        steps += 1
        while len(waiting) > _CROWD or (waiting and waiting[0].answered()):
            if waiting[0].answered() or not lasts():
                waiting.popleft().close()
    for session in waiting:
        session.close()
    return steps
