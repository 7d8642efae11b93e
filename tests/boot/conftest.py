"""What these tests share."""

from __future__ import annotations

import pytest

from l4re.log import shared_multiplexer


@pytest.fixture(autouse=True, scope="session")
def _the_log_of_this_process() -> None:
    """Make it before the first test, so that no test seems to leave it behind."""
    shared_multiplexer()
