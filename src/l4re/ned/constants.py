"""The numbers that scripts know by name; they are L4Re's."""

from __future__ import annotations

from typing import Final

__all__ = ["TABLES"]

_PROTO: Final = {
    "Ipc_gate": 0,
    "Dataspace": 0x4000,
    "Namespace": 0x4001,
    "Goos": 0x4003,
    "Mem_alloc": 0x4004,
    "Rm": 0x4005,
    "Event": 0x4006,
    "Inhibitor": 0x4007,
    "Sigma0": -6,
    "Log": -13,
    "Scheduler": -14,
    "Factory": -15,
    "Vm": -16,
    "Dma_space": -17,
    "Irq_sender": -18,
    "Semaphore": -20,
    "Iommu": -22,
}
_RIGHTS: Final = {"w": 1, "s": 2, "r": 4, "d": 8, "n": 16, "c": 32, "ro": 4, "rw": 5, "rws": 7}
_MEM_ALLOC_FLAGS: Final = {"Continuous": 1, "Pinned": 2, "Super_pages": 4}
_DBG: Final = {
    "Info": 1,
    "Warn": 2,
    "Boot": 4,
    "Server": 0x10,
    "Exceptions": 0x20,
    "Cmd_line": 0x40,
    "Loader": 0x80,
    "Name_space": 0x400,
    "All": 0xFFFFFFFF,
}
TABLES: Final = {
    "Proto": _PROTO,
    "Rights": _RIGHTS,
    "Dbg": _DBG,
    "Mem_alloc_flags": _MEM_ALLOC_FLAGS,
    "Ldr_flags": {"eager_map": 1, "all_segs_cow": 2, "pinned_segs": 4},
}
