"""The environment: what this program was given, and nothing else.

Here lives :class:`Env` and :func:`env`, which reads the page that the parent left for exactly this process. The
room promises that a program without a parent of ours, or a grandchild that inherited the variable by accident,
simply stands alone: it has memory, a region map and a log, and no named capabilities. Who fills the page in is
left to ``boot``.
"""

from l4re.environment.env import Env, env
from l4re.environment.page import CapEntry, EnvPage

__all__ = ["CapEntry", "Env", "EnvPage", "env"]
