"""Fixtures of the tests of the services."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from support.processes import Child, processes


@pytest.fixture
def start() -> Iterator[Callable[..., Child]]:
    """``start(function)`` runs ``function(link)`` in a forked process."""
    with processes() as fork:
        yield fork
