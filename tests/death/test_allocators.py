"""kill -9 of a program while it has memory made, at every step of that: the allocator gets all of it back."""

from __future__ import annotations

from contextlib import closing

import pytest

from l4re.moe import Services
from l4re.services.mem_alloc import RemoteMemAlloc
from l4re.testing import holdings, wait_until
from support.processes import PATIENCE

from .conftest import Start

pytestmark = pytest.mark.processes

QUOTA = 1 << 20
POINTS = [
    ("open_session: made, not yet sent", 1),
    ("open_session: sent, our copies still open", 1),
    ("post: before the look at the flag", 1),
    ("post: before the ring", 2),
    ("await: looked, not yet asleep", 1),
    ("collect: answered, not yet read", 1),
    ("collect: answered, not yet read", 3),
]


@pytest.mark.parametrize(("point", "passing"), POINTS)
def test_memory_comes_back_from_whoever_dies(start: Start, point: str, passing: int) -> None:
    with closing(Services(quota=QUOTA)) as services, services.factory() as innocent:
        other = RemoteMemAlloc(innocent)
        other.alloc(4096).close()
        before = holdings()
        with services.factory() as gate:
            dying = start("alloc", point, passing, {"gate": gate})
        dying.wait_until_stopped()
        with other.alloc(4096) as ds:
            ds.write(0, b"another program is served")
        dying.kill()

        def settled() -> bool:
            left = {name for name in holdings().beyond(before) if "spawner" not in name}
            return other.info().quota_used == 0 and not left

        wait_until(settled, PATIENCE, "the end of all that the victim had")
        assert len(services.ledger) == 0
        with other.alloc(QUOTA):  # all of it is there again
            pass
