"""Commands for a running script: `L4.server_loop` serves them, `l4re ned-prompt` sends them."""

from __future__ import annotations

from l4re.errors import error_from_code
from l4re.gate import Svr
from l4re.interface import Epiface, Interface, rpc
from l4re.moe import Root
from l4re.ned.world import Execute
from l4re.server import RegistryServer

__all__ = ["CommandControl", "Commands"]

#: Bytes of an answer.
_MOST = 32 << 10


class CommandControl(Interface):
    """A script that takes commands, as its clients see it."""

    @rpc(opcode=None)
    def execute(self, text: str) -> str:
        """Run ``text`` in the script's Lua state, and return its first result as ``tostring`` has it; nil is empty.

        Raises:
            InvalidArgument: it is no Lua.
            L4Error: it failed (EIO); the text says how.
        """
        raise NotImplementedError


class _Control(CommandControl, Epiface):
    def __init__(self, execute: Execute) -> None:
        self._execute = execute

    def execute(self, text: str) -> str:
        code, result = self._execute(text)
        if code:
            raise error_from_code(code, result)
        return result.encode()[:_MOST].decode(errors="ignore")


class Commands:
    """Serves a script's commands whenever ``root`` waits for its programs."""

    def __init__(self, root: Root, svr: Svr, execute: Execute) -> None:
        """Serve ``svr``, which this binds; ``execute`` runs a text."""
        self._server = RegistryServer()
        self._server.registry.register_obj(_Control(execute), svr)
        root.watch(self._server.fileno(), self._step)

    def _step(self) -> None:
        self._server.step(0)
