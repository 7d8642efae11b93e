"""The environment page: text that only its addressee reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re import InvalidArgument, Rights
from l4re.environment.page import PID_AT, CapEntry, EnvPage, check_name
from l4re.wire.items import ItemKind

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(
    lambda name: name.isprintable() and name.strip() == name
)
entries = st.builds(
    CapEntry,
    st.sampled_from(ItemKind),
    st.sampled_from(sorted(Rights.RWSD)).map(Rights) | st.integers(0, 15).map(Rights),
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple),
    names,
)


@given(st.lists(entries, max_size=6, unique_by=lambda entry: entry.name), st.integers(0, 10**10 - 1))
def test_what_was_written_is_read(caps: list[CapEntry], pid: int) -> None:
    fds = [fd for cap in caps for fd in cap.fds]
    page = EnvPage(tuple(caps), "server", pid)
    if len(set(fds)) == len(fds):
        assert EnvPage.parse(page.pack()) == page
    else:
        with pytest.raises(InvalidArgument, match="twice"):
            EnvPage.parse(page.pack())


@given(st.binary(max_size=200))
def test_what_is_no_page_has_no_addressee(data: bytes) -> None:
    assert EnvPage.addressee(data) is None or data.startswith(b"l4re-env 1\npid ")


@given(st.binary(max_size=100))
def test_a_damaged_page_is_refused_or_read_but_nothing_else(tail: bytes) -> None:
    try:
        EnvPage.parse(EnvPage(pid=7).pack() + tail)
    except InvalidArgument:
        pass


def test_the_format_is_what_the_documentation_shows() -> None:
    page = EnvPage(
        (
            CapEntry(ItemKind.GATE, Rights.RWS, 0, (4,), "calculator"),
            CapEntry(ItemKind.DATASPACE, Rights.R, 16384, (5, 6), "camera frames"),
        ),
        "server",
        12345,
    )
    text = page.pack().decode()
    assert text == (
        "l4re-env 1\npid 0000012345\nlog server\ncap gate rws 0 4 calculator\ncap dataspace r 16384 5,6 camera frames\n"
    )
    assert text[PID_AT:].startswith("0000012345\n")


def test_a_reader_skips_lines_it_does_not_know() -> None:
    assert EnvPage.parse(EnvPage(pid=7).pack() + b"future words\n").pid == 7


@pytest.mark.parametrize(
    "line",
    [
        "cap gate rws 0 4", "cap gate rws 0 4 ", "cap gate xyz 0 4 a", "cap what r 0 4 a", "cap gate r -1 4 a",
        "cap gate r 0 4,x a", "cap gate r 0 99999999999 a", "cap gate r 18446744073709551616 4 a", "cap gate r 0 ٤ a",
    ],
)  # fmt: skip
def test_a_line_that_makes_no_sense_is_refused(line: str) -> None:
    with pytest.raises(InvalidArgument, match="not a capability"):
        EnvPage.parse(EnvPage(pid=7).pack() + f"{line}\n".encode())


@pytest.mark.parametrize("name", ["", " a", "a\nb", "a\0", 3, None, "x" * 256, "\ud800"])
def test_a_name_that_cannot_be_written_is_refused(name: object) -> None:
    with pytest.raises(InvalidArgument, match="name"):
        check_name(name)
