"""``l4re env``: what a program finds in its environment."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from l4re.cli.style import Style

if TYPE_CHECKING:
    from l4re.cap import Capability
    from l4re.environment import Env

__all__ = ["ShowEnv"]


class ShowEnv:
    """Print what this program was handed: as `l4re.env()` would find it in its place.

    From a shell it stands alone, and there are the defaults that every program has. Started by a boot script or by
    l4re.spawn, as in a rom file "#!/bin/sh" with the line "exec l4re env", it prints what such a program gets: the
    services of the run, and the named capabilities with their rights.
    """

    name: ClassVar[str] = "env"
    usage: ClassVar[str] = "l4re env [--json] [--no-color]"

    @staticmethod
    def arguments(parser: argparse.ArgumentParser) -> None:
        """Say which arguments it takes."""
        parser.add_argument("--json", action="store_true", help="print it for programs")
        parser.add_argument("--no-color", dest="color", action="store_false", help="no colours, also on a terminal")

    @staticmethod
    def run(options: argparse.Namespace, words: Sequence[str]) -> int:
        """Print it."""
        if words:
            options.parser.error(f"what is {words[0]!r}? It takes no arguments")
        from l4re.environment import env
        from l4re.errors import L4Error

        try:
            facts = _facts(env())
        except L4Error as error:
            print(f"l4re: {error}", file=sys.stderr)
            return 1
        if options.json:
            print(json.dumps(facts, indent=2))
        else:
            _show(facts, Style.of(sys.stdout, wanted=options.color))
        return 0


def _facts(env: Env) -> dict[str, Any]:
    quota = env.mem_alloc.info()
    return {
        "standalone": env.standalone,
        "pid": os.getpid(),
        "parent": os.getppid(),
        "log": env.log.tag,
        "memory": {**quota._asdict(), "from": "the parent" if "mem_alloc" in env.services else "this process"},
        "services": _described(env.services),
        "caps": _described(env.caps),
    }


def _described(caps: Mapping[str, Capability]) -> dict[str, dict[str, Any]]:
    return {name: _description(cap) for name, cap in caps.items()}


def _description(cap: Capability) -> dict[str, Any]:
    from l4re.dataspace import Dataspace

    said: dict[str, Any] = {"kind": cap.kind, "rights": cap.rights.letters(), "fd": cap.fileno()}
    if isinstance(cap, Dataspace):
        said |= {"size": cap.size, "name": cap.name, "enforcement": cap.enforcement}
    return said


def _show(facts: Mapping[str, Any], style: Style) -> None:
    if facts["standalone"]:
        print(f"This program {style.bold('stands alone')}: nobody handed it anything (pid {facts['pid']}).")
    else:
        tag = f", as {style.bold(facts['log'])}" if facts["log"] else ""
        print(f"This program was started by pid {facts['parent']}{tag} (pid {facts['pid']}).")
    memory = facts["memory"]
    limit = "no quota" if memory["quota"] is None else f"{memory['quota_used']:,} of {memory['quota']:,} bytes used"
    print(f"Memory comes from {memory['from']}: {limit}; the machine has {memory['mem_free']:,} bytes left.")
    for title, key in (("Services", "services"), ("Capabilities", "caps")):
        entries = facts[key]
        if not entries:
            print(f"{title}: none")
            continue
        print(f"{title}:")
        width = max(map(len, entries))
        kinds = max(len(about["kind"]) for about in entries.values())
        for name, about in entries.items():
            line = f"{about['kind']:<{kinds}}  {about['rights']:<4}  fd {about['fd']}"
            if "size" in about:
                line += f", {about['size']:,} bytes, {about['enforcement']}, made as {about['name']!r}"
            print(f"  {style.bold(name)}{' ' * (width - len(name))}  {line}")
