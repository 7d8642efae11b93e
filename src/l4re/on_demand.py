"""Names on demand: a package offers a name, and loads the module behind it when somebody asks (PEP 562).

Every program pays for what a package loads at once, so that is what every program needs. The rest is listed
twice: for type checkers as plain imports, for the interpreter as a table::

    if TYPE_CHECKING:
        from l4re.boot import Task, spawn
    else:
        __getattr__, __dir__ = names_on_demand(globals(), {"l4re.boot": ("Task", "spawn")})

A test compares the two. A name is looked up like this once; from then on it is an attribute as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

__all__ = ["names_on_demand"]


def names_on_demand(
    package: dict[str, object], modules: Mapping[str, tuple[str, ...]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for the package with these globals.

    ``modules`` says which names are taken from which module. A module inside the package may be asked for by
    its own name as well: ``l4re.boot``.
    """
    prefix = f"{package['__name__']}."
    behind = {name: module for module, names in modules.items() for name in names}
    inside = {module.removeprefix(prefix): module for module in modules if module.startswith(prefix)}

    def load(name: str) -> object:
        if name in behind:
            package[name] = value = getattr(import_module(behind[name]), name)
            return value
        if name in inside:
            return import_module(inside[name])
        raise AttributeError(f"module {prefix[:-1]!r} has no attribute {name!r}", name=name)

    def names() -> list[str]:
        return sorted({*package, *behind, *inside})

    return load, names
