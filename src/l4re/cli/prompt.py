"""``l4re ned-prompt``: commands for a running script, typed by a person."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import ClassVar

__all__ = ["NedPrompt"]

_REFUSED = 1


class NedPrompt:
    """Ask for commands and have a running boot script execute them.

    A boot script starts it as "rom/ned-prompt", with the channel that it serves (L4.server_loop) as the capability
    `svr`, and log = L4.Env.log, so that it prints where the script does and reads what is typed there:

        local c = L4.default_loader:new_channel()
        L4.default_loader:start({ caps = { svr = c }, log = L4.Env.log }, "rom/ned-prompt")
        L4.server_loop(c)

    A command is a line of Lua; what it returns is shown. It ends at the end of the input.
    """

    name: ClassVar[str] = "ned-prompt"
    usage: ClassVar[str] = "l4re ned-prompt [PROMPT]"

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        parser.add_argument("prompt", metavar="PROMPT", nargs="?", default="Cmd> ", help="what it asks with")

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Ask until there is no more input."""
        from l4re.environment import env
        from l4re.errors import L4Error, NotFound, PeerGone
        from l4re.ned.commands import CommandControl

        try:
            script = env().get_cap("svr", CommandControl)
        except NotFound as error:
            print(f"l4re: {error}; a boot script starts this program", file=sys.stderr)
            return _REFUSED
        print("Welcome to ned prompt.")
        while True:
            print(options.prompt, end="", flush=True)
            line = sys.stdin.readline()
            if not line:
                print()
                return 0
            if not line.strip():
                continue
            try:
                result = script.execute(line.rstrip("\n"))
            except PeerGone as error:
                print(f"Error calling ned: {error}")
                return _REFUSED
            except L4Error as error:
                print(f"Error calling ned: {error}")
                continue
            if result:
                print(result)
