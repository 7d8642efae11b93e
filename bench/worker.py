"""A worker: one role of one repetition, in a process of its own.

    python -m PACKAGE.worker SCENARIO PEER ROLE CASE PLACEMENT SECONDS CPUS RESULT WIRE...

The result, and anything that went wrong, goes to the descriptor RESULT as one JSON text.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback

from .peers import peer_named
from .scenarios import SCENARIOS, Setting
from .wire import Wire

__all__ = ["main"]


def main(args: list[str]) -> int:
    """Play the role and report."""
    scenario, peer, role, case, placement, seconds, cpus, result, *wires = args
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # the runner had it blocked when it started us
    os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else soft, hard))
    setting = Setting(case, placement, float(seconds), tuple(Wire.of_descriptor(int(fd)) for fd in wires))
    try:
        summaries = SCENARIOS[scenario].run(role, peer_named(peer), setting)
        answer: object = {"summaries": summaries, "pid": os.getpid()}
    except BaseException:
        answer = {"error": traceback.format_exc(), "pid": os.getpid()}
    with os.fdopen(int(result), "w") as out:
        json.dump(answer, out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
