"""Makes docs/reference from the docstrings: one page for each room, in the order of the table below.

    python docs/generate.py            write the pages
    python docs/generate.py --check    say what is out of date; exit status 1 if anything is

Read from the source text, not from imported objects, so that every Python makes the same pages.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["documented_names", "main", "pages"]

DOCS = Path(__file__).resolve().parent
SOURCE = DOCS.parent / "src"

#: Page, title, and the modules whose public names stand on it.
PAGES = (
    ("environment", "The environment", ("environment", "log.client")),
    ("memory", "Memory: allocators, dataspaces, the region map", ("factory", "dataspace", "rm")),
    ("calls", "Calls: gates, channels, messages", ("gate", "wire.tag")),
    ("irq", "IRQs and semaphores", ("irq",)),
    ("interfaces", "Interfaces, typed and raw", ("interface", "wire.scalars")),
    ("services", "Services: objects of L4Re's own protocols", ("services",)),
    ("server", "The server", ("server",)),
    ("programs", "Starting programs, and whole systems of them", ("boot", "ned.loader")),
    ("capability", "What every capability has", ("cap",)),
    ("rights", "Rights and flags", ("rights",)),
    (
        "wire",
        "Message words, bit by bit",
        ("wire.number", "wire.protocols", "wire.words", "wire.flexpages", "wire.mappings", "wire.timeouts"),
    ),
    ("errors", "Errors", ("errors",)),
)

#: Not in `l4re` itself, but reached through what is.
MORE = {
    "Answered": "interface",
    "Detached": "rm",
    "FileDataspacesStats": "dataspace.files",
    "KernelFactory": "factory.kernel",
    "Maker": "services",
    "Number": "wire.number",
    "ObjectOperation": "interface",
    "ObjectProtocol": "interface",
    "RegionMapStats": "rm",
}

HEAD = "<!-- Made by docs/generate.py from the docstrings; `make docs` makes it anew. -->\n\n"

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Place:
    """Where a public name is defined."""

    module: str
    node: ast.stmt


def parse(module: str) -> ast.Module:
    """Return the syntax tree of ``l4re.MODULE``."""
    path = SOURCE / "l4re" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if module.endswith("leaf"):
        file = path.with_suffix(".pyi")
    return ast.parse(file.read_text(), str(file))


def exported() -> dict[str, str]:
    """Return every name of ``l4re.__all__``, some more, and the modules that they are taken from."""
    tree = parse("")
    found: dict[str, str] = {}
    for each in imports(tree):
        if each.module:
            found |= {alias.asname or alias.name: each.module.removeprefix("l4re.") for alias in each.names}
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names = {name: found[name] for name in ast.literal_eval(node.value) if name in found} | MORE
            return dict(sorted(names.items()))
    raise SystemExit("l4re has no __all__")


def imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    """Yield what a module imports from others, also under a condition."""
    for node in tree.body:
        match node:
            case ast.ImportFrom():
                yield node
            case ast.If(body=body):
                yield from imports(ast.Module(body, []))


def definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what a module defines, also under a condition; a class wins over an alias for type checkers."""
    for node in tree.body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.If(body=body, orelse=orelse):
                yield from definitions(ast.Module([*body, *orelse], []))


def locate(name: str, module: str) -> Place:
    """Follow a name through re-exports to its definition."""
    tree = parse(module)
    found = [node for each, node in definitions(tree) if each == name]
    if found:
        match found[-1]:
            case ast.Assign(value=ast.Attribute(value=ast.Name(id="leaf"), attr=inner)):
                return locate(inner, "_native.leaf")
        return Place(module, found[-1])
    for node in imports(tree):
        if node.module and node.module.startswith("l4re."):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return locate(alias.name, node.module.removeprefix("l4re."))
    raise SystemExit(f"cannot find {name} in l4re.{module}")


# ---- docstrings ----

_ROLE = re.compile(r":[a-z]+:`~?(?:[A-Za-z_0-9]+\.)*([A-Za-z_0-9]+)`")
#: Arguments that only this package can have: who else would call such a constructor?
_INTERNAL = re.compile(r"\b(Fd|IrqSource|Spawned)\b")
#: What classes tell each other, not their users.
_OURS = {"closed_error", "default_code", "default_text", "kind"}
_SECTION = re.compile(r"^(Raises|Args|Returns):$")


def prose(text: str | None) -> str:
    """Return a docstring as Markdown."""
    if not text:
        return ""
    text = _ROLE.sub(r"`\1`", text).replace("``", "`")
    out: list[str] = []
    lines = iter(text.splitlines())
    pending: list[str] = []

    def flush() -> None:
        if pending:
            out.append("\n".join(pending))
            pending.clear()

    rest = list(lines)
    at = 0
    while at < len(rest):
        line = rest[at]
        section = _SECTION.match(line)
        if section or line.endswith("::"):
            block: list[str] = []
            at += 1
            while at < len(rest) and (not rest[at].strip() or rest[at].startswith("    ")):
                block.append(rest[at])
                at += 1
            body = textwrap.dedent("\n".join(block)).strip("\n")
            if section:
                flush()
                out.append(f"{section[1]}:\n\n{entries(body)}")
            else:
                pending.append(line[:-1])
                flush()
                out.append(f"```text\n{body}\n```")
            continue
        if line.strip():
            pending.append(line.rstrip())
        else:
            flush()
        at += 1
    flush()
    return "\n\n".join(part for part in out if part.strip())


def entries(body: str) -> str:
    """Return the ``name: text`` lines of a section as a list."""
    items: list[str] = []
    for line in body.splitlines():
        if line.startswith(" ") and items:
            items[-1] += " " + line.strip()
        elif line.strip():
            items.append(line.strip())
    shown = []
    for item in items:
        names, colon, text = item.partition(": ")
        quoted = ", ".join(f"`{name}`" for name in names.split(", "))
        shown.append(f"- {quoted}: {text}" if colon else f"- {item}")
    return "\n".join(shown)


# ---- signatures ----


def signature(node: Function, *, method: bool, name: str = "") -> str:
    """Return a definition as the caller sees it."""
    arguments = ast.arguments(**{field: getattr(node.args, field) for field in node.args._fields})
    static = any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)
    if method and not static:
        if arguments.posonlyargs:
            arguments.posonlyargs = arguments.posonlyargs[1:]
        else:
            arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return f"{prefix}{name or node.name}({ast.unparse(arguments)}){returns}"


def decorated(node: Function) -> set[str]:
    """Return the names of a function's decorators."""
    return {ast.unparse(each).split("(")[0] for each in node.decorator_list}


def docstring(node: Function, cls: ast.ClassDef, module: str) -> str:
    """Return the docstring of a method, that of the method it overrides if it has none."""
    text = ast.get_docstring(node)
    for base in () if text else map(ast.unparse, cls.bases):
        try:
            place = locate(base.split("[")[0], module)
        except (SystemExit, FileNotFoundError):
            continue
        if isinstance(place.node, ast.ClassDef):
            for other in place.node.body:
                if isinstance(other, ast.FunctionDef | ast.AsyncFunctionDef) and other.name == node.name:
                    return docstring(other, place.node, place.module)
    return text or ""


def members(cls: ast.ClassDef, module: str) -> Iterator[str]:
    """Yield the public members of a class, in the order of the source."""
    bases = " ".join(map(ast.unparse, cls.bases))
    enum, flags = "Enum" in bases or "Flag" in bases, "Flag" in bases
    values: list[str] = []
    body = [each for node in cls.body for each in (node.body if isinstance(node, ast.If) else [node])]
    for at, node in enumerate(body):
        after = body[at + 1] if at + 1 < len(body) else None
        note = (
            prose(textwrap.dedent(after.value.value))
            if isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
            else ""
        )
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) if not name.startswith("_"):
                marks = decorated(node)
                if marks & {"overload", "typing.overload"} or any(mark.endswith(".setter") for mark in marks):
                    continue
                yield member(node, marks, docstring(node, cls, module))
            case ast.AnnAssign(target=ast.Name(id=name)) if not (name.startswith("_") or name in _OURS):
                default = f" = {ast.unparse(node.value)}" if node.value is not None else ""
                yield f"### `{name}: {ast.unparse(node.annotation)}{default}`\n\n{note}".rstrip()
            case ast.Assign(targets=[ast.Name(id=name)]) if enum and not name.startswith("_"):
                values.append(f"`{name}` {number(node.value) if flags else ast.unparse(node.value)}")
    if values:
        yield "Values: " + ", ".join(values) + "."


def number(value: ast.expr) -> str:
    """Return the value of a flag: in hexadecimal where that is easier to read."""
    plain = ast.unparse(value)
    return hex(int(plain)) if plain.isdigit() and int(plain) > 15 else plain


def member(node: Function, marks: set[str], about: str, name: str = "") -> str:
    """Return one method or property, or the constructor of the class ``name``."""
    text = prose(about)
    if marks & {"property", "cached_property"}:
        kind = f": {ast.unparse(node.returns)}" if node.returns is not None else ""
        return f"### `{node.name}{kind}`\n\n{text}".rstrip()
    marker = "*Class method.* " if "classmethod" in marks else ""
    return f"### `{signature(node, method=True, name=name)}`\n\n{marker}{text}".rstrip()


def inherited(cls: ast.ClassDef, module: str) -> Iterator[tuple[str, list[str]]]:
    """Yield what comes from a base class that has no page of its own."""
    for base in cls.bases:
        name = ast.unparse(base).split("[")[0]
        try:
            place = locate(name, module)
        except (SystemExit, FileNotFoundError):
            continue
        if isinstance(place.node, ast.ClassDef) and place.module.endswith("leaf"):
            yield name, list(members(place.node, place.module))


def public_bases(cls: ast.ClassDef, module: str) -> Iterator[str]:
    """Yield the base classes, those of a private one in its place."""
    for base in map(ast.unparse, cls.bases):
        if base.startswith("leaf."):
            continue
        if not base.startswith("_"):
            yield base
            continue
        node = locate(base, module).node
        if isinstance(node, ast.ClassDef):
            yield from public_bases(node, module)


def describe(name: str, place: Place) -> str:
    """Return the section for one public name."""
    node = place.node
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(public_bases(node, place.module))
        parts = [f"## `{name}`", f"`class {name}({bases})`" if bases else f"`class {name}`"]
        parts.append(prose(ast.get_docstring(node)))
        for each in node.body:
            match each:
                case ast.FunctionDef(name="__init__") if ast.get_docstring(each) and not _INTERNAL.search(
                    ast.unparse(each.args)
                ):
                    parts.append(member(each, set(), ast.get_docstring(each) or "", name))
                case (
                    ast.Assign(targets=[ast.Name(id="default_code")])
                    | ast.AnnAssign(target=ast.Name(id="default_code"))
                ) if each.value is not None:
                    parts.append(f"`code` is `{ast.unparse(each.value)}` unless it says otherwise.")
        parts += members(node, place.module)
        for _, more in inherited(node, place.module):
            parts += more
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts = [f"## `{name}`", f"`{signature(node, method=False)}`", prose(ast.get_docstring(node))]
    else:
        parts = [f"## `{name}`", f"`{ast.unparse(node)}`"]
    return "\n\n".join(part for part in parts if part)


# ---- pages ----


def documented_names() -> dict[str, str]:
    """Return the page of every public name."""
    found: dict[str, str] = {}
    for name, taken_from in exported().items():
        module = locate(name, taken_from).module
        for page, _, modules in PAGES:
            if any(module == each or module.startswith(f"{each}.") for each in modules):
                found[name] = page
                break
        else:
            raise SystemExit(f"no page for {name} of l4re.{module}; add it to PAGES")
    return found


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    where = documented_names()
    taken_from = exported()
    result: dict[str, str] = {}
    index = [
        HEAD + "# Reference",
        "Everything here can be imported from `l4re`, except the command and `l4re.testing`.",
    ]
    for page, title, modules in PAGES:
        places = {name: locate(name, taken_from[name]) for name, on in where.items() if on == page}
        rooms = [prose(ast.get_docstring(parse(each))) for each in modules if (SOURCE / "l4re" / each).is_dir()]
        sections = [describe(name, place) for name, place in places.items()]
        result[f"{page}.md"] = HEAD + "\n\n".join([f"# {title}", *rooms, *sections]) + "\n"
        links = ", ".join(f"[`{name}`]({page}.md#{name.lower()})" for name in places)
        index.append(f"## [{title}]({page}.md)\n\n{links}")
    result["command.md"] = HEAD + command()
    result["testing.md"] = HEAD + testing()
    index.append("## [The command `l4re`](command.md)")
    index.append("## [Helpers for tests: `l4re.testing`](testing.md)")
    index += (f"## [{text.partition(chr(10))[0].removeprefix('# ')}]({name})" for name, text in written().items())
    result["index.md"] = "\n\n".join(index) + "\n"
    return result


def written() -> dict[str, str]:
    """Return the pages that people write, by file name."""
    there = {path.name: path.read_text() for path in sorted((DOCS / "reference").glob("*.md"))}
    return {name: text for name, text in there.items() if not text.startswith(HEAD)}


def command() -> str:
    """Return the page of the command line, as its help prints it."""
    from l4re.cli.main import COMMANDS

    parts = ["# The command `l4re`"]
    for words in ((), *((command.name,) for command in COMMANDS)):
        shown = subprocess.run(
            [sys.executable, "-m", "l4re", *words, "--help"],
            env={"COLUMNS": "100", "PATH": "", "NO_COLOR": "1", "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        parts.append(f"## `{' '.join(('l4re', *words))}`\n\n```text\n{shown.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def testing() -> str:
    """Return the page of the test helpers."""
    tree = parse("testing")
    names = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    parts = ["# Helpers for tests: `l4re.testing`", prose(ast.get_docstring(tree))]
    parts += [describe(name, locate(name, "testing")) for name in names]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description="Make docs/reference from the docstrings.")
    parser.add_argument("--check", action="store_true", help="write nothing; name the pages that would change")
    options = parser.parse_args()
    folder = DOCS / "reference"
    made = pages()
    there = {path.name: path.read_text() for path in folder.glob("*.md") if path.name not in written()}
    stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
    if options.check:
        for name in stale:
            print(f"docs/reference/{name} is out of date; `make docs` makes it anew", file=sys.stderr)
        return 1 if stale else 0
    folder.mkdir(exist_ok=True)
    for name in stale:
        if name in made:
            (folder / name).write_text(made[name])
        else:
            (folder / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
