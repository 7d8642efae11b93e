"""l4re itself, through its public interface only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import ClassVar

import l4re
from l4re.cap import export_all, import_all

from ..wire import Wire
from . import hostile
from .base import (
    Allocates,
    Attackable,
    Caller,
    Copier,
    Copies,
    Frames,
    Grants,
    HandsOver,
    Listener,
    Mapper,
    Maps,
    Notifier,
    Notifies,
    Publisher,
    Spawns,
    nothing,
)

__all__ = ["Ours"]

#: Seconds until something must have happened.
_PATIENCE = 20.0
_SPAWNED = """import time
import l4re
gate = l4re.env().get_cap("gate", l4re.Gate)
answer = gate.call(b"first")
done = time.perf_counter_ns()
assert answer.data == b"first"
gate.call(done.to_bytes(8, "little"))
"""


class Adder(l4re.Interface):
    """The smallest typed interface worth measuring."""

    protocol = 0x6ADD

    @l4re.rpc
    def add(self, a: int, b: int) -> int:
        """Return the sum."""
        raise NotImplementedError


class AdderServer(Adder, l4re.Epiface):
    def add(self, a: int, b: int) -> int:
        return a + b


class Echo(l4re.ServerObject):
    """Answers with the bytes it got."""

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        ios.put(ios.data)
        return 0


class Granter(l4re.ServerObject):
    """Answers, and hands out capabilities when asked with label 1."""

    def __init__(self, caps: Sequence[l4re.Capability]) -> None:
        self._caps = caps

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        if ios.tag.label == 1:
            for cap in self._caps:
                ios << cap
        return 0


class Reader(l4re.ServerObject):
    """Looks into the dataspace it is sent, and answers with what it saw."""

    def __init__(self, look: Callable[[memoryview], int]) -> None:
        self._look = look
        self._attach = l4re.RegionMap().attach

    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        ds = ios.get(l4re.Dataspace)
        assert ds is not None
        region = self._attach(ds)
        with memoryview(region) as view:
            seen = self._look(view)
        region.detach()
        ds.close()
        return seen


def _hand_over(wire: Wire, cap: l4re.Capability) -> None:
    words, fds, exports = export_all((cap,))
    wire.send(words, fds)
    for export in exports:
        export.done()


def _take(wire: Wire) -> l4re.Capability:
    words, fds = wire.receive()
    (cap,) = import_all(words, fds)
    assert cap is not None
    return cap


def _gate(wire: Wire) -> l4re.Gate:
    cap = _take(wire)
    assert isinstance(cap, l4re.Gate)
    return cap


def _irq(wire: Wire) -> l4re.Irq:
    cap = _take(wire)
    assert isinstance(cap, l4re.Irq)
    return cap


class Ours(Attackable, Grants, Notifies, Allocates, Maps, HandsOver, Frames, Copies, Spawns):
    """Sessions, pipes and dataspaces of this package."""

    name = "l4re"
    connections = 1000
    any_size = True
    imports = "import l4re"
    grants: ClassVar[tuple[str, ...]] = ("dataspace", "irq", "gate")

    def serve(self, wires: Sequence[Wire], work: str) -> None:
        with l4re.RegistryServer() as server:
            gate = server.registry.register_obj(AdderServer() if work == "add" else Echo())
            for wire in wires:
                _hand_over(wire, gate)
            end = server.loop()
            assert end is l4re.LoopEnd.ORPHANED

    def connect(self, wire: Wire, work: str) -> Caller:
        gate = _gate(wire)
        if work == "add":
            adder = Adder(gate)
            adder.add(0, 0)  # the first call generates the method that is then bound
            return Caller(adder.add, lambda answer: answer, gate.close)
        return Caller(gate.call, lambda answer: answer.data, gate.close)

    def attack(self, wire: Wire, how: str, turns: Iterable[Callable[[], bool]]) -> Iterable[int]:
        with _gate(wire) as gate:
            yield from hostile.attacks(gate.fileno(), how, turns)

    def serve_grants(self, wire: Wire, what: str, count: int = 1) -> None:
        with l4re.RegistryServer() as server:
            if what == "dataspace":
                cap: l4re.Capability = l4re.MemAlloc().alloc(4096)
            elif what == "irq":
                cap = server.registry.register_irq_obj(Handler(nothing))
            else:
                cap = server.registry.register_obj(Echo())
            _hand_over(wire, server.registry.register_obj(Granter((cap,) * count)))
            server.loop()

    def connect_grants(self, wire: Wire, what: str, count: int = 1) -> Caller:
        gate = _gate(wire)
        kinds: dict[str, type[l4re.Capability]] = {"dataspace": l4re.Dataspace, "irq": l4re.Irq, "gate": l4re.Gate}

        def check(answer: l4re.Message) -> int:
            for cap in answer.caps:
                assert cap is not None
                assert isinstance(cap, kinds[what])
                cap.close()
            return len(answer.caps)

        call = gate.call
        return Caller(lambda granted: call(label=1 if granted else 0), check, gate.close)

    def listen(self, wire: Wire) -> Listener:
        server = l4re.RegistryServer()

        def begin(handler: Callable[[], None], done: Callable[[], bool]) -> None:
            def handle() -> None:
                handler()
                if done():
                    server.stop()

            _hand_over(wire, server.registry.register_irq_obj(Handler(handle)))

        def sleep(handler: Callable[[], None], done: Callable[[], bool]) -> None:
            begin(handler, done)
            server.loop()
            server.close()

        return Listener(sleep, sleep)  # it looks for a while before it sleeps

    def notifier(self, wire: Wire) -> Notifier:
        irq = _irq(wire)
        return Notifier(irq.trigger, irq.close)

    def cycle(self, size: int) -> Callable[[Callable[[memoryview], None]], None]:
        return self._cycle(l4re.MemAlloc(), size)

    def serve_allocator(self, wire: Wire) -> None:
        from l4re.moe import Services
        from l4re.testing import wait_until

        services = Services()
        with services.factory() as gate:
            _hand_over(wire, gate)
        with suppress(EOFError):
            wire.receive()  # nothing comes: the client has measured

        def given_back() -> bool:
            services.ledger.settle()
            return services.account.used == 0

        wait_until(given_back, 10, "all memory to be given back")
        services.close()

    def allocated(self, wire: Wire, size: int) -> Callable[[Callable[[memoryview], None]], None]:
        from l4re.services.mem_alloc import RemoteMemAlloc

        return self._cycle(RemoteMemAlloc(_gate(wire)), size)

    def _cycle(self, mem: l4re.MemAlloc, size: int) -> Callable[[Callable[[memoryview], None]], None]:
        alloc, attach = mem.alloc, l4re.RegionMap().attach

        def cycle(touch: Callable[[memoryview], None]) -> None:
            ds = alloc(size)
            region = attach(ds)
            with memoryview(region) as view:
                touch(view)
            region.detach()
            ds.close()

        return cycle

    areas = True

    def mapper(self, area: bool) -> Mapper:
        ds, rm = l4re.MemAlloc().alloc(4096), l4re.RegionMap()
        ds.write(0, b"\x07")
        attach = rm.reserve_area(20_000 * 4096).attach if area else rm.attach

        def look(region: l4re.Region) -> int:
            with memoryview(region) as view:
                return view[0]

        return Mapper(lambda: attach(ds), look, l4re.Region.detach, 7, lambda region: region.addr, rm.find, ds.close)

    def copier(self, size: int, fresh: bool) -> Copier:
        alloc = l4re.MemAlloc().alloc
        source, target = alloc(size), alloc(size)
        for ds in (source, target):
            ds.write(0, b"\1" * size)

        def mark(offsets: Sequence[int], value: int) -> None:
            for at in offsets:
                source.write(at, bytes((value,)))

        def copy() -> l4re.Dataspace:
            made = alloc(size) if fresh else target
            made.copy_in(0, source, 0, size)
            return made

        def sample(made: l4re.Dataspace, offsets: Sequence[int]) -> bytes:
            seen = b"".join(made.read(at, 1) for at in offsets)
            if fresh:
                made.close()
            return seen

        def close() -> None:
            source.close()
            target.close()

        return Copier(mark, copy, sample, close)

    def serve_memory(self, wire: Wire, look: Callable[[memoryview], int]) -> None:
        with l4re.RegistryServer() as server:
            _hand_over(wire, server.registry.register_obj(Reader(look)))
            server.loop()

    def connect_memory(self, wire: Wire, size: int) -> Caller:
        gate = _gate(wire)
        alloc, attach, hand_over = l4re.MemAlloc().alloc, l4re.RegionMap().attach, gate.call

        def call(touch: Callable[[memoryview], None]) -> l4re.Message:
            ds = alloc(size)
            region = attach(ds)
            with memoryview(region) as view:
                touch(view)
            answer = hand_over(caps=(ds,))
            region.detach()
            ds.close()
            return answer

        return Caller(call, lambda answer: answer.label, gate.close)

    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        ds = l4re.MemAlloc().alloc(size)
        for wire in wires:
            _hand_over(wire, ds.ro)
        triggers = [_irq(wire).trigger for wire in wires]

        def announce() -> None:
            for trigger in triggers:
                trigger()

        return Publisher(memoryview(l4re.RegionMap().attach(ds)), announce, ds.close)

    def subscribe(self, wire: Wire, size: int) -> Callable[[Callable[[memoryview], None], Callable[[], bool]], None]:
        ds = _take(wire)
        assert isinstance(ds, l4re.Dataspace)
        frame = memoryview(l4re.RegionMap().attach(ds))
        listener = self.listen(wire)
        return lambda handle, done: listener.sleep(lambda: handle(frame), done)

    def spawner(self) -> Callable[[], int]:
        heard: list[bytes] = []

        class Hears(Echo):
            def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
                heard.append(ios.data)
                return super().dispatch(rights, ios)

        server = l4re.RegistryServer()
        gate = server.registry.register_obj(Hears())

        def spawn() -> int:
            heard.clear()
            with l4re.spawn([sys.executable, "-c", _SPAWNED], caps={"gate": gate}) as task:
                while len(heard) < 2:
                    if not server.step(_PATIENCE):
                        raise AssertionError("the program does not call")
                task.wait(_PATIENCE)
            return int.from_bytes(heard[1], "little")

        return spawn


class Handler(l4re.IrqHandler):
    """Runs a function."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def dispatch(self) -> None:
        self._function()
