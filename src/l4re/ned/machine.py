"""The machine as scripts see it: they pick files and numbers by its architecture, in L4Re's words."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Final

from l4re.errors import InvalidArgument

__all__ = ["Machine"]

#: What Linux calls a machine, and what L4Re calls it.
_ARCHES: Final = {
    "x86_64": "amd64",
    "i386": "x86",
    "i686": "x86",
    "aarch64": "arm64",
    "armv6l": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "mips": "mips",
    "mips64": "mips",
    "riscv32": "riscv",
    "riscv64": "riscv",
    "ppc": "ppc32",
    "sparc": "sparc",
}
_BITS: Final = {"amd64": 64, "arm64": 64, "x86": 32, "arm": 32, "ppc32": 32, "sparc": 32, "mips": 64, "riscv": 64}


@dataclass(frozen=True, slots=True)
class Machine:
    """What ``L4.Info`` tells."""

    arch: str
    """L4Re's word: amd64, arm64, arm, x86, mips, riscv."""
    bits: int
    """Of a machine word."""
    kernel: str
    """What there is in place of L4's kernel information page."""

    @property
    def platform(self) -> str:
        """L4Re's word for the board: "pc", or "virt" where there is no such thing."""
        return "pc" if self.arch in ("amd64", "x86") else "virt"

    @classmethod
    def here(cls) -> Machine:
        """Return this machine."""
        system = os.uname()
        arch = _ARCHES.get(system.machine, system.machine)
        return cls(arch, 64 if sys.maxsize > 1 << 32 else 32, f"{system.sysname} {system.release} {system.machine}")

    @classmethod
    def of(cls, arch: str) -> Machine:
        """Return a machine of another architecture.

        Raises:
            InvalidArgument: it is none of L4Re's.
        """
        if arch not in _BITS:
            raise InvalidArgument(f"there is no architecture {arch!r}; there are {', '.join(sorted(_BITS))}")
        return cls(arch, _BITS[arch], f"Linux {arch}")
