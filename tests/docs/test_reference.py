"""docs/reference is what the docstrings say, all of it, and every public name has its place there."""

from __future__ import annotations

import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from types import FunctionType

import l4re

ROOT = Path(__file__).parent.parent.parent


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_public_name_has_its_place() -> None:
    names: dict[str, str] = runpy.run_path(str(ROOT / "docs/generate.py"))["documented_names"]()
    assert set(l4re.__all__) <= set(names)
    for name, page in names.items():
        assert f"\n## `{name}`\n" in (ROOT / f"docs/reference/{page}.md").read_text()


def test_every_public_name_says_what_it_is() -> None:
    silent = []
    for name in l4re.__all__:
        value = getattr(l4re, name)
        if not (value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__):
            silent.append(name)
        if isinstance(value, type):
            own = [word for word in vars(value) if not word.startswith("_")]
            members = [word for word in own if isinstance(vars(value)[word], property | FunctionType | classmethod)]
            silent += [f"{name}.{word}" for word in members if not inspect.getdoc(getattr(value, word))]
    assert silent == []
