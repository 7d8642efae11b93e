"""Fuzz the decoders, guided by coverage: ``run.py [--seconds N] [TARGET ...]``, all of them in N seconds by default.

Each target has a process of its own, as many at once as there are CPUs. What it found worth keeping stays in
``build/fuzz/corpus``, beside a copy of the seeds; inputs that fail are in ``build/fuzz/findings``, and
``build/fuzz/fuzz.log`` says what every run did. A finding ends with status 1, and becomes a seed once it is mended.
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
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def a_finding(data: bytes) -> None:
    """What a finding looks like; for the test of this program."""
    raise AssertionError("found")


def one(name: str, arguments: list[str]) -> None:
    """Fuzz one target in this process, which libFuzzer ends."""
    import atheris

    with atheris.instrument_imports(include=["l4re"]):
        from fuzz import targets

        targets.warm()  # loads the rooms that are loaded on demand
    function = targets.TARGETS.get(name, a_finding)
    atheris.Setup([sys.argv[0], *arguments], function)
    atheris.Fuzz()


def run(name: str, seconds: int, room: Path) -> tuple[bool, str]:
    """Fuzz one target in a process of its own; return whether nothing was found, and a line about it."""
    corpus, findings = room / "corpus" / name, room / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(exist_ok=True)
    for seed in (HERE / "corpus" / name).glob("*"):
        shutil.copy(seed, corpus)
    before = len(list(corpus.iterdir()))
    arguments = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=2048", "-max_len=4096"]
    command = [sys.executable, __file__, "--one", name, *arguments, f"-artifact_prefix={findings}/{name}-", str(corpus)]
    log = room / f"{name}.log"
    with log.open("w") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    runs = re.findall(r"^#(\d+)", text, re.MULTILINE)
    covered = re.findall(r"cov: (\d+)", text)
    line = (
        f"{time.strftime('%F %T')}  {name:<18} {seconds:>4} s  {int(runs[-1]) if runs else 0:>9} runs  "
        f"coverage {covered[-1] if covered else '?':>5}  corpus {before} -> {len(list(corpus.iterdir()))}  "
        f"{'nothing found' if status == 0 else f'FOUND, see {log}'}"
    )
    return status == 0, line


def main() -> int:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--room", type=Path, default=HERE.parents[1] / "build" / "fuzz")
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    options = parser.parse_args()
    options.room.mkdir(parents=True, exist_ok=True)
    try:
        import atheris  # noqa: F401
    except ImportError:
        print(
            "atheris is not installed (pip install '.[fuzz]'): without coverage, only with hypothesis", file=sys.stderr
        )
        return 0
    at_once = min(len(os.sched_getaffinity(0)), len(options.targets))
    each = max(1, options.seconds * at_once // len(options.targets))
    good = True
    with ThreadPoolExecutor(at_once) as pool, (options.room / "fuzz.log").open("a") as log:
        for fine, line in pool.map(lambda name: run(name, each, options.room), options.targets):
            print(line, flush=True)
            print(line, file=log, flush=True)
            good &= fine
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
    sys.exit(main())
