"""create: what travels, what comes back, what is refused and how."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from l4re.ned.plan import Plan
from ned.conftest import Speaker

pytestmark = pytest.mark.processes

USER = "local f, P = L4.Env.user_factory, L4.Proto\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("'tag', 3", ("tag", 3)),
        ("'tag', nil, 'x'", ("tag", None, "x")),
        ("'tag', '0x10', 2.0", ("tag", 16, 2)),
        ("'tag', true, {}, f, 'last'", ("tag", "last")),
    ],
)
def test_section_07_what_travels(plan: Callable[..., Plan], arguments: str, words: tuple[object, ...]) -> None:
    made = plan(USER + f"L4.default_loader:start({{ log = f:create(P.Log, {arguments}) }}, 'rom/hello')")
    assert made.objects[made.tasks[0].log.cap.source].words == words


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ("P.Goos", -19, "No such device"),
        ("4711", -19, "No such device"),
        ("P.Dataspace", -22, "Invalid argument"),
        ("P.Dataspace, 'much'", -22, "Invalid argument"),
        ("P.Dataspace, 0", -34, "Argument out of range"),
        ("P.Factory, 0", -22, "Invalid argument"),
        ("P.Log", -22, "Invalid argument"),
        ("P.Scheduler, 10", -22, "Invalid argument"),
        ("P.Scheduler, 256, 0", -34, "Argument out of range"),
        ("P.Scheduler, 10, 10", -22, "Invalid argument"),
    ],
)
def test_section_07_what_is_refused_is_a_table(both: Speaker, words: str, code: int, text: str) -> None:
    lines = both.say(
        USER
        + f"local ok, e = pcall(f.create, f, {words})\nprint(ok, type(e), e.code, e.msg)\nprint(tostring(e) == e.msg)"
    )
    assert lines == [f"false\ttable\t{code}\tscript.lua:2: runtime error {text} ({code})", "true"]


def test_section_07_a_refusal_that_nobody_caught_says_why(both: Speaker) -> None:
    assert both.mistake(USER + "f:create(P.Scheduler, 10, 10)") == (
        "script.lua:2: runtime error Invalid argument (-22): "
        "the limit of a scheduler is above its offset: 10 is not above 10"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("f:create()", "bad argument #1 to 'create' (number expected, got nil)"),
        ("f:create({})", "bad argument #1 to 'create' (number expected, got table)"),
        ("f:create(P.Dataspace, 1.5)", "bad argument #2 to 'create' (number has no integer representation)"),
        ("f.create(1)", "bad argument #1 to 'create' (L4::Cap expected, got number)"),
    ],
)
def test_section_07_wrong_arguments(both: Speaker, line: str, message: str) -> None:
    assert both.mistake(USER + line) == f"script.lua:2: {message}"


def test_section_07_what_comes_back_has_r_only(planned: Speaker) -> None:
    lines = planned.say(
        USER
        + """
        for _, kind in ipairs({ "Dataspace", "Factory", "Namespace", "Rm", "Dma_space" }) do
          print(kind, f:create(P[kind], 4096):m())
        end
        print(f:create(P.Dataspace, 4096, L4.Mem_alloc_flags.Continuous | L4.Mem_alloc_flags.Pinned, 21):m("rw"):m())
        print(f:create(P.Factory, 1 << 20):create(P.Dataspace, 10):m(), L4.Env.factory:create(P.Semaphore):m(),
              L4.Env.factory:create(P.Irq_sender):m(), L4.Env.factory:create(P.Ipc_gate):m())
        print(L4.cast(P.Factory, L4.Env.sigma0):create(P.Sigma0):m())
        """
    )
    assert lines == ["Dataspace\t4", "Factory\t4", "Namespace\t4", "Rm\t4", "Dma_space\t4", "5", "4\t4\t4\t4", "4"]


def test_section_07_a_factory_with_a_quota_makes_no_schedulers(both: Speaker) -> None:
    assert "runtime error No such device (-19)" in both.mistake(
        USER + "f:create(P.Factory, 1024):create(P.Scheduler, 10, 0)"
    )


def test_section_07_sessions_belong_to_the_server_of_the_channel(plan: Callable[..., Plan]) -> None:
    made = plan(
        """
        local l, c = L4.default_loader, L4.default_loader:new_channel()
        l:start({ caps = { svr = c:svr() } }, "rom/switch")
        l:start({ caps = { net = c:create(0, "ds-max=4", "name=a") } }, "rom/vm")
        l:start({ caps = { mon = c:create(L4.Proto.Log, "mon", "g") } }, "rom/other")
        """
    )
    net = made.tasks[1].caps["net"]
    assert (net.kind, net.rights) == ("gate", "r")
    assert made.objects[net.source].words == ("ds-max=4", "name=a")
    assert made.objects[net.source].over == made.tasks[0].caps["svr"].source
    assert {(reach.client, reach.server) for reach in made.reaches()} == {("vm", "switch"), ("other", "switch")}
    assert made.tasks[2].caps["mon"].kind == "log"


def test_section_07_asking_a_channel_that_nobody_serves_yet_is_remarked(plan: Callable[..., Plan]) -> None:
    made = plan("local c = L4.default_loader:new_channel() local x = c.create")
    assert [str(remark) for remark in made.remarks] == [
        "script.lua:1: the script asks a channel that no program serves so far: it waits until one does"
    ]
