"""The one who dies: a client or a server that goes to one marked point, stops there, and is killed.

``victim.py serve POINT PASSING`` serves ``svr``; a request with label `ARM` sets the point. ``victim.py STEP POINT
PASSING`` makes one step with ``gate``, again and again. Without a point (``-``) it makes it a few times and ends.
Run with the leaf of ``make debug``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable

import l4re

ECHO, ARM, GIVE, GIVE_ON, KEEP, UNREGISTER, MINT, REVOKE, IRQ, GIFT = range(10)

#: How often a step is made by a client that is not to die.
OFTEN = 3


class Mortal(l4re.ServerObject):
    """Makes the step that a request asks for."""

    def __init__(self, server: l4re.RegistryServer, arm: Callable[[], None]) -> None:
        self.server = server
        self.arm = arm
        self.irq = server.registry.register_irq_obj(Bell())
        self.other: l4re.Capability | None = None

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        match ios.tag.label:
            case 1:  # ARM
                self.arm()
            case 2:  # GIVE
                ds = l4re.env().mem_alloc.alloc(4096)
                ios << ds << self.irq << self.obj_cap()
            case 3:  # GIVE_ON
                if self.other is None:
                    self.other = l4re.env().get_cap("other", l4re.Gate)
                ios << self.other
            case 4:  # KEEP
                for cap in ios.caps:
                    if cap is not None:
                        cap.close()
            case 5:  # UNREGISTER
                self.server.registry.unregister_obj(self)
            case 6:  # MINT
                ios << self.obj_cap().mint(0x40, l4re.Rights.R)  # type: ignore[attr-defined]
            case 7:  # REVOKE
                self.server.registry.revoke(self, self.server.caller.port)
            case 8:  # IRQ
                ios << self.irq
        return 0


class Bell(l4re.IrqHandler):
    """Hears, and does nothing."""

    def dispatch(self) -> None:
        pass


def serve(arm: Callable[[], None]) -> None:
    with l4re.RegistryServer(spin_us=0) as server:
        server.registry.register_obj(Mortal(server, arm), "svr")
        server.loop()


# ---- steps of a client ----


def first(gate: l4re.Gate) -> None:
    """A first call: a thread of its own opens a session."""
    thread = threading.Thread(target=gate.call)
    thread.start()
    thread.join()


def call(gate: l4re.Gate) -> None:
    gate.call(b"victim")


def caps(gate: l4re.Gate) -> None:
    """Hand everything over that there is."""
    env = l4re.env()
    channel = l4re.new_channel()
    with env.mem_alloc.alloc(4096) as ds, env.factory.create_irq() as irq, channel.gate:
        gate.call(label=KEEP, caps=(ds, irq, channel.gate, gate, channel.svr))


def one_way(gate: l4re.Gate) -> None:
    gate.transact(ECHO, b"", b"victim", oneway=True)


def one_way_with_caps(gate: l4re.Gate) -> None:
    with l4re.env().factory.create_irq() as irq:
        gate.transact(KEEP, b"", b"", (irq, gate), oneway=True)


def impatient(gate: l4re.Gate) -> None:
    """Take a request back that nobody began."""
    with contextlib.suppress(l4re.IpcTimeout):
        gate.call(b"victim", timeout=0.001)


def gift(gate: l4re.Gate) -> None:
    """Get capabilities, use them, hand an IRQ on."""
    ds, irq, other = gate.call(label=GIFT).caps
    assert isinstance(irq, l4re.Irq)
    assert isinstance(ds, l4re.Dataspace)
    irq.trigger()
    irq.dup().close()
    l4re.env().rm.attach(ds).detach()
    for cap in (ds, irq, other):
        assert cap is not None
        cap.close()


def derive(gate: l4re.Gate) -> None:
    """Hand a gate on, to ourselves, and drop it."""
    with gate.dup() as second:
        second.call()


def spawn(gate: l4re.Gate) -> None:
    """Start a program that holds the gate, and would run on."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("L4RE_")}
    with l4re.spawn([__file__, "hold", "-", "1"], caps={"gate": gate}, env=environment) as task:
        task.wait()


def alloc(gate: l4re.Gate) -> None:
    """Have memory made, share it with ourselves, use it, drop it."""
    from l4re.services.mem_alloc import RemoteMemAlloc

    with RemoteMemAlloc(gate).alloc(4096) as ds, ds.ro as reader, l4re.env().rm.attach(ds) as region:
        memoryview(region)[:4] = b"used"
        assert reader.read(0, 4) == b"used"


def hold(gate: l4re.Gate) -> None:
    gate.call()
    signal.pause()


STEPS: dict[str, Callable[[l4re.Gate], None]] = {
    step.__name__: step
    for step in (first, call, caps, one_way, one_way_with_caps, impatient, gift, derive, spawn, alloc, hold)
}


def main(what: str, point: str, passing: str) -> None:
    def arm() -> None:
        if point != "-":
            os.environ["L4RE_DEBUG_PASSING"] = passing
            os.environ["L4RE_DEBUG_STOP"] = point

    if what == "serve":
        serve(arm)
        return
    gate = l4re.env().get_cap("gate", l4re.Gate)
    if what not in ("first", "alloc"):
        gate.call()
    arm()
    for _ in iter(int, 1) if point != "-" else range(OFTEN):
        STEPS[what](gate)


if __name__ == "__main__":
    main(*sys.argv[1:])
