"""Protocol numbers: the labels that L4 and L4Re have given a meaning."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Proto"]


class Proto(IntEnum):
    """L4's (negative) and L4Re's (from 0x4000) protocols. Your own is any other number of 48 bits."""

    NONE = 0
    ALLOW_SYSCALL = 1
    PF_EXCEPTION = 1
    IRQ = -1
    PAGE_FAULT = -2
    EXCEPTION = -5
    SIGMA0 = -6
    IO_PAGE_FAULT = -8
    THREAD_GROUP = -9
    KOBJECT = -10
    TASK = -11
    THREAD = -12
    LOG = -13
    SCHEDULER = -14
    FACTORY = -15
    VM = -16
    DMA_SPACE = -17
    IRQ_SENDER = -18
    EMPTY = -19
    SEMAPHORE = -20
    META = -21
    IOMMU = -22
    DEBUGGER = -23
    SMCCC = -24
    VCPU_CONTEXT = -25
    DATASPACE = 0x4000
    NAMESPACE = 0x4001
    PARENT = 0x4002
    GOOS = 0x4003
    RM = 0x4005
    EVENT = 0x4006
    INHIBITOR = 0x4007
    L4RE_DMA_SPACE = 0x4008
    MMIO_SPACE = 0x4009
    ITAS = 0x400A
    MEM_ALLOC = 0x400B
    REMOTE_ACCESS = 0x400C
    DEBUG = -0x8000
