"""Helpers for tests of programs that use l4re: what a process holds, and whether it gave it back.

Public, because users have the same questions as we do. Nothing here is needed at run time.
"""

from l4re.testing.holdings import Holdings, holdings, wait_until

__all__ = ["Holdings", "holdings", "wait_until"]
