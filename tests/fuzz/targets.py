"""The decoders, each as a function of bytes that returns, or raises what is a bug.

A decoder may refuse: with an `L4Error`, and nothing else. What it accepts must mean the same when it is written
and read once more. The live ones run a real server in this process and count its descriptors.
"""

from __future__ import annotations

import enum
import io
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from typing import Any

import l4re
from l4re import S8, S16, S32, S64, U8, U16, U32, U64, Err, Gate, Irq, L4Error, Rights
from l4re._native import leaf
from l4re.cap import import_all
from l4re.environment.page import CapEntry, EnvPage
from l4re.errors import error_from_code, errtostr
from l4re.interface import Served
from l4re.linux.fd import take
from l4re.log import Console, Multiplexer
from l4re.log.lines import LONGEST, Farewell, LineAssembler
from l4re.log.tag import Tag as LogTag
from l4re.moe import Account, Services
from l4re.moe.user_factory import UserFactory
from l4re.wire import session as wire
from l4re.wire.codecs import codec_for
from l4re.wire.items import ITEM_BYTES, pack_item, split_items, unpack_item
from l4re.wire.port import PORT_MESSAGE_BYTES, PortMessage, pack_refusal, unpack_refusal
from l4re.wire.session import Field, Head
from l4re.wire.stream import Reader, Writer
from l4re.wire.tag import Tag
from support.rawpeer import RawClient, memfd, pair, send

from .source import Source

__all__ = ["TARGETS", "Target"]

#: Takes any bytes; what it raises is a finding.
Target = Callable[[bytes], None]
TARGETS: dict[str, Target] = {}

_LABELS = (0, 5, -21, 0x5348, -1)


def target(function: Target) -> Target:
    TARGETS[function.__name__.removeprefix("any_")] = function
    return function


class Colour(enum.Enum):
    RED = 1
    BLUE = -2


class Mode(enum.Flag):
    A = 1
    B = 2


# ---- words, items, headers ----


@target
def any_tag(data: bytes) -> None:
    tag = Tag(int.from_bytes(data[:8], "little"))
    assert Tag.make(tag.label, tag.words, tag.items, tag.flags) == tag
    repr(tag)


@target
def any_head(data: bytes) -> None:
    source = Source(data)
    head = Head.of(source.signed(8), source.number(8), source.number(8))
    assert Head.of(head.label, head.counts, head.size_cpu) == head
    sequence, state = wire.split(source.number(8))
    if state is not None:
        for step in wire.STEPS:
            word = wire.after(wire.state_word(sequence, state), step.name)
            assert word is None or wire.split(word)[1] is not None
    packet = source.rest()
    ahead = wire.unpack_ahead(packet)
    assert ahead is None or wire.pack_ahead(ahead)[8:] == packet[8:16]


@target
def any_port_message(data: bytes) -> None:
    message = PortMessage.unpack(data[1:], data[0] if data else 0)
    if message is not None:
        assert len(data) == 1 + PORT_MESSAGE_BYTES
        assert PortMessage.unpack(message.pack(), data[0]) == message


@target
def any_refusal(data: bytes) -> None:
    """What a server says before it closes, and every error that a code and a text make."""
    code, why = unpack_refusal(data.decode(errors="replace"))
    for error in (error_from_code(-code, why), error_from_code(int.from_bytes(data[:8], "little", signed=True), why)):
        assert isinstance(error, L4Error)
        assert str(error)
        repr(error)
        errtostr(-int(error.code))
    packed = pack_refusal(code, why)
    assert len(packed) <= 200
    assert unpack_refusal(packed[16:].decode(errors="replace"))[0] == code


@target
def any_items(data: bytes) -> None:
    """Items that announce anything, with descriptors of every kind."""
    source = Source(data)
    numbers = [source.choose(_descriptors())() for _ in range(source.number(1) % 6)]
    words = source.rest()
    plain, tail = split_items(words, min(len(words) // ITEM_BYTES, 16))
    assert plain + tail == words
    for at in range(0, len(tail), ITEM_BYTES):
        kind, rights, count, value = unpack_item(tail, at)
        assert unpack_item(pack_item(kind, rights, count, value)) == (kind, rights, count, value)
    before = _open_descriptors() - len(numbers)
    with suppress(L4Error):
        for cap in import_all(tail, numbers):
            if cap is not None:
                repr(cap)
                cap.close()
    assert _open_descriptors() == before, "descriptors were left behind"


@cache
def _kept() -> tuple[Any, ...]:
    """What a peer may send descriptors of: memory (three kinds), pipe ends, sockets, a file."""
    read, write = os.pipe2(os.O_NONBLOCK)
    return (
        memfd(4096),
        memfd(),
        memfd(4096, 0),
        read,
        write,
        *pair(),
        *socket.socketpair(),
        os.open("/dev/null", os.O_RDONLY),
    )


def _descriptors() -> list[Callable[[], int]]:
    def one(end: Any) -> Callable[[], int]:
        return lambda: os.dup(end if isinstance(end, int) else end.fileno())

    return [one(end) for end in _kept()]


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- values ----

_TYPES: tuple[Any, ...] = (U8, U16, U32, U64, S8, S16, S32, S64, int, bool, float, str, bytes, Colour, Mode)


@target
def any_stream(data: bytes) -> None:
    """Any values of any types: what is read is written back and read again."""
    source = Source(data)
    types = [source.choose(_TYPES) for _ in range(source.number(1) % 8)]
    words = source.rest()
    reader, writer = Reader(words), Writer()
    values: list[Any] = []
    for kind in types:
        try:
            values.append(codec_for(kind).get(reader))
        except L4Error:
            break
        try:
            codec_for(kind).put(writer, values[-1])
        except L4Error as error:
            raise AssertionError(f"{values[-1]!r} was read as {kind} and cannot be written") from error
    again = Reader(writer.words())
    back = [codec_for(kind).get(again) for kind in types[: len(values)]]
    assert [repr(value) for value in back] == [repr(value) for value in values]
    ios = l4re.Iostream(0, words, b"", ())
    for kind in types:
        with suppress(L4Error):
            ios.get(kind)


class Any_(l4re.Interface):  # noqa: N801
    """A method for each kind of argument."""

    protocol = 5

    @l4re.rpc
    def numbers(self, a: U8, b: S16, c: U32, d: S64, e: float, f: bool) -> tuple[U8, S16, U32, S64, float, bool]:
        raise NotImplementedError

    @l4re.rpc
    def texts(self, a: str, b: bytes, c: U8) -> tuple[str, bytes]:
        raise NotImplementedError

    @l4re.rpc
    def enums(self, a: Colour, b: str, c: Mode) -> Colour:
        raise NotImplementedError

    @l4re.rpc
    def capabilities(self, a: l4re.Dataspace, b: Irq | None, c: int) -> l4re.Irq | None:
        raise NotImplementedError

    @l4re.rpc(rights="w")
    def guarded(self, a: bytes) -> int:
        raise NotImplementedError

    @l4re.rpc(oneway=True)
    def told(self, a: str) -> None:
        raise NotImplementedError


class Server(Any_, l4re.Epiface):
    """Gives back what it was given."""

    def numbers(self, a: U8, b: S16, c: U32, d: S64, e: float, f: bool) -> tuple[U8, S16, U32, S64, float, bool]:
        return a, b, c, d, e, f

    def texts(self, a: str, b: bytes, c: U8) -> tuple[str, bytes]:
        return a, b

    def enums(self, a: Colour, b: str, c: Mode) -> Colour:
        return a

    def capabilities(self, a: l4re.Dataspace, b: Irq | None, c: int) -> l4re.Irq | None:
        return b

    def guarded(self, a: bytes) -> int:
        return len(a)

    def told(self, a: str) -> None:
        pass


class Raw(l4re.ServerObject):
    """Reads everything there is in every way there is."""

    def dispatch(self, rights: Rights, ios: l4re.Iostream) -> int:
        if ios.tag.label == l4re.Meta.PROTOCOL:
            return l4re.handle_meta_request(Any_, ios)
        ios.opcode()
        for kind in _TYPES:
            with suppress(L4Error):
                ios << ios.get(kind)
        for _ in ios.caps:
            ios << ios.get(l4re.Capability)
        return 0


def _answered(obj: Served, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Any, ...]) -> None:
    """An object answers or refuses; in the two ways in which a loop calls it."""
    for handler in (obj.serve_request, obj._l4_handler()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # an Iostream drops what does not fit
                answer = handler(rights, label, words, data, caps)
        except L4Error:
            continue
        if answer is not None:
            code, out, long, handed = answer
            assert -(1 << 15) <= code < 1 << 15
            assert len(out) + ITEM_BYTES * len(handed) <= 504
            assert len(long) <= wire.LONG_BYTES


@cache
def _caps() -> tuple[l4re.Capability | None, ...]:
    return l4re.env().mem_alloc.alloc(4096), l4re.env().factory.create_irq(), None, l4re.new_channel().gate


def _request(source: Source) -> tuple[int, int, bytes, bytes, tuple[Any, ...]]:
    rights, label = source.number(1) & 3, source.choose(_LABELS)
    caps = tuple(source.choose(_caps()) for _ in range(source.number(1) % 4))
    long = source.number(1) & 1
    body = source.rest()
    return (rights, label, b"", body, caps) if long else (rights, label, body[: len(body) // 8 * 8][:504], b"", caps)


@target
def any_typed_request(data: bytes) -> None:
    _answered(Server(), *_request(Source(data)))


@target
def any_raw_request(data: bytes) -> None:
    _answered(Raw(), *_request(Source(data)))


class _Liar(Served):
    """A server that answers anything."""

    answer: tuple[int, bytes, bytes, tuple[Any, ...]] = (0, b"", b"", ())

    def serve_request(self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Any, ...]) -> Any:
        return self.answer


@cache
def _lied_to() -> tuple[_Liar, Any_, l4re.Meta, l4re.Gate]:
    """Proxies of an object of this thread, which is called directly: what it answers reaches them as it is."""
    server, liar = l4re.RegistryServer(), _Liar()
    cap: Any = server.registry.register_obj(liar)
    _lied_to.server = server  # type: ignore[attr-defined]
    return liar, Any_(cap), l4re.Meta(cap), cap


@target
def any_answer(data: bytes) -> None:
    """A typed client, a cast and a description take any answer."""
    source = Source(data)
    liar, proxy, meta, _ = _lied_to()
    calls: list[Callable[[], object]] = [
        lambda: proxy.numbers(U8(1), S16(2), U32(3), S64(4), 1.0, True),
        lambda: proxy.texts("a", b"b", U8(1)),
        lambda: proxy.enums(Colour.RED, "", Mode.A),
        lambda: proxy.guarded(b""),
        lambda: meta.num_interfaces(),
        lambda: meta.interface(U64(0)),
        lambda: meta.supports(5),
        lambda: l4re.cap_dynamic_cast(proxy, Any_),
    ]
    call = source.choose(calls)
    _, _, words, long, caps = _request(source)
    liar.answer = (source.choose((0, 0, 1, -1, -int(Err.EBADPROTO))), words, long, ())
    if caps and caps[0] is None:
        liar.answer = (*liar.answer[:3], (None,))
    with suppress(L4Error):
        call()


# ---- text ----


@target
def any_environment_page(data: bytes) -> None:
    EnvPage.addressee(data)
    with suppress(L4Error):
        page = EnvPage.parse(data)
        assert EnvPage.parse(page.pack()) == page._replace(log="".join(c if c.isprintable() else "?" for c in page.log))
    with suppress(L4Error):
        entry = CapEntry.parse(data.decode(errors="replace"))
        assert CapEntry.parse(entry.line()) == entry


@target
def any_page_body(data: bytes) -> None:
    """The lines behind an intact head."""
    any_environment_page(b"l4re-env 1\npid 0000000001\n" + data + b"\n")


@target
def any_log(data: bytes) -> None:
    """Lines come out as they went in, however they are cut."""
    source = Source(data)
    longest = source.choose((1, 3, 80, LONGEST))
    assembler, farewell = LineAssembler(longest), Farewell(limit=3)
    fed, lines, printed = b"", [], []
    while source:
        piece = source.blob()
        fed += piece
        lines += assembler.feed(piece)
    lines += assembler.end()
    assert all(len(line.text) <= longest for line in lines)
    for line in lines:
        printed += farewell.feed(line)
        LogTag("name").line(line.text, coloured=True, continued=line.continued)
    kept = printed + farewell.end()
    assert kept == lines[: len(kept)]
    text = fed.decode(errors="replace")
    if "\r" not in text:
        whole = "".join(("" if line.continued or at == 0 else "\n") + line.text for at, line in enumerate(lines))
        assert whole == text.removesuffix("\n") or longest <= 3


@target
def any_letters(data: bytes) -> None:
    text = data.decode(errors="replace")
    with suppress(L4Error):
        rights = Rights.parse(text)
        assert Rights.parse(rights.letters()) == rights
    name, _, colour = text.partition(" ")
    with suppress(L4Error):
        LogTag.of((name, colour)).line(text, coloured=True)


# ---- live ----


class Live:
    """A server of this process that steps when it is told to, and what it holds when nobody is there."""

    def __init__(self) -> None:
        logging.disable()
        self.server = l4re.RegistryServer(spin_us=0)
        self.object = Raw()
        self.typed = Server()
        self.gates = [self._serve(self.object), self._serve(self.typed)]
        self.irq = l4re.env().factory.create_irq()
        self.run()

    def _serve(self, obj: Served) -> Gate:
        channel = l4re.new_channel()
        self.server.registry.register_obj(obj, channel.svr)
        return channel.gate

    def run(self) -> None:
        """Until nothing is left to do."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            for _ in range(200):
                if not self.server.step(0.0):
                    return

    def settled(self, before: int) -> None:
        """All descriptors but those that were there are closed, once everybody has left."""
        for _ in range(100):
            self.run()
            if _open_descriptors() <= before:
                return
        raise AssertionError(f"{_open_descriptors() - before} descriptors were left behind")


@cache
def _live() -> Live:
    return Live()


@contextmanager
def _visitor(source: Source) -> Iterator[tuple[Live, Gate]]:
    """Yield a port of its own for one visit, after which the server holds what it held."""
    live = _live()
    _kept()
    before = _open_descriptors()
    gate = source.choose(live.gates).dup()
    live.run()
    try:
        yield live, gate
    finally:
        gate.close()
        _leave()
        live.settled(before)


def _some(source: Source) -> list[int]:
    """Descriptors to send along; of a socket pair both ends are closed when the visit ends."""
    numbers: list[int] = []
    for _ in range(source.number(1) % 4):
        end = source.choose(_kept())
        if isinstance(end, socket.socket):
            _fresh.extend(socket.socketpair(end.family, end.type))
            end = _fresh[-1]
        numbers.append(end if isinstance(end, int) else end.fileno())
    return numbers


def _leave() -> None:
    while _fresh:
        _fresh.pop().close()


_fresh: list[socket.socket] = []


@target
def any_port_packets(data: bytes) -> None:
    """Packets that a holder sends to its server."""
    source = Source(data)
    with _visitor(source) as (live, gate), socket.socket(fileno=os.dup(gate.fileno())) as port:
        while source:
            fds = _some(source)
            if not send(port, source.blob() or b"D", fds):
                break
            if source.number(1) & 1:
                live.run()
        live.run()


@target
def any_session(data: bytes) -> None:
    """A session page and its socket, written by hand."""
    source = Source(data)
    with _visitor(source) as (live, gate), ExitStack() as stack:
        client = stack.enter_context(RawClient(gate.fileno()))
        live.run()
        while source:
            match source.number(1) % 6:
                case 0:  # an honest post of anything
                    sequence = wire.next_sequence(client.page.state[0])
                    fds = _some(source)
                    words = source.blob()[:504]
                    if fds:
                        send(client.sock, wire.pack_ahead(sequence), fds)
                    head = Head(
                        source.choose(_LABELS), len(words) // 8, source.number(1) % 4, len(fds), source.number(1) & 1, 0
                    )
                    client.page.write(head, words)
                    client.page.set_state(sequence, 1)
                    client.ring()
                case 1:
                    client.page.write(Head.of(source.signed(8), source.number(8), source.number(8)), source.blob())
                    client.page.set_state(client.page.state[0] + 1, 1)
                    client.ring()
                case 2:
                    client.page.put(Field.STATE, source.number(8))
                    client.ring()
                case 3:
                    send(client.sock, source.blob() or b"w", _some(source))
                case 4:
                    client.page.scribble(source.number(2) % (wire.PAGE_BYTES - 256), source.blob())
                    client.ring()
                case 5:
                    live.run()
        live.run()


@target
def any_pin_packets(data: bytes) -> None:
    """Packets that a holder of an IRQ sends to its receiver, and bytes in its pipe."""
    source = Source(data)
    _live()
    _kept()
    before = _open_descriptors()
    irq = l4re.env().factory.create_irq()
    export = irq.export()
    trigger, derive = (os.dup(fd) for fd in export.fds)
    export.done()
    with socket.socket(fileno=derive) as ours:
        while source:
            if source.number(1) & 1:
                send(ours, source.blob() or b"D", _some(source))
            with suppress(OSError):
                os.write(trigger, source.blob() or b"D")
            if source.number(1) & 1:
                with suppress(L4Error):
                    irq.receive(0.0)
    os.close(trigger)
    with suppress(L4Error):
        irq.receive(0.0)
    irq.close()
    _leave()
    assert _open_descriptors() == before, "descriptors were left behind"


class Screen(l4re.VconServer):
    """Shows nothing."""

    def write(self, data: bytes) -> None:
        assert len(data) <= 488


@cache
def _services() -> tuple[l4re.RegistryServer, tuple[Any, ...]]:
    """What a program can serve, but for interrupt controllers and factories; served by this thread."""
    server = l4re.RegistryServer(spin_us=0)
    inner = l4re.NamespaceServer()
    services = (
        l4re.NamespaceServer(entries=4),
        Screen(),
        l4re.EventServer(l4re.EventStreamInfo(1, "one", 0, 0, 0, 0, []), slots=4),
        l4re.ParentServer(),
        l4re.RandomServer(),
        l4re.InhibitorServer({1: "lock"}),
        l4re.RemoteAccessServer(),
        l4re.SchedulerServer(200, 10),
    )
    services[0].register("dir", inner)
    for service in (inner, *services):
        server.registry.register_obj(service)
    return server, (inner, *services)


#: What is made by the root of a run, or refused with a reason, and what such a factory speaks.
_MADE_BY_ROOT = tuple(
    int(each)
    for each in (
        *(l4re.Proto.DATASPACE, l4re.Proto.FACTORY, l4re.Proto.LOG, l4re.Proto.NAMESPACE, l4re.Proto.SCHEDULER),
        *(l4re.Proto.RM, l4re.Proto.DMA_SPACE),
    )
)
_ASKED = (l4re.Proto.FACTORY, l4re.Proto.FACTORY, l4re.Proto.MEM_ALLOC, l4re.Proto.META, 0)

_SPOKEN = (
    *(l4re.Proto.IRQ, l4re.Proto.FACTORY, l4re.Proto.META, 0, l4re.Proto.NAMESPACE, l4re.Proto.LOG, l4re.Proto.EVENT),
    *(l4re.Proto.PARENT, l4re.Proto.INHIBITOR, l4re.Proto.REMOTE_ACCESS, l4re.Proto.DATASPACE, l4re.Proto.SCHEDULER),
)


@target
def any_service(data: bytes) -> None:
    """Requests to everything that a program can serve, with and without capabilities."""
    source = Source(data)
    _, more = _services()
    with l4re.IcuServer(3) as icu:
        services = (icu, l4re.FactoryServer(l4re.env().factory), *more)
        memory = _caps()[0]
        makers: tuple[Callable[[], l4re.Capability], ...] = (
            *(memory.dup, Irq.create, l4re.Semaphore.create),  # type: ignore[union-attr]
            *(lambda: l4re.new_channel().gate, lambda: l4re.new_channel().svr),
        )
        while source:
            service = source.choose(services)
            label, rights, words = source.choose(_SPOKEN), source.number(1), source.blob()[:504]
            caps = (source.choose(makers)(),) if rights & 4 else (None,) if rights & 8 else ()
            try:
                answer = service.serve_request(rights & 3, label, words, b"", caps)
                for cap in answer[3] if answer is not None else ():  # one-way operations have none
                    if cap is not None:
                        cap.export().failed()
                        cap.close()
            except L4Error:
                pass
            icu.pulse(source.number(1) % 3)
        inner, names, *rest = more
        assert len(names.names) <= 4
        for space in (inner, names):
            space.close()
        names.register("dir", inner)
        for controller in (each for each in rest if isinstance(each, l4re.IcuServer)):
            l4re.IcuServer.close(controller)


@cache
def _moe() -> tuple[Multiplexer, Services]:
    """What the root of a run serves, to nobody yet."""
    log = Multiplexer(Console(io.StringIO()))
    return log, Services(quota=1 << 20, log=log)


@target
def any_user_factory(data: bytes) -> None:
    """Requests to a program's factory, and to those that it made: all that they cost is given back."""
    source = Source(data)
    _, services = _moe()
    program = UserFactory(services, Account(1 << 19, within=services.account))
    kinds = (*_MADE_BY_ROOT, source.signed(8))

    def ask() -> None:
        factories = [program]
        while source:
            label, rights, words = source.choose(_ASKED), source.number(1) & 3, source.blob()[:400]
            if label == l4re.Proto.FACTORY:
                words = source.choose(kinds).to_bytes(8, "little", signed=True) + words
            try:
                answer = source.choose(factories).serve_request(rights, label, words, b"", ())
            except L4Error:
                continue
            assert answer is not None
            for cap in answer[3]:
                assert cap is not None
                made = getattr(cap, "object", None)
                factories += [made] if isinstance(made, UserFactory) else []
                cap.export().failed()
                if made is None:
                    cap.close()
        program.destroy()

    services.do(ask)
    services.ledger.settle()
    assert (program.objects, program.pieces, program.used, services.account.used) == (0, 0, 0, 0)


@target
def any_last_word(data: bytes) -> None:
    """What a server says on a port, and on the socket of a session, before it goes."""
    channel = l4re.new_channel()
    source = Source(data)
    ends = channel.svr.bind(lambda label, rights: channel.gate)
    with channel.gate as gate, ExitStack() as stack:
        for end, _ in ends:
            stack.enter_context(end)
        server = ends[0][0]
        leaf.send(server.fileno(), source.blob()[:1000] or b"R", tuple(_some(source)))
        if source.number(1) & 1:
            server.close()
        with suppress(L4Error):
            gate.call(source.rest(), timeout=0.0)
        if not server.closed:
            said = leaf.recv(server.fileno())
            if said is not None:
                take(said[1])
    _leave()


def warm() -> None:
    """Make what the targets keep, so that it is not taken for something left behind."""
    _kept()
    _caps()
    _live()
    _lied_to()
    _services()
    _moe()
    for function in TARGETS.values():
        function(b"")


def cool() -> None:
    """Close it again."""
    live = _live()
    for gate in live.gates:
        gate.close()
    live.irq.close()
    live.server.close()
    _lied_to.server.close()  # type: ignore[attr-defined]
    server, services = _services()
    server.close()
    services[3].close()
    for cap in _caps():
        if cap is not None:
            cap.close()
    for end in _kept():
        if isinstance(end, int):
            os.close(end)
        else:
            end.close()
    log, moe = _moe()
    moe.close()
    log.close()
    for kept in (_kept, _caps, _live, _lied_to, _services, _moe):
        kept.cache_clear()
