"""How many descriptors this process may have, and what is said when there are no more."""

from __future__ import annotations

import errno
import resource

from l4re.errors import L4Error, OutOfMemory, error_from_code

__all__ = ["exhausted", "is_exhaustion", "raise_descriptor_limit"]

_NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ENOSPC, errno.EAGAIN, errno.ETOOMANYREFS)


def raise_descriptor_limit() -> None:
    """Allow this process as many descriptors as it may allow itself: every capability is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:  # "no limit" as the hard one, beyond what the kernel takes
            if isinstance(error, OSError) and error.errno not in (errno.EPERM, errno.EINVAL):
                raise


def is_exhaustion(error: OSError) -> bool:
    """Whether the kernel said that it has no more of something."""
    return error.errno in _NONE_LEFT


def exhausted(what: str, error: OSError) -> L4Error:
    """Return the error that says that ``what`` could not be done, and which limit there is.

    It is `OutOfMemory` if the kernel has no more of something, else the one with the kernel's own number.
    """
    why = error.strerror or str(error)
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        why = f"this process may have {limit} descriptors (RLIMIT_NOFILE) and has them; close some, or raise the limit"
    elif error.errno == errno.ETOOMANYREFS:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        why = f"more than {limit} descriptors of this user are in messages that nobody has read yet (RLIMIT_NOFILE)"
    elif error.errno == errno.ENFILE:
        why = "the machine has no descriptors left (fs.file-max)"
    text = f"{what}: {why}"
    return OutOfMemory(text) if is_exhaustion(error) else error_from_code(-(error.errno or errno.EIO), text)
