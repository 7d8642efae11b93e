"""A server and clients that call it in every way there is, and check every answer. Run by ``test_calls.py``.

``calls.py serve SECONDS CLIENTS SERVER_CPUS CLIENT_CPUS loop|outer SEED`` starts the clients and serves them; it
prints one line of JSON and ends with 0 if nothing was wrong. A caller that waits longer than anything here takes
says where, and fails.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import random
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import l4re
from l4re._native import leaf
from l4re.cap import Capability
from l4re.gate import Gate
from l4re.interface import Served

HEAD = struct.Struct("<IIQ")  # client, thread, number of the call

TURN, COUNT, HOW_MANY, WAS_SERVED, BACK = range(1, 6)

#: What no wait of any client reaches, unless a wake-up was lost.
STUCK = 45.0

Caps = tuple[Capability | None, ...]


class Counter(Served):
    """Answers, and keeps book: nothing twice, nothing late, nothing that was taken back."""

    def __init__(self) -> None:
        self.requests = 0
        self.gone = 0
        self.last: dict[tuple[int, int], int] = {}
        self.counts: dict[tuple[int, int], int] = {}
        self.wrong: list[str] = []

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: Caps
    ) -> tuple[int, bytes, bytes, Any] | None:
        self.requests += 1
        client, thread, number = HEAD.unpack_from(data)
        key = (client, thread)
        if label == WAS_SERVED:
            return int(self.last.get(key, 0) == number), b"", b"", ()
        if label == HOW_MANY:
            return self.counts.get(key, 0), b"", b"", ()
        if number <= self.last.get(key, 0):
            self.wrong.append(f"{key}: call {number} after call {self.last[key]}")
        self.last[key] = number
        if label == COUNT:
            self.counts[key] = self.counts.get(key, 0) + 1
            return None
        if label == BACK:
            return 0, b"", data, caps
        return 0, b"", data[::-1], ()

    def on_client_gone(self) -> None:
        self.gone += 1


# ---- clients ----


class Caller:
    """One thread, or one task, of a client."""

    def __init__(self, gate: Gate, client: int, thread: int, seed: int) -> None:
        self.gate, self.client, self.thread = gate, client, thread
        self.chance = random.Random(f"{seed} {client} {thread}")
        self.number = 0
        self.sent = 0
        self.calls = 0
        self.timeouts = [0, 0]  # taken back; abandoned

    def request(self) -> bytes:
        self.number += 1
        size = self.chance.choice((0, 0, 0, 8, 100, 5000)) if self.chance.random() < 0.3 else 0
        return HEAD.pack(self.client, self.thread, self.number) + self.chance.randbytes(size)

    def check(self, right: bool, what: str) -> None:
        self.calls += 1
        if not right:
            raise AssertionError(f"client {self.client}, thread {self.thread}, call {self.number}: {what}")

    def ask(self, label: int) -> int:
        return self.gate.transact(label, b"", HEAD.pack(self.client, self.thread, self.number))[0]

    def timed_out(self, error: l4re.IpcTimeout, served: int) -> None:
        taken = error.code != l4re.IpcErr.SETIMEOUT.code
        self.timeouts[taken] += 1
        self.check(taken or not served, "was taken back, and served")

    def step(self) -> None:
        draw = self.chance.random()
        data = self.request()
        if draw < 0.1:
            self.gate.transact(COUNT, b"", data, oneway=True)
            self.sent += 1
            self.calls += 1
        elif draw < 0.11:
            self.check(self.ask(HOW_MANY) == self.sent, "one-way messages were lost")
        elif draw < 0.12:
            try:
                answer = self.gate.transact(TURN, b"", data, timeout=self.chance.choice((0.0, 1e-5, 1e-4, 1e-3)))
            except l4re.IpcTimeout as error:
                self.timed_out(error, self.ask(WAS_SERVED))
            else:
                self.check(answer[2] == data[::-1], "a wrong answer")
        elif draw < 0.123:
            self.bring(data)
        else:
            self.check(self.gate.transact(TURN, b"", data)[2] == data[::-1], "a wrong answer")
            self.run(self.chance.randrange(100))

    def run(self, calls: int) -> None:
        """Call as fast as it goes: most of all calls are of this kind."""
        transact, pack, client, thread = self.gate.transact, HEAD.pack, self.client, self.thread
        for number in range(self.number + 1, self.number + calls + 1):
            data = pack(client, thread, number)
            if transact(TURN, b"", data)[2] != data[::-1]:
                raise AssertionError(f"client {client}, thread {thread}, call {number}: a wrong answer")
        self.number += calls
        self.calls += calls

    def bring(self, data: bytes) -> None:
        """Send a descriptor, ask for the same thing back; sometimes with little patience."""
        irq = l4re.env().factory.create_irq()
        try:
            timeout = 1e-4 if self.chance.random() < 0.3 else None
            try:
                answer = self.gate.transact(BACK, b"", data, (irq,), timeout)
            except l4re.IpcTimeout as error:
                self.timed_out(error, 0)
            else:
                self.check(answer[2] == data and len(answer[3]) == 1, "a capability was lost")
                back = answer[3][0]
                assert isinstance(back, l4re.Irq)
                back.close()
        finally:
            irq.close()

    async def step_async(self) -> None:
        data = self.request()
        timeout = self.chance.choice((None, None, None, 1e-4, 1e-3))
        try:
            answer = await self.gate.transact_async(TURN, b"", data, (), timeout)
        except l4re.IpcTimeout as error:
            asked = HEAD.pack(self.client, self.thread, self.number)
            served = (await self.gate.transact_async(WAS_SERVED, b"", asked))[0]
            self.timed_out(error, served)
        else:
            self.check(answer[2] == data[::-1], "a wrong answer")


def client(number: int, seconds: float, seed: int) -> int:
    """Call until the time is up: an odd one from one thread, an even one from two and an event loop."""
    gate = l4re.env().get_cap("counter", Gate)
    end = time.monotonic() + seconds
    callers = [Caller(gate, number, thread, seed) for thread in range(5)]
    errors: list[str] = []

    def alive() -> bool:
        faulthandler.dump_traceback_later(STUCK, exit=True)
        return time.monotonic() < end and not errors

    def run(body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            errors.append(f"{type(error).__name__}: {error}")

    def thread(caller: Caller) -> None:
        while alive():
            for _ in range(20):
                caller.step()

    async def task(caller: Caller) -> None:
        while alive():
            for _ in range(50):
                await caller.step_async()

    async def tasks() -> None:
        await asyncio.gather(*(task(caller) for caller in callers[2:]))

    bodies: list[Callable[[], None]] = [lambda: thread(callers[0])]
    if number % 2 == 0:
        bodies += [lambda: thread(callers[1]), lambda: asyncio.run(tasks())]
    threads = [threading.Thread(target=run, args=(body,)) for body in bodies]
    for at in threads:
        at.start()
    for at in threads:
        at.join()
    calls = sum(caller.calls for caller in callers)
    timeouts = [sum(caller.timeouts[at] for caller in callers) for at in (0, 1)]
    print(
        json.dumps({"client": number, "calls": calls, "taken back": timeouts[0], "abandoned": timeouts[1]}), flush=True
    )
    for error in errors:
        print(error, file=sys.stderr, flush=True)
    return 1 if errors else 0


# ---- the server ----


def serve(seconds: float, clients: int, server_cpus: str, client_cpus: str, outer: bool, seed: int) -> int:
    """Serve that many clients, one of which is killed and replaced again and again."""
    os.sched_setaffinity(0, {int(cpu) for cpu in server_cpus.split(",")})
    channel = l4re.new_channel()
    counter = Counter()
    chance = random.Random(seed)
    failed: list[str] = []
    killed = 0

    def start(number: int, time_left: float) -> l4re.Task:
        words = [sys.executable, __file__, "call", str(number), str(time_left), client_cpus, str(seed)]
        return l4re.spawn(words, caps={"counter": channel.gate})

    def supervise() -> None:
        nonlocal killed
        end = time.monotonic() + seconds
        tasks = [start(number, seconds) for number in range(1, clients)]
        number = clients
        try:
            while time.monotonic() < end:
                with start(number, STUCK) as victim:
                    time.sleep(chance.uniform(0.5, 2.0))
                    if victim.returncode is not None:
                        failed.append(f"client {number} ended with {victim.returncode}")
                killed += 1
                number += 1
            statuses = [task.wait(2 * STUCK) for task in tasks]
            failed.extend(f"a client ended with {status}" for status in statuses if status)
        except BaseException as error:
            failed.append(f"{type(error).__name__}: {error}")
        finally:
            for task in tasks:
                task.kill()
                task.wait()
            channel.gate.close()

    with l4re.RegistryServer() as server:
        server.registry.register_obj(counter, channel.svr)
        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        ended = asyncio.run(server.serve()) if outer else server.loop()
        supervisor.join()
        stats = server.stats()
    wrong = [*counter.wrong, *failed]
    if ended is not l4re.LoopEnd.ORPHANED:
        wrong.append(f"the loop ended as {ended}")
    counts = {"requests": counter.requests, "killed": killed, "gone": counter.gone, "wrong": wrong[:20]}
    print(json.dumps({**counts, "leaf": leaf.__file__, **stats._asdict()}), flush=True)
    return 1 if wrong else 0


def main(what: str, *words: str) -> int:
    logging.basicConfig()
    faulthandler.enable()
    if what == "call":
        number, seconds, cpus, seed = words
        os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
        return client(int(number), float(seconds), int(seed))
    time_left, clients, server_cpus, client_cpus, mode, seed = words
    return serve(float(time_left), int(clients), server_cpus, client_cpus, mode == "outer", int(seed))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
