"""The checker of memory orders knows the textbook, and our tests come out as they say."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

MODEL = Path(__file__).parents[2] / "model"


@pytest.fixture(scope="module")
def litmus() -> ModuleType:
    spec = spec_from_file_location("litmus", MODEL / "litmus.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["litmus"] = module
    spec.loader.exec_module(module)
    return module


def _store(place: str, value: int, order: str) -> str:
    return f"atomic_store_explicit({place}, {value}, memory_order_{order});"


def _load(register: str, place: str, order: str) -> str:
    return f"int {register} = atomic_load_explicit({place}, memory_order_{order});"


def _test(outcome: str, *threads: list[str]) -> str:
    bodies = "\n".join(f"P{n} (atomic_int* x) {{ {' '.join(thread)} }}" for n, thread in enumerate(threads))
    return f"C textbook\n{{ }}\n{bodies}\nexists ({outcome})\n"


def _possible(litmus: ModuleType, text: str) -> bool:
    return bool(litmus.check(litmus.parse(text)).possible)


@pytest.mark.parametrize(("order", "possible"), [("seq_cst", False), ("relaxed", True)])
def test_store_buffering(litmus: ModuleType, order: str, possible: bool) -> None:
    text = _test(
        "0:r0=0 /\\ 1:r0=0",
        [_store("x", 1, order), _load("r0", "y", order)],
        [_store("y", 1, order), _load("r0", "x", order)],
    )
    assert _possible(litmus, text) is possible


@pytest.mark.parametrize(("order", "possible"), [("seq_cst", False), ("acquire", True)])
def test_two_readers_of_independent_writes(litmus: ModuleType, order: str, possible: bool) -> None:
    write = "seq_cst" if order == "seq_cst" else "release"
    text = _test(
        "2:r0=1 /\\ 2:r1=0 /\\ 3:r0=1 /\\ 3:r1=0",
        [_store("x", 1, write)],
        [_store("y", 1, write)],
        [_load("r0", "x", order), _load("r1", "y", order)],
        [_load("r0", "y", order), _load("r1", "x", order)],
    )
    assert _possible(litmus, text) is possible


def test_reads_of_one_place_do_not_go_back(litmus: ModuleType) -> None:
    text = _test("1:r0=1 /\\ 1:r1=0", [_store("x", 1, "relaxed")], [_load(f"r{n}", "x", "relaxed") for n in (0, 1)])
    assert not _possible(litmus, text)


def test_fences_make_a_message_of_relaxed_stores(litmus: ModuleType) -> None:
    def text(release: str, acquire: str) -> str:
        fences = [f"atomic_thread_fence(memory_order_{order});" for order in (release, acquire)]
        return _test(
            "1:r0=1 /\\ 1:r1=0",
            [_store("x", 1, "relaxed"), fences[0], _store("y", 1, "relaxed")],
            [_load("r0", "y", "relaxed"), fences[1], _load("r1", "x", "relaxed")],
        )

    assert not _possible(litmus, text("release", "acquire"))
    assert _possible(litmus, text("acquire", "acquire"))
    assert _possible(litmus, text("release", "release"))


def test_plain_accesses_race_unless_something_orders_them(litmus: ModuleType) -> None:
    text = "C race\n{ }\nP0 (int* x) { *x = 1; }\nP1 (int* x) { int r0 = *x; }\nexists (1:r0=1)\n"
    assert litmus.check(litmus.parse(text)).racing


def test_our_tests_come_out_as_they_say() -> None:
    done = subprocess.run([sys.executable, MODEL / "litmus.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == len(list((MODEL / "litmus").glob("*.litmus"))) + 1


def test_what_it_cannot_read_it_refuses(litmus: ModuleType) -> None:
    with pytest.raises(ValueError, match="not understood"):
        litmus.parse("C odd\n{ }\nP0 (atomic_int* x) { x = 1; }\nexists (0:r0=1)\n")
