"""The root task: the programs of one run, what they are served, what they print, and how the run ends.

Here lives :class:`Root`, and :class:`Services`, which a thread of its own serves: to each program a factory, on
accounts that hold. The room promises that a run which is told to stop takes all its programs along, once and
quietly, that its exit status is that of the first program that failed, and that memory is paid for until nobody
anywhere holds it. Which programs there are and who may reach whom is left to ``ned``.
"""

from l4re.moe.quota import Account
from l4re.moe.root import Root, Stopped
from l4re.moe.services import Services

__all__ = ["Account", "Root", "Services", "Stopped"]
