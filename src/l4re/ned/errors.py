"""What is wrong with a boot script."""

from __future__ import annotations

__all__ = ["ScriptError"]


class ScriptError(Exception):
    """The script has a mistake; the text says where and what. ``stack`` are the calls that led there."""

    def __init__(self, text: str, stack: str = "") -> None:
        super().__init__(text)
        self.stack = stack
