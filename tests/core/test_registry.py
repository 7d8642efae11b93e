"""The registry: what it takes, and what it says to what it does not take."""

from __future__ import annotations

from typing import Any

import pytest

from l4re import Env, Exists, InvalidArgument, IrqHandler, NotFound, RegistryServer, new_channel
from support.processes import Echo


class Silent(IrqHandler):
    def dispatch(self) -> None: ...


def test_a_name_is_registered_once() -> None:
    gate, svr = new_channel()
    with gate, Env({"shm": svr}) as env, RegistryServer(env=env) as server:
        server.registry.register_obj(Echo(), "shm")
        with pytest.raises(Exists, match="'shm' is registered already"):
            server.registry.register_obj(Echo(), "shm")
        gate.transact(0, b"", b"one way", oneway=True)
        assert server.step(None) >= 1


def test_an_unknown_name_is_told_what_names_there_are() -> None:
    gate, svr = new_channel()
    with gate, Env({"shm": svr, "log": gate}) as env, RegistryServer(env=env) as server:
        registry = server.registry
        with pytest.raises(NotFound, match=r"'shn'.*did you mean 'shm'.*'shm', 'log'"):
            registry.register_obj(Echo(), "shn")


def test_the_clients_side_cannot_be_served() -> None:
    gate, svr = new_channel()
    with svr, Env({"shm": gate}) as env, RegistryServer(env=env) as server:
        registry = server.registry
        with pytest.raises(InvalidArgument, match="not a receive right"):
            registry.register_obj(Echo(), "shm")


def test_an_object_and_a_handler_are_registered_once() -> None:
    obj, handler = Echo(), Silent()
    with RegistryServer() as server:
        server.registry.register_obj(obj)
        server.registry.register_irq_obj(handler)
        with pytest.raises(Exists, match="unregister it first"):
            server.registry.register_obj(obj)
        with pytest.raises(Exists, match="unregister it first"):
            server.registry.register_irq_obj(handler)
        server.registry.unregister_obj(obj)
        server.registry.unregister_obj(handler)
        server.registry.register_obj(obj)
        server.registry.register_irq_obj(handler)


@pytest.mark.parametrize("wrong", [object(), Echo, None])
def test_what_is_no_object_is_refused(wrong: Any) -> None:
    with RegistryServer() as server:
        with pytest.raises(TypeError, match="ServerObject or"):
            server.registry.register_obj(wrong)
        with pytest.raises(TypeError, match="IrqHandler"):
            server.registry.register_irq_obj(wrong)
