"""Namespaces: capabilities by name, in one process and across several."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import l4re
from l4re import (
    BadProtocol,
    Busy,
    Capability,
    Dataspace,
    Epiface,
    Err,
    Exists,
    Gate,
    Interface,
    InvalidArgument,
    Irq,
    IrqHandler,
    L4Error,
    LoopEnd,
    Namespace,
    NamespaceEntry,
    NamespaceServer,
    NotFound,
    NsFlags,
    OutOfMemory,
    PermissionDenied,
    Proto,
    RegistryServer,
    Rights,
    Semaphore,
    ServerError,
    TryAgain,
    WrongType,
    cap_dynamic_cast,
    describe,
    new_channel,
    rpc,
)
from l4re.interface import Answer, Served
from l4re.testing import wait_until
from support.processes import PATIENCE, Background, Child, Echo, Link, Running
from support.rawpeer import RawClient

Start = Callable[..., Child]


@contextmanager
def namespace(**limits: int) -> Iterator[tuple[NamespaceServer, Namespace]]:
    """A namespace that this thread serves when it calls, and a proxy for it."""
    with RegistryServer() as server, NamespaceServer(**limits) as names:
        yield names, Namespace(server.registry.register_obj(names))


@contextmanager
def served(**limits: int) -> Iterator[tuple[NamespaceServer, Namespace, RegistryServer]]:
    """The same in a thread of its own, where a query may wait."""
    channel = new_channel()
    with RegistryServer() as server, NamespaceServer(**limits) as names, channel:
        server.registry.register_obj(names, channel.svr)
        with Running(server):
            yield names, Namespace(channel.gate), server


def asked(names: NamespaceServer, ns: Namespace, name: str) -> Background:
    """A query in a thread of its own, which waits by now."""
    before = names.waiting
    query = Background(lambda: ns.query(name))
    wait_until(lambda: names.waiting == before + 1, PATIENCE, "the query to wait")
    return query


class Greeter(Interface):
    protocol = 0x4752

    @rpc
    def greet(self) -> str:
        raise NotImplementedError


class Polite(Greeter, Epiface):
    def greet(self) -> str:
        return "good day"


# ---- what can have a name ----


def test_any_capability_can_have_a_name() -> None:
    with (
        namespace() as (_, ns),
        l4re.env().mem_alloc.alloc(4096) as memory,
        Irq.create() as irq,
        Semaphore.create(1) as tokens,
        RegistryServer() as server,
    ):
        polite = Polite()
        server.registry.register_obj(polite)
        ns.register_obj("memory", memory)
        ns.register_obj("irq", irq)
        ns.register_obj("tokens", tokens, NsFlags.RWS)
        ns.register_obj("greeter", Greeter(polite.obj_cap()))
        with ns.query("memory", Dataspace) as found:
            found.write(0, b"shared")
            assert memory.read(0, 6) == b"shared"
        with ns.query("irq", Irq) as trigger:
            trigger.trigger()
            irq.receive(timeout=PATIENCE)
        with ns.query("tokens", Semaphore) as some:
            some.down(timeout=0)
        with ns.query("greeter", Greeter) as greeter, Running(server):
            assert greeter.greet() == "good day"
        assert [(each.name, each.kind) for each in ns.list()] == [
            ("greeter", "gate"),
            ("irq", "irq"),
            ("memory", "dataspace"),
            ("tokens", "semaphore"),
        ]


def test_what_is_registered_outlives_whoever_registered_it() -> None:
    with namespace() as (names, ns):
        with l4re.env().mem_alloc.alloc(4096) as memory:
            ns.register_obj("remote", memory)
            names.register("local", memory)
        for name in ("remote", "local"):
            ns.query(name).close()
        names.query("local").close()


def test_a_query_says_what_it_expects() -> None:
    with namespace() as (names, ns), Irq.create() as irq:
        names.register("irq", irq)
        with pytest.raises(WrongType, match="'irq' is a irq, not a dataspace"):
            ns.query("irq", Dataspace)


def test_a_receive_right_and_a_semaphore_without_use_have_no_name() -> None:
    with namespace() as (names, ns), Semaphore.create() as tokens, new_channel() as channel:
        for register in (ns.register_obj, names.register):
            with pytest.raises(InvalidArgument, match="receive right"):
                register("svr", channel.svr)
            assert not channel.svr.closed
            with pytest.raises(InvalidArgument, match="would be none"):
                register("tokens", tokens, NsFlags.RO)
            with pytest.raises(InvalidArgument, match="0x100"):
                register("link", None, NsFlags(0x104))
        assert names.names == ()


def test_read_only_memory_stays_read_only() -> None:
    with namespace() as (names, ns), l4re.env().mem_alloc.alloc(4096) as memory:
        names.register("memory", memory, NsFlags.RO)
        with ns.query("memory", Dataspace) as found, pytest.raises(L4Error):
            found.write(0, b"no")
        with names.query("memory") as own:
            assert own.rights & Rights.W


def test_the_namespace_gets_no_more_than_it_hands_out() -> None:
    with namespace() as (names, ns), l4re.env().mem_alloc.alloc(4096, flags=l4re.MemAllocFlags.SEALABLE) as memory:
        ns.register_obj("memory", memory, NsFlags.RO)
        with names.query("memory") as held:
            assert held.rights == Rights.R
        memory.freeze()  # which memory that was handed out for writing cannot be
        with (
            pytest.raises(PermissionDenied, match="SEALABLE"),
            l4re.env().mem_alloc.alloc(4096, flags=l4re.MemAllocFlags.SEALABLE) as other,
        ):
            ns.register_obj("other", other)


def test_it_answers_meta() -> None:
    with namespace() as (_, ns):
        assert cap_dynamic_cast(ns.cap, Namespace) == ns
        assert describe(ns).protocols[0].name == "Namespace"
        with pytest.raises(BadProtocol):
            ns.cap.call(b"", label=Proto.FACTORY)  # type: ignore[attr-defined]


# ---- paths ----


def test_namespaces_of_one_process_are_walked_by_their_server() -> None:
    with namespace() as (names, ns), NamespaceServer() as a, NamespaceServer() as b, Irq.create() as irq:
        names.register("a", a)
        a.register("b", b)
        b.register("irq", irq)
        b.register("up", names)  # a circle
        for path in ("a/b/irq", "a/b/up/a/b/irq"):
            ns.query(path, Irq).close()
            names.query(path).close()
        with pytest.raises(NotFound, match="no 'x' in this namespace; there is 'irq', 'up'"):
            ns.query("a/b/x")
        assert [(each.name, each.kind) for each in ns.list()] == [("a", "namespace")]


def test_a_namespace_inside_is_handed_out_as_a_whole() -> None:
    with served() as (names, ns, _), NamespaceServer() as inner, Irq.create() as irq:
        names.register("inner", inner, NsFlags.RO)
        inner.register("irq", irq)
        with ns.query("inner", Namespace) as found:
            assert found.cap.rights == Rights.R
            found.query("irq").close()
            with pytest.raises(PermissionDenied):
                found.unlink("irq")
        with ns.query("inner", Namespace) as again:
            again.query("irq").close()


def test_a_capability_to_a_namespace_of_this_process_is_walked_too() -> None:
    with RegistryServer() as server, NamespaceServer() as outer, NamespaceServer() as inner, Irq.create() as irq:
        ns = Namespace(server.registry.register_obj(outer))
        outer.register("inner", Namespace(server.registry.register_obj(inner)))
        inner.register("irq", irq)
        assert ns.query("inner/irq", iterate=False).rest == ""
        assert ns.list() == (NamespaceEntry("inner", "namespace", Rights.RW),)


def test_what_is_no_namespace_has_nothing_inside() -> None:
    with namespace() as (names, ns), l4re.env().mem_alloc.alloc(64) as memory:
        names.register("memory", memory)
        for query in (ns.query, names.query):
            with pytest.raises(L4Error, match="cannot be looked up") as error:
                query("memory/x")
            assert error.value.code == Err.ENOTDIR


@pytest.mark.parametrize("path", ["/", "a/", "/a", "a//b", "a\0b"])
def test_a_path_with_an_empty_name_is_einval(path: str) -> None:
    with namespace() as (names, ns):
        for query in (ns.query, names.query):
            with pytest.raises(InvalidArgument):
                query(path)


def test_a_name_has_at_most_255_bytes() -> None:
    with namespace() as (names, ns), Irq.create() as irq:
        ns.register_obj("ä" * 127, irq)
        ns.query("ä" * 127).close()
        for register in (ns.register_obj, names.register):
            with pytest.raises(L4Error, match="256") as error:
                register("a" * 256, irq)
            assert error.value.code == Err.ENAMETOOLONG
        with pytest.raises(L4Error, match="does not fit") as error:
            ns.query("/".join("a" * 300))
        assert error.value.code == Err.ENAMETOOLONG


class Liar(Served):
    """A namespace that answers anything."""

    def __init__(self, label: int, words: bytes, *caps: Capability | None) -> None:
        self.answer: Answer = (label, words, b"", caps)

    def serve_request(self, *_request: Any) -> Answer:
        return self.answer


def rest(name: bytes) -> bytes:
    return struct.pack("=iIQ", 0, 0, len(name)) + name + bytes(-len(name) % 8)


@pytest.mark.parametrize("words", [b"", rest(b""), rest(b"a/b"), rest(b"b/a"), rest(b"\xff"), rest(b"b")[:16]])
def test_a_namespace_that_leads_in_circles_is_not_followed(words: bytes) -> None:
    with Irq.create() as irq, RegistryServer() as server:
        ns = Namespace(server.registry.register_obj(Liar(0x20, words, irq)))
        with pytest.raises(ServerError, match="makes no sense"):
            ns.query("a/b")


def test_an_answer_without_a_capability_makes_no_sense() -> None:
    with Irq.create() as irq, RegistryServer() as server:
        for caps in ((), (None,), (irq, irq)):
            ns = Namespace(server.registry.register_obj(Liar(0, b"", *caps)))
            with pytest.raises(ServerError, match="makes no sense"):
                ns.query("a")


# ---- waiting ----


def test_who_waits_is_answered_by_whoever_fills_the_name() -> None:
    with served() as (names, ns, _), Irq.create() as irq:
        names.register("there")
        waiting = [asked(names, ns, "there") for _ in range(3)]
        assert names.waiting == 3
        names.register("there", irq)  # from this thread, while the loop runs in another
        for each in waiting:
            each.join().close()
        ns.register_obj("here")
        query = asked(names, ns, "here")
        ns.register_obj("here", irq)  # from another client
        query.join().close()


def test_an_unlinked_name_is_enoent_for_those_who_wait() -> None:
    with served() as (names, ns, _):
        names.register("there")
        query = asked(names, ns, "there")
        names.register("there", None, NsFlags.RW | NsFlags.OVERWRITE)  # still empty
        assert names.waiting == 1
        names.unlink("there")
        with pytest.raises(NotFound):
            query.join()


def test_a_path_is_waited_for_name_by_name() -> None:
    with served() as (names, ns, _), NamespaceServer() as inner, Irq.create() as irq:
        names.register("dir")
        inner.register("irq")
        query = asked(names, ns, "dir/irq")
        names.register("dir", inner)
        wait_until(lambda: inner.waiting == 1, PATIENCE, "the query to wait inside")
        inner.register("irq", irq)
        query.join().close()


def test_closing_a_namespace_ends_every_wait() -> None:
    with served() as (names, ns, server):
        names.register("there")
        query = asked(names, ns, "there")
        names.close()
        with pytest.raises(NotFound):
            query.join()
        names.register("again")
        query = asked(names, ns, "again")
        server.stop()
    with pytest.raises(L4Error):
        query.join()


def test_the_thread_that_serves_cannot_wait_for_itself() -> None:
    with namespace() as (names, ns):
        names.register("there")
        with pytest.raises(TryAgain, match="cannot be waited for"):
            ns.query("there")
        with pytest.raises(TryAgain):
            names.query("there")


def test_a_wait_ends_with_the_time_of_the_query_or_of_the_proxy() -> None:
    with served() as (names, ns, _):
        names.register("there")
        with pytest.raises(TryAgain):
            ns.query("there", timeout=0.01)
        with pytest.raises(l4re.IpcTimeout):
            ns.within(0.01).query("there")
        wait_until(lambda: names.waiting == 0, PATIENCE, "the queries to be forgotten")


def test_a_namespace_of_upstream_lets_nobody_wait() -> None:
    class Upstream(Served):
        def serve_request(self, _rights: int, _label: int, words: bytes, *_rest: Any) -> Answer:
            return -(Err.EAGAIN if words[:4] == bytes(4) else Err.ENOSYS), b"", b"", ()

    with RegistryServer() as server:
        ns = Namespace(server.registry.register_obj(Upstream()))
        with pytest.raises(TryAgain, match="lets nobody wait"):
            ns.query("there")


# ---- limits ----


def test_it_takes_as_many_names_as_it_was_told_and_forgets_the_dead_first() -> None:
    with namespace(entries=2) as (names, ns), Irq.create() as irq:
        with new_channel() as channel:
            ns.register_obj("a", channel.gate)
        ns.register_obj("b", irq)
        ns.register_obj("c", irq)
        with pytest.raises(OutOfMemory, match="2 names, its limit"):
            ns.register_obj("d", irq)
        ns.register_obj("c", irq, NsFlags.RW | NsFlags.OVERWRITE)
        assert names.names == ("b", "c")


def test_only_so_many_queries_wait() -> None:
    with served(waiting=1) as (names, ns, _), Irq.create() as irq:
        names.register("there")
        query = asked(names, ns, "there")
        with pytest.raises(Busy, match="1 queries wait"):
            ns.query("there")
        names.register("there", irq)
        query.join().close()


def test_a_long_list_comes_in_parts() -> None:
    with namespace() as (names, ns):
        wanted = sorted(f"{number}-" + "n" * 200 for number in range(1000))
        for name in wanted:
            names.register(name)
        assert [each.name for each in ns.list()] == wanted
        assert {(each.kind, each.rights) for each in ns.list()} == {("", Rights.RW)}


def test_an_error_names_a_few_of_many() -> None:
    with namespace() as (names, ns):
        for number in range(20):
            names.register(str(number))
        with pytest.raises(NotFound, match="and 12 more"):
            ns.query("x")


# ---- what the program has ----


def test_names_of_what_is_served_here_keep_no_loop_from_ending() -> None:
    class Handler(IrqHandler):
        def dispatch(self) -> None:
            pass

    channel = new_channel()
    with RegistryServer() as server, NamespaceServer() as names:
        server.registry.register_obj(names, channel.svr)
        polite = Polite()
        server.registry.register_obj(polite)
        irq = server.registry.register_irq_obj(Handler())
        names.register("polite", polite)
        names.register("irq", irq)
        with Running(server) as loop:
            with channel.gate as gate:
                ns = Namespace(gate)
                with ns.query("polite", Greeter) as greeter, ns.query("irq", Irq) as trigger:
                    assert greeter.greet() == "good day"
                    trigger.trigger()
            assert loop.join() is LoopEnd.ORPHANED


def test_what_is_unregistered_here_has_no_name_any_more() -> None:
    class Handler(IrqHandler):
        def dispatch(self) -> None:
            pass

    with RegistryServer() as server, NamespaceServer() as names:
        ns = Namespace(server.registry.register_obj(names))
        polite, handler = Polite(), Handler()
        names.register("polite", server.registry.register_obj(polite))
        names.register("irq", server.registry.register_irq_obj(handler))
        ns.query("polite").close()
        assert names.names == ("irq", "polite")
        server.registry.unregister_obj(polite)
        server.registry.unregister_obj(handler)
        with pytest.raises(NotFound):
            ns.query("polite")
        assert names.names == ()


def test_a_namespace_with_workers_and_many_threads() -> None:
    channel = new_channel()
    with RegistryServer(workers=3) as server, NamespaceServer() as names, channel, Irq.create() as irq:
        server.registry.register_obj(names, channel.svr)
        ns = Namespace(channel.gate)
        with Running(server):

            def work(number: int) -> None:
                for turn in range(20):
                    name = f"{number}-{turn}"
                    ns.register_obj(name)
                    names.register(name, irq)
                    ns.query(name).close()
                    ns.unlink(name)

            works = [Background(lambda number=number: work(number)) for number in range(4)]  # type: ignore[misc]
            for each in works:
                each.join()
        assert names.names == ()


def test_overwriting_closes_what_was_there() -> None:
    with namespace() as (names, _), Irq.create() as irq:
        names.register("irq", irq)
        names.register("irq", None, NsFlags.RW | NsFlags.OVERWRITE)
        with pytest.raises(l4re.PeerGone):
            irq.receive(timeout=0)  # the only holder was the namespace


# ---- any request at all ----


def words(op: int, name: bytes, flags: int = 0) -> bytes:
    return struct.pack("=iIQ", op, flags, len(name)) + name + bytes(-len(name) % 8)


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (b"", Err.EMSGTOOSHORT),
        (struct.pack("=q", 0), Err.EMSGTOOSHORT),
        (struct.pack("=qq", 0, 9), Err.EMSGTOOSHORT),
        (struct.pack("=qQ", 0, 1 << 63), Err.EMSGTOOSHORT),
        (words(0, b""), Err.EINVAL),
        (words(0, b"\xff"), Err.EINVAL),
        (words(0x100, b"a/"), Err.EINVAL),
        (words(1, b"a/b"), Err.EINVAL),
        (words(1, b"a", 0x40), Err.EINVAL),
        (words(1, b"a" * 256, 5), Err.ENAMETOOLONG),
        (words(2, b"a"), Err.ENOSYS),
        (words(3, b"a"), Err.ENOENT),
        (words(0x101, b""), Err.EMSGTOOSHORT),
    ],
)
def test_what_is_no_request_is_answered_with_an_error(request_: bytes, error: Err) -> None:
    with namespace() as (_, ns):
        label, _, data, _ = ns._l4_transact(Proto.NAMESPACE, request_)
        assert label == -error
        assert data


@given(st.binary(max_size=64), st.integers(0, 3))
def test_any_words_at_all_are_answered_or_refused(data: bytes, rights: int) -> None:
    with namespace() as (names, _):
        try:
            names.serve_request(rights, Proto.NAMESPACE, data, b"", ())
        except L4Error:
            pass
        assert len(names.names) <= 1


def test_whoever_breaks_the_protocol_while_it_waits_hurts_nobody() -> None:
    with served() as (names, ns, server), Irq.create() as irq:
        names.register("there")
        port: Any = ns.cap
        with RawClient(port.fileno()) as gone, RawClient(port.fileno()) as broken, RawClient(port.fileno()) as honest:
            for client in (gone, broken, honest):
                client.post(Proto.NAMESPACE, words(0x100, b"there"))
            wait_until(lambda: names.waiting == 3, PATIENCE, "all to wait")
            gone.close()
            broken.page.set_state(77, 1)
            broken.ring()
            names.register("there", irq)
            answer = honest.answer()
            assert answer is not None
            head, _, _, fds = answer
            assert (head.label, len(fds)) == (0, 2)
            for fd in fds:
                os.close(fd)
        ns.query("there").close()
        assert server.stats().deferred == 0


def test_a_request_with_more_capabilities_than_a_name_has_is_refused() -> None:
    with namespace() as (names, ns), Irq.create() as irq:
        label, _, data, _ = ns._l4_transact(Proto.NAMESPACE, words(1, b"a", 5), b"", (irq, irq))
        assert label == -Err.EINVAL
        assert b"one object, not 2" in data
        assert names.names == ()


_NAMES = st.sampled_from(["a", "b", "c"])


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(["register", "reserve", "overwrite", "unlink", "query"]), _NAMES)))
def test_it_is_a_dictionary_with_holes(steps: list[tuple[str, str]]) -> None:
    model: dict[str, bool] = {}
    with namespace() as (names, ns), Irq.create() as irq:
        for step, name in steps:
            error: type[L4Error] | None = None
            try:
                match step:
                    case "register" | "reserve":
                        ns.register_obj(name, irq if step == "register" else None)
                    case "overwrite":
                        ns.register_obj(name, irq, NsFlags.RW | NsFlags.OVERWRITE)
                    case "unlink":
                        ns.unlink(name)
                    case "query":
                        ns.query(name, timeout=0).close()
            except L4Error as raised:
                error = type(raised)
            match step:
                case "register" | "reserve":
                    assert error is (Exists if model.get(name) else None)
                    model[name] = model.get(name) or step == "register"
                case "overwrite":
                    assert error is None
                    model[name] = True
                case "unlink":
                    assert error is (None if model.pop(name, None) is not None else NotFound)
                case "query":
                    assert error is {None: NotFound, False: TryAgain, True: None}[model.get(name)]
            assert names.names == tuple(sorted(model))


# ---- processes ----


@pytest.mark.processes
def test_one_process_registers_and_another_finds(start: Start) -> None:
    def provider(link: Link) -> None:
        (gate,) = link.take()
        with RegistryServer() as server:
            link.hear()
            Namespace(gate).register_obj("greeter", server.registry.register_obj(Polite()))
            gate.close()
            link.say(server.loop().name)

    def user(link: Link) -> None:
        (gate,) = link.take()
        with Namespace(gate) as ns, ns.query("greeter", Greeter) as greeter:
            link.say(greeter.greet())
            link.hear()

    one, other = start(provider), start(user)
    with RegistryServer() as server, NamespaceServer() as names:
        names.register("greeter")
        gate = server.registry.register_obj(names)
        one.give(gate)
        other.give(gate)
        with Running(server):
            wait_until(lambda: names.waiting == 1, PATIENCE, "the user to wait")
            one.say("go")
            assert other.hear() == "good day"
            other.say("enough")
            other.end()
            names.unlink("greeter")  # the namespace was its last holder
            assert one.hear() == "ORPHANED"
            one.end()


@pytest.mark.processes
def test_who_is_killed_while_it_waits_is_forgotten(start: Start) -> None:
    def user(link: Link) -> None:
        (gate,) = link.take()
        Namespace(gate).query("there")

    children = [start(user) for _ in range(3)]
    with RegistryServer() as server, NamespaceServer() as names, Irq.create() as irq:
        names.register("there")
        gate = server.registry.register_obj(names)
        for child in children:
            child.give(gate)
        with Running(server) as loop:
            wait_until(lambda: names.waiting == 3, PATIENCE, "all to wait")
            for child in children[:2]:
                child.kill()
                child.join()
            wait_until(lambda: names.waiting == 1, PATIENCE, "the dead to be forgotten")
            names.register("there", irq)
            children[2].end()
            assert loop.join() is LoopEnd.ORPHANED


@pytest.mark.processes
def test_an_object_whose_server_is_killed_is_no_more(start: Start) -> None:
    def provider(link: Link) -> None:
        (gate,) = link.take()
        with RegistryServer() as server, Irq.create() as irq:
            ns = Namespace(gate)
            ns.register_obj("echo", server.registry.register_obj(Echo()))
            ns.register_obj("irq", irq)
            link.say("ready")
            server.loop()

    child = start(provider)
    with RegistryServer() as server, NamespaceServer() as names:
        gate = server.registry.register_obj(names)
        child.give(gate)
        with Running(server):
            assert child.hear() == "ready"
            assert names.names == ("echo", "irq")
            names.query("echo").close()
            child.kill()
            child.join()
            with pytest.raises(NotFound):
                Namespace(gate).query("echo")
            assert names.names == ()


@pytest.mark.processes
def test_who_waits_learns_that_the_server_was_killed(start: Start) -> None:
    def server(link: Link) -> None:
        (svr,) = link.take()
        with RegistryServer() as loop, NamespaceServer() as names:
            names.register("there")
            loop.registry.register_obj(names, svr)
            loop.loop()

    child = start(server)
    channel = new_channel()
    child.give(channel.svr)
    with channel.gate as gate:
        query = Background(lambda: Namespace(gate).query("there")).wait_until_asleep_in(gate)
        child.kill()
        with pytest.raises(l4re.PeerGone):
            query.join()


@pytest.mark.processes
def test_a_foreign_namespace_is_asked_in_its_own_process(start: Start) -> None:
    def server(link: Link) -> None:
        (gate,) = link.take()
        with RegistryServer() as loop, NamespaceServer() as names, Irq.create() as irq:
            names.register("later")
            inner = loop.registry.register_obj(names)
            Namespace(gate).register_obj("dir", inner)
            gate.close()
            with Running(loop) as running:
                wait_until(lambda: names.waiting == 1, PATIENCE, "somebody to wait")
                names.register("later", irq)
                irq.receive(timeout=PATIENCE)
                names.unlink("later")
                running.join()

    child = start(server)
    with served() as (names, ns, _):
        child.give(ns.cap)
        wait_until(lambda: "dir" in names.names, PATIENCE, "the namespace to be there")
        with ns.query("dir/later", Irq) as irq:
            irq.trigger()
        names.close()
        child.end()


def test_the_kind_of_a_gate_is_not_asked() -> None:
    with namespace() as (names, ns), new_channel() as channel:
        names.register("gate", channel.gate)
        with ns.query("gate", Greeter) as proxy:
            assert isinstance(proxy.cap, Gate)
