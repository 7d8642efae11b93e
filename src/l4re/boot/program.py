"""Finding the program behind a word."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from l4re.errors import InvalidArgument, NotFound, PermissionDenied, WrongType

__all__ = ["Command", "find_command"]


class Command(NamedTuple):
    """A file to execute and the words it is given; ``name`` is for people."""

    path: str
    argv: tuple[str, ...]
    name: str

    @classmethod
    def of_file(cls, path: str, words: Sequence[str]) -> Command:
        """Return how to run the file ``path``: a ``*.py`` with this interpreter, all else by itself.

        Raises:
            PermissionDenied: it is not executable.
        """
        name = os.path.basename(path)
        if name.endswith(".py"):
            return cls(sys.executable, (sys.executable, path, *words[1:]), name.removesuffix(".py"))
        if not os.access(path, os.X_OK):
            raise PermissionDenied(f"cannot run {path}: it is not executable")
        return cls(path, tuple(words), name)


def find_command(words: Sequence[str | os.PathLike[str]], env: Mapping[str, str]) -> Command:
    """Return what ``[program, *args]`` runs: a path, or a name that is looked for along ``PATH``.

    A relative path counts from our working directory, whatever the program's will be.

    Raises:
        NotFound: there is no such program; the text says where it was looked for.
        PermissionDenied: it is not executable.
        InvalidArgument: this is no list of words.
    """
    if isinstance(words, str | bytes) or not words:
        raise InvalidArgument(f"a program is a list of words, as in ['prog', 'argument']; not {words!r}")
    plain: list[str] = []
    for word in cast("Sequence[object]", words):
        text: object = os.fspath(word) if isinstance(word, str | os.PathLike) else None
        if not isinstance(text, str):
            raise WrongType(f"the words of a command are strings and paths, not {word!r} ({type(word).__name__})")
        if "\0" in text:
            raise InvalidArgument(f"a word of a command cannot hold a NUL character: {text!r}")
        plain.append(text)
    program = plain[0]
    if os.path.dirname(program):
        if not os.path.isfile(program):
            raise NotFound(f"there is no program {program!r} (from {os.getcwd()})", name=program)
        return Command.of_file(os.path.abspath(program), plain)
    if program.endswith(".py") and os.path.isfile(program):
        return Command.of_file(os.path.abspath(program), plain)
    import shutil  # dear to import

    path = env.get("PATH", os.defpath)
    found = shutil.which(program, path=path) if program else None
    if found is None:
        raise NotFound(f"there is no program {program!r} in PATH ({path})", name=program)
    return Command.of_file(os.path.abspath(found), plain)
