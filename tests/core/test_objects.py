"""What a server knows of its objects: who has them, from whom, how many, and that nobody has any more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from l4re import (
    Env,
    Exists,
    InvalidArgument,
    Irq,
    IrqHandler,
    LoopEnd,
    LoopHooks,
    NotFound,
    PeerGone,
    PermissionDenied,
    RegistryServer,
    Rights,
    Served,
    ServerError,
    new_channel,
)
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Echo, Link, Running


class Notices(Echo):
    orphaned = 0

    def on_orphaned(self) -> None:
        self.orphaned += 1


class Counter(IrqHandler):
    count = 0

    def dispatch(self) -> None:
        self.count += 1


# ---- unregistered ----


def test_whoever_waits_and_whoever_calls_later_is_told_that_the_object_was_unregistered() -> None:
    with RegistryServer() as server:
        obj = Echo()
        local = server.registry.register_obj(obj)
        gate = local.mint()
        derived = gate.dup()
        with Running(server):
            gate.call()
        waiting = Background(gate.call).wait_until_asleep_in(gate)
        server.registry.unregister_obj(obj)
        for call in (waiting.join, gate.call, derived.call, local.call, local.mint, lambda: local.dup().call()):
            with pytest.raises(PeerGone, match="this Echo was unregistered by its server"):
                call()
        server.registry.unregister_obj(obj)
        for cap in (gate, derived, local):
            cap.close()


def test_a_process_that_calls_an_unregistered_object_is_told_so(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        link.say("have it")
        for _ in range(2):
            try:
                gate.call()
            except PeerGone as error:
                link.say(str(error))

    child = start(client)
    with RegistryServer() as server:
        obj = Echo()
        with server.registry.register_obj(obj).mint() as gate:
            child.give(gate)
        assert child.hear() == "have it"
        child.wait_until_waiting()
        server.registry.unregister_obj(obj)
        for _ in range(2):
            assert "this Echo was unregistered" in child.hear()
        child.end()


def test_ids_are_never_used_again_and_old_capabilities_stay_dead() -> None:
    with RegistryServer() as server:
        obj = Echo()
        seen: set[int] = set()
        for _ in range(5):
            gate = server.registry.register_obj(obj).mint()
            (port,) = server.registry.ports(obj)
            assert port.id not in seen
            seen.add(port.id)
            server.registry.unregister_obj(obj)
            server.registry.register_obj(obj)
            with pytest.raises(PeerGone, match="unregistered"):
                gate.call()
            with pytest.raises(NotFound, match=f"no port {port.id}"):
                server.registry.revoke(obj, port)
            server.registry.unregister_obj(obj)
            gate.close()


# ---- the tree ----


def test_the_tree_shows_who_has_it_from_whom_and_any_branch_can_be_cut() -> None:
    with RegistryServer() as server:
        obj = Echo()
        root = server.registry.register_obj(obj).mint(0x10, Rights.RW)
        left, right = root.dup(), root.dup()
        leaf = left.dup()
        while server.step():
            pass
        tree = server.registry.tree(obj)
        (top,) = tree.roots
        assert (top.port.label, top.port.rights, top.port.parent) == (0x10, Rights.RW, None)
        assert [child.port.parent for child in top.children] == [top.port.id] * 2
        one, two = top.children
        assert [len(one.children), len(two.children)] == [1, 0]
        left.close()
        while server.step():
            pass
        shown = str(server.registry.tree(obj)).splitlines()
        assert shown[0] == "Echo"
        assert [line.index("port") for line in shown[1:]] == [2, 4, 6, 4]
        assert "gone" in shown[2]
        assert "label 0x10" in shown[3]
        server.registry.revoke(obj, one.port)
        with pytest.raises(PeerGone, match="the server revoked the capability"):
            leaf.call()
        with Running(server):
            assert right.call(b"others go on").data == b"others go on"
            assert root.call(b"others go on").data == b"others go on"
        assert [child.port.id for child in server.registry.tree(obj).roots[0].children] == [two.port.id]
        for cap in (root, right, leaf):
            cap.close()


# ---- counts ----


def test_counts_are_kept_for_each_object_also_of_clients_that_left() -> None:
    with RegistryServer() as server:
        one, two = Echo(), Echo()
        first, second = (server.registry.register_obj(obj).mint() for obj in (one, two))
        with Running(server):
            for _ in range(3):
                first.call()
            second.call()
            first.close()
            wait_until(lambda: server.registry.stats(one).holders == 0)
            second.call()
        assert server.registry.stats(one)._asdict() == {
            "requests": 3, "holders": 0, "ports": 0, "sessions": 0, "deferred": 0,
        }  # fmt: skip
        assert server.registry.stats(two)[:4] == (2, 2, 1, 1)
        stats = server.stats()
        assert (stats.requests, stats.objects, stats.handlers, stats.holders) == (5, 2, 0, 2)
        with pytest.raises(AttributeError):
            stats.requests = 0  # type: ignore[misc]
        second.close()


# ---- notices ----


def test_an_object_hears_that_nobody_can_call_it_any_more_and_hears_it_again_after_it_was_handed_out_anew() -> None:
    with RegistryServer() as server:
        obj, other = Notices(), Notices()
        server.registry.register_obj(other).mint()._port = None
        other_gate = server.registry.register_obj(Echo()).mint()
        local = server.registry.register_obj(obj)
        with Running(server):
            for times in (1, 2):
                gate = local.mint()
                gate.call()
                derived = gate.dup()
                gate.close()
                assert derived.call(b"still").data == b"still"
                assert obj.orphaned == times - 1
                derived.close()
                wait_until(lambda times=times: obj.orphaned == times)  # type: ignore[misc]
        other_gate.close()


def test_a_killed_client_is_noticed_after_all_it_sent(start: Callable[..., Child]) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        for number in range(50):
            gate.transact(0, b"", b"%d" % number, oneway=True)
        link.say("sent")
        link.wait_for_end()

    child = start(client)
    with RegistryServer() as server:
        obj = Notices()
        with server.registry.register_obj(obj).mint() as gate:
            child.give(gate)
        with Running(server) as loop:
            assert child.hear() == "sent"
            child.kill()
            assert loop.join() is LoopEnd.ORPHANED
        assert len(obj.heard) == 50
        assert obj.orphaned == 1


def test_unregistering_is_no_news_to_the_object() -> None:
    with RegistryServer() as server:
        obj = Notices()
        gate = server.registry.register_obj(obj).mint()
        server.registry.unregister_obj(obj)
        assert obj.orphaned == 0
        gate.close()


# ---- IRQs ----


def test_an_irq_that_exists_is_taken_over_with_its_holders_and_what_is_pending() -> None:
    with RegistryServer() as server, Irq.create() as irq:
        holder = irq.dup()
        holder.trigger()
        handler = Counter()
        assert server.registry.register_irq_obj(handler, irq) is irq
        assert server.step(PATIENCE) == 1
        irq.trigger()
        holder.trigger()
        later = holder.dup()
        while server.step(0):
            pass
        before = handler.count
        assert before >= 2
        later.trigger()
        assert server.step(PATIENCE) == 1
        assert handler.count == before + 1
        with pytest.raises(PermissionDenied, match="a handler receives it"):
            irq.receive(0)
        with pytest.raises(Exists, match="has a handler already"):
            server.registry.register_irq_obj(Counter(), irq)
        with pytest.raises(PermissionDenied, match="can only trigger"):
            server.registry.register_irq_obj(Counter(), holder)
        holder.close()
        later.close()
        assert server.loop() is LoopEnd.ORPHANED
        server.registry.unregister_obj(handler)


def test_an_irq_is_registered_by_name_where_it_is_received() -> None:
    gate, svr = new_channel()
    with gate, Env({"irq": Irq.create(), "shm": svr}) as env, RegistryServer(env=env) as server:
        irq = server.registry.register_irq_obj(handler := Counter(), "irq")
        irq.trigger()
        assert server.step(PATIENCE) == 1
        assert handler.count == 1
        with pytest.raises(InvalidArgument, match="not an IRQ"):
            server.registry.register_irq_obj(Counter(), "shm")
        with pytest.raises(NotFound, match="'irk'"):
            server.registry.register_irq_obj(Counter(), "irk")


# ---- hooks ----


class Hooks(LoopHooks):
    def __init__(self) -> None:
        self.said: list[str] = []

    def before_wait(self) -> None:
        if self.said[-1:] != ["wait"]:
            self.said.append("wait")

    def after_dispatch(self) -> None:
        self.said.append("done")

    def error(self, obj: Served, error: Exception) -> None:
        self.said.append(f"{type(obj).__name__}: {error}")


class Fails(Echo):
    def serve_request(self, *request: Any) -> Any:
        if request[1] == 7:
            raise RuntimeError("seven")
        return super().serve_request(*request)


def test_hooks_hear_of_each_request_of_mistakes_and_of_waiting(caplog: pytest.LogCaptureFixture) -> None:
    hooks = Hooks()
    with RegistryServer(hooks=hooks) as server:
        local = server.registry.register_obj(Fails())
        with local.mint() as gate, Running(server), caplog.at_level(logging.ERROR):
            gate.call()
            hooks.said.clear()
            assert gate.call(b"x").data == b"x"
            wait_until(lambda: hooks.said[-2:] == ["done", "wait"])
            with pytest.raises(ServerError, match="seven"):
                gate.call(label=7)
            wait_until(lambda: hooks.said[-3:] == ["Fails: seven", "done", "wait"])
        gate = local.mint()
        gate.close()
        assert server.loop() is LoopEnd.ORPHANED


def test_a_loop_with_hooks_steps_as_any_other() -> None:
    hooks = Hooks()
    with RegistryServer(hooks=hooks) as server:
        with server.registry.register_obj(Echo()).mint() as gate:
            for _ in range(3):
                gate.transact(0, b"", b"one way", oneway=True)
                assert server.step(PATIENCE) >= 1
            while server.step():
                pass
            assert server.step(0.01) == 0
        assert hooks.said.count("done") >= 3
