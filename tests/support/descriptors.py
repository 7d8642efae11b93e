"""Descriptors that run out."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def few_descriptors(spare: int) -> Iterator[None]:
    """Let this process open ``spare`` descriptors more, and none beyond."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    fillers: list[int] = []
    try:
        while not fillers or fillers[-1] < highest:
            fillers.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        limit = max(highest, *fillers) + 1 + spare
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in fillers:
            os.close(fd)
