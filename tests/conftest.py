"""After every test the process holds what it held before: descriptors, mappings, children, threads."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from l4re.testing import holdings, wait_until


def pytest_collection_finish() -> None:
    """What there is now stays: collecting garbage around each test need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = holdings()
    yield
    left: dict[str, int] = {}

    def clean() -> bool:
        nonlocal left
        left = {name: count for name, count in holdings().beyond(before).items() if not _permanent(name)}
        return not left

    try:
        wait_until(clean, timeout=2.0)
    except TimeoutError:
        pytest.fail(f"left behind: {left}")


def _permanent(name: str) -> bool:
    """What exists once per process and by design: the spawner thread, libraries, caches of the test tools."""
    return "l4re spawner" in name or ".hypothesis" in name or ".so" in name or "/dev/null" in name
