"""Threads, nested loops and forks: every thread its own session, every process its own ends."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from l4re import Capability, Closed, Gate, IrqHandler, L4Error, LoopEnd, PeerGone, RegistryServer, new_channel
from l4re.testing import Holdings, holdings, wait_until
from support.processes import UNPRIVILEGED, Background, Child, Echo, Link, Running, descriptors

Start = Callable[..., Child]
processes = pytest.mark.processes


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Echo()))
        server.loop()


# ---- threads ----


@processes
def test_eight_threads_call_one_gate(start: Start) -> None:
    server = start(serve)
    (gate,) = server.take()

    def caller(seed: int) -> int:
        return sum(gate.call(b"%d:%d" % (seed, at)).data == b"%d:%d" % (seed, at) for at in range(1000))

    with gate:
        threads = [Background(lambda seed=seed: caller(seed)) for seed in range(8)]  # type: ignore[misc]
        assert [thread.join() for thread in threads] == [1000] * 8


def test_sessions_of_threads_that_ended_are_released_on_both_sides() -> None:
    with RegistryServer() as server:
        echo = Echo()
        gate = server.registry.register_obj(echo).mint()
        with Running(server):
            gate.call()
            before = holdings()
            for _ in range(20):
                for thread in [Background(gate.call) for _ in range(5)]:
                    thread.join()
            wait_until(lambda: [info.sessions for info in server.registry.ports(echo)] == [1])
            wait_until(lambda: holdings().beyond(before) == {})
            assert len(gate._sessions) == 1
        gate.close()


def test_a_thousand_gates_of_one_thread_are_forgotten_with_it() -> None:
    with RegistryServer() as server:
        echo = Echo()
        local = server.registry.register_obj(echo)
        with Running(server):
            gates = [local.mint() for _ in range(200)]

            def call_all() -> None:
                for gate in gates:
                    gate.call()

            Background(call_all).join()
            wait_until(lambda: not any(info.sessions for info in server.registry.ports(echo)))
            assert not any(gate._sessions for gate in gates)
        for gate in gates:
            gate.close()


class Gated(Echo):
    """Label 9 waits until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.let = threading.Event()

    def serve_request(self, *request: Any) -> Any:
        if request[1] == 9:
            self.entered.set()
            assert self.let.wait(20)
        return super().serve_request(*request)


def test_close_while_others_call_takes_effect_when_their_calls_end() -> None:
    with RegistryServer() as server:
        gated = Gated()
        gate = server.registry.register_obj(gated).mint()
        with Running(server):
            first = Background(lambda: gate.call(b"running", label=9))
            assert gated.entered.wait(20)
            second = Background(lambda: gate.call(b"queued")).wait_until_asleep_in(gate)
            gate.close()
            gate.close()
            with pytest.raises(Closed):
                gate.call()
            gated.let.set()
            assert first.join().data == b"running"
            assert second.join().data == b"queued"
            with pytest.raises(Closed):
                gate.call()
            wait_until(lambda: server.registry.ports(gated) == ())


def test_close_from_everywhere_at_once_hurts_nobody() -> None:
    with RegistryServer() as server:
        local = server.registry.register_obj(Echo())
        other = local.mint()
        with Running(server):
            for _ in range(50):
                gate = local.mint()

                def calls(gate: Gate = gate) -> int:
                    done = 0
                    try:
                        while True:
                            assert gate.call(b"%d" % done).data == b"%d" % done
                            done += 1
                    except (Closed, PeerGone):
                        return done

                threads = [Background(calls) for _ in range(3)]
                wait_until(lambda gate=gate: len(gate._sessions) == 3)  # type: ignore[misc]
                gate.close()
                for thread in threads:
                    thread.join()
                assert other.call(b"well").data == b"well"
        other.close()


# ---- a loop that calls its own gate ----


class CallsItself(Echo):
    """Label 5 calls ``target`` with the rest of the way to go, as deep as the data says."""

    target: Gate

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> tuple[int, bytes, bytes, Any] | None:
        if label == 5:
            left = int(data)
            return 0, b"", self.target.call(str(left - 1).encode(), label=5 if left > 1 else 0).data, ()
        if label == 6:
            (gate,) = caps
            assert isinstance(gate, Gate)
            with gate:
                return 0, b"", gate.call(b"came back", caps=(gate,)).data, ()
        answer = super().serve_request(rights, label, words, data, caps)
        self.drop()
        return answer


@pytest.mark.parametrize("target", ["local", "channel", "minted", "dup", "dup of dup", "unread"])
def test_a_loop_that_calls_its_own_gate_runs_it_directly(target: str) -> None:
    channel = new_channel()
    with RegistryServer() as server, channel.gate:
        obj = CallsItself()
        local = server.registry.register_obj(obj, channel.svr)
        extra: list[Gate] = []
        match target:
            case "local":
                obj.target = local
            case "channel":
                obj.target = channel.gate
            case "minted":
                obj.target = local.mint()
            case "dup":
                obj.target = channel.gate.dup()
            case "dup of dup":
                extra.append(channel.gate.dup())
                obj.target = extra[0].dup()
            case "unread":  # behind more in the queue than is handled in a turn
                extra = [channel.gate.dup() for _ in range(100)]
                obj.target = extra[-1].dup()
        with Running(server):
            client = local.mint()
            for depth in (1, 3, 20):
                assert client.call(str(depth).encode(), label=5, timeout=10).data == b"0"
            client.close()
        for gate in [obj.target, *extra]:
            gate.close()


def test_a_gate_whose_session_is_older_than_the_loop_is_called_directly_too() -> None:
    """This thread called it while another ran the loop; then it runs the loop itself."""
    channel = new_channel()
    with RegistryServer() as server, channel.gate:
        obj = CallsItself()
        server.registry.register_obj(obj, channel.svr)
        obj.target = channel.gate
        with Running(server):
            assert channel.gate.call(b"as a client").data == b"as a client"
        client = channel.gate.dup()
        caller = Background(lambda: client.call(b"3", label=5, timeout=10))
        while not server.step(0.01) or caller.thread.is_alive():
            if not caller.thread.is_alive():
                break
        assert caller.join().data == b"0"
        client.close()


@processes
@pytest.mark.parametrize("fresh", [True, False])
def test_a_gate_that_came_back_through_another_process_is_called_directly(start: Start, fresh: bool) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        if not fresh:
            assert gate.call(b"warm").data == b"warm"
        assert gate.call(b"", label=6, caps=(gate,), timeout=10).data == b"came back"
        with gate.dup() as second, second.dup() as third:
            assert gate.call(b"", label=6, caps=(third,), timeout=10).data == b"came back"

    def serving(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(CallsItself()))
            assert server.loop() is LoopEnd.ORPHANED

    doing, server = start(client), start(serving)
    (gate,) = server.take()
    with gate:
        doing.give(gate)
    doing.end()
    server.end()


def test_an_object_may_be_called_while_nobody_runs_the_loop() -> None:
    with RegistryServer() as server:
        local = server.registry.register_obj(Echo())
        assert local.call(b"direct").data == b"direct"
        assert local.call(label=1).data == b"\x03"
        with Running(server):
            assert local.call(b"through a session").data == b"through a session"
        assert local.call(b"direct again").data == b"direct again"


def test_two_servers_of_one_thread_call_each_other() -> None:
    with RegistryServer() as one, RegistryServer() as two:
        first, second = CallsItself(), CallsItself()
        local_one, local_two = one.registry.register_obj(first), two.registry.register_obj(second)
        first.target, second.target = local_two, local_one
        client = local_one.mint()
        with Running(one):
            assert client.call(b"4", label=5).data == b"0"
        client.close()


def test_an_irq_of_the_loop_is_triggered_from_its_handlers() -> None:
    with RegistryServer() as server:

        class Counts(IrqHandler):
            seen = 0

            def dispatch(self) -> None:
                self.seen += 1
                if self.seen < 3:
                    irq.trigger()
                else:
                    server.stop()

        handler = Counts()
        irq = server.registry.register_irq_obj(handler)
        irq.trigger()
        assert server.loop() is LoopEnd.STOPPED
        assert handler.seen == 3


def test_calls_of_an_asyncio_program_to_its_own_server_are_answered() -> None:
    async def main() -> None:
        channel = new_channel()
        with RegistryServer() as server, channel.gate as gate:
            local = server.registry.register_obj(Echo(), channel.svr)
            serving = asyncio.create_task(server.serve())
            await asyncio.sleep(0)
            for target in (gate, local):
                answer = await asyncio.wait_for(target.transact_async(0, b"", b"async"), 10)
                assert answer[2] == b"async"
                many = await asyncio.gather(*(target.transact_async(0, b"", b"%d" % at) for at in range(50)))
                assert [answer[2] for answer in many] == [b"%d" % at for at in range(50)]
                assert target.call(b"and without await", timeout=10).data == b"and without await"
            server.stop()
            assert await asyncio.wait_for(serving, 10) is LoopEnd.STOPPED

    asyncio.run(main())


# ---- forks ----


@processes
def test_a_forked_client_opens_its_own_session_and_its_parents_goes_on(start: Start) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        assert gate.call(b"before").data == b"before"
        mine = list(gate._sessions.values())
        pid = os.fork()
        if pid == 0:
            for at in range(200):
                assert gate.call(b"child %d" % at).data == b"child %d" % at
            assert list(gate._sessions.values()) != mine
            os._exit(7)
        for at in range(200):
            assert gate.call(b"parent %d" % at).data == b"parent %d" % at
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert list(gate._sessions.values()) == mine
        assert gate.call(b"after").data == b"after"

    doing, server = start(client), start(serve)
    (gate,) = server.take()
    with gate:
        doing.give(gate)
    doing.end()
    server.end()


@processes
@pytest.mark.parametrize("moment", ["posted", "taken"])
def test_a_fork_in_the_middle_of_a_call_leaves_the_call_to_the_parent(start: Start, moment: str) -> None:
    """A signal handler forks while its thread waits for an answer; the child's wait ends with an error."""

    def client(link: Link) -> None:
        (gate,) = link.take()
        children: list[int] = []

        def handler(number: int, frame: FrameType | None) -> None:
            children.append(os.fork())

        signal.signal(signal.SIGUSR1, handler)
        gate.call(b"warm")
        link.say("ready")
        link.hear()
        try:
            answer = gate.call(b"once", label=9)
        except L4Error:
            assert children == [0]
            assert gate.call(b"child").data == b"child"
            os._exit(7)
        assert children != [0]
        assert answer.data == b"once"
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 7
        assert gate.call(b"after").data == b"after"

    class Journal(Gated):
        def serve_request(self, *request: Any) -> Any:
            link.say(f"got {request[3].decode()}")
            if request[1] == 9 and moment == "taken":
                assert link.hear() == "answer"
            return Echo.serve_request(self, *request)

    link: Link = cast(Link, None)

    def serving(mine: Link) -> None:
        nonlocal link
        link = mine
        with RegistryServer() as server:
            mine.give(server.registry.register_obj(Journal()))
            server.loop()

    doing, server = start(client), start(serving)
    (gate,) = server.take()
    with gate:
        doing.give(gate)
    assert doing.hear() == "ready"
    assert server.hear() == "got warm"
    if moment == "posted":
        server.stop()
    doing.say("go")
    if moment == "taken":
        assert server.hear() == "got once"
    doing.wait_until_its_link_is_empty()
    doing.signal(signal.SIGUSR1)
    wait_until(lambda: len(holdings(doing.pid).children) == 1)
    if moment == "posted":
        server.go_on()
        heard = {server.hear() for _ in range(3)}
    else:
        server.say("answer")
        heard = {server.hear() for _ in range(2)} | {"got once"}
    assert heard == {"got once", "got child", "got after"}
    doing.end()
    server.end()


@processes
@pytest.mark.parametrize("where", ["in a handler", "in another thread", "in a signal handler", "before the loop"])
def test_a_forked_server_has_no_server_ends(start: Start, where: str) -> None:
    class Forks(Echo):
        def serve_request(self, *request: Any) -> Any:
            if request[1] == 9:
                if where == "in a handler":
                    fork_here()
                elif where == "in another thread":
                    thread = Background(fork_here)
                    thread.join()
                elif where == "in a signal handler":
                    signal.signal(signal.SIGUSR1, lambda *_: fork_here())
                    threading.Thread(target=poke, args=(os.getpid(),)).start()
            return super().serve_request(*request)

    def poke(pid: int) -> None:
        wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S")
        os.kill(pid, signal.SIGUSR1)

    before = Holdings()
    link: Link = cast(Link, None)
    server: RegistryServer = cast(RegistryServer, None)

    def fork_here() -> None:
        pid = os.fork()
        if pid:
            return
        more = [name for name in holdings().beyond(before) if not name.startswith(("child", "thread"))]
        try:
            server.loop()
        except Closed:
            more.append("closed")
        server.close()
        link.say(" ".join(more))
        link.wait_for_end()
        os._exit(0)

    def serving(mine: Link) -> None:
        nonlocal link, server, before
        link = mine
        before = holdings()
        with RegistryServer() as server:
            gate = server.registry.register_obj(Forks())
            mine.give(gate)
            if where == "before the loop":
                fork_here()
            assert server.loop() is LoopEnd.ORPHANED

    child = start(serving)
    (gate,) = child.take()
    with gate:
        assert gate.call(b"warm").data == b"warm"
        if where != "before the loop":
            assert gate.call(b"fork", label=9, timeout=10).data == b"fork"
        assert child.hear() == "closed", "the child has something of the server"
        assert gate.call(b"after").data == b"after"
        assert gate.dup().call(b"a new session").data == b"a new session"
        child.kill()
        with pytest.raises(PeerGone):
            gate.call()


# ---- users ----


@processes
@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_programs_of_different_users_call_each_other(start: Start, who: str) -> None:
    def client(link: Link) -> None:
        (gate,) = link.take()
        assert os.getuid() == (0 if who == "server" else UNPRIVILEGED)
        for at in range(100):
            assert gate.call(b"%d" % at).data == b"%d" % at
        assert gate.call(caps=(gate,)).data == b""
        before = descriptors()
        for _ in range(20):
            Background(gate.call).join()
        wait_until(lambda: descriptors() == before)

    doing = start(client, user=UNPRIVILEGED if who != "server" else None)
    server = start(serve, user=UNPRIVILEGED if who != "client" else None)
    (gate,) = server.take()
    with gate:
        doing.give(gate)
        doing.end()


def test_a_server_may_be_closed_while_others_post_to_it_and_stop_it() -> None:
    for _ in range(50):
        server, go = RegistryServer(), threading.Event()

        def bother(server: RegistryServer = server, go: threading.Event = go) -> None:
            go.wait()
            for _ in range(20):
                server.post(lambda: None)
                server.stop()

        others = [Background(bother) for _ in range(3)]
        go.set()
        server.close()
        for each in others:
            each.join()
