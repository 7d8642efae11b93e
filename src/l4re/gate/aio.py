"""Calls of asyncio programs: as many sessions as there are calls under way.

A call posts its request and waits for the session socket in the event loop; idle
sessions are kept for the next call, a few of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from l4re._native import leaf
from l4re.cap import Capability, export_all
from l4re.linux.readable import readable
from l4re.wire.items import ITEM_BYTES, join_items

if TYPE_CHECKING:
    from l4re.gate.gate import Answer, Gate

__all__ = ["transact"]

#: Idle sessions a gate keeps for calls to come.
IDLE_SESSIONS = 8


async def transact(
    gate: Gate, label: int, words: bytes, data: Any, caps: Sequence[Capability | None], timeout: float | None
) -> Answer:
    """Send one message over a session of its own, and wait without blocking the event loop."""
    session = gate._spare(None)
    if not isinstance(session, leaf.Session):  # our own server's, which runs in this very thread
        return gate._slow(label, words, data, caps, timeout, False)
    items, fds, exports = export_all(caps) if caps else (b"", None, [])
    posted = False
    try:
        payload = join_items(words, items)
        status: Any = session.post(label, payload, data, len(items) // ITEM_BYTES, fds)
        posted = status == 0
    finally:
        for export in exports:
            (export.done if posted else export.failed)()
    if posted:
        try:
            async with asyncio.timeout(timeout):
                while (status := session.look()) is None:
                    await readable(session.fileno())
        except TimeoutError:
            status = leaf.SEND_TIMEOUT if session.withdraw() and not caps else leaf.RECEIVE_TIMEOUT
        except BaseException:
            session.withdraw()
            _keep(gate, session)
            raise
    try:
        return gate._finish(session, status, label, words, data, caps, None, False)
    finally:
        _keep(gate, session)


def _keep(gate: Gate, session: leaf.Session) -> None:
    if session.dead or session.busy or gate.closed or len(gate._spares) >= IDLE_SESSIONS:
        session.close()
    else:
        gate._spares.append(session)
