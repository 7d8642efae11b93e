"""Scenarios: what is measured, one module for each family.

A scenario says which processes there are and what each does with a peer; it promises that every answer is checked
and that only the clients' time is taken. How often, where, and beside whom is left to `bench.run`.
"""

from .base import Scenario, Setting
from .call import BusyCall, RawCall, TypedCall
from .capability import Capability
from .copy import CopyIn
from .frame import Frame
from .growth import Capabilities, Clients, Size
from .handover import Handover
from .hostile import Hostile
from .idle import Footprint, Idle
from .irq import Notification
from .memory import MemoryCycle
from .polite import Polite
from .region_map import RegionMaps
from .sessions import Sessions
from .setup import Setup
from .start import Spawn, Start
from .throughput import Throughput

__all__ = ["SCENARIOS", "Scenario", "Setting"]

#: By name, in the order of the tables.
SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        RawCall(), TypedCall(), BusyCall(), Capability(), Notification(), MemoryCycle(), RegionMaps(), Setup(),
        CopyIn(), Sessions(), Throughput(), Handover(), Frame(), Idle(), Footprint(), Size(), Capabilities(), Clients(),
        Start(), Spawn(), Polite(), Hostile(),
    )
}  # fmt: skip
