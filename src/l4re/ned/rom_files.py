"""The rom as a namespace: its files are dataspaces that nobody can write."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast

from l4re.dataspace.files import FileDataspaces
from l4re.errors import NotFound
from l4re.ned.rom import Rom
from l4re.rights import Rights
from l4re.services.namespace import NamespaceEntry, check_path
from l4re.services.namespace_server import NamespaceServer

if TYPE_CHECKING:
    from l4re.dataspace import Dataspace
    from l4re.interface import Answer
    from l4re.server import Reply

__all__ = ["RomFiles"]


class RomFiles(NamespaceServer):
    """Serves the files of a rom by their paths; each is copied once, when somebody asks for it first.

    A thread of its own copies them, so that a large file keeps nobody else waiting.
    """

    def __init__(self, rom: Rom) -> None:
        super().__init__(entries=0)
        self._rom = rom
        self._files = FileDataspaces()
        self._asked: SimpleQueue[tuple[str, Reply]] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def _query(self, path: str, rights: Rights, wait: bool) -> Answer:
        check_path(path)
        reply: Reply = cast(Any, self.obj_cap()).host.take_reply()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="l4re rom", daemon=True)
            self._thread.start()
        self._asked.put((path, reply))
        return None

    def _run(self) -> None:
        while True:
            path, reply = self._asked.get()
            try:
                with self._open(path) as file:
                    reply.answer(0, b"", b"", (file,))
            except Exception as error:
                reply.fail(error)

    def _open(self, path: str) -> Dataspace:
        found = self._rom.file(f"rom/{path}")
        if found is None:
            raise NotFound(f"there is no file {path!r} in the rom: looked in {self._rom}", name=path)
        return self._files.open(found)

    def _after(self, name: str) -> Iterable[NamespaceEntry]:
        there = {file.name for folder in self._rom.folders for file in folder.iterdir() if file.is_file()}
        return [NamespaceEntry(each, "dataspace", Rights.R) for each in sorted(there) if each > name]

    def __repr__(self) -> str:
        return f"<RomFiles of {self._rom}>"
