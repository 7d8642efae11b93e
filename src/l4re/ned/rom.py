"""The rom: the folders where a script's programs and modules lie, searched in order."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from l4re.boot import Command
from l4re.errors import InvalidArgument, NotFound, PermissionDenied

__all__ = ["Rom"]

_PREFIX = "rom/"
#: Programs that every rom has, unless it has another of that name: our own commands.
_BUILT_IN = {"ned-prompt": ("ned-prompt",)}


class Rom:
    """``rom/NAME`` is the file ``NAME`` in one of the folders, or ``NAME.py``, run with this interpreter."""

    __slots__ = ("folders",)

    def __init__(self, folders: Sequence[str | os.PathLike[str]]) -> None:
        """Take the folders to search.

        Raises:
            NotFound: one of them is no folder.
        """
        self.folders = tuple(Path(os.path.abspath(folder)) for folder in folders)
        for folder in self.folders:
            if not folder.is_dir():
                raise NotFound(f"the rom folder {folder} does not exist")

    def command(self, words: Sequence[str]) -> Command:
        """Return what to execute for ``["rom/NAME", argument, ...]``.

        Raises:
            NotFound: there is no such program; the text names the folders.
            PermissionDenied: there is a file that cannot be executed.
        """
        program = words[0]
        inside = program.removeprefix("/")
        if not inside.startswith(_PREFIX):
            raise NotFound(f"there is no program {program!r}: programs are in the rom, as in 'rom/{inside or 'hello'}'")
        name = self._name(inside)
        denied: PermissionDenied | None = None
        built_in = _BUILT_IN.get(name)
        for folder in self.folders:
            for path in (folder / name, folder / f"{name}.py"):
                if not path.is_file():
                    continue
                try:
                    return Command.of_file(os.path.abspath(path), words)
                except PermissionDenied as error:
                    denied = denied or error
        if denied is not None:
            raise denied
        if built_in is not None:
            return Command(sys.executable, (sys.executable, "-m", "l4re", *built_in, *words[1:]), name)
        raise NotFound(
            f"there is no program {name!r} (nor {name + '.py'!r}) in the rom: looked in {self}", name=program
        )

    def file(self, path: str) -> Path | None:
        """Return the file behind ``rom/PATH`` as a script or ``package.path`` spells it, None if there is none."""
        plain = path.removeprefix("./").removeprefix("/")
        if not plain.startswith(_PREFIX):
            there = Path(path)
            return there if there.is_file() else None
        name = self._name(plain)
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    @staticmethod
    def _name(path: str) -> str:
        name = path.removeprefix(_PREFIX)
        if not name or "\0" in name or ".." in name.split("/") or name.startswith("/"):
            raise InvalidArgument(f"{path!r} names nothing inside the rom")
        return name

    def __str__(self) -> str:
        return ", ".join(str(folder) for folder in self.folders)

    def __repr__(self) -> str:
        return f"<Rom {self}>"
