"""The root task: the programs of one run, what they print, and how the run ends.

Here lives :class:`Root`. The room promises that a run which is told to stop takes all its programs along, once and
quietly, and that its exit status is that of the first program that failed. Which programs there are and who may
reach whom is left to ``ned``.
"""

from l4re.moe.root import Root, Stopped

__all__ = ["Root", "Stopped"]
