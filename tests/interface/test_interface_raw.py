"""Raw server objects, streams, META and casts."""

from __future__ import annotations

import enum
import struct
import warnings
from typing import Any

import pytest
from fake_gate import FakeCap, FakeGate, FakeIrq
from hypothesis import given
from hypothesis import strategies as st

from l4re.cap import Capability
from l4re.errors import (
    BadProtocol,
    Err,
    InvalidArgument,
    L4Error,
    MessageTooLong,
    MessageTooShort,
    MissingArgument,
    NotFound,
    OutOfRange,
    ServerError,
    WrongType,
)
from l4re.interface import (
    S16,
    U8,
    U32,
    Epiface,
    Interface,
    Iostream,
    Meta,
    Opcode,
    ServerObject,
    cap_cast,
    cap_dynamic_cast,
    cap_reinterpret_cast,
    handle_meta_request,
    rpc,
)
from l4re.rights import Rights
from l4re.wire.tag import PROTO_EMPTY


class Shm(Interface):
    protocol = 0x5348

    @rpc(opcode=None)
    def get(self) -> tuple[FakeCap, FakeIrq]:
        raise NotImplementedError


class Base(Interface):
    protocol = 0x60

    @rpc
    def one(self) -> int:
        raise NotImplementedError


class Marker(Interface):
    protocol = PROTO_EMPTY


class Derived(Base, Marker):
    protocol = 0x61


class Zero(Interface):
    @rpc
    def one(self) -> int:
        raise NotImplementedError


class Color(enum.Enum):
    RED = 3


class Raw(ServerObject):
    """As in the original example."""

    def __init__(self) -> None:
        self.caps = FakeCap(), FakeIrq()
        self.result: object = -Err.EBADPROTO

    def dispatch(self, rights: Rights, ios: Iostream) -> int | None:
        match ios.tag.label:
            case Meta.PROTOCOL:
                return handle_meta_request(Shm, ios)
            case 0x5348:
                ios << self.caps[0] << self.caps[1]
                return 0
            case 1:
                ios << ios.get(int) << ios.get(str)
                return 5
            case 2:
                ios.put(ios.data + rights.letters().encode())
                return None
            case _:
                return self.result  # type: ignore[return-value]


def test_a_raw_server_and_a_typed_client_understand_each_other() -> None:
    raw = Raw()
    assert Shm(FakeGate(raw)).get() == raw.caps
    assert cap_dynamic_cast(FakeGate(raw), Shm).get() == raw.caps


def test_a_raw_client_and_a_raw_server_understand_each_other() -> None:
    gate = FakeGate(Raw())
    ios = Iostream()
    ios << 7 << "text"
    assert ios.call(gate, 1).label == 5
    assert (ios.get(int), ios.get(str), ios.get(int)) == (7, "text", 0)
    ios.reset()
    tag = ios.call(gate, 0x5348)
    assert (tag.words, tag.items) == (0, 2)
    assert isinstance(ios.get(FakeCap), FakeCap)
    with pytest.raises(BadProtocol):
        ios.call(gate, 77)
    with pytest.raises(WrongType):
        ios.call(FakeIrq())


def test_rights_and_long_data_of_a_raw_request() -> None:
    for bits, letters in enumerate(("-", "w", "s", "ws")):
        assert Raw().serve_request(bits, 2, b"", b"x", ()) == (0, b"", b"x" + letters.encode(), ())


@pytest.mark.parametrize(
    ("result", "label"), [(-39, -39), (-1002, -1002), (0x7FFF, 0x7FFF), (-0x8000, -0x8000), (True, 1)]
)
def test_what_dispatch_returns_is_the_label(result: int, label: int) -> None:
    raw = Raw()
    raw.result = result
    answer = raw.serve_request(3, 9, b"", b"", ())
    assert answer == (label, b"", b"", ())


def test_an_error_carries_no_data() -> None:
    class Half(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            ios << 1 << FakeCap()
            return -Err.EINVAL

    assert Half().serve_request(0, 0, b"", b"", ()) == (-22, b"", b"", ())


def test_enoreply_means_no_reply() -> None:
    raw = Raw()
    raw.result = -Err.ENOREPLY
    assert raw.serve_request(3, 9, b"", b"", ()) is None


def test_mistakes_in_what_dispatch_returns_are_named() -> None:
    raw = Raw()
    for result in (0x8000, -0x8001):
        raw.result = result
        with pytest.raises(L4Error) as caught:
            raw.serve_request(3, 9, b"", b"", ())
        assert caught.value.code is Err.EMSGERRRANGE
    raw.result = Err.EBADPROTO
    with pytest.raises(TypeError, match=r"return -Err\.EBADPROTO"):
        raw.serve_request(3, 9, b"", b"", ())
    raw.result = "x"
    with pytest.raises(TypeError, match=r"Raw\.dispatch must return an int or None"):
        raw.serve_request(3, 9, b"", b"", ())


def test_a_local_capability_is_known_after_registration() -> None:
    with pytest.raises(NotFound, match="not registered"):
        Raw().obj_cap()


def test_values_past_the_end_are_empty() -> None:
    ios = Iostream(7, struct.pack("=q", 5))
    assert ios.tag.label == 7
    assert ios.get(int) == 5
    values = ios.get(int), ios.get(U8), ios.get(bool), ios.get(float), ios.get(str), ios.get(bytes), ios.get(Color)
    assert values == (0, 0, False, 0.0, "", b"", Color.RED)
    assert ios.get(FakeCap) is None
    assert ios.get(Base) is None


def test_a_value_that_is_not_there_leaves_the_position() -> None:
    ios = Iostream(0, struct.pack("=IBBxx", 1, 2, 3))
    assert ios.get(Opcode) == 1
    assert ios.get(int) == 0
    assert (ios.get(U8), ios.get(U8)) == (2, 3)
    ios = Iostream(0, struct.pack("=Q", 100))
    assert ios.get(bytes) == b""
    assert ios.get(int) == 100


def test_streams_have_l4res_layout() -> None:
    ios = Iostream()
    ios << U8(1) << 2 << "ab" << Color.RED << True << 0.5
    ios.write(-1, S16)
    words, data, caps = ios.answer()
    assert words == struct.pack("=B7xqQ3sxi?7xdh6x", 1, 2, 3, b"ab\0", 3, True, 0.5, -1)
    back = Iostream(0, words, data, caps)
    assert (back.get(U8), back.get(int), back.get(str), back.get(Color)) == (1, 2, "ab", Color.RED)
    assert (back.get(bool), back.get(float), back.get(S16)) == (True, 0.5, -1)


def test_opcodes_are_32_bit() -> None:
    ios = Iostream()
    ios << Opcode(3) << U32(4)
    assert ios.answer()[0] == struct.pack("=ii", 3, 4)
    back = Iostream(0, ios.answer()[0])
    assert (back.opcode(), back.get(U32)) == (3, 4)


def test_capabilities_are_read_in_their_order() -> None:
    caps = FakeCap(), FakeIrq(), FakeGate(Raw()), None
    ios = Iostream(0, b"", b"", caps)
    assert ios.caps == caps
    assert ios.tag.items == 4
    assert ios.get(Capability) is caps[0]
    assert ios.get(FakeIrq) is caps[1]
    proxy = ios.get(Shm)
    assert proxy is not None
    assert proxy.cap is caps[2]
    assert ios.get(Capability) is None
    with pytest.raises(InvalidArgument, match="FakeIrq"):
        Iostream(0, b"", b"", (FakeCap(),)).get(FakeIrq)


def test_what_does_not_fit_is_dropped_with_a_warning() -> None:
    ios = Iostream()
    for n in range(63):
        ios << n
    with pytest.warns(RuntimeWarning, match="does not fit the 63 words") as said:
        ios << "the call goes out all the same"
    assert said[0].filename == __file__  # it points to who wrote it
    with pytest.warns(RuntimeWarning, match="a capability does not fit") as said:
        ios << FakeCap()
    assert said[0].filename == __file__
    with pytest.warns(RuntimeWarning, match="does not fit") as said:
        ios.write(1, U8)
    assert said[0].filename == __file__
    assert ios.answer() == (struct.pack("=63q", *range(63)), b"", ())
    ios.reset()
    ios << FakeCap() << b"x" * (504 - 24)
    with pytest.warns(RuntimeWarning):
        ios << 1


def test_what_is_dropped_leaves_nothing_behind_and_less_goes_in_after_it() -> None:
    ios = Iostream()
    ios << U8(7)
    with pytest.warns(RuntimeWarning, match="dropped"):
        ios << b"x" * 504
    with pytest.warns(RuntimeWarning, match="dropped"):
        ios << "y" * 70_000  # not even the long area would take it
    ios << U8(8)
    assert ios.answer()[0] == bytes([7, 8]) + bytes(6)


def test_more_than_16_capabilities_are_dropped_with_a_warning() -> None:
    ios = Iostream()
    caps = [FakeCap() for _ in range(17)]
    for cap in caps[:16]:
        ios << cap
    with pytest.warns(RuntimeWarning, match="16 capabilities of this message"):
        ios << caps[16]
    assert ios.answer() == (b"", b"", tuple(caps[:16]))


@given(
    st.lists(st.sampled_from([U8(1), 2, True, 0.5, "text", b"bytes" * 20, Color.RED, FakeCap, FakeIrq]), max_size=90)
)
def test_a_stream_is_never_longer_than_63_words_and_reads_back_as_what_fitted(values: list[Any]) -> None:
    ios = Iostream()
    fitted: list[Any] = []
    for value in values:
        value = value() if isinstance(value, type) else value
        before = ios.answer()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            ios << value
        if said:
            assert ios.answer() == before
        else:
            fitted.append(value)
    words, data, caps = ios.answer()
    assert len(words) + 16 * len(caps) <= 504
    back = Iostream(0, words, data, caps)
    for value in fitted:
        kind = type(value)
        got = back.get(Capability if isinstance(value, Capability) else kind)
        assert got is value if isinstance(value, Capability) else got == value


def test_a_capability_is_written_as_the_kind_it_must_be() -> None:
    ios = Iostream()
    irq = FakeIrq()
    ios.write(irq, FakeIrq).write(None, FakeIrq | None)
    assert ios.answer()[2] == (irq, None)
    with pytest.raises(WrongType, match="FakeIrq"):
        ios.write(FakeCap(), FakeIrq)
    with pytest.raises(MissingArgument):
        ios.write(None, FakeIrq)
    assert ios.answer()[2] == (irq, None)


def test_reading_past_the_end_gives_zero_or_empty_and_stays_where_it_was() -> None:
    ios = Iostream(0, struct.pack("=QB7x", 99, 5))
    assert ios.get(str) == ""  # 99 bytes are announced
    assert ios.get(bytes) == b""
    assert ios.get(int) == 99
    assert ios.get(U8) == 5
    assert ios.get(U32) == 0  # what is left of the last word
    for kind, empty in ((int, 0), (bool, False), (float, 0.0), (str, ""), (bytes, b""), (Color, Color.RED)):
        assert ios.get(kind) == empty
    assert ios.get(Capability) is None
    assert ios.opcode() == 0


def test_a_void_capability_is_passed_over_when_it_was_read() -> None:
    irq = FakeIrq()
    ios = Iostream(0, b"", b"", (None, irq))
    assert ios.get(Capability) is None
    assert ios.get(FakeIrq) is irq


def test_a_message_can_be_sent_without_waiting() -> None:
    gate = FakeGate(Raw())
    ios = Iostream()
    ios << 7
    ios.tell(gate, 2)
    assert (gate.sent[0].label, gate.sent[0].words, gate.sent[0].oneway) == (2, struct.pack("=q", 7), True)
    with pytest.raises(WrongType, match="only a gate"):
        ios.tell(FakeIrq())


def test_what_cannot_travel_is_refused() -> None:
    ios = Iostream()
    for value in ([1], None, object(), {}):
        with pytest.raises(WrongType, match="cannot send"):
            ios << value
    with pytest.raises(OutOfRange):
        ios << (1 << 63)
    with pytest.raises(MessageTooLong, match="dataspace"):
        ios.put(bytes(61441))
    assert ios.answer() == (b"", b"", ())


@given(
    st.binary(max_size=520), st.lists(st.sampled_from([int, U8, bool, float, str, bytes, Opcode, Color]), max_size=9)
)
def test_any_stream_can_be_read_as_anything(noise: bytes, kinds: list[type[Any]]) -> None:
    ios = Iostream(0, noise)
    assert ios.tag.words <= 63
    for kind in kinds:
        try:
            ios.get(kind)
        except InvalidArgument:
            assert kind in (str, Color)


# META and casts


class Both(Derived, Epiface):
    def one(self) -> int:
        return 1


class ZeroServer(Zero, Epiface):
    def one(self) -> int:
        return 1


def test_typed_objects_answer_meta_by_themselves() -> None:
    meta = Meta(FakeGate(Both()))
    assert meta.num_interfaces() == 2
    assert [meta.interface(n) for n in range(2)] == [(0x61, "Derived"), (0x60, "Base")]
    with pytest.raises(OutOfRange):
        meta.interface(2)
    assert [meta.supports(p) for p in (0x61, 0x60, 0x5348, PROTO_EMPTY, 0, -21)] == [True, True] + [False] * 4


def test_raw_objects_answer_meta_when_asked_to() -> None:
    meta = Meta(FakeGate(Raw()))
    assert meta.num_interfaces() == 1
    assert meta.interface(0) == (0x5348, "Shm")
    assert meta.supports(0x5348)
    assert not meta.supports(-0x5348)


@pytest.mark.parametrize("obj", [Both(), Raw()])
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"", Err.EMSGTOOSHORT),
        (b"\1\0\0\0", Err.EMSGTOOSHORT),
        (b"\7\0\0\0", Err.ENOSYS),
        (b"\1" + b"\0" * 7 + b"\2" * 8, Err.ERANGE),
    ],
)
def test_bad_meta_requests_get_their_code(obj: Both | Raw, request_: bytes, code: Err) -> None:
    label, *_ = (
        FakeGate(obj).transact(-21, request_ + bytes(-len(request_) % 8)) if len(request_) != 4 else _ask(obj, request_)
    )
    assert label == -code


def _ask(obj: Both | Raw, words: bytes) -> tuple[int]:
    try:
        answer = obj.serve_request(0, -21, words, b"", ())
    except MessageTooShort as error:
        return (-error.code,)
    assert answer is not None
    return (answer[0],)


def test_dynamic_cast_asks_the_object() -> None:
    gate = FakeGate(Both())
    for target in (Base, Derived):
        proxy = cap_dynamic_cast(gate, target)
        assert isinstance(proxy, target)
        assert proxy.one() == 1
        assert proxy.cap is gate
    assert isinstance(cap_dynamic_cast(Base(gate), Derived), Derived)
    with pytest.raises(BadProtocol, match="is no Shm"):
        cap_dynamic_cast(gate, Shm)


def test_dynamic_cast_to_protocol_0_never_succeeds() -> None:
    gate = FakeGate(ZeroServer())
    with pytest.raises(BadProtocol, match="protocol 0"):
        cap_dynamic_cast(gate, Zero)
    assert gate.sent == []
    assert cap_cast(gate, Zero).one() == 1


def test_dynamic_cast_of_an_object_without_meta() -> None:
    class Deaf(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            return -Err.EBADPROTO

    with pytest.raises(BadProtocol, match="does not answer META"):
        cap_dynamic_cast(FakeGate(Deaf()), Shm)
    with pytest.raises(BadProtocol, match="cannot be asked"):
        cap_dynamic_cast(FakeIrq(), Shm)
    with pytest.raises(BadProtocol):
        cap_dynamic_cast(FakeCap(), FakeIrq)


def test_static_casts_look_at_the_types_only() -> None:
    gate = FakeGate(Both())
    derived = cap_cast(gate, Derived)
    assert isinstance(cap_cast(derived, Base), Base)
    assert isinstance(cap_cast(cap_cast(derived, Base), Derived), Derived)
    assert cap_cast(derived, FakeGate) is gate
    assert gate.sent == []
    with pytest.raises(WrongType, match="not related"):
        cap_cast(derived, Shm)
    assert isinstance(cap_reinterpret_cast(derived, Shm), Shm)
    with pytest.raises(WrongType):
        cap_reinterpret_cast(FakeIrq(), Shm)
    with pytest.raises(WrongType):
        cap_cast(gate, FakeIrq)
    with pytest.raises(WrongType):
        cap_cast(3, Shm)  # type: ignore[arg-type]


def test_a_handler_that_fails_fails_alone() -> None:
    class Failing(ServerObject):
        def dispatch(self, rights: Rights, ios: Iostream) -> int:
            raise RuntimeError("no")

    with pytest.raises(ServerError):
        Base(FakeGate(Failing())).one()


def test_a_list_that_cannot_be_written_leaves_nothing_behind() -> None:
    ios = Iostream()
    ios.write([1, 2], list[U8]).write([FakeCap()], list[Capability])
    before = ios.answer()
    with pytest.raises(OutOfRange, match="element 1 must be U8"):
        ios.write([1, 300], list[U8])
    with pytest.raises(WrongType, match="element 1 must be Capability"):
        ios.write([FakeCap(), 7], list[Capability])
    with pytest.warns(RuntimeWarning, match="does not fit the 63 words"):
        ios.write(list(range(200)), list[int])
    with pytest.warns(RuntimeWarning, match="does not fit the 63 words"):
        ios.write([FakeCap()] * 16, list[Capability])
    assert ios.answer() == before
