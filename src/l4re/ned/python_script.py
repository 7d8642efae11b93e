"""Running a boot script that is written in Python."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Mapping, Sequence

from l4re.moe import Root, Stopped
from l4re.ned.loader import given_run
from l4re.ned.rom import Rom

__all__ = ["run_python"]

_MISTAKE = 2


def run_python(
    script: str,
    *,
    rom: Sequence[str | os.PathLike[str]] = (),
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    leave: bool = False,
    timeout: float | None = None,
    root: Root,
) -> int:
    """Run ``script`` as ``__main__``, wait for the programs it starts with `Loader`, and return the exit status.

    That is the first failure's, of the programs and of the script itself; otherwise as of `ned.run`.

    Raises:
        NotFound: a rom folder does not exist.
        OSError: the script cannot be read.
    """
    with open(script, "rb"):
        pass
    folders = Rom(rom or [os.path.dirname(script) or "."])
    before = sys.argv, sys.path[0]
    sys.argv, sys.path[0] = [script, *arguments], os.path.dirname(os.path.abspath(script))
    try:
        with root, root.signals(timeout=timeout, raising=True), given_run(root, folders, environment or {}) as serve:
            try:
                status = _run(script)
                if status == _MISTAKE:
                    return status
                if leave:
                    while root.next_ended() is not None:
                        pass
                return serve() or status
            except Stopped as stop:
                root.end(stop.number)
                return stop.status
    finally:
        sys.argv, sys.path[0] = before


def _run(script: str) -> int:
    """Run it and return its own exit status; of one that has a mistake, the traceback is printed."""
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename != script:
            trace = trace.tb_next
        traceback.print_exception(error.with_traceback(trace or error.__traceback__))
        return _MISTAKE
    return 0
