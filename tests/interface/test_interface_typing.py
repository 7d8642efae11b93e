"""What a type checker says to a user's program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

CORRECT = """
from __future__ import annotations

import enum

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
                    ios << ds.rw << number << text << l4re.U8(3)
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


simple = Simple()
"""

WRONG = [
    ("client(gate)", 'shm.resize("3")', "arg-type"),
    ("client(gate)", "shm.resize()", "call-arg"),
    ("client(gate)", "shm.resize(3, 1)", "arg-type"),
    ("client(gate)", "shm.shrink(3)", "attr-defined"),
    ("client(gate)", "text: str = shm.resize(3)", "assignment"),
    ("client(gate)", "ds, irq, more = shm.get_shared_buffer()", "misc"),
    ("client(gate)", "SharedMemory()", "call-arg"),
    ("client(gate)", "n: int = ioS().get(str)", "assignment"),
    ("server", "def resize(self, size: str, mode: Mode = Mode.FAST) -> int: return 0", "override"),
    ("server", "def resize(self) -> int: return 0", "override"),
    ("server", "def resize(self, size: int, mode: Mode = Mode.FAST) -> str: return ''", "override"),
    ("server", "def get_shared_buffer(self) -> tuple[l4re.Irq, l4re.Dataspace]: raise ValueError", "override"),
]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def check(tmp_path: Path, cache: Path, program: str) -> str:
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--no-error-summary",
            "--cache-dir",
            str(cache),
            "program.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def test_a_correct_program_passes_strict_checking(tmp_path: Path, cache: Path) -> None:
    assert check(tmp_path, cache, CORRECT) == ""


def test_wrong_programs_are_told_where(tmp_path: Path, cache: Path) -> None:
    program = CORRECT.replace("simple = Simple()\n", "ioS = l4re.Iostream\n")
    expected = {}
    for number, (where, line, code) in enumerate(WRONG):
        if where == "server":
            program += f"\n\nclass Server{number}(SharedMemory, l4re.Epiface):\n    {line}"
        else:
            program += f"\n\ndef client{number}(shm: SharedMemory) -> None:\n    {line}"
        expected[program.count("\n") + 1] = code
    found = {}
    for said in check(tmp_path, cache, program + "\n").splitlines():
        place, _, message = said.partition(" error: ")
        if message:
            found[int(place.split(":")[1])] = message.rpartition("[")[2].rstrip("]")
    assert found == expected
