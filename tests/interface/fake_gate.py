"""A gate whose server is in the next line: what a loop does with a request, without any process."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from l4re.cap import Capability, Export
from l4re.errors import Err, L4Error, reply_label
from l4re.interface import Served
from l4re.rights import Rights

__all__ = ["FakeCap", "FakeGate", "FakeIrq", "Sent"]


@dataclass
class Sent:
    """A message as it went over the wire."""

    label: int
    words: bytes
    data: bytes
    caps: tuple[Capability | None, ...]
    timeout: float | None
    oneway: bool


class FakeCap(Capability):
    """A capability without a descriptor."""

    def __init__(self) -> None:
        self._closed = False

    @property
    def rights(self) -> Rights:
        return Rights.RW

    @property
    def closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._closed = True

    def fileno(self) -> int:
        return -1

    def dup(self) -> Self:
        return type(self)()

    def export(self, rights: Rights | None = None) -> Export:
        raise NotImplementedError

    def _key(self) -> Hashable:
        return id(self)


class FakeIrq(FakeCap):
    """Another kind of capability."""

    kind = "irq"


class FakeGate(FakeCap):
    """Calls ``obj`` directly, with W and S unless told otherwise; remembers what was sent and what came back."""

    kind = "gate"

    def __init__(self, obj: Served, rights: int = 3) -> None:
        super().__init__()
        self.obj = obj
        self.bits = rights
        self.sent: list[Sent] = []
        self.unexpected: list[Exception] = []

    def transact(
        self,
        label: int,
        words: bytes,
        data: bytes = b"",
        caps: Sequence[Capability | None] = (),
        timeout: float | None = None,
        oneway: bool = False,
    ) -> tuple[int, bytes, bytes, tuple[Capability | None, ...]]:
        assert isinstance(words, bytes)
        assert len(words) % 8 == 0
        assert len(words) + 16 * len(caps) <= 504
        self.sent.append(Sent(label, words, data, tuple(caps), timeout, oneway))
        try:
            answer = self.obj.serve_request(self.bits, label, words, data, tuple(caps))
        except L4Error as error:
            answer = (reply_label(error), b"", error.text.encode(), ())
        except Exception as error:
            self.unexpected.append(error)
            answer = (-Err.EIO, b"", f"{type(error).__name__}: {error}".encode(), ())
        if oneway:
            return 0, b"", b"", ()
        assert answer is not None, "a caller would wait for ever"
        assert len(answer[1]) % 8 == 0
        assert len(answer[1]) + 16 * len(answer[3]) <= 504
        return answer[0], answer[1], answer[2], tuple(answer[3])

    async def transact_async(self, *args: Any, **kwargs: Any) -> Any:
        return self.transact(*args, **kwargs)
