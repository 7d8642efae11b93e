"""Tags and colours: pure text."""

from __future__ import annotations

import pytest

from l4re.errors import InvalidArgument
from l4re.log import Tag, colour_number


def test_a_tag_is_eight_columns_and_a_bar() -> None:
    assert Tag("server").line("Attached DS", coloured=False) == "server  | Attached DS\n"
    assert Tag("a-very-long-name").line("x", coloured=False) == "a-very-l| x\n"
    assert Tag("").line("", coloured=False) == "        | \n"


def test_a_continued_line_has_a_colon() -> None:
    assert Tag("server").line("rest", coloured=False, continued=True) == "server  : rest\n"


def test_a_tag_cannot_draw_on_the_terminal() -> None:
    assert Tag("a\x1b[2Jb\n").line("x", coloured=False) == "a?[2Jb? | x\n"


@pytest.mark.parametrize(
    ("colour", "number"),
    [
        *((letter, at) for at, letter in enumerate("nrgybmcw")),
        *((letter, at + 8) for at, letter in enumerate("NRGYBMCW")),
        ("yellow", 3), ("Green", 10), ("purple", 0), ("Zebra", 0), ("", 0), (None, 7), (3, 3), (11, 11), (17, 1),
    ],
)  # fmt: skip
def test_a_colour_is_a_number_or_the_first_letter_of_a_word(colour: str | int | None, number: int) -> None:
    assert colour_number(colour) == number


@pytest.mark.parametrize(
    ("colour", "line"),
    [
        (3, "\x1b[33mserver  | x\x1b[0m\n"),
        (10, "\x1b[01;32mserver  | x\x1b[0m\n"),
        (0, "\x1b[0mserver  | x\n"),
    ],
)
def test_a_coloured_line_ends_its_colour(colour: int, line: str) -> None:
    assert Tag("server", colour).line("x", coloured=True) == line


def test_a_log_may_be_a_word_or_a_tuple() -> None:
    assert Tag.of("a") == Tag.of(("a",)) == Tag("a", 7)
    assert Tag.of(("a", "green", "key=1")) == Tag("a", 2)


@pytest.mark.parametrize("bad", [(), (3,), ("a", 2.5), (None, "red")])
def test_what_is_no_log_is_refused(bad: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="tag and a colour"):
        Tag.of(bad)
