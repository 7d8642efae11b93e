"""ned: the boot script says which programs there are and which may reach which.

A script is written in Lua, the language of L4Re's loader, or in Python with a :class:`Loader`; either speaks of the
same system. A script in Lua speaks to a `World`: the live one starts programs, the plan one writes down what would be
started, for rules, comparisons and pictures. The room promises that a program gets what the script names and no more
rights than the script gave, that a mistake in a script is told with its file and line, and that nothing a script
started outlives it. Starting programs is left to ``boot``, the run as a whole to ``moe``.
"""

from typing import TYPE_CHECKING

from l4re.on_demand import names_on_demand

if TYPE_CHECKING:
    from l4re.ned.errors import ScriptError
    from l4re.ned.loader import Loader, LoaderTask
    from l4re.ned.rom import Rom
    from l4re.ned.script import run
else:
    __getattr__, __dir__ = names_on_demand(
        globals(),
        {
            "l4re.ned.errors": ("ScriptError",),
            "l4re.ned.loader": ("Loader", "LoaderTask"),
            "l4re.ned.rom": ("Rom",),
            "l4re.ned.script": ("run",),
        },
    )

__all__ = ["Loader", "LoaderTask", "Rom", "ScriptError", "run"]
