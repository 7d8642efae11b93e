"""kill -9 at every marked point of the protocol, of either side: nothing is left, and who survives is served.

``CLIENT`` and ``SERVER`` list the points by the step that passes them; a test compares it with the marks in the C code.
``make soak`` draws steps, points and passings at random for ``L4RE_SOAK_SECONDS`` (default 60).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import l4re
from l4re._native import leaf
from l4re.testing import holdings, wait_until
from support.processes import PATIENCE, Background, Running

from . import victim
from .conftest import ROOT, Start, victims

pytestmark = pytest.mark.processes

CLIENT = {
    "first": [
        "open_session: made, not yet sent",
        "open_session: sent, our copies still open",
        "begin: nothing is sent",
    ],
    "call": [
        "post: before the look at the flag",
        "post: before the ring",
        "await: looked, not yet asleep",
        "await: woken, flag still up",
        "collect: answered, not yet read",
    ],
    "caps": [
        "channel: made, nobody has an end",
        "pipe: made, nobody has an end",
        "send: not yet sent",
        "send: sent, our copies still open",
        "begin: descriptors are ahead",
        "collect: answered, not yet read",
    ],
    "one_way": ["post: before the ring", "begin: descriptors are ahead"],
    "one_way_with_caps": ["begin: descriptors are ahead", "post: before the look at the flag"],
    "impatient": ["withdraw: given up, still posted"],
    "gift": [
        "collect: answered, not yet read",
        "trigger: not yet written",
        "pipe: made, nobody has an end",
        "send: sent, our copies still open",
    ],
    "derive": ["send: sent, our copies still open", "close: a guarded descriptor, still open"],
    "spawn": ["spawn: not yet started", "spawn: it runs, nobody holds it"],
}

SERVER = {
    "call": [
        "handle: looked, not yet drained",
        "take: seen, not yet taken",
        "take: taken, not yet read",
        "copy_out: descriptors are here",
        "reply: nothing is sent",
        "reply: written, not yet published",
        "reply: before the ring",
        "raise_flags: raised, not yet looked",
        "next: looked, not yet asleep",
    ],
    "first": ["recv: here, not yet obeyed", "accept: mapped, not yet watched"],
    "caps": ["take: taken, not yet read", "copy_out: descriptors are here", "reply: nothing is sent"],
    "give": [
        "channel: made, nobody has an end",
        "pipe: made, nobody has an end",
        "reply: descriptors are ahead",
        "reply: before the ring",
    ],
    "give_on": ["send: not yet sent", "send: sent, our copies still open", "reply: descriptors are ahead"],
    "one_way": ["take: taken, not yet read", "copy_out: released, before the ring"],
    "derive": ["recv: here, not yet obeyed"],
    "mint": ["channel: made, nobody has an end", "reply: descriptors are ahead"],
    "unregister": ["close: a guarded descriptor, still open"],
    "revoke": ["close: a guarded descriptor, still open"],
    "irq": ["recv: here, not yet obeyed"],
}


def pairs(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(step, point) for step, points in table.items() for point in points]


def named(what: tuple[str, str]) -> str:
    return f"{what[0]}, {what[1]}"


def marks() -> set[str]:
    """The names of all points in the C code."""
    native = ROOT / "src" / "l4re" / "_native"
    return {name for path in native.glob("*.c") for name in re.findall(r'L4RE_POINT\("([^"]+)"\)', path.read_text())}


def test_every_point_that_is_marked_is_one_where_somebody_dies() -> None:
    assert marks() == {point for table in (CLIENT, SERVER) for points in table.values() for point in points}


def test_the_leaf_that_is_shipped_has_no_points(debug_leaf: Path) -> None:
    shipped = Path(leaf.__file__).read_bytes()
    stops = (debug_leaf / "l4re" / "_native" / Path(leaf.__file__).name).read_bytes()
    for name in ("L4RE_DEBUG_STOP", *(f"{mark}\0" for mark in marks())):
        assert name.encode() in stops
        assert name.encode() not in shipped


# ---- a client dies ----


class Steady(l4re.ServerObject):
    """The survivor: answers, drops what it is given, gives a dataspace, an IRQ and a gate."""

    def __init__(self) -> None:
        self.gone = 0
        self.ds = l4re.env().mem_alloc.alloc(4096)
        self.irq = l4re.env().factory.create_irq()

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        for cap in ios.caps:
            if cap is not None:
                cap.close()
        if ios.tag.label == victim.GIFT:
            ios << self.ds << self.irq << self.obj_cap()
        return 0

    def on_client_gone(self) -> None:
        self.gone += 1

    def close(self) -> None:
        self.ds.close()
        self.irq.close()


@contextmanager
def steady(*, idle: bool = False) -> Iterator[tuple[Steady, l4re.Gate, l4re.RegistryServer]]:
    """Yield a server of this process, and an innocent client's gate to it. ``idle``: nobody runs its loop."""
    channel = l4re.new_channel()
    one = Steady()
    with channel.gate, l4re.RegistryServer(spin_us=0) as server:
        server.registry.register_obj(one, channel.svr)
        try:
            if idle:
                yield one, channel.gate, server
            else:
                with Running(server):
                    assert channel.gate.call(timeout=PATIENCE).tag.label == 0
                    yield one, channel.gate, server
        finally:
            one.close()


def kill_a_client(start: Start, step: str, point: str, passing: int = 1) -> None:
    """Have a client die there, and look at what its server and another client have of it."""
    idle = step == "impatient"
    with steady(idle=idle) as (server_side, innocent, server):
        before = holdings()

        def served() -> None:
            """Another client is."""
            if idle:
                call = Background(lambda: innocent.call(timeout=PATIENCE))
                while call.thread.is_alive():
                    server.step(0.01)
                call.join()
            else:
                innocent.call(timeout=PATIENCE)

        dying = start(step, point, passing, {"gate": innocent})
        if idle:  # serve its first call, and no other
            wait_until(lambda: server.step(0.0) > 0 and server.stats().requests > 0, PATIENCE)
        dying.wait_until_stopped()
        if not idle:
            served()
        gone = server_side.gone
        dying.kill()
        served()
        left: dict[str, int] = {}

        def clean() -> bool:
            nonlocal left
            if idle:
                server.step(0.0)
            with suppress(l4re.IpcTimeout, l4re.PeerGone):  # pins of holders that are gone
                server_side.irq.receive(0.0)
            left = {name: count for name, count in holdings().beyond(before).items() if "spawner" not in name}
            return not left and server_side.gone > gone

        try:
            wait_until(clean, PATIENCE)
        except TimeoutError:
            raise AssertionError(f"after its client died the server keeps {left}, {server_side.gone} gone") from None
        served()


@pytest.mark.parametrize("death", pairs(CLIENT), ids=named)
def test_a_client_that_dies_leaves_nothing_at_its_server(start: Start, death: tuple[str, str]) -> None:
    kill_a_client(start, *death)


# ---- a server dies ----


def _drop(message: Any) -> None:
    for cap in message.caps:
        if cap is not None:
            cap.close()


def _first(gate: l4re.Gate) -> None:
    Background(gate.call).join()


def _caps(gate: l4re.Gate) -> None:
    env = l4re.env()
    channel = l4re.new_channel()
    with channel.gate as other, channel.svr, env.mem_alloc.alloc(4096) as ds, env.factory.create_irq() as irq:
        gate.call(label=victim.KEEP, caps=(ds, irq, other, gate))


def _derive(gate: l4re.Gate) -> None:
    with gate.dup() as second:
        second.call()


def _irq(gate: l4re.Gate) -> None:
    (irq,) = gate.call(label=victim.IRQ).caps
    assert isinstance(irq, l4re.Irq)
    with irq:
        irq.trigger()
        irq.dup().close()
        gate.call()


#: What a client does to a server until it learns that the server is gone.
ASK: dict[str, Callable[[l4re.Gate], object]] = {
    "call": lambda gate: gate.call(b"survivor"),
    "first": _first,
    "caps": _caps,
    "give": lambda gate: _drop(gate.call(label=victim.GIVE)),
    "give_on": lambda gate: _drop(gate.call(label=victim.GIVE_ON)),
    "one_way": lambda gate: gate.transact(victim.ECHO, b"", oneway=True),
    "derive": _derive,
    "mint": lambda gate: _drop(gate.call(label=victim.MINT)),
    "unregister": lambda gate: gate.call(label=victim.UNREGISTER),
    "revoke": lambda gate: gate.call(label=victim.REVOKE),
    "irq": _irq,
}


def kill_a_server(start: Start, step: str, point: str, passing: int = 1) -> None:
    """Have a server die there: whoever calls it learns so, and another server goes on."""
    with steady() as (_, innocent, _):
        before = holdings()
        lose_a_server(start, step, point, passing, innocent)
        innocent.call(timeout=PATIENCE)
        left: dict[str, int] = {}

        def clean() -> bool:
            nonlocal left
            left = {name: count for name, count in holdings().beyond(before).items() if "spawner" not in name}
            return not left

        try:
            wait_until(clean, PATIENCE)
        except TimeoutError:
            raise AssertionError(f"after its server died the client keeps {left}") from None


def lose_a_server(start: Start, step: str, point: str, passing: int, innocent: l4re.Gate) -> None:
    channel = l4re.new_channel()
    with channel.gate as gate:
        dying = start("serve", point, passing, {"svr": channel.svr, "other": innocent})
        with gate.dup() as second:
            second.call(timeout=PATIENCE)

            def ask_on() -> None:
                while True:
                    ASK[step](gate)

            second.transact(victim.ARM, b"", oneway=True)
            asking = Background(ask_on)
            dying.wait_until_stopped()
            innocent.call(timeout=PATIENCE)
            dying.kill()
            with pytest.raises(l4re.PeerGone):
                asking.join()
            for lost in (gate, second):
                with pytest.raises(l4re.PeerGone):
                    lost.call(timeout=PATIENCE)
            with pytest.raises(l4re.PeerGone):
                gate.dup()


@pytest.mark.parametrize("death", pairs(SERVER), ids=named)
def test_a_server_that_dies_leaves_nothing_at_its_client(start: Start, death: tuple[str, str]) -> None:
    kill_a_server(start, *death)


def test_a_receiver_learns_that_all_who_could_trigger_have_died(start: Start) -> None:
    with steady() as (one, innocent, _):
        dying = start("gift", "trigger: not yet written", 2, {"gate": innocent})
        one.irq.receive(PATIENCE)
        dying.wait_until_stopped()
        dying.kill()

        def hear_on() -> None:
            while True:  # what it triggered before it died counts
                one.irq.receive(PATIENCE)

        with pytest.raises(l4re.PeerGone):
            hear_on()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_deaths_at_random_passings_leave_nothing(debug_leaf: Path, tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    chance = random.Random(seed)
    end = time.monotonic() + float(os.environ.get("L4RE_SOAK_SECONDS", "60"))
    deaths = [(kill_a_client, *pair) for pair in pairs(CLIENT)] + [
        (kill_a_server, *pair) for pair in pairs(SERVER) if pair[0] not in ("unregister", "revoke")
    ]
    died = 0
    while time.monotonic() < end:
        kill, step, point = chance.choice(deaths)
        passing = chance.randint(1, 60)
        with victims(debug_leaf, tmp_path) as start:
            try:
                kill(start, step, point, passing)
            except BaseException as error:
                error.add_note(f"seed {seed}: {kill.__name__}, {step}, {point}, passing {passing}")
                raise
        died += 1
    print(f"\n{died} deaths at random passings; seed {seed}")
    assert died
