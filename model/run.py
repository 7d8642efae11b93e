"""Check the sleep/wake protocol: the model as the code is, and every mutant of it.

Runs ``spin`` over ``session.pml`` once per row of ``VARIANTS`` and prints what it found.
A configuration must hold, a mutant must be caught (its trace stays in the working folder);
anything else is a surprise and the exit status says so.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "session.pml"
BUILD = HERE.parent / "build" / "model"

HOLDS, CAUGHT = "holds", "caught"

ONE = "CLIENTS=1"
QUEUE = f"{ONE} CALLS=3 QUEUE=2 DESCRIPTORS"
TWO = "CLIENTS=2 CALLS=2 OTHER_CALLS=1 DEATHS=0"


@dataclass(frozen=True, slots=True)
class Variant:
    """One run of spin: ``defines`` select it, ``expected`` is what must come out."""

    name: str
    about: str
    defines: str
    expected: str = HOLDS
    big: bool = False


VARIANTS = [
    # The protocol as it is.
    Variant("one", "one session, three messages, a death", f"{ONE} CALLS=3"),
    Variant("one-queue", "... descriptors ahead of messages, two packets queued", QUEUE),
    Variant("one-async", "... the client in an event loop", f"{ONE} CALLS=3 ASYNC"),
    Variant("one-outer", "... the server in an event loop, two deaths", f"{QUEUE} OUTER DEATHS=2"),
    Variant("one-cold", "... the hot list is full of others", f"{QUEUE} HOT=0"),
    Variant("one-drain-first", "... drains before it lowers the flag: no error", f"{QUEUE} M_DRAIN_FIRST"),
    Variant("two", "two sessions, one of them with two messages", TWO, big=True),
    Variant("two-death", "two sessions, a message each, a death", "CLIENTS=2 CALLS=1 DEATHS=1", big=True),
    Variant("two-narrow", "two sessions, room for one in the hot list", f"{TWO} HOT=1", big=True),
    Variant("two-outer", "two sessions, the server in an event loop", f"{TWO} OUTER", big=True),
    # A fence or a second look less.
    Variant("post-no-fence", "the client posts without a fence", f"{ONE} M_POST_NO_FENCE", CAUGHT),
    Variant("client-no-fence", "the client raises its flag without a fence", f"{ONE} M_CLIENT_NO_FENCE", CAUGHT),
    Variant("client-no-look", "the client sleeps without a second look", f"{ONE} DEATHS=0 M_CLIENT_NO_LOOK", CAUGHT),
    Variant("server-no-fence", "the server raises its flags without a fence", f"{ONE} M_SERVER_NO_FENCE", CAUGHT),
    Variant("server-no-look", "the server sleeps without a second look", f"{ONE} M_SERVER_NO_LOOK", CAUGHT),
    Variant("reply-no-fence", "the server replies without a fence", f"{ONE} M_REPLY_NO_FENCE", CAUGHT),
    # Another order, or a step less.
    Variant(
        "drain-last", "a cold session's socket is drained after the look", f"{ONE} DEATHS=0 HOT=0 M_DRAIN_LAST", CAUGHT
    ),
    Variant("end-first", "an end is believed before the look at the page", f"{ONE} M_END_FIRST", CAUGHT),
    Variant("heat-full", "heat() lowers a flag that finds the hot list full", f"{TWO} HOT=1 M_HEAT_FULL", CAUGHT),
    Variant("withdraw-stores", "a request is taken back without compare-exchange", f"{ONE} M_WITHDRAW_STORES", CAUGHT),
    Variant("take-stores", "a request is taken without compare-exchange", f"{ONE} M_TAKE_STORES", CAUGHT),
    Variant("one-way-no-ring", "the end of a one-way message rings nobody", f"{ONE} M_ONE_WAY_NO_RING", CAUGHT),
    Variant("no-hup", "a forked child keeps the server's socket open", f"{ONE} M_NO_HUP", CAUGHT),
    Variant("no-settle", "step() returns with flags down", f"{ONE} OUTER M_NO_SETTLE", CAUGHT),
    Variant("settle-no-ring", "settle() finds something and tells nobody", f"{ONE} OUTER M_SETTLE_NO_RING", CAUGHT),
    Variant("inbox-strict", "descriptors read without their request are a lie", f"{QUEUE} M_INBOX_STRICT", CAUGHT),
    Variant("async-drain-last", "look() drains after it looked", f"{ONE} ASYNC M_ASYNC_DRAIN_LAST", CAUGHT),
]

#: Too long for every day.
FULL = [
    Variant("two-two", "two sessions, two messages each", "CLIENTS=2 CALLS=2 DEATHS=0", big=True),
    Variant("two-two-death", "two sessions, two messages and one, a death", f"{TWO} DEATHS=1", big=True),
]

#: How the violated assertion reads in the output of spin, and what that means.
MEANINGS = [
    (r"end_asleep", "lost wake-up"),
    (r"inbox", "an honest client loses its session"),
    (r"withdrawn", "a withdrawn request is served"),
    (r"served\[c\]==sequence", "an answer to another request"),
    (r"served", "a request is served twice"),
    (r"wanted", "an answer is lost with its server"),
    (r"memory\[s\]%4", "an end is believed too early"),
    (r"invalid end state", "deadlock"),
]


@dataclass(frozen=True, slots=True)
class Result:
    """What one run found."""

    variant: Variant
    got: str
    states: int
    seconds: float
    why: str

    @property
    def surprise(self) -> bool:
        return self.got != self.variant.expected


def run(variant: Variant, room: Path = BUILD) -> Result:
    """Generate, compile and run the verifier of one variant in a folder of ``room``.

    Raises:
        RuntimeError: spin or the compiler refuses the model, or the search was cut short.
    """
    folder = room / variant.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copy(SOURCE, folder)
    started = time.monotonic()
    flags = dict(define.partition("=")[::2] for define in variant.defines.split())
    defines = [f"-D{name}={value}" if value else f"-D{name}" for name, value in flags.items()]
    _tool(folder, "spin", "-a", *defines, SOURCE.name)
    # Exact search (no hashing that could miss a state); every access is to shared memory, so there is
    # nothing for partial-order reduction to gain.
    checks = ["-DSAFETY", "-DNOREDUCE", "-DCOLLAPSE", "-DMEMLIM=12000", "-DVECTORSZ=256"]
    _tool(folder, "cc", "-O2" if variant.big else "-O0", "-w", *checks, "-o", "pan", "pan.c")
    said = _tool(folder, "./pan", "-n", "-m1000000")
    stored = re.search(r"(\d+) states, stored", said)
    errors = re.search(r"errors: (\d+)", said)
    if stored is None or errors is None or "out of memory" in said or "max search depth too small" in said:
        raise RuntimeError(f"{variant.name}: the search did not end:\n{said}")
    violated = re.search(r"^pan:1: (.*)$", said, re.MULTILINE)
    why = next((meaning for pattern, meaning in MEANINGS if violated and re.search(pattern, violated[1])), "")
    if violated and not why:
        why = violated[1]
    got = CAUGHT if int(errors[1]) else HOLDS
    return Result(variant, got, int(stored[1]), time.monotonic() - started, why)


def _tool(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {folder}:\n{done.stdout}{done.stderr}")
    return done.stdout


def main(argv: list[str] | None = None) -> int:
    """Run the variants asked for; 0 as expected, 1 a surprise, 2 something is missing."""
    parser = argparse.ArgumentParser(description="Check the sleep/wake protocol with spin.")
    parser.add_argument("names", nargs="*", metavar="VARIANT", help="only these")
    parser.add_argument("--room", type=Path, default=BUILD, help="where to work (default: build/model)")
    parser.add_argument("--list", action="store_true", help="print the names and exit")
    parser.add_argument("--full", action="store_true", help="the largest as well: 3 GB of memory, minutes")
    parser.add_argument(
        "--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs at a time, else one per CPU"
    )
    args = parser.parse_args(argv)
    known = {variant.name: variant for variant in [*VARIANTS, *FULL]}
    if args.list:
        print("\n".join(known))
        return 0
    unknown = [name for name in args.names if name not in known]
    if unknown:
        print(f"no such variant: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for tool, package in (("spin", "spin"), ("cc", "gcc")):
        if shutil.which(tool) is None:
            print(f"the model needs {tool}; on Debian: apt-get install {package}", file=sys.stderr)
            return 2
    chosen = [known[name] for name in args.names] or [*VARIANTS, *(FULL if args.full else [])]
    started = time.monotonic()
    row = "{:<17} {:<54} {:>10} {:>7}  {:<8} {}"
    print(row.format("variant", "", "states", "time", "expected", "got"))
    surprises = 0
    with ThreadPoolExecutor(max(1, args.jobs)) as pool:
        # The large ones first, so that no core waits for the last; printed in the order of the table.
        pending = {
            variant.name: pool.submit(run, variant, args.room) for variant in sorted(chosen, key=lambda v: not v.big)
        }
        for variant in chosen:
            result = pending[variant.name].result()
            surprises += result.surprise
            got = f"{result.got}: {result.why}" if result.why else result.got
            got += "   <-- SURPRISE" if result.surprise else ""
            took = f"{result.seconds:.1f} s"
            print(
                row.format(variant.name, variant.about, f"{result.states:,}", took, variant.expected, got), flush=True
            )
    print(f"{len(chosen)} variants in {time.monotonic() - started:.0f} s, {surprises or 'no'} surprises")
    if surprises:
        print(f"a trace: cd {args.room}/VARIANT && spin -t -p -g -l {SOURCE.name}", file=sys.stderr)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
