"""What server and client agree on: a calculator for numbers of 32 bits."""

import l4re

__all__ = ["Calculator"]


class Calculator(l4re.Interface):
    """Subtracts and negates."""

    protocol = 0x44

    @l4re.rpc
    def sub(self, a: l4re.U32, b: l4re.U32) -> l4re.U32:
        """Return ``a - b``."""
        raise NotImplementedError

    @l4re.rpc
    def neg(self, a: l4re.U32) -> l4re.U32:
        """Return ``-a``."""
        raise NotImplementedError
