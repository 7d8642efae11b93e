"""How the cost of a call grows with what it carries, and what a server gets done with the number of its clients."""

from __future__ import annotations

from typing import Any, ClassVar

from ..peers.base import Calls, Grants, Peer
from ..statistics import Summary
from .base import Scenario, Setting, timed
from .throughput import Throughput

__all__ = ["Capabilities", "Clients", "Size"]


_SIZES = {"0 B": 0, "64 B": 64, "1 KiB": 1024, "4 KiB": 4096, "16 KiB": 16384, "60 KiB": 61440}


class Size(Scenario):
    """An echo: the message is as large in both directions."""

    name = "size"
    about = "round trip of a raw call with so many bytes each way"
    needs = Calls
    cases: ClassVar[tuple[str, ...]] = tuple(_SIZES)
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def takes(self, peer: Peer, case: str, placement: str) -> bool:
        return super().takes(peer, case, placement) and isinstance(peer, Calls) and peer.any_size

    def run(self, role: str, peer: Calls, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        if role == "server":
            peer.serve((wire,), "echo")
            return {}
        caller = peer.connect(wire, "echo")
        call, value = caller.call, caller.value
        messages = [bytes([n]) * _SIZES[setting.case] for n in range(4)]

        def check(n: int, answer: Any) -> None:
            if value(answer) != messages[n & 3]:
                raise AssertionError(f"call {n} got other bytes back than it sent")

        result = {"": timed(lambda n: call(messages[n & 3]), check, setting.seconds)}
        caller.close()
        return result


class Capabilities(Scenario):
    """Dataspaces (descriptors, for the peers), all in one answer if the peer can do that."""

    name = "caps"
    about = "a call whose answer brings so many dataspaces"
    needs = Grants
    cases: ClassVar[tuple[str, ...]] = ("0 dataspaces", "1 dataspace", "2 dataspaces", "4 dataspaces", "8 dataspaces")
    placements: ClassVar[tuple[str, ...]] = ("two", "one")

    def run(self, role: str, peer: Grants, setting: Setting) -> dict[str, Summary]:
        (wire,) = setting.wires
        count = int(setting.case.split()[0])
        if role == "server":
            peer.serve_grants(wire, "dataspace", count)
            return {}
        caller = peer.connect_grants(wire, "dataspace", count)
        call, value = caller.call, caller.value

        def check(n: int, answer: Any) -> None:
            if (came := value(answer)) != count:
                raise AssertionError(f"{came} dataspaces came instead of {count}")

        result = {"": timed(lambda n: call(True), check, setting.seconds)}
        caller.close()
        return result


class Clients(Throughput):
    """Throughput, with one client process more and more."""

    name = "clients"
    about = "so many client processes, one server, raw calls, on all cores"
    stretch = 2
    cases: ClassVar[tuple[str, ...]] = ("1 client", "2 clients", "4 clients", "8 clients")

    def roles(self, case: str) -> tuple[str, ...]:
        return ("server", *(f"client {n + 1}" for n in range(int(case.split()[0]))))
