"""What these tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.programs import Rom


@pytest.fixture
def rom(tmp_path: Path) -> Rom:
    """A folder with a few programs in it."""
    rom = Rom(tmp_path)
    rom.program("hello", "import sys; print('hello', *sys.argv[1:])")
    rom.program("exit", "import sys; sys.exit(int(sys.argv[1]))")
    rom.program("forever", "import signal; signal.pause()")
    rom.program(
        "caps",
        """
        import l4re
        for name, cap in l4re.env().caps.items():
            print(name, cap.kind, cap.rights.letters())
        """,
    )
    return rom
