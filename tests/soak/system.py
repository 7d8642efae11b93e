"""Eight programs that do everything there is to do with memory and capabilities, and are killed while they do it.

``system.py SECONDS WORKERS SEED`` starts them as the root of a run does, each with a factory on a common account and
an exchange through which they hand each other what they made. It kills one now and then, and starts another. In the
end it holds what it held in the beginning, and the account is empty; it prints one line of JSON and ends with 0.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import random
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import l4re
from l4re.boot import Grant, find_command
from l4re.log import Console, Tag
from l4re.moe import Root
from l4re.testing import holdings, wait_until

HERE = Path(__file__)
PAGE = 4096
#: In front of memory that its maker has finished: what the rest is filled with.
STAMP = struct.Struct("<8sQ")
MAGIC = b"finished"
QUOTA = 96 << 20
#: What no operation here takes, unless something hangs.
STUCK = 60.0


class Exchange(l4re.Interface):
    """Where the programs leave things for each other."""

    protocol = 0x50AC

    @l4re.rpc
    def put(self, cap: l4re.Capability) -> bool:
        """Leave something for anybody; returns whether to go on."""
        raise NotImplementedError

    @l4re.rpc
    def take(self) -> l4re.Capability | None:
        """Take something that was left."""
        raise NotImplementedError

    @l4re.rpc
    def failed(self, text: str) -> None:
        """Say what must not happen."""
        raise NotImplementedError


class Shelf(Exchange, l4re.Epiface):
    """Keeps some of what was left, and gives it to whoever comes."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.kept: list[l4re.Capability] = []
        self.wrong: list[str] = []
        self.handed = 0
        self.closing = False

    def put(self, cap: l4re.Capability) -> bool:
        self.kept.append(cap)
        if len(self.kept) > 24:
            self.kept.pop(self.chance.randrange(len(self.kept))).close()
        return not self.closing

    def take(self) -> l4re.Capability | None:
        self.handed += 1
        if not self.kept:
            return None
        one = self.chance.choice(self.kept)
        if one.closed:
            self.kept.remove(one)
            return None
        return one

    def failed(self, text: str) -> None:
        self.wrong.append(text)

    def clear(self) -> None:
        for cap in self.kept:
            cap.close()
        self.kept.clear()


# ---- one program ----


class Echo(l4re.Interface):
    protocol = 0x50AD

    @l4re.rpc
    def echo(self, data: bytes) -> bytes:
        raise NotImplementedError

    @l4re.rpc
    def share(self, ds: Annotated[l4re.Dataspace, l4re.Rights.R]) -> l4re.Irq:
        raise NotImplementedError


class EchoServer(Echo, l4re.Epiface):
    def __init__(self, program: Program) -> None:
        self.program = program

    def echo(self, data: bytes) -> bytes:
        return data[::-1]

    def share(self, ds: l4re.Dataspace) -> l4re.Irq:
        self.program.read(ds)
        return self.program.irq


class Program:
    """Random operations; every error that is not one of ours is a failure."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.env = l4re.env()
        self.exchange = self.env.get_cap("exchange", Exchange)
        self.mine: list[l4re.Dataspace] = []
        self.regions: list[l4re.Region] = []
        self.areas: list[l4re.Area] = []
        self.found: list[l4re.Capability] = []
        self.irq = self.env.factory.create_irq()
        self.server = l4re.RegistryServer()
        self.gate = self.server.registry.register_obj(EchoServer(self))
        self.going = True

    def run(self) -> None:
        operations: list[Callable[[], object]] = [
            *(self.make, self.make, self.attach, self.attach, self.fill, self.copy, self.drop, self.drop),
            *(
                self.finish,
                self.give,
                self.give,
                self.take,
                self.take,
                self.use,
                self.use,
                self.serve,
                self.sub_factory,
            ),
            *(self.channel, self.semaphore),
        ]
        while self.going:
            operation = self.chance.choice(operations)
            try:
                operation()
            except (l4re.L4Error, BufferError) as error:
                if isinstance(error, l4re.ServerError):
                    raise

    def any_of(self, things: list[l4re.Dataspace]) -> l4re.Dataspace | None:
        return self.chance.choice(things) if things else None

    def make(self) -> None:
        size = self.chance.choice((1, PAGE, 3 * PAGE + 5, 64 * PAGE, 1 << 20, 8 << 20, 64 << 20))
        flags = self.chance.choice((0, 0, 0, l4re.MemAlloc.F.PINNED, l4re.MemAlloc.F.SEALABLE))
        self.mine.append(self.env.mem_alloc.alloc(size, flags=flags, name="soak"))
        if len(self.mine) > 12:
            self.mine.pop(0).close()

    def attach(self) -> None:
        ds = self.any_of(self.mine)
        if ds is not None:
            pages = -(-ds.size // PAGE)
            offset = self.chance.randrange(pages) * PAGE
            self.regions.append(self.env.rm.attach(ds, offset=offset))

    def area(self) -> None:
        """Keep a range of addresses, attach in it, give it up."""
        if len(self.areas) > 3:
            self.areas.pop(0).detach()
        if not self.areas or self.chance.random() < 0.3:
            self.areas.append(self.env.rm.reserve_area(256 * PAGE))
        ds = self.any_of(self.mine)
        if ds is not None:
            self.regions.append(self.chance.choice(self.areas).attach(ds, size=min(ds.size, 16 * PAGE)))

    def private(self) -> None:
        """Write to a copy: nobody else sees it."""
        ds = self.any_of(self.mine)
        if ds is None:
            return
        before = ds.read(0, 1)
        flags = l4re.RegionMap.F.RW | l4re.RegionMap.F.PRIVATE
        with self.env.rm.attach(ds, size=1, flags=flags) as region, memoryview(region) as view:
            view[0] ^= 0xFF
            if ds.enforcement == "sealed" and ds.read(0, 1) != before:
                raise AssertionError("what was written to a private region shows in the dataspace")

    def cut(self) -> None:
        """Detach some pages of a region, or of two."""
        if self.regions:
            region = self.chance.choice(self.regions)
            if region.mapped:
                pages = region.mapped_size // PAGE
                first = self.chance.randrange(pages)
                self.env.rm.detach_range(region.addr + first * PAGE, self.chance.randint(1, pages) * PAGE)
        for each in self.env.rm.regions():  # what is left behind a hole belongs to nobody but the map
            if len(self.regions) > 40 and self.chance.random() < 0.5:
                each.detach()
        self.regions = [region for region in self.regions if region.mapped]

    def namespace(self) -> None:
        gate = self.env.user_factory.create(l4re.Proto.NAMESPACE)
        assert isinstance(gate, l4re.Gate)
        with gate:
            names = l4re.Namespace(gate).within(STUCK)
            names.register_obj("irq", self.irq)
            names.register_obj("later")
            for ds in self.mine[:3]:
                names.register_obj(f"memory-{id(ds)}", ds.ro)
            names.query("irq").close()
            if "irq" not in {entry.name for entry in names.list()}:
                raise AssertionError("a namespace lost a name")
            if self.chance.random() < 0.3:
                self.going = self.exchange.within(STUCK).put(gate)

    def log(self) -> None:
        gate = self.env.user_factory.create(l4re.Proto.LOG, "soak")
        assert isinstance(gate, l4re.Gate)
        with gate:
            l4re.Vcon(gate).write("a line\n" if self.chance.random() < 0.05 else "")

    def fill(self) -> None:
        ds = self.any_of(self.mine)
        if ds is not None and ds.size >= STAMP.size and ds.rights & l4re.Rights.W:
            ds.write(self.chance.randrange(ds.size), b"x" * min(100, ds.size))

    def copy(self) -> None:
        one, other = self.any_of(self.mine), self.any_of(self.mine)
        if one is not None and other is not None:
            one.copy_in(0, other, 0, min(one.size, other.size))

    def drop(self) -> None:
        for things in (self.mine, self.regions, self.found):
            if len(things) > self.chance.randrange(12):
                thing = things.pop(self.chance.randrange(len(things)))
                if isinstance(thing, l4re.Region):
                    thing.detach()
                else:
                    thing.close()

    def finish(self) -> None:
        """Fill memory with one word, stamp it, freeze it."""
        ds = self.any_of(self.mine)
        if ds is None or not STAMP.size <= ds.size <= 64 * PAGE:
            return
        word = self.chance.getrandbits(64)
        body = struct.pack("<Q", word) * (ds.size // 8)
        ds.write(0, body[: ds.size])
        ds.write(0, STAMP.pack(MAGIC, word))
        ds.freeze()

    def read(self, ds: l4re.Dataspace) -> None:
        """What was finished reads as it was written, whoever wrote it and whatever became of them."""
        if ds.size < STAMP.size or ds.enforcement != "sealed":
            return
        with self.env.rm.attach(ds, flags=l4re.RegionMap.F.R) as region:
            data = bytes(region)
        magic, word = STAMP.unpack_from(data)
        if magic == MAGIC:
            expected = (struct.pack("<Q", word) * (ds.size // 8))[STAMP.size :]
            if data[STAMP.size : len(expected) + STAMP.size] != expected:
                raise AssertionError(f"{ds!r} does not hold what was written before it was frozen")

    def give(self) -> None:
        ds = self.any_of(self.mine)
        cap: l4re.Capability | None = self.chance.choice((ds, None if ds is None else ds.ro, self.irq, self.gate))
        if cap is not None:
            self.going = self.exchange.within(STUCK).put(cap)

    def take(self) -> None:
        found = self.exchange.within(STUCK).take()
        if found is not None:
            self.found.append(found)
        if len(self.found) > 8:
            self.found.pop(0).close()

    def use(self) -> None:
        if not self.found:
            return
        cap = self.chance.choice(self.found)
        match cap:
            case l4re.Dataspace():
                self.read(cap)
            case l4re.Irq():
                cap.trigger()
            case l4re.Semaphore():
                cap.up() if self.chance.random() < 0.5 else cap.down(timeout=0)
            case l4re.Gate():
                echo = Echo(cap).within(0.05)
                if self.chance.random() < 0.5 or not self.mine:
                    data = self.chance.randbytes(self.chance.choice((0, 10, 5000)))
                    if echo.echo(data) != data[::-1]:
                        raise AssertionError("a wrong answer")
                else:
                    with echo.share(self.chance.choice(self.mine)) as irq:
                        irq.trigger()

    def serve(self) -> None:
        self.server.step(0.005)
        try:
            self.irq.receive(timeout=0)
        except l4re.PeerGone:
            self.irq.close()
            self.irq = self.env.factory.create_irq()

    def sub_factory(self) -> None:
        factory = self.env.user_factory.create(l4re.Proto.FACTORY, self.chance.choice((PAGE, 1 << 20, 1 << 30)))
        assert isinstance(factory, l4re.Gate)
        with factory:
            made = l4re.Factory(factory).create(l4re.Proto.DATASPACE, self.chance.choice((1, PAGE, 1 << 20)))
            if isinstance(made, l4re.Dataspace) and self.chance.random() < 0.7:
                self.mine.append(made)
            else:
                made.close()

    def channel(self) -> None:
        channel = self.env.factory.create_gate()
        with channel.gate, channel.svr:
            self.going = self.exchange.within(STUCK).put(self.chance.choice((channel.gate, channel.svr.dup())))

    def semaphore(self) -> None:
        with self.env.factory.create_semaphore(2) as semaphore:
            self.going = self.exchange.within(STUCK).put(semaphore)


def work(seed: int) -> None:
    faulthandler.dump_traceback_later(2 * STUCK, exit=True)
    program = Program(seed)
    try:
        program.run()
    except l4re.PeerGone:
        pass  # the exchange is gone: the run is over
    except Exception as error:
        import traceback

        program.exchange.failed(f"seed {seed}: {''.join(traceback.format_exception(error))}")
        raise


# ---- the root ----


def main(seconds: float, workers: int, seed: int) -> int:
    logging.basicConfig(level=logging.ERROR)
    chance = random.Random(seed)
    command = find_command([sys.executable, str(HERE), "work"], os.environ)
    began = killed = 0
    with Root(Console(sys.stderr), quota=QUOTA) as root, l4re.RegistryServer() as server:
        root.services.factory().close()
        shelf = Shelf(chance)
        gate = server.registry.register_obj(shelf)
        nothing = find_command([sys.executable, "-c", ""], os.environ)
        root.wait(root.start(nothing, grants={}, env=dict(os.environ), log=Tag("soak")))
        server.step(0)
        before = holdings()
        tasks: list[l4re.Task] = []
        until = time.monotonic() + seconds
        next_kill = 0.0
        while tasks or not shelf.closing:
            now = time.monotonic()
            shelf.closing = now > until
            while len(tasks) < workers and not shelf.closing:
                words = command._replace(argv=(*command.argv, str(chance.getrandbits(32))))
                task = root.start(words, grants={"exchange": Grant(gate)}, env=dict(os.environ), log=Tag("soak"))
                tasks.append(task)
                began += 1
            if now > next_kill and tasks:
                chance.choice(tasks).kill()
                killed += 1
                next_kill = now + chance.choice((0.02, 0.1, 0.3, 2.0))
            server.step(0.01)
            for task in [task for task in tasks if task.returncode is not None]:
                tasks.remove(task)
                if task.returncode not in (0, 137):
                    shelf.wrong.append(f"{task!r}")
            if now > until + STUCK:
                shelf.wrong.append(f"{tasks} did not end")
                break
        root.end(9)
        handed, wrong = shelf.handed, list(shelf.wrong)
        shelf.clear()
        services = root.services

        def settled() -> bool:
            server.step(0)
            services.ledger.settle()
            return services.account.used == 0 and len(services.ledger) == 0

        wait_until(settled, 20, "the quota to be given back")

        def let_go() -> bool:
            return not server.step(0) and not holdings().beyond(before)

        try:
            wait_until(let_go, 20, "everything to be let go of")
        except TimeoutError as error:
            wrong.append(str(error))
        left = holdings().beyond(before)
        shared = sum("memfd:soak" in line for line in Path("/proc/self/maps").read_text().splitlines())
    said = {"seed": seed, "began": began, "killed": killed, "handed": handed}
    print(json.dumps({**said, "wrong": wrong, "left": left, "shared": shared}))
    return int(bool(wrong or left or shared))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(int(sys.argv[2]))
    else:
        sys.exit(main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
