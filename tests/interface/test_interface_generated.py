"""The code that is generated for plain signatures: what a call costs is decided here, so it is held word by word."""

from __future__ import annotations

from textwrap import dedent

import pytest

from l4re.interface import S64, U32, Epiface, Interface, rpc
from l4re.interface.handlers import compile_handler
from l4re.interface.stubs import compile_stub
from l4re.wire.source import Source


class Calc(Interface):
    protocol = 5

    @rpc
    def add(self, a: U32, b: S64 = 3, *, c: float = 0.0) -> U32:
        raise NotImplementedError

    @rpc(rights="w")
    def both(self, text: str, flag: bool) -> tuple[bool, str]:
        raise NotImplementedError


class Server(Calc, Epiface):
    def add(self, a: int, b: int = 3, *, c: float = 0.0) -> int:
        return a + b

    def both(self, text: str, flag: bool) -> tuple[bool, str]:
        return flag, text


STUB = """
def _l4_call(_l4_self, /, a, b=_l4_2, *, c=_l4_3):
    try:
        _l4_words = _l4_5(0, a, b, c)
    except _l4_6:
        _l4_words = _l4_1((a, b, c, ))[0]
    _l4_label, _l4_words, _l4_data, _l4_caps = _l4_self._l4_transact(5, _l4_words)
    if _l4_label < 0: raise _l4_7(_l4_label, _l4_data)
    try:
        _l4_r0, = _l4_9(_l4_words)
    except _l4_6:
        _l4_r0, = _l4_8(_l4_words, _l4_data, _l4_caps)
    return _l4_r0
"""

HANDLER = """
def _l4_handle(_l4_self, _l4_rights, _l4_words, _l4_data, _l4_caps):
    try:
        a, b, c, = _l4_2(_l4_words)
    except _l4_3:
        a, b, c, = _l4_1(_l4_words, _l4_data, _l4_caps)
    _l4_result = _l4_self.add(a, b, c=c)
    _l4_r0 = _l4_result
    try:
        _l4_words = _l4_7(_l4_r0)
    except _l4_3:
        _l4_words = _l4_5(_l4_self, (_l4_r0, ))[0]
    return 0, _l4_words, b'', ()
"""

#: Text and bools are looked at in line as well.
BOTH = """
def _l4_call(_l4_self, /, text, flag):
    try:
        if not (text.__class__ is _l4_2 and flag.__class__ is _l4_3): raise _l4_6
        _l4_text_b = text.encode() + _l4_4
        if _l4_5(_l4_text_b) > 61440: raise _l4_7
        _l4_words = _l4_9(1, _l4_5(_l4_text_b)) + _l4_text_b
        _l4_words += _l4_8[-_l4_5(_l4_words) & 0] + _l4_10(flag)
        _l4_words += _l4_8[-_l4_5(_l4_words) & 7]
        _l4_caps = ()
        _l4_data = b''
"""


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    compiled = Source.compiled

    def noting(self: Source, name: str, origin: str) -> object:
        found.append(self.text())
        return compiled(self, name, origin)

    monkeypatch.setattr(Source, "compiled", noting)
    return found


def test_a_signature_of_numbers_costs_one_struct_on_each_side(texts: list[str]) -> None:
    add, both = vars(Calc)["_l4_specs"].values()
    compile_stub(add)
    compile_handler(add)
    compile_stub(both)
    assert texts[0] == dedent(STUB).lstrip()
    assert texts[1] == dedent(HANDLER).lstrip()
    assert texts[2].startswith(dedent(BOTH).lstrip())
