"""What a type checker says to a user's program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

OVERRIDE = "reportIncompatibleMethodOverride"

CORRECT = """
from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt

import l4re


class Mode(enum.IntEnum):
    FAST = 1


class SharedMemory(l4re.Interface):
    protocol = 0x5348

    @l4re.rpc
    def get_shared_buffer(self) -> tuple[l4re.Dataspace, l4re.Irq]:
        raise NotImplementedError

    @l4re.rpc(opcode=7, rights="w")
    def resize(self, size: l4re.U32, mode: Mode = Mode.FAST) -> int:
        raise NotImplementedError

    @l4re.rpc(oneway=True)
    def forget(self) -> None:
        raise NotImplementedError


class Provider(SharedMemory, l4re.Epiface):
    def __init__(self, ds: l4re.Dataspace, irq: l4re.Irq) -> None:
        self.ds, self.irq = ds, irq

    def get_shared_buffer(self) -> tuple[l4re.Dataspace, l4re.Irq]:
        return self.ds.rw, self.irq

    def resize(self, size: int, mode: Mode = Mode.FAST) -> int:
        return size

    def forget(self) -> None:
        pass


class Simple(SharedMemory, l4re.Epiface):
    pass


class Raw(l4re.ServerObject):
    def dispatch(self, rights: l4re.Rights, ios: l4re.Iostream) -> int:
        match ios.tag.label:
            case l4re.Meta.PROTOCOL:
                return l4re.handle_meta_request(SharedMemory, ios)
            case 0:
                number = ios.get(int) + ios.get(l4re.U8)
                text: str = ios.get(str)
                ds = ios.get(l4re.Dataspace)
                if ds is not None:
                    ios <<= ds.rw
                    ios <<= l4re.U8(3)
                    ios.write(number, int).write(text, str)
                return 0
            case _:
                return -l4re.Err.EBADPROTO


def client(gate: l4re.Gate) -> int:
    shm = SharedMemory(gate)
    ds, irq = shm.get_shared_buffer()
    irq.trigger()
    with shm.within(0.5) as hurried:
        hurried.forget()
    other: SharedMemory = l4re.cap_dynamic_cast(gate, SharedMemory)
    return other.resize(ds.size, mode=Mode.FAST) + shm.resize(3)


@dataclass(frozen=True)
class Point:
    x: l4re.U8
    y: l4re.S32 = 0


class Shapes(l4re.Interface):
    protocol = 0x60

    @l4re.rpc
    def draw(
        self, points: list[Point], weights: Annotated[list[l4re.U8], l4re.Length(l4re.U32)], name: str | None = None
    ) -> tuple[int, list[str]]:
        raise NotImplementedError

    @l4re.rpc
    def blur(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        raise NotImplementedError

    @l4re.rpc
    def memory(
        self, ds: Annotated[l4re.Dataspace, l4re.Rights.RW], more: list[l4re.Dataspace]
    ) -> SharedMemory | None:
        return None


class Both(Shapes, SharedMemory):
    protocol = 0x61


class BothServer(Both, Provider):
    def draw(self, points: list[Point], weights: list[int], name: str | None = None) -> tuple[int, list[str]]:
        return sum(point.x for point in points), [name or ""]

    def blur(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return image * np.float32(2)


def both(gate: l4re.Gate, ds: l4re.Dataspace) -> float:
    both = Both(gate)
    number, names = both.draw([Point(1, 2)], [3])
    shm = both.memory(ds, [ds.ro])
    if shm is not None:
        shm.forget()
    both.forget()
    return number + len(names[0]) + float(both.within(2).blur(np.zeros((3, 4), np.float32)).sum())


async def later(gate: l4re.Gate) -> None:
    await Shapes(gate).aio.draw([], [])


simple = Simple()
"""

#: A place, a line, and what mypy and pyright call it.
WRONG = [
    ("client(gate)", 'shm.resize("3")', "arg-type", "reportArgumentType"),
    ("client(gate)", "shm.resize()", "call-arg", "reportCallIssue"),
    ("client(gate)", "shm.resize(3, 1)", "arg-type", "reportArgumentType"),
    ("client(gate)", "shm.shrink(3)", "attr-defined", "reportAttributeAccessIssue"),
    ("client(gate)", "text: str = shm.resize(3)", "assignment", "reportAssignmentType"),
    ("client(gate)", "ds, irq, more = shm.get_shared_buffer()", "misc", "reportAssignmentType"),
    ("client(gate)", "SharedMemory()", "call-arg", "reportCallIssue"),
    ("client(gate)", "n: int = ioS().get(str)", "assignment", "reportAssignmentType"),
    ("shapes", "shapes.draw([(1, 2)], [])", "list-item", "reportArgumentType"),
    ("shapes", 'shapes.draw([Point("1")], [])', "arg-type", "reportArgumentType"),
    ("shapes", 'shapes.draw([], ["1"])', "list-item", "reportArgumentType"),
    ("shapes", "shapes.draw([], [], 7)", "arg-type", "reportArgumentType"),
    ("shapes", "shapes.draw([], [])[1].append(7)", "arg-type", "reportArgumentType"),
    ("shapes", "shapes.blur([1.0])", "arg-type", "reportArgumentType"),
    ("shapes", "shapes.blur(small)", "arg-type", "reportArgumentType"),
    ("shapes", "shapes.memory(None, [])", "arg-type", "reportArgumentType"),
    ("shapes", "shapes.memory(ds, []).forget()", "union-attr", "reportOptionalMemberAccess"),
    ("server", "def resize(self, size: str, mode: Mode = Mode.FAST) -> int: return 0", "override", OVERRIDE),
    ("server", "def resize(self) -> int: return 0", "override", OVERRIDE),
    ("server", "def resize(self, size: int, mode: Mode = Mode.FAST) -> str: return ''", "override", OVERRIDE),
    (
        "server",
        "def get_shared_buffer(self) -> tuple[l4re.Irq, l4re.Dataspace]: raise ValueError",
        "override",
        OVERRIDE,
    ),
    (
        "shapes server",
        "def blur(self, image: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]: return image",
        "override",
        OVERRIDE,
    ),
    ("shapes server", "def memory(self, ds: l4re.Dataspace, more: list[int]) -> None: pass", "override", OVERRIDE),
]

HEADS = {
    "client(gate)": "def client{}(shm: SharedMemory) -> None:",
    "shapes": "def client{}(shapes: Shapes, ds: l4re.Dataspace, small: npt.NDArray[np.int8]) -> None:",
    "server": "class Server{}(SharedMemory, l4re.Epiface):",
    "shapes server": "class Server{}(Shapes, l4re.Epiface):",
}

#: For each line with a mistake, what it is called.
Said = dict[int, set[str]]


def mypy(folder: Path, cache: Path) -> Said:
    options = ("--strict", "--config-file=", "--no-error-summary", "--cache-dir", str(cache))
    found: Said = {}
    for said in run("mypy", folder, *options).splitlines():
        place, _, message = said.partition(" error: ")
        if message:
            found.setdefault(int(place.split(":")[1]), set()).add(message.rpartition("[")[2].rstrip("]"))
    return found


def pyright(folder: Path, _cache: Path) -> Said:
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict", "pythonVersion": "3.11"}')
    found: Said = {}
    for said in json.loads(run("pyright", folder, "--outputjson", "--pythonpath", sys.executable))[
        "generalDiagnostics"
    ]:
        assert said["severity"] == "error", said
        found.setdefault(said["range"]["start"]["line"] + 1, set()).add(said["rule"])
    return found


def run(module: str, folder: Path, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, *options, "program.py"],
        cwd=folder,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=[mypy, pyright], ids=lambda checker: str(checker.__name__))
def check(request: pytest.FixtureRequest, tmp_path: Path, cache: Path) -> Callable[[str], Said]:
    name = request.param.__name__
    pytest.importorskip(name, reason=f"{name} is not installed; pip install 'pyl4re[dev]' brings it")
    pytest.importorskip("numpy")

    def said(program: str) -> Said:
        (tmp_path / "program.py").write_text(program)
        found: Said = request.param(tmp_path, cache)
        return found

    return said


def test_a_correct_program_passes_strict_checking(check: Callable[[str], Said]) -> None:
    assert check(CORRECT) == {}


def test_wrong_programs_are_told_where(check: Callable[[str], Said], request: pytest.FixtureRequest) -> None:
    program = CORRECT.replace("simple = Simple()\n", "ioS = l4re.Iostream\n")
    expected = {}
    for number, (where, line, *codes) in enumerate(WRONG):
        program += f"\n\n{HEADS[where].format(number)}\n    {line}"
        expected[program.count("\n") + 1] = codes["pyright" in request.node.name]
    found = check(program + "\n")
    assert {line: code for line, code in expected.items() if code not in found.get(line, ())} == {}
    assert found.keys() == expected.keys()
