"""Python alone: what every program pays before its first line."""

from __future__ import annotations

from .base import Starts

__all__ = ["BarePython"]


class BarePython(Starts):
    """Imports nothing."""

    name = "python"
    imports = "pass"
