"""Every claim has a test, and one that is kept differently here has a row among the differences."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DIFFERENCES = HERE.parents[1] / "docs" / "differences.md"

#: All there are.
CLAIMS = range(1, 107)

_TEST = re.compile(r"test_claim_(\d+)_(\w+)")
_MARK = re.compile(r"<!-- claims? ([\d, ]+) -->")


def _tested() -> dict[int, list[str]]:
    """Return the names of the tests of each claim."""
    found: dict[int, list[str]] = {}
    for path in HERE.glob("test_*_claims.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and (name := _TEST.fullmatch(node.name)):
                found.setdefault(int(name[1]), []).append(name[2])
    return found


def _different() -> set[int]:
    """Return the claims that a row of the differences names."""
    return {int(number) for mark in _MARK.findall(DIFFERENCES.read_text()) for number in mark.split(",")}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_has_a_test_and_a_row_if_it_is_different_here(claim: int) -> None:
    names = _tested().get(claim, [])
    assert names, f"no test is named test_claim_{claim}_..."
    says_so = any("here" in name.split("_") for name in names)
    assert says_so == (claim in _different()), f"claim {claim}: a name says 'here', or a row <!-- claim {claim} -->"
