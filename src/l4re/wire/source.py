"""Source text of generated marshalling code, and the names it needs.

A *run* is a stretch of numbers whose distance from each other is known when the code is written: one
``struct`` packs it. Only a string or bytes ends a run, since nobody knows where it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from l4re.wire.codecs import Shape
from l4re.wire.tag import MAX_DATA, WORD

if TYPE_CHECKING:
    from l4re.wire.marshal import Field, Layout

__all__ = ["Run", "Runs", "Source"]

_PADDING = tuple(bytes(n) for n in range(WORD))


class Run:
    """Numbers at known distances, then perhaps the bytes that the last of them counts."""

    def __init__(self, align: int = WORD) -> None:
        self.align = align  # where it begins; the first one begins at 0
        self.reach = 0  # bytes so far
        self.code = ""
        self.arguments: list[str] = []
        self.targets: list[str] = []
        self.blob = ""

    def append(self, code: str, align: int, size: int, arguments: list[str], targets: list[str]) -> None:
        """Put a number, or those of a struct, at its natural alignment."""
        pad = -self.reach % align
        self.code += f"{pad}x{code}" if pad else code
        self.reach += pad + size
        self.arguments += arguments
        self.targets += targets


class Runs(NamedTuple):
    """All runs of a layout, and what follows from them."""

    runs: list[Run]
    opcode: int | None
    blobs: list[tuple[str, str]]  # variable, expression for its bytes

    @property
    def dynamic(self) -> bool:
        """Whether the length is known only when there are values."""
        return bool(self.blobs)

    @property
    def size(self) -> int:
        """Bytes of a stream without strings and bytes."""
        return sum(run.reach for run in self.runs)


class Source:
    """Lines of one generated function and its global names."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__builtins__": {}}
        self._lines: list[str] = []
        self._depth = 0

    def bind(self, value: object) -> str:
        """Return a name for ``value`` in the generated code."""
        for name, known in self.names.items():
            if known is value:
                return name
        name = f"_l4_{len(self.names)}"
        self.names[name] = value
        return name

    def line(self, text: str) -> None:
        """Append one line."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def indented(self) -> Iterator[None]:
        """Indent what is appended inside."""
        self._depth += 1
        yield
        self._depth -= 1

    def text(self) -> str:
        """Return the source."""
        return "\n".join(self._lines) + "\n"

    def compiled(self, name: str, origin: str) -> Callable[..., Any]:
        """Return the function ``name`` that the lines define; ``origin`` is shown in tracebacks."""
        exec(compile(self.text(), f"<l4re {origin}>", "exec"), self.names)
        return self.names[name]  # type: ignore[no-any-return]

    def runs(self, layout: Layout, pairs: Sequence[tuple[str, Field]]) -> Runs:
        """Cut the layout's numbers into runs."""
        runs = [Run()]
        blobs: list[tuple[str, str]] = []
        if layout.opcode is not None:
            runs[0].append("i", 4, 4, [str(layout.opcode)], [""])
        for variable, entry in pairs:
            codec = entry.codec
            if codec.shape is Shape.ITEM:
                continue
            code, size = codec.code, codec.least
            align = codec.align or size  # a blob's length
            if runs[-1].blob or align > runs[-1].align:
                runs.append(Run(align))
            if codec.shape is Shape.BLOB:
                blobs.append((f"_l4_{variable}_b", codec.to_wire(variable, self.bind)))
                runs[-1].append(code, align, size, [f"{self.bind(len)}(_l4_{variable}_b)"], [f"_l4_{variable}_n"])
                runs[-1].blob = variable
            else:
                runs[-1].append(code, align, size, codec.numbers(variable, self.bind), codec.targets(variable))
        return Runs([run for run in runs if run.code], layout.opcode, blobs)

    def pack_runs(self, runs: Runs) -> bool:
        """Write code that packs into ``_l4_words``; return whether its length varies."""
        for variable, expression in runs.blobs:
            self.line(f"{variable} = {expression}")
            self.line(f"if {self.bind(len)}({variable}) > {MAX_DATA}: raise {self.bind(ValueError)}")
        if not runs.runs:
            self.line("_l4_words = b''")
            return False
        padding = self.bind(_PADDING)
        for index, run in enumerate(runs.runs):
            last = run is runs.runs[-1] and not runs.dynamic
            tail = -run.reach % WORD if last else 0
            pack = self.bind(Struct(f"={run.code}{tail}x" if tail else f"={run.code}").pack)
            packed = f"{pack}({', '.join(run.arguments)})" + (f" + _l4_{run.blob}_b" if run.blob else "")
            if index:
                self.line(f"_l4_words += {padding}[-{self.bind(len)}(_l4_words) & {run.align - 1}] + {packed}")
            else:
                self.line(f"_l4_words = {packed}")
        if runs.dynamic:
            self.line(f"_l4_words += {padding}[-{self.bind(len)}(_l4_words) & {WORD - 1}]")
        return runs.dynamic

    def unpack_runs(self, runs: Runs, stream: str) -> None:
        """Write code that unpacks the variable ``stream`` into the targets of the runs."""
        if not any(target for run in runs.runs for target in run.targets):
            return
        for index, run in enumerate(runs.runs):
            skip = index == 0 and runs.opcode is not None
            code = "4x" + run.code[1:] if skip else run.code
            targets = run.targets[1:] if skip else run.targets
            unpack = self.bind(Struct(f"={code}").unpack_from)
            if index and run.align > 1:
                self.line(f"_l4_at = _l4_at + {run.align - 1} & -{run.align}")
            if targets:
                self.line(f"{', '.join(targets)}, = {unpack}({stream}{', _l4_at' if index else ''})")
            if run.blob or run is not runs.runs[-1]:
                self.line(f"_l4_at {'+=' if index else '='} {run.reach}")
            if run.blob:
                self.line(f"_l4_end = _l4_at + _l4_{run.blob}_n")
                self.line(f"if _l4_end > {self.bind(len)}({stream}): raise {self.bind(ValueError)}")
                self.line(f"{run.blob} = {stream}[_l4_at:_l4_end]")
                self.line("_l4_at = _l4_end")
