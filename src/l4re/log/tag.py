"""Tags: under which name and in which colour a program speaks.

A tagged line is eight columns of name, a bar and the text, so that the bars of all programs stand in one column.
Pure text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from l4re.errors import InvalidArgument

__all__ = ["PLAIN", "WIDTH", "Tag", "colour_number"]

WIDTH = 8
_LETTERS = "nrgybmcw"
_DEFAULT = 7
_BRIGHT = 8


def colour_number(colour: str | int | None) -> int:
    """Return 0 to 15 for what a script calls a colour.

    A number is itself: bit 3 is bright, the others are ANSI's. Of a word only the first letter counts, one of
    ``n r g y b m c w``, as a capital it is bright; every other word is 0, no colour. None is 7, white.
    """
    if colour is None:
        return _DEFAULT
    if isinstance(colour, int):
        return colour & 15
    letter = colour[:1]
    number = max(0, _LETTERS.find(letter.lower())) if letter else 0
    return number | (_BRIGHT if letter.isupper() and letter.lower() in _LETTERS else 0)


class Tag(NamedTuple):
    """A name of any length (eight characters of it show) and a colour from 0 to 15."""

    name: str
    colour: int = _DEFAULT

    @classmethod
    def of(cls, log: str | Sequence[str | int]) -> Tag:
        """Return the tag of ``"client"``, ``("client",)`` or ``("client", "green")``; further words do not count.

        Raises:
            InvalidArgument: it is none of these.
        """
        words: Sequence[str | int | None] = (log,) if isinstance(log, str) else (*log,)
        name = words[0] if words else None
        colour = words[1] if len(words) > 1 else None
        if not isinstance(name, str) or not isinstance(colour, str | int | None):
            raise InvalidArgument(f"a log is a tag and a colour, as in ('client', 'green'); not {log!r}")
        return cls(name, colour_number(colour))

    def line(self, text: str, *, coloured: bool, continued: bool = False) -> str:
        """Return the line as it is printed, newline included; ``continued``: the rest of one that was cut."""
        name = "".join(c if c.isprintable() else "?" for c in self.name[:WIDTH])
        body = f"{name:<{WIDTH}}{':' if continued else '|'} {text}"
        if not coloured:
            return f"{body}\n"
        return f"{self._escape()}{body}\n" if not self.colour else f"{self._escape()}{body}\x1b[0m\n"

    def _escape(self) -> str:
        if not self.colour:
            return "\x1b[0m"
        return f"\x1b[{'01;' if self.colour & _BRIGHT else ''}3{self.colour & 7}m"


class _Plain(Tag):
    """No tag at all."""

    __slots__ = ()

    def line(self, text: str, *, coloured: bool, continued: bool = False) -> str:
        return f"{text}\n"


#: Lines come out as they are, as those of whoever starts programs.
PLAIN: Final = _Plain("", 0)
