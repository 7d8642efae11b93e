"""ned: the boot script in Lua says which programs there are and which may reach which.

Here live the Lua side of the loader (``l4.lua``), the objects a script holds, and :func:`run`. The room promises
that a program gets what the script names and no more rights than the script gave, that a mistake in a script is
told with its file and line, and that nothing a script started outlives it. Starting programs is left to ``boot``,
the run as a whole to ``moe``.
"""

from l4re.ned.rom import Rom
from l4re.ned.script import ScriptError, run

__all__ = ["Rom", "ScriptError", "run"]
