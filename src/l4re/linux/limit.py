"""How many descriptors this process may have."""

from __future__ import annotations

import errno
import resource

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may allow itself: every capability is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # "no limit" as the hard one, beyond what the kernel takes
            if isinstance(error, OSError) and error.errno not in (errno.EPERM, errno.EINVAL):
                raise
