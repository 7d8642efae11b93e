"""What the documents show is run: their programs, their commands, and what those print.

In a page, a block of Python or Lua that begins with a comment holding a file name is that file. A ``console`` block
holds commands behind ``$`` and what they print; ``...`` stands for anything. The other blocks of Python of
a page are run one after the other, as one program.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs/tutorial.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"(?:#|--) (\S+\.(?:py|lua))\n")
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)?(?:#([^)\s]+))?\)")

pytestmark = pytest.mark.processes


@dataclass(frozen=True)
class Page:
    """The runnable parts of one document."""

    files: dict[str, str]
    commands: list[tuple[str, str]]
    program: str


def read(path: Path) -> Page:
    files: dict[str, str] = {}
    commands: list[tuple[str, str]] = []
    program = ""
    for language, text in _BLOCK.findall(path.read_text()):
        name = _FILE.match(text)
        if name:
            assert files.setdefault(name[1], text) == text, f"{path.name} shows two versions of {name[1]}"
        elif language == "python":
            program += text
        elif language == "console":
            commands += transcript(text)
    return Page(files, commands, program)


def transcript(text: str) -> Iterator[tuple[str, str]]:
    command, shown = "", ""
    for line in text.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:].strip(), ""
        else:
            shown += line
    yield command, shown


def matches(shown: str, printed: str) -> bool:
    return re.fullmatch(re.escape(shown).replace(re.escape("..."), ".*?"), printed, re.DOTALL) is not None


def run(command: str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env={**os.environ, "PATH": path, "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_shows_what_happens(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    page = read(path)
    for name, text in page.files.items():
        (tmp_path / name).write_text(text)
    for command, shown in page.commands:
        printed = run(command, tmp_path)
        assert matches(shown, printed), f"$ {command}\n{printed}\n-- the page shows --\n{shown}"
    if page.program:
        (tmp_path / "fragments.py").write_text(page.program)
        assert run("python -W error fragments.py", tmp_path) == ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    wrong = []
    for target, anchor in _LINK.findall(path.read_text()):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        there = (path.parent / target).resolve() if target else path
        if not there.exists():
            wrong.append(target)
        elif anchor and anchor not in anchors(there):
            wrong.append(f"{target}#{anchor}")
    assert wrong == []


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
