"""L4Re's claims about namespaces, by their numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from l4re import (
    Channel,
    Err,
    Exists,
    InvalidArgument,
    Irq,
    L4Error,
    Namespace,
    NamespaceServer,
    NotFound,
    NsFlags,
    PermissionDenied,
    RegistryServer,
    Rights,
    TryAgain,
    env,
    new_channel,
)
from support.processes import Background, Echo, Running


@contextmanager
def served(*, rights: Rights = Rights.RWS) -> Iterator[tuple[RegistryServer, NamespaceServer, Namespace]]:
    """A namespace that a thread of this process serves, and a proxy with these rights."""
    channel = new_channel()
    with RegistryServer() as server, NamespaceServer() as names, channel:
        server.registry.register_obj(names, channel.svr)
        with channel.svr.mint(rights=rights) as gate, Running(server):
            yield server, names, Namespace(gate)


def live() -> Channel:
    """A gate behind which somebody could answer."""
    return new_channel()


def test_claim_89_what_was_registered_is_what_is_found() -> None:
    echo, memory = Echo(), env().mem_alloc.alloc(4096)
    with served() as (_, _, ns), memory, live() as (gate, svr):
        ns.register_obj("memory", memory)
        with ns.query("memory") as found:
            assert found == memory
        ns.register_obj("object", gate)
        with RegistryServer() as other:
            other.registry.register_obj(echo, svr)
            with Running(other), ns.query("object") as same:
                same.call(b"it is me")  # type: ignore[attr-defined]
    assert echo.heard == [b"it is me"]


def test_claim_90_a_name_that_was_never_registered_is_enoent_at_once() -> None:
    with served() as (_, _, ns):
        for timeout in (None, 0, 1000.0):
            with pytest.raises(NotFound) as error:
                ns.query("nothing", timeout=timeout)
            assert error.value.code == Err.ENOENT


def test_claim_91_a_name_without_an_object_is_eagain_or_waited_for() -> None:
    with served() as (_, names, ns), live() as (gate, _):
        ns.register_obj("later")
        with pytest.raises(TryAgain) as error:
            ns.query("later", timeout=0)
        assert error.value.code == Err.EAGAIN
        with pytest.raises(TryAgain):
            ns.query("later", timeout=0.01)
        waiting = Background(lambda: ns.query("later"))
        waiting.wait_until_asleep_in(ns.cap)  # type: ignore[arg-type]
        ns.register_obj("later", gate)
        waiting.join().close()
        assert names.waiting == 0


def test_claim_92_a_live_entry_is_eexist_unless_it_is_overwritten() -> None:
    with served() as (_, _, ns), live() as (gate, _), Irq.create() as irq:
        ns.register_obj("name", gate)
        with pytest.raises(Exists) as error:
            ns.register_obj("name", irq)
        assert error.value.code == Err.EEXIST
        ns.query("name").close()
        ns.register_obj("name", irq, NsFlags.RW | NsFlags.OVERWRITE)
        ns.query("name", Irq).close()


def test_claim_93_without_w_nothing_is_registered_or_unlinked_and_queries_work() -> None:
    with served(rights=Rights.RS) as (_, names, ns), live() as (gate, _):
        names.register("there", gate)
        with pytest.raises(PermissionDenied) as error:
            ns.register_obj("name", gate)
        assert error.value.code == Err.EPERM
        for name in ("there", "missing"):
            with pytest.raises(PermissionDenied) as error:
                ns.unlink(name)
            assert error.value.code == Err.EPERM
        ns.query("there").close()
        assert names.names == ("there",)


def test_claim_94_empty_names_slashes_and_negative_timeouts_are_einval() -> None:
    with served() as (_, _, ns), live() as (gate, _):
        for call in (
            lambda: ns.register_obj("", gate),
            lambda: ns.register_obj("a/b", gate),
            lambda: ns.query(""),
            lambda: ns.query("name", timeout=-1),
        ):
            with pytest.raises(InvalidArgument) as error:
                call()
            assert error.value.code == Err.EINVAL


def test_claim_95_a_capability_comes_with_the_rights_it_was_registered_with() -> None:
    with served() as (_, _, ns), live() as (gate, _):
        for flags, rights in ((NsFlags.RO, Rights.R), (NsFlags.RW, Rights.RW), (NsFlags.RWS, Rights.RWS)):
            ns.register_obj("gate", gate, flags | NsFlags.OVERWRITE)
            with ns.query("gate") as found:
                assert found.rights == rights


def test_claim_95_s_goes_through_gates_that_have_s() -> None:
    with served(rights=Rights.RW) as (_, names, ns), live() as (gate, _):
        names.register("with", gate, NsFlags.RWS)
        with ns.query("with") as found:
            assert found.rights == Rights.RW
        ns.register_obj("without", gate, NsFlags.RWS)
        assert [entry.rights for entry in ns.list()] == [Rights.RWS, Rights.RW]


def test_claim_96_a_path_is_walked_and_without_iterating_ends_at_the_first_stranger() -> None:
    with served() as (_, names, ns), served() as (_, inner, _), live() as (gate, _):
        inner.register("obj", gate)
        names.register("local", nested := NamespaceServer())
        nested.register("obj", gate)
        with ns.query("local/obj") as found:
            assert found.rights == Rights.RW
        whole = ns.query("local/obj", iterate=False)
        whole.cap.close()
        assert (whole.flags, whole.rest) == (NsFlags.NONE, "")
        with inner.obj_cap().mint() as foreign:  # type: ignore[attr-defined]
            ns.register_obj("dir", foreign)
        with ns.query("dir/obj") as found:
            assert found.rights == Rights.RW
        step = ns.query("dir/obj", iterate=False)
        with step.cap as cap:
            assert (step.flags, step.rest) == (NsFlags.PARTLY_RESOLVED, "obj")
            assert int(step.flags) == 0x20
            Namespace(cap).query("obj").close()
        nested.close()


def test_claim_97_unlinking_what_is_missing_is_enoent_and_what_was_unlinked_is_missing() -> None:
    with served() as (_, _, ns), live() as (gate, _):
        with pytest.raises(NotFound):
            ns.unlink("name")
        ns.register_obj("name", gate)
        ns.unlink("name")
        with pytest.raises(NotFound):
            ns.query("name")
        with pytest.raises(NotFound):
            ns.unlink("name")


def test_claim_98_a_destroyed_object_is_enoent_and_its_entry_gone() -> None:
    with served() as (_, names, ns):
        with RegistryServer() as other:
            with live() as (gate, svr):
                other.registry.register_obj(Echo(), svr)
                ns.register_obj("served", gate)
            ns.query("served").close()
        with pytest.raises(L4Error) as error:
            ns.query("served")
        assert error.value.code == Err.ENOENT
        assert names.names == ()
        with live() as (gate, svr):
            ns.register_obj("nobody", gate)
            svr.close()
            assert ns.list() == ()
            with env().mem_alloc.alloc(64) as memory:
                ns.register_obj("nobody", memory)  # a live entry would be EEXIST
