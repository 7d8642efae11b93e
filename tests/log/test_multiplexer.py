"""The multiplexer: whole lines, in the order they were written, none lost."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator

import pytest

from l4re.linux.fd import Fd
from l4re.log import Console, Multiplexer, Tag
from l4re.log.multiplexer import Voice
from l4re.testing import wait_until


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(output: io.StringIO) -> Iterator[Multiplexer]:
    with Multiplexer(Console(output)) as multiplexer:
        yield multiplexer


def say(pipe: Fd, text: str | bytes) -> None:
    data = text.encode() if isinstance(text, str) else text
    os.write(pipe.fileno(), data)


def test_lines_come_out_under_their_tags(log: Multiplexer, output: io.StringIO) -> None:
    with log.add(Tag("one")) as one, log.add(Tag("two")) as two:
        say(one, "a\nb\n")
        say(two, "c\n")
        assert log.flush(10)
    assert output.getvalue() == "one     | a\none     | b\ntwo     | c\n"


class Slow(io.StringIO):
    """Takes its first line only when it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may = threading.Event()

    def write(self, text: str) -> int:
        self.may.wait()
        return super().write(text)


def test_lines_keep_the_order_in_which_they_were_written_however_late_the_reader_is() -> None:
    output = Slow()
    written = 0

    def write() -> None:
        nonlocal written
        for turn in range(400):
            pipe = pipes[turn * 5 % 8]
            say(pipe, f"{turn}")
            written += 1
            say(pipe, "\n")

    with Multiplexer(Console(output)) as log:
        pipes = [log.add(Tag(f"p{at}")) for at in range(8)]
        writer = threading.Thread(target=write)
        writer.start()
        wait_until(lambda: written == 2)
        output.may.set()
        writer.join()
        for pipe in pipes:
            pipe.close()
        assert log.flush(10)
    assert [int(line.split("| ")[1]) for line in output.getvalue().splitlines()] == list(range(400))


def test_half_a_line_of_one_does_not_hold_up_another(log: Multiplexer, output: io.StringIO) -> None:
    with log.add(Tag("one")) as one, log.add(Tag("two")) as two:
        say(one, "he")
        say(two, "whole\n")
        say(one, "llo\n")
        assert log.flush(10)
    assert output.getvalue() == "two     | whole\none     | hello\n"


def test_last_words_are_printed_at_the_end_of_the_stream(log: Multiplexer, output: io.StringIO) -> None:
    with log.add(Tag("one")) as one:
        say(one, b"no newline \xff")
        assert log.flush(10)
        assert output.getvalue() == ""
    assert log.flush(10)
    assert output.getvalue() == "one     | no newline \ufffd\n"


def test_a_pipe_that_its_program_enlarged_loses_nothing(log: Multiplexer, output: io.StringIO) -> None:
    import fcntl

    with log.add(Tag("one")) as one:
        fcntl.fcntl(one.fileno(), fcntl.F_SETPIPE_SZ, 1 << 16)
        for number in range(1000):
            say(one, f"{number}\n")
    assert log.flush(10)
    assert len(output.getvalue().splitlines()) == 1000


def test_closing_prints_what_is_left() -> None:
    output = io.StringIO()
    log = Multiplexer(Console(output))
    with log.add(Tag("one")) as one:
        say(one, "half")
        log.close()
        log.close()
        with pytest.raises(BrokenPipeError):
            say(one, "x")
    assert output.getvalue() == "one     | half\n"
    assert log.flush(1)


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_reader_that_is_gone_stops_no_program() -> None:
    told: list[int] = []
    console = Console(Broken(), on_broken=lambda: told.append(1))
    with Multiplexer(console) as log, log.add(Tag("one")) as one:
        for _ in range(100):
            say(one, "x" * 4000 + "\n")
        assert log.flush(10)
    assert told == [1]
    assert isinstance(console.error, BrokenPipeError)


def test_an_output_that_cannot_spell_a_character_gets_its_number() -> None:
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, encoding="ascii"))
    console.plain("ä\n")
    assert raw.getvalue() == b"\\xe4\n"


@pytest.mark.parametrize(("colours", "expected"), [(True, "\x1b[31mone     | x\x1b[0m\n"), (False, "one     | x\n")])
def test_colours_are_the_consoles_choice(colours: bool, expected: str) -> None:
    output = io.StringIO()
    with Multiplexer(Console(output, colours=colours)) as log:
        with log.add(Tag("one", 1)) as one:
            say(one, "x\n")
        assert log.flush(10)
    assert output.getvalue() == expected


# ---- voices: lines without a pipe ----


def test_a_voice_says_whole_lines_and_in_the_end_the_rest(log: Multiplexer, output: io.StringIO) -> None:
    voice = log.voice(Tag("voice"))
    for piece in (b"on", b"e\ntw", b"o\nthr"):
        voice.write(piece)
    assert log.flush(10)
    assert output.getvalue() == "voice   | one\nvoice   | two\n"
    voice.close()
    assert log.flush(10)
    assert output.getvalue().endswith("voice   | thr\n")


def test_a_voice_never_waits_and_tells_what_was_lost() -> None:
    output = Slow()
    line = b"x" * 999 + b"\n"
    with Multiplexer(Console(output)) as log:
        loud, quiet = log.voice(Tag("loud")), log.voice(Tag("quiet"))
        spoken = 2 * Voice.ROOM // len(line)
        for _ in range(spoken):
            loud.write(line)  # nobody reads meanwhile
        quiet.write(b"still heard\n")
        output.may.set()
        assert log.flush(60)
        loud.write(b"again\n")
        assert log.flush(60)
    lines = output.getvalue().splitlines()
    kept = sum("xxx" in each for each in lines)
    (lost,) = [int(each.split("[")[1].split()[0]) for each in lines if "were lost here" in each]
    assert lost == (spoken - kept) * len(line) > 0
    assert kept * len(line) <= Voice.ROOM
    assert {"quiet   | still heard", "loud    | again"} <= set(lines)


def test_what_was_said_before_the_end_is_printed_and_nothing_after_it(output: io.StringIO) -> None:
    log = Multiplexer(Console(output))
    voice = log.voice(Tag("voice"))
    voice.write(b"before\n")
    log.close()
    voice.write(b"after\n")
    voice.close()
    assert output.getvalue() == "voice   | before\n"


def test_voices_of_many_threads_mix_line_by_line(log: Multiplexer, output: io.StringIO) -> None:
    def speak(number: int) -> None:
        voice = log.voice(Tag(str(number)))
        for turn in range(200):
            voice.write(f"{number} says {turn}\n".encode())

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log.flush(10)
    for number in range(4):
        said = [line for line in output.getvalue().splitlines() if line.startswith(f"{number} ")]
        assert said == [f"{number}       | {number} says {turn}" for turn in range(200)]
