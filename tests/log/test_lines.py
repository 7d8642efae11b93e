"""Lines out of packets: whatever is written, in whatever pieces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from l4re.log.lines import Farewell, Line, LineAssembler


def assembled(packets: list[bytes], longest: int = 1 << 16) -> list[Line]:
    lines = LineAssembler(longest)
    return [line for packet in packets for line in lines.feed(packet)] + lines.end()


@given(st.lists(st.text(st.characters(blacklist_characters="\n\r", codec="utf-8"), max_size=20), max_size=8), st.data())
def test_the_pieces_do_not_matter(texts: list[str], data: st.DataObject) -> None:
    written = "".join(f"{text}\n" for text in texts).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(written)), max_size=10)))
    packets = [written[a:b] for a, b in zip([0, *cuts], [*cuts, len(written)], strict=True)]
    assert assembled(packets) == [Line(text) for text in texts]


@given(st.lists(st.binary(max_size=40), max_size=10), st.integers(1, 30))
def test_nothing_is_lost_and_nothing_grows(packets: list[bytes], longest: int) -> None:
    lines = assembled(packets, longest)
    assert all(len(line.text) <= longest for line in lines)
    plain = b"".join(packets).decode("utf-8", "replace").replace("\n", "").replace("\r", "")
    assert "".join(line.text for line in lines).replace("\r", "") == plain


def test_a_line_that_is_too_long_goes_on_with_a_mark() -> None:
    assert assembled([b"abcdefgh\nx\n"], 3) == [Line("abc"), Line("def", True), Line("gh", True), Line("x")]


def test_the_last_words_need_no_newline() -> None:
    assert assembled([b"a\nhalf"]) == [Line("a"), Line("half")]
    assert assembled([b"a\n"]) == [Line("a")]


def test_half_a_character_waits_for_its_other_half() -> None:
    assert assembled(["ä".encode()[:1], "ä".encode()[1:] + b"\n"]) == [Line("ä")]
    assert assembled([b"\xff\xfeok\n\xc3"]) == [Line("\ufffd\ufffdok"), Line("\ufffd")]


def test_carriage_returns_before_newlines_go() -> None:
    assert assembled([b"a\r\nb\rc\n"]) == [Line("a"), Line("b\rc")]


def said(*lines: str) -> list[str]:
    farewell = Farewell(limit=10)
    return [line.text for text in lines for line in farewell.feed(Line(text))] + [line.text for line in farewell.end()]


def test_dying_of_an_interrupt_leaves_no_traceback() -> None:
    opening = "Traceback (most recent call last):"
    assert said("bye", opening, '  File "x"', "KeyboardInterrupt") == ["bye"]
    assert said(opening, "  x", "ValueError: y") == [opening, "  x", "ValueError: y"]
    assert said(opening, "  x", "CancelledError", "", "During handling", opening, "KeyboardInterrupt", "") == []
    assert len(said(opening, *"0123456789abc", "KeyboardInterrupt")) > 10
