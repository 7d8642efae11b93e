"""An output that takes no more."""

from __future__ import annotations

import signal
import sys

__all__ = ["leave_broken_output"]


def leave_broken_output(error: Exception) -> int:
    """Leave without another word on an output that nobody reads; say why if it is something else.

    Returns the exit status.
    """
    if not isinstance(error, BrokenPipeError):
        print(f"l4re: cannot write the output: {error}", file=sys.stderr)
    from l4re.linux.null import silence

    try:
        silence(1)
    except OSError:
        pass
    return 128 + signal.SIGPIPE if isinstance(error, BrokenPipeError) else 1
