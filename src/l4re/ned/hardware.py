"""What only hardware under L4 can give: a script finds it and hands it on, and whoever uses it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from l4re.errors import NotSupported
from l4re.interface import Served

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.interface import Answer

__all__ = ["HARDWARE", "Hardware"]

#: How scripts call it, and what it is.
HARDWARE: Final = {
    "icu": "the interrupt controller",
    "sigma0": "the root of all memory",
    "mem": "the memory of the machine",
    "dma_mgr": "the DMA manager",
    "iommu": "the IOMMU",
    "jdb": "the kernel debugger",
    "kip": "the kernel information page",
}


class Hardware(Served):
    """Refuses every request."""

    def __init__(self, name: str) -> None:
        self._name = name

    def serve_request(
        self, rights: int, label: int, words: bytes, data: bytes, caps: tuple[Capability | None, ...]
    ) -> Answer:
        raise NotSupported(f"{self._name} is {HARDWARE[self._name]} of an L4 system; a process of Linux has none")
