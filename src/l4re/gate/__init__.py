"""Gates: how one program calls another.

A :class:`Gate` is the client's side: its own port, which nobody shares, and a
session for each thread that calls. A :class:`Svr` is the receive right. The
room promises that a call never hangs, that handing a gate on can only weaken
it, and that what a server lied about is noticed. Who answers is left to
``server``, what the words mean to ``interface``.
"""

from l4re.gate.channel import Channel, Svr, new_channel
from l4re.gate.gate import MAX_DATA, MAX_WORDS, Gate, Message

__all__ = ["MAX_DATA", "MAX_WORDS", "Channel", "Gate", "Message", "Svr", "new_channel"]
