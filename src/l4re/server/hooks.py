"""Hooks: what somebody who embeds a loop may want to do between its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from l4re.interface import Served

__all__ = ["LoopHooks"]


class LoopHooks:
    """Derive from it, and pass an object as ``RegistryServer(hooks=...)`` (L4Re's loop hooks).

    They run in the loop's thread; what one raises ends ``loop()``, ``step()`` or ``serve()``. A loop with hooks
    leaves the native leaf after each request, so it is slower than one without.
    """

    def before_wait(self) -> None:
        """Nothing is left to do; the loop is about to wait, or to return from a step that does not."""

    def after_dispatch(self) -> None:
        """A request, a trigger, a timeout or an end was handled."""

    def error(self, obj: Served, error: Exception) -> None:
        """A handler of ``obj`` raised what is no `L4Error`; it is logged and answered with EIO as always."""
