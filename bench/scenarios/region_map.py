"""Mapping memory that is there, again and again, and beside much that is mapped already."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from ..peers.base import Mapper, Maps, Peer
from ..statistics import Summary
from .base import Scenario, Setting, timed

__all__ = ["RegionMaps"]

_MANY = 10_000
_AREA = "in an area"
_BATCH = "10,000, all mapped and unmapped"


class RegionMaps(Scenario):
    """One page of one piece of shared memory, mapped, looked at and unmapped."""

    name = "region-map"
    about = "map a page, look, unmap; 'find': what an address belongs to"
    needs = Maps
    cases: ClassVar[tuple[str, ...]] = ("alone", "beside 10,000", _BATCH, _AREA)
    placements: ClassVar[tuple[str, ...]] = ("one",)

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and (case != _AREA or (isinstance(peer, Maps) and peer.areas))

    def roles(self, case: str) -> tuple[str, ...]:
        return ("client",)

    def run(self, role: str, peer: Maps, setting: Setting) -> dict[str, Summary]:
        mapper = peer.mapper(setting.case == _AREA)
        try:
            return _measured(mapper, setting)
        finally:
            mapper.close()


def _measured(mapper: Mapper, setting: Setting) -> dict[str, Summary]:
    attach, look, detach = mapper.attach, mapper.look, mapper.detach

    def check(n: int, seen: Any) -> None:
        if seen != mapper.mark:
            raise AssertionError(f"mapping {n} shows {seen}, not {mapper.mark}")

    def one(n: int) -> int:
        mapped = attach()
        seen = look(mapped)
        detach(mapped)
        return seen

    def batch(n: int) -> int:
        mapped = [attach() for _ in range(_MANY)]
        seen = look(mapped[n % _MANY])
        for each in mapped:
            detach(each)
        return seen

    if setting.case == _BATCH:
        return {"": timed(batch, check, setting.seconds)}
    others = [attach() for _ in range(1 if setting.case == "alone" else _MANY)]
    results = {"": timed(one, check, setting.seconds)}
    if mapper.find is not None:
        random.Random(1).shuffle(others)
        places = [(mapper.address(each), each) for each in others]
        results["find"] = _found(mapper.find, places, setting.seconds)
    for each in others:
        detach(each)
    return results


def _found(find: Any, places: list[tuple[int, Any]], seconds: float) -> Summary:
    count = len(places)

    def check(n: int, found: Any) -> None:
        if found is not places[n % count][1]:
            raise AssertionError(f"{places[n % count][0]:#x} belongs to {places[n % count][1]!r}, not to {found!r}")

    return timed(lambda n: find(places[n % count][0]), check, seconds)
