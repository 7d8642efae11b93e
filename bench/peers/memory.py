"""Shared memory without us: a memfd and `mmap` or `copy_file_range`, and `multiprocessing.shared_memory`."""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Callable, Sequence, Sized
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

from ..wire import Wire
from .base import Caller, Copier, Copies, Frames, HandsOver, Mapper, Maps, Memory, Publisher, Starts
from .pipe import accepted, offered
from .semaphores import made, said, taken

__all__ = ["KernelCopy", "Memfd", "StdSharedMemory", "attached"]

_MIB = 1 << 20
Touch = Callable[[memoryview], None]
Listen = Callable[[Callable[[memoryview], None], Callable[[], bool]], None]


def _filled(size: int) -> int:
    """Return a memfd whose pages are all there."""
    fd = os.memfd_create("bench")
    os.ftruncate(fd, size)
    for at in range(0, size, _MIB):
        os.pwrite(fd, b"\1" * min(_MIB, size - at), at)
    return fd


def _marked(view: memoryview, offsets: Sequence[int], value: int) -> None:
    for at in offsets:
        view[at] = value


def _seen(view: memoryview, offsets: Sequence[int]) -> bytes:
    return bytes([view[at] for at in offsets])


class KernelCopy(Copies):
    """The kernel copies between two memfds, nothing is mapped."""

    name = "copy_file_range"

    def copier(self, size: int, fresh: bool) -> Copier:
        source = _filled(size)
        target = -1 if fresh else _filled(size)

        def mark(offsets: Sequence[int], value: int) -> None:
            for at in offsets:
                os.pwrite(source, bytes((value,)), at)

        def copy() -> int:
            made = target
            if fresh:
                made = os.memfd_create("bench")
                os.ftruncate(made, size)
            at = 0
            while at < size:
                at += os.copy_file_range(source, made, size - at, at, at)
            return made

        def sample(made: int, offsets: Sequence[int]) -> bytes:
            seen = b"".join(os.pread(made, 1, at) for at in offsets)
            if fresh:
                os.close(made)
            return seen

        def close() -> None:
            os.close(source)
            if not fresh:
                os.close(target)

        return Copier(mark, copy, sample, close)


class Memfd(Memory, Maps, HandsOver, Frames, Copies):
    """Five system calls from Python, a socket to hand it over, an eventfd for each reader: the least there is."""

    name = "memfd+mmap"

    def cycle(self, size: int) -> Callable[[Touch], None]:
        def cycle(touch: Touch) -> None:
            fd = os.memfd_create("bench")
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size)
            with memoryview(memory) as view:
                touch(view)
            memory.close()
            os.close(fd)

        return cycle

    def mapper(self, area: bool) -> Mapper:
        fd = os.memfd_create("bench")
        os.write(fd, b"\x07".ljust(4096, b"\0"))
        return Mapper(
            lambda: mmap.mmap(fd, 4096), lambda m: m[0], mmap.mmap.close, 7, lambda m: 0, None, lambda: os.close(fd)
        )

    def copier(self, size: int, fresh: bool) -> Copier:
        def mapped(fd: int) -> mmap.mmap:
            memory = mmap.mmap(fd, size)
            os.close(fd)
            return memory

        source = mapped(_filled(size))
        target = None if fresh else mapped(_filled(size))

        def copy() -> mmap.mmap:
            made = target
            if made is None:
                fd = os.memfd_create("bench")
                os.ftruncate(fd, size)
                made = mapped(fd)
            with memoryview(source) as here, memoryview(made) as there:
                there[:] = here
            return made

        def mark(offsets: Sequence[int], value: int) -> None:
            with memoryview(source) as view:
                _marked(view, offsets, value)

        def sample(made: mmap.mmap, offsets: Sequence[int]) -> bytes:
            with memoryview(made) as view:
                seen = _seen(view, offsets)
            if fresh:
                made.close()
            return seen

        def close() -> None:
            source.close()
            if target is not None:
                target.close()

        return Copier(mark, copy, sample, close)

    def serve_memory(self, wire: Wire, look: Callable[[memoryview], int]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wire.send(fds=[theirs.fileno()])
        theirs.close()
        while True:
            data, fds, _, _ = socket.recv_fds(ours, 8, 1)
            if not data:
                break
            memory = mmap.mmap(fds[0], int.from_bytes(data, "little"))
            os.close(fds[0])
            with memoryview(memory) as view:
                seen = look(view)
            memory.close()
            ours.send(bytes((seen,)))
        ours.close()

    def connect_memory(self, wire: Wire, size: int) -> Caller:
        end = socket.socket(fileno=wire.receive()[1][0])
        message = [size.to_bytes(8, "little")]

        def call(touch: Touch) -> bytes:
            fd = os.memfd_create("bench")
            os.ftruncate(fd, size)
            memory = mmap.mmap(fd, size)
            with memoryview(memory) as view:
                touch(view)
            socket.send_fds(end, message, [fd])
            answer = end.recv(1)
            memory.close()
            os.close(fd)
            return answer

        return Caller(call, lambda answer: answer[0], end.close)

    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        memory = os.memfd_create("bench")
        os.ftruncate(memory, size)
        bells = [os.eventfd(0) for _ in wires]
        for wire, bell in zip(wires, bells, strict=True):
            wire.send(fds=[memory, bell])
        wake = os.eventfd_write

        def announce() -> None:
            for bell in bells:
                wake(bell, 1)

        return Publisher(memoryview(mmap.mmap(memory, size)), announce, lambda: os.close(memory))

    def subscribe(self, wire: Wire, size: int) -> Listen:
        memory, bell = wire.receive()[1]
        frame = memoryview(mmap.mmap(memory, size, prot=mmap.PROT_READ))
        wait = os.eventfd_read

        def listen(handle: Callable[[memoryview], None], done: Callable[[], bool]) -> None:
            while not done():
                wait(bell)
                handle(frame)

        return listen


def attached(name: str) -> SharedMemory:
    """Attach by name.

    Until Python 3.13 that registers the memory with this process's resource tracker, which would remove it under its
    owner; nobody who knows lets it, and here it is not even paid for.
    """
    register = resource_tracker.register
    resource_tracker.register = _not_registered
    try:
        return SharedMemory(name)
    finally:
        resource_tracker.register = register


def _not_registered(name: Sized, rtype: str) -> None:
    """Do nothing."""


class StdSharedMemory(Memory, HandsOver, Frames, Copies, Starts):
    """Create to unlink; its name over a `Pipe`, a `Semaphore` for each reader."""

    name = "SharedMemory"
    imports = "from multiprocessing.shared_memory import SharedMemory"

    def cycle(self, size: int) -> Callable[[Touch], None]:
        def cycle(touch: Touch) -> None:
            memory = SharedMemory(create=True, size=size)
            touch(memory.buf)
            memory.close()
            memory.unlink()

        return cycle

    def copier(self, size: int, fresh: bool) -> Copier:
        source = SharedMemory(create=True, size=size)
        target = None if fresh else SharedMemory(create=True, size=size)
        for memory in filter(None, (source, target)):
            memory.buf[:] = b"\1" * size

        def copy() -> SharedMemory:
            made = target or SharedMemory(create=True, size=size)
            made.buf[:] = source.buf
            return made

        def free(memory: SharedMemory) -> None:
            memory.close()
            memory.unlink()

        def sample(made: SharedMemory, offsets: Sequence[int]) -> bytes:
            seen = _seen(made.buf, offsets)
            if fresh:
                free(made)
            return seen

        def close() -> None:
            for memory in filter(None, (source, target)):
                free(memory)

        return Copier(lambda offsets, value: _marked(source.buf, offsets, value), copy, sample, close)

    def serve_memory(self, wire: Wire, look: Callable[[memoryview], int]) -> None:
        connection = offered(wire)
        try:
            while True:
                memory = attached(connection.recv_bytes().decode())
                seen = look(memory.buf)
                memory.close()
                connection.send_bytes(bytes((seen,)))
        except EOFError:
            connection.close()

    def connect_memory(self, wire: Wire, size: int) -> Caller:
        connection = accepted(wire)

        def call(touch: Touch) -> bytes:
            memory = SharedMemory(create=True, size=size)
            touch(memory.buf)
            connection.send_bytes(memory.name.encode())
            answer = connection.recv_bytes()
            memory.close()
            memory.unlink()
            return answer

        return Caller(call, lambda answer: answer[0], connection.close)

    def publish(self, wires: Sequence[Wire], size: int) -> Publisher:
        memory = SharedMemory(create=True, size=size)
        semaphores = [made() for _ in wires]
        for wire, semaphore in zip(wires, semaphores, strict=True):
            wire.send(json.dumps([memory.name, said(semaphore)]).encode())
        for wire in wires:
            wire.receive()
        frame = memory.buf

        def announce() -> None:
            for semaphore in semaphores:
                semaphore.release()

        def close() -> None:
            frame.release()
            memory.close()
            memory.unlink()

        return Publisher(frame, announce, close)

    def subscribe(self, wire: Wire, size: int) -> Listen:
        name, state = json.loads(wire.receive()[0])
        memory = attached(name)
        acquire = taken(state).acquire
        wire.send(b"ready")

        def listen(handle: Callable[[memoryview], None], done: Callable[[], bool]) -> None:
            frame = memory.buf
            while not done():
                acquire()
                handle(frame)
            memory.close()

        return listen
