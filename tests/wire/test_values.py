"""Words, flexpages, mappings, timeouts and protocol numbers: bit by bit, and both ways for any bits."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l4re.errors import InvalidArgument, MessageTooLong, MessageTooShort, OutOfRange
from l4re.rights import DsFlags, Rights
from l4re.wire.flexpages import Flexpage, FlexpageKind
from l4re.wire.mappings import MapAttributes, Received, ReceivedItem, ReceiveItem, SendItem
from l4re.wire.number import Number
from l4re.wire.protocols import Proto
from l4re.wire.timeouts import Timeout, Timeouts
from l4re.wire.words import Words

WORD = st.integers(0, (1 << 64) - 1)
NO_WORD = st.integers(max_value=-1) | st.integers(min_value=1 << 64)
PAGE = st.integers(0, (1 << 52) - 1).map(lambda number: number << 12)


# ---- words ----


@given(st.lists(st.integers(-(1 << 63), (1 << 64) - 1), max_size=63))
def test_words_come_back_from_bytes(numbers: list[int]) -> None:
    words = Words(numbers)
    assert Words.from_bytes(words.to_bytes()) == words
    assert all(word % (1 << 64) == number % (1 << 64) for word, number in zip(words, numbers, strict=True))
    assert [words.signed(n) % (1 << 64) for n in range(len(words))] == list(words)
    assert hash(words) == hash(Words(list(words)))


@given(st.binary(max_size=520))
def test_any_bytes_are_words_or_too_many(data: bytes) -> None:
    if len(data) > 504:
        with pytest.raises(MessageTooLong):
            Words.from_bytes(data)
    else:
        assert Words.from_bytes(data).to_bytes() == data + bytes(-len(data) % 8)


def test_what_is_no_word_is_refused() -> None:
    assert repr(Words([1, -1])) == "Words([0x1, 0xffffffffffffffff])"
    assert Words([-2]).signed(0) == -2
    with pytest.raises(MessageTooLong):
        Words(range(64))
    for number in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(OutOfRange):
            Words([number])


# ---- flexpages ----


@given(WORD)
def test_any_word_is_a_flexpage_and_its_parts_make_it_again(word: int) -> None:
    page = Flexpage(word)
    assert Flexpage.make(page.kind, page.number, page.order, page.rights) == word
    assert repr(page).startswith("<Flexpage ")
    assert pickle.loads(pickle.dumps(page)) == page
    assert bool(page) == (word != 0)


@given(st.integers(12, 63), st.integers(0, (1 << 64) - 1), st.integers(0, 7).map(DsFlags))
def test_memory_comes_back_from_its_flexpage(order: int, address: int, rights: DsFlags) -> None:
    address &= ~((1 << order) - 1)
    page = Flexpage.memory(address, order, rights)
    assert (page.kind, page.address, page.order, page.rights) == (FlexpageKind.MEMORY, address, order, rights)
    assert page.size == 1 << order


@given(st.integers(0, 40), st.integers(0, (1 << 52) - 1), st.integers(0, 15).map(Rights))
def test_slots_and_ports_come_back_from_their_flexpage(order: int, first: int, rights: Rights) -> None:
    first &= ~((1 << order) - 1)
    page = Flexpage.obj(first, order, rights)
    assert (page.kind, page.number, page.order, page.rights) == (FlexpageKind.OBJ, first, order, rights)
    page = Flexpage.io(first, order)
    assert (page.kind, page.number, page.order) == (FlexpageKind.IO, first, order)


def test_the_bits_of_a_flexpage() -> None:
    assert Flexpage.memory(0x40_0000, 21, DsFlags.RW) == 0x40_0000 | 21 << 6 | 1 << 4 | 6
    assert Flexpage.obj(0x16, rights=Rights.RWS) == 0x16 << 12 | 3 << 4 | 7
    assert Flexpage.io(0x60, 4) == 0x60 << 12 | 4 << 6 | 2 << 4 | 5
    assert Flexpage.everything() == 63 << 6
    assert Flexpage.INVALID == 0


def test_a_flexpage_can_be_read() -> None:
    assert repr(Flexpage.memory(0x40_0000, 21, DsFlags.RW)) == "<Flexpage memory 0x400000 order 21 rw>"
    assert repr(Flexpage.obj(0x16, rights=Rights.RWSD)) == "<Flexpage obj 0x16 order 0 rwsd>"
    assert repr(Flexpage.everything()) == "<Flexpage everything ->"
    assert repr(Flexpage.INVALID) == "<Flexpage invalid>"


def test_a_flexpage_that_cannot_be_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="multiple of 0x200000"):
        Flexpage.memory(0x1000, 21)
    with pytest.raises(InvalidArgument, match="in pages"):
        Flexpage.memory(0, 3)
    with pytest.raises(OutOfRange, match="order"):
        Flexpage.obj(0, 64)
    with pytest.raises(OutOfRange, match="rights"):
        Flexpage.make(1, 0, 12, 16)
    with pytest.raises(OutOfRange, match="number"):
        Flexpage.obj(1 << 52)


@pytest.mark.parametrize("cls", [Flexpage, Timeout, Timeouts])
@given(number=NO_WORD)
def test_a_number_that_is_too_wide_is_refused(cls: type[Number], number: int) -> None:
    with pytest.raises(OutOfRange, match=f"{cls.__name__} is an unsigned number of {cls.bits} bits"):
        cls(number)


# ---- mappings ----


@given(WORD, WORD)
def test_any_two_words_are_a_send_item(base: int, fpage: int) -> None:
    item = SendItem.from_words(base, fpage)
    assert tuple(item) == (base, fpage)
    bits = base & 0xC  # bit 2 has no meaning, bit 3 is always set
    assert item.hot_spot | item.attributes | item.grant << 1 | item.compound | bits == base & ~0xF00
    assert repr(item).startswith("<SendItem ")
    assert hash(item) == hash((base, fpage))


@given(PAGE, st.booleans(), st.booleans(), st.integers(0, 15).map(lambda bits: bits << 4))
def test_a_send_item_gives_back_what_it_was_made_of(spot: int, grant: bool, compound: bool, attributes: int) -> None:
    page = Flexpage.obj(7)
    item = SendItem.make(page, hot_spot=spot, grant=grant, compound=compound, attributes=attributes)
    assert (item.fpage, item.hot_spot, item.grant, item.compound) == (page, spot, grant, compound)
    assert item.attributes == attributes
    assert item.valid
    assert SendItem.from_words(*item) == item


def test_the_bits_of_a_send_item() -> None:
    item = SendItem.make(Flexpage.obj(0x16), hot_spot=0x5000, grant=True, attributes=MapAttributes.GATE_SERVER)
    assert item.base == 0x5000 | 0x20 | 8 | 2
    assert SendItem.make(Flexpage.obj(1), attributes=MapAttributes.ALL_RIGHTS, compound=True).base == 0xE9
    assert not SendItem.from_words(0, 0).valid
    with pytest.raises(InvalidArgument, match="hot spot 0x5001"):
        SendItem.make(Flexpage.obj(1), hot_spot=0x5001)
    with pytest.raises(InvalidArgument, match="attributes 0x1"):
        SendItem.make(Flexpage.obj(1), attributes=1)


@given(st.lists(WORD, max_size=4))
def test_any_words_are_a_receive_item_or_an_error(words: list[int]) -> None:
    try:
        item = ReceiveItem.from_words(words)
    except (InvalidArgument, MessageTooShort):
        return
    assert list(item.words) == words[: len(item.words)]
    assert ReceiveItem.from_words(item.words) == item
    assert repr(item).startswith("<ReceiveItem ")


@given(st.integers(0, 0xF), st.lists(WORD, min_size=2, max_size=2))
def test_what_is_a_receive_item_is_told_by_its_low_bits(low: int, more: list[int]) -> None:
    if not low & 8 or (low & 4 and low & 3 != 2):
        with pytest.raises(InvalidArgument):
            ReceiveItem.from_words([low, *more])
    else:
        item = ReceiveItem.from_words([low, *more])
        assert len(item.words) == {0: 2, 1: 3, 2: 1, 3: 2}[low & 3]
        with pytest.raises(MessageTooShort):
            ReceiveItem.from_words(item.words[:-1])


def test_the_bits_of_a_receive_item() -> None:
    assert ReceiveItem.single(0x16).words == (0x16 << 12 | 8 | 2,)
    assert ReceiveItem.single(0x16, local_id=True).words == (0x16 << 12 | 8 | 4 | 2,)
    assert ReceiveItem.single(0x16, task=0x1000).words == (0x16 << 12 | 8 | 2 | 1, 0x1000)
    page = Flexpage.everything()
    assert ReceiveItem.window(page, hot_spot=0x3000).words == (0x3000 | 8, page)
    assert (ReceiveItem.single(3).slot, ReceiveItem.window(page).slot) == (3, None)
    with pytest.raises(InvalidArgument, match="another task"):
        ReceiveItem.single(1, local_id=True, task=0x1000)
    with pytest.raises(OutOfRange):
        ReceiveItem.single(1 << 52)


@given(WORD, WORD)
def test_any_two_words_are_a_received_item(base: int, value: int) -> None:
    item = ReceivedItem.from_words(base, value)
    assert tuple(item) == (base, value)
    assert [item.cap_received, item.id_received, item.local_id_received] == [
        base & 0x3E == wanted for wanted in (0x38, 0x3C, 0x3E)
    ]
    assert item.label | item.rights == value
    assert repr(item).startswith("<ReceivedItem ")


def test_the_bits_of_a_received_item() -> None:
    item = ReceivedItem.from_words(0x3C, 0x4000 | 3)
    assert (item.outcome, item.id_received, item.label, item.rights) == (Received.ID, True, 0x4000, Rights.W | Rights.S)
    assert repr(item) == "<ReceivedItem id label 0x4000 ws>"
    assert ReceivedItem.from_words(0x38, 0).cap_received
    assert not ReceivedItem.from_words(0x30, 0).valid
    assert ReceivedItem.from_words(0x3E, Flexpage.obj(2)).fpage == Flexpage.obj(2)


# ---- timeouts ----


@given(st.integers(0, 0xFFFF))
def test_any_16_bits_are_a_timeout_and_its_parts_make_it_again(bits: int) -> None:
    timeout = Timeout(bits)
    assert repr(timeout).startswith("<Timeout ")
    if timeout.absolute:
        assert Timeout.at(timeout.register or 0) == bits & 0x803F
        with pytest.raises(InvalidArgument, match="point in time"):
            _ = timeout.us
    else:
        assert Timeout.make(bits & 0x3FF, bits >> 10) == bits
        assert (timeout.us is None) == (bits == 0)


@given(st.integers(0, 1 << 42))
def test_a_timeout_is_the_shortest_that_is_not_shorter(us: int) -> None:
    timeout = Timeout.from_us(us)
    if us > 1023 << 31:
        assert timeout == Timeout.NEVER
        return
    said = timeout.us
    assert said is not None
    assert said >= us
    exponent = timeout >> 10
    assert said - us < 1 << exponent
    assert us == 0 or exponent == 0 or 1023 << exponent - 1 < us  # a finer one could not say it


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_two_timeouts_make_a_pair(send: int, receive: int) -> None:
    pair = Timeouts.make(send, receive)
    assert (pair.send, pair.receive, int(pair)) == (send, receive, send << 16 | receive)


def test_the_bits_of_timeouts() -> None:
    assert (Timeout.NEVER, Timeout.ZERO, Timeout.at(5)) == (0, 0x400, 0x8005)
    assert (Timeouts.BOTH_0, Timeouts.SEND_0, Timeouts.RECV_0) == (0x04000400, 0x04000000, 0x400)
    assert Timeouts.make(Timeout.ZERO, Timeout.NEVER) == Timeouts.SEND_0
    assert [Timeout.from_us(us).us for us in (1, 1023, 1024, 1025, 2047)] == [1, 1023, 1024, 1026, 2048]
    assert Timeout.from_us((1 << 41) - 1) == Timeout.from_us(1 << 41) == Timeout.NEVER


def test_timeouts_are_seconds_too() -> None:
    assert (Timeout.from_seconds(None), Timeout.from_seconds(float("inf"))) == (Timeout.NEVER, Timeout.NEVER)
    assert Timeout.from_seconds(0) == Timeout.ZERO
    assert Timeout.from_seconds(0.001).seconds == 0.001
    assert Timeout.from_seconds(1e-9).us == 1
    assert Timeout.NEVER.seconds is None
    for wrong in (-1.0, float("nan")):
        with pytest.raises(InvalidArgument):
            Timeout.from_seconds(wrong)
    assert (repr(Timeout.NEVER), repr(Timeout.from_us(5)), repr(Timeout.at(2))) == (
        "<Timeout never>",
        "<Timeout 5 us>",
        "<Timeout at buffer register 2>",
    )


def test_protocol_numbers_are_upstreams() -> None:
    assert (Proto.NONE, Proto.IRQ, Proto.FACTORY, Proto.IRQ_SENDER, Proto.META) == (0, -1, -15, -18, -21)
    assert (Proto.DATASPACE, Proto.RM, Proto.MEM_ALLOC, Proto.REMOTE_ACCESS) == (0x4000, 0x4005, 0x400B, 0x400C)
    assert (Proto.EMPTY, Proto.DEBUG) == (-19, -0x8000)
