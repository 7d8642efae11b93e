"""A call never hangs: whatever the request was going through when its server was killed, the caller learns of it."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from l4re import Gate, PeerGone, RegistryServer, new_channel
from l4re.testing import wait_until
from support.processes import Background, Child, Echo, Link, processes

pytestmark = pytest.mark.processes

#: A call is under way (what it is doing, whom to kill).
Scene = Callable[[Callable[..., Child]], Iterator[tuple[Background, Child]]]


class Stuck(Echo):
    """Says that it has the request, and never answers."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link

    def serve_request(self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[object, ...]) -> None:
        self.link.say("taken")
        self.link.wait_for_end()


def serve(link: Link) -> None:
    with RegistryServer() as server:
        link.give(server.registry.register_obj(Echo()))
        server.loop()


def posted(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """Over a warm session, to a server that stands still."""
    child = start(serve)
    (gate,) = child.take()
    with gate:
        assert gate.call(b"warm").data == b"warm"
        child.stop()
        yield Background(lambda: gate.call(b"posted")).wait_until_asleep_in(gate), child


def taken(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """The handler has it."""

    def server_in_a_handler(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Stuck(link)))
            server.loop()

    child = start(server_in_a_handler)
    (gate,) = child.take()
    with gate:
        call = Background(gate.call)
        assert child.hear() == "taken"
        yield call.wait_until_asleep_in(gate), child


def not_accepted(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """The handshake lies in the port of a server that has not come to its loop."""

    def server_before_its_loop(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Echo()))
            link.wait_for_end()

    child = start(server_before_its_loop)
    (gate,) = child.take()
    with gate:
        yield Background(gate.call).wait_until_asleep_in(gate), child


def queued(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """Called before the receive right was even handed to the process that ends."""

    def holder_of_the_right(link: Link) -> None:
        rights = link.take()
        link.say("taken")
        link.wait_for_end()
        del rights

    child = start(holder_of_the_right)
    gate, svr = new_channel()
    with gate:
        call = Background(gate.call).wait_until_asleep_in(gate)
        child.give(svr)
        assert svr.closed
        assert child.hear() == "taken"
        yield call, child


def derived(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """Through a capability that was derived twice from one nobody has looked at yet."""

    def holder_of_the_right(link: Link) -> None:
        rights = link.take()
        link.say("taken")
        link.wait_for_end()
        del rights

    child = start(holder_of_the_right)
    gate, svr = new_channel()
    with gate, gate.dup() as second, second.dup() as third:
        child.give(svr)
        assert child.hear() == "taken"
        yield Background(third.call).wait_until_asleep_in(third), child


def survived_by_a_fork(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """A forked child of the server inherited all there was, in the middle of a request and with one waiting."""

    class Forks(Stuck):
        def serve_request(self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[object, ...]) -> None:
            pid = os.fork()
            if pid == 0:
                self.link.say(str(os.getpid()))
                self.link.wait_for_end()
                os._exit(0)
            self.link.wait_for_end()

    def server_that_forks(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Forks(link)), server.registry.register_obj(Echo()))
            server.loop()

    child = start(server_that_forks)
    gate, other = child.take()
    with gate, other:
        assert other.call(b"warm").data == b"warm"
        call = Background(gate.call)
        survivor = int(child.hear())
        second = Background(other.call).wait_until_asleep_in(other)
        yield call.wait_until_asleep_in(gate), child
        os.kill(survivor, 0)  # it lives
        with pytest.raises(PeerGone):
            second.join()


def survived_by_a_program(start: Callable[..., Child]) -> Iterator[tuple[Background, Child]]:
    """A program that the server started runs on."""

    class Starts(Stuck):
        def serve_request(self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[object, ...]) -> None:
            code = f"import os; os.write({self.link.fileno()}, b'Tup'); os.read({self.link.fileno()}, 1)"
            with subprocess.Popen([sys.executable, "-ISc", code], pass_fds=[self.link.fileno()]):
                signal.pause()

    def server_that_starts_a_program(link: Link) -> None:
        with RegistryServer() as server:
            link.give(server.registry.register_obj(Starts(link)))
            server.loop()

    child = start(server_that_starts_a_program)
    (gate,) = child.take()
    with gate:
        call = Background(gate.call)
        assert child.hear() == "up"
        yield call.wait_until_asleep_in(gate), child


SCENES = [posted, taken, not_accepted, queued, derived, survived_by_a_fork, survived_by_a_program]


def kill_during(scene: Scene) -> float:
    """Play the scene, kill the server, and return the milliseconds until the caller knew."""
    with processes() as start, contextmanager(scene)(start) as (call, child):
        assert call.thread.is_alive()
        at = child.kill()
        with pytest.raises(PeerGone):
            call.join(5.0)
        assert child.join() == -9
        return (call.ended - at) * 1000


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_a_caller_learns_that_its_server_was_killed(
    scene: Scene, record_property: Callable[[str, object], None]
) -> None:
    took = kill_during(scene)
    record_property("milliseconds", took)
    print(f"{scene.__name__}: PeerGone after {took:.1f} ms")


def test_it_learns_of_it_within_100_ms() -> None:
    medians = {scene.__name__: statistics.median(kill_during(scene) for _ in range(5)) for scene in SCENES[:-1]}
    print("PeerGone after (median, ms):", {name: round(took, 2) for name, took in medians.items()})
    assert max(medians.values()) < 100, medians


def test_the_next_call_and_the_next_hand_over_say_so_too(start: Callable[..., Child]) -> None:
    child = start(serve)
    (gate,) = child.take()
    with gate:
        gate.call()
        child.kill()
        child.join()
        for _ in range(3):
            with pytest.raises(PeerGone):
                gate.call()
        with pytest.raises(PeerGone):
            gate.dup()
        with pytest.raises(PeerGone):
            gate.call(timeout=10)


def test_an_answer_that_was_given_before_the_end_still_arrives(start: Callable[..., Child]) -> None:
    def answers_and_ends(link: Link) -> None:
        with RegistryServer() as server:
            echo = Echo()
            link.give(server.registry.register_obj(echo))
            link.hear()
            while not echo.heard:
                server.step(None)
            os._exit(0)

    child = start(answers_and_ends)
    (gate,) = child.take()
    with gate:
        call = Background(lambda: gate.call(b"last")).wait_until_asleep_in(gate)
        child.say("go")
        child.end()
        assert call.join().data == b"last"
        with pytest.raises(PeerGone):
            gate.call()


def test_the_death_of_one_server_leaves_the_others(start: Callable[..., Child]) -> None:
    children = [start(serve) for _ in range(3)]
    gates: list[Gate] = [child.take()[0] for child in children]
    pids = [gate.call(label=2).data for gate in gates]
    children[1].kill()
    children[1].join()
    with pytest.raises(PeerGone):
        gates[1].call()
    assert [gate.call(label=2).data for gate in (gates[0], gates[2])] == [pids[0], pids[2]]
    for gate in gates:
        gate.close()
    wait_until(lambda: all("Z" in child.states() for child in children if child is not children[1]))
