"""The map that a process uses where nobody says another."""

from __future__ import annotations

from functools import cache

from l4re.rm.region_map import RegionMap

__all__ = ["process_map"]


@cache
def process_map() -> RegionMap:
    """Return it; the first call makes it."""
    return RegionMap()
