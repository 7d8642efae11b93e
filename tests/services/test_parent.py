"""A program tells its parent how it ends."""

from __future__ import annotations

import pytest

from l4re import NotImplementedByServer, OutOfRange, Parent, ParentServer, Proto, RegistryServer


class Listening(ParentServer):
    def __init__(self) -> None:
        self.heard: list[int] = []

    def exited(self, status: int) -> None:
        self.heard.append(status)


def test_signal_0_is_an_exit_status_and_others_are_not_looked_at() -> None:
    with RegistryServer() as server:
        listening = Listening()
        parent = Parent(server.registry.register_obj(listening))
        parent.signal(0, 7)
        parent.signal(15, 1)
        parent.signal(0, 2**64 - 1)
        assert listening.heard == [7, 2**64 - 1]
        with pytest.raises(OutOfRange):
            parent.signal(0, -1)
        with pytest.raises(NotImplementedByServer):
            parent.cap.call(bytes([1, 0, 0, 0, 0, 0, 0, 0]), label=Proto.PARENT)  # type: ignore[attr-defined]


def test_a_parent_that_does_nothing_answers() -> None:
    with RegistryServer() as server:
        Parent(server.registry.register_obj(ParentServer())).signal(0, 1)
