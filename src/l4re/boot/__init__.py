"""Starting programs: what a program is handed, and the task it becomes.

Here live :func:`spawn` and :class:`Task`, and :func:`launch` below them for who has rights to trim and a log of
its own. The room promises that a child gets exactly the capabilities named, with no more rights than its parent
has, and no other descriptor; that it dies with its parent; and that a start which fails leaves nothing behind and
takes nothing away. What the child sees is left to ``environment``, boot scripts to ``ned``.
"""

from l4re.boot.launch import Grant, launch, spawn
from l4re.boot.program import Command, find_command
from l4re.boot.task import Task

__all__ = ["Command", "Grant", "Task", "find_command", "launch", "spawn"]
