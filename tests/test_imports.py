"""The rooms: who may import whom, what is public, and that importing does nothing."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import l4re

ROOT = Path(l4re.__file__).parent
PROJECT = Path(__file__).parent.parent
MODULES = sorted(ROOT.rglob("*.py"))
ROOMS = sorted(path for path in ROOT.rglob("__init__.py") if path.parent != ROOT)

#: Calls that make a descriptor, or read and write one: `linux` wraps them.
DESCRIPTOR_CALLS = {
    *("eventfd", "eventfd_read", "eventfd_write", "memfd_create", "open", "pidfd_open", "pipe", "pipe2"),
    *("fork", "kill", "posix_spawn"),
    *("pread", "pwrite", "read", "readv", "splice", "write", "writev"),
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PROJECT)) if path.is_relative_to(PROJECT) else str(path)


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def public(module: ast.Module) -> Iterator[str]:
    """The classes and functions this module defines, without an underscore in front."""
    for node in module.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
            yield node.name


def listed(module: ast.Module) -> list[str] | None:
    for node in module.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                return list(ast.literal_eval(value))
            case ast.AnnAssign(target=ast.Name(id="__all__"), value=ast.expr() as value):
                return list(ast.literal_eval(value))
    return None


def test_imports_point_down(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.cli import lint_imports

    monkeypatch.chdir(PROJECT)
    failed = lint_imports(no_cache=True)
    assert not failed, capsys.readouterr().out


def test_public_means_listed() -> None:
    wrong = []
    for path in MODULES:
        dotted = ".".join(("l4re", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        names = listed(tree(path))
        if names is None:
            wrong.append(f"{dotted} has no __all__")
            continue
        if path != ROOT / "__main__.py":
            loaded = importlib.import_module(dotted)
            wrong += [f"{dotted} lists {name}, which it has not" for name in names if not hasattr(loaded, name)]
        wrong += [f"{dotted}.{name} is not listed" for name in public(tree(path)) if name not in names]
        wrong += [f"{dotted} lists {name} twice" for name in set(names) if names.count(name) > 1]
    assert wrong == []


def test_a_module_opens_with_what_it_is_for() -> None:
    assert [name_of(path) for path in MODULES if not ast.get_docstring(tree(path))] == []


def test_a_room_says_what_lives_here_and_what_it_promises() -> None:
    assert [name_of(path) for path in ROOMS if len((ast.get_docstring(tree(path)) or "").split()) < 20] == []


def test_rooms_use_each_others_public_names_only() -> None:
    wrong = []
    for path in MODULES:
        room = ["l4re", path.relative_to(ROOT).parts[0]]
        for node in ast.walk(tree(path)):
            match node:
                case ast.ImportFrom(module=str(module)) if module.startswith("l4re.") and module.split(".")[:2] != room:
                    taken = [alias.name for alias in node.names if alias.name.startswith("_")]
                    if taken:
                        wrong.append(f"{name_of(path)}:{node.lineno} takes {taken} from {module}")
    assert wrong == []


def test_descriptors_come_from_linux_and_the_leaf() -> None:
    wrong = []
    for path in MODULES:
        if path.parent.name == "linux":
            continue
        for node in ast.walk(tree(path)):
            match node:
                case ast.Attribute(value=ast.Name(id="os"), attr=attr) if attr in DESCRIPTOR_CALLS:
                    wrong.append(f"{name_of(path)}:{node.lineno} uses os.{attr}")
    assert wrong == []


def names_for_type_checkers(module: ast.Module) -> set[tuple[str, str]]:
    return {
        (str(each.module), alias.name)
        for node in module.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for each in node.body
        if isinstance(each, ast.ImportFrom)
        for alias in each.names
    }


@pytest.mark.parametrize("package", ["l4re", "l4re.interface", "l4re.irq", "l4re.log", "l4re.services"])
def test_names_on_demand_are_those_that_type_checkers_see(package: str) -> None:
    loaded = importlib.import_module(package)
    promised = names_for_type_checkers(tree(Path(str(loaded.__file__))))
    assert promised
    assert {name for _, name in promised} <= set(loaded.__all__)
    assert set(loaded.__all__) <= set(dir(loaded))
    for module, name in promised:
        assert loaded.__getattr__(name) is getattr(importlib.import_module(module), name)
        assert loaded.__getattr__(module.removeprefix(f"{package}.")) is importlib.import_module(module)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        loaded.nothing  # noqa: B018


#: What a start would notice: each of them takes milliseconds to load.
HEAVY = {
    *("ast", "asyncio", "concurrent", "dataclasses", "difflib", "dis", "inspect", "json", "logging", "lupa"),
    *(
        "multiprocessing",
        "numpy",
        "pathlib",
        "shutil",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "traceback",
        "urllib",
    ),
}

PROGRAMS = {
    "one that only imports": "",
    "one that calls": "l4re.env()",
    "one that defines an interface": """
class Calc(l4re.Interface):
    @l4re.rpc
    def add(self, a: int, b: int) -> int:
        raise NotImplementedError
""",
    "one that shares memory": "l4re.env().rm.attach(l4re.env().mem_alloc.alloc(64)).detach()",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_starts_without_what_it_does_not_need(name: str) -> None:
    code = f"import sys\nbefore = set(sys.modules)\nimport l4re\n{PROGRAMS[name]}\nprint(*{{*sys.modules}} - before)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & {module.split(".")[0] for module in done.stdout.split()}


def test_importing_opens_nothing_and_starts_nothing() -> None:
    code = """
import os, signal, threading
def state():
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    return os.listdir("/proc/self/fd"), os.listdir("/proc/self/task"), threading.enumerate(), handlers
before = state()
import l4re
assert state() == before, (before, state())
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
