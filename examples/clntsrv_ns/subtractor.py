"""What server and client agree on: the operations of the object, and its name."""

import l4re

__all__ = ["NAME", "Subtractor"]

#: Under which the server puts its object into the namespace.
NAME = "the_object"


class Subtractor(l4re.Interface):
    """Subtracts and negates."""

    protocol = 0x44

    @l4re.rpc
    def sub(self, a: l4re.S32, b: l4re.S32) -> l4re.S32:
        """Return ``a - b``."""
        raise NotImplementedError

    @l4re.rpc
    def neg(self, a: l4re.S32) -> l4re.S32:
        """Return ``-a``."""
        raise NotImplementedError
