"""`spawn` and `Task`: what a program gets, how it ends, what is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

import l4re
from l4re.errors import WrongType
from l4re.moe import Services
from l4re.testing import wait_until
from support.programs import PATIENCE, alive, write

pytestmark = pytest.mark.processes

SHELL = "/bin/sh"


def sh(script: str, **options: object) -> l4re.Task:
    return l4re.spawn([SHELL, "-c", script], **options)  # type: ignore[arg-type]


# ---- the end of a program ----


def test_the_exit_status_is_the_programs_own() -> None:
    with sh("exit 7") as task:
        assert task.wait(PATIENCE) == 7
        assert task.wait() == task.returncode == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_a_program_that_a_signal_ended_has_128_and_its_number(number: signal.Signals) -> None:
    with sh(f"kill -{number.value} $$") as task:
        assert task.wait(PATIENCE) == 128 + number
        assert number.name in repr(task)


def test_waiting_too_short_says_so_and_changes_nothing() -> None:
    with sh("read line", stdin=None) as ended, l4re.spawn(["sleep", "1000"]) as task:
        assert ended.wait(PATIENCE) == 1
        assert task.returncode is None
        with pytest.raises(TimeoutError, match=r"sleep.*running.*0\.01 s"):
            task.wait(0.01)
        with pytest.raises(TimeoutError):
            task.wait(0)
        assert task.returncode is None


def test_leaving_the_block_kills_and_reaps() -> None:
    with l4re.spawn(["sleep", "1000"]) as task:
        assert alive([task.pid]) == [task.pid]
        assert repr(task) == f"<Task 'sleep' pid {task.pid} running>"
    assert task.returncode == 128 + signal.SIGKILL
    assert not Path(f"/proc/{task.pid}").exists()
    task.kill()
    assert task.wait() == 137


def test_killing_takes_along_what_the_program_started_in_its_group() -> None:
    with l4re.spawn([sys.executable, "-c", "import subprocess; subprocess.run(['sleep', '1000'])"]) as task:
        children = Path(f"/proc/{task.pid}/task/{task.pid}/children")
        wait_until(lambda: bool(children.read_text()), PATIENCE)
        grandchild = int(children.read_text())
    wait_until(lambda: not alive([grandchild]), PATIENCE)


def test_many_threads_may_wait_for_one_task() -> None:
    statuses: list[int] = []
    with l4re.spawn(["sleep", "1000"]) as task:
        threads = [threading.Thread(target=lambda: statuses.append(task.wait(PATIENCE))) for _ in range(8)]
        for thread in threads:
            thread.start()
        task.kill()
        for thread in threads:
            thread.join()
    assert statuses == [137] * 8


def test_asyncio_programs_wait_as_well() -> None:
    async def main() -> list[int]:
        with l4re.spawn(["sleep", "1000"]) as task:
            waiting = [asyncio.create_task(task.exited()) for _ in range(3)]
            await asyncio.sleep(0)
            task.kill()
            return [*await asyncio.gather(*waiting), await task.exited()]

    assert asyncio.run(main()) == [137] * 4


def test_an_outer_loop_can_watch_the_task() -> None:
    with l4re.spawn(["true"]) as task:
        import select

        assert select.select([task.fileno()], [], [], PATIENCE)[0]
        assert task.wait(PATIENCE) == 0
        with pytest.raises(l4re.Closed):
            task.fileno()


def test_a_dropped_task_runs_on_and_leaves_no_zombie() -> None:
    task = l4re.spawn(["sleep", "1000"])
    pid = task.pid
    del task
    assert alive([pid]) == [pid]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive([pid]), PATIENCE)
    with l4re.spawn(["true"]):
        assert not Path(f"/proc/{pid}").exists()


def test_somebody_else_may_have_waited_first() -> None:
    with l4re.spawn(["true"]) as task:
        os.waitpid(task.pid, 0)
        assert task.wait(PATIENCE) == 255


def test_two_hundred_programs_leave_nothing() -> None:
    for _ in range(20):
        tasks = [l4re.spawn(["true"], log="x") for _ in range(10)]
        assert [task.wait(PATIENCE) for task in tasks] == [0] * 10


# ---- what a program gets ----


def test_output_is_inherited_or_tagged(capfd: pytest.CaptureFixture[str]) -> None:
    with sh("echo plain") as task:
        task.wait(PATIENCE)
    with sh("echo out; echo err >&2; printf half", log=("client", "green")) as task:
        task.wait(PATIENCE)
    out, err = capfd.readouterr()
    assert err == ""
    assert sorted(out.splitlines()) == ["client  | err", "client  | half", "client  | out", "plain"]


def test_python_programs_do_not_sit_on_their_output(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('ready'); sys.stdin.read()"
    read, write_end = os.pipe()
    seen = ""

    def came() -> bool:
        nonlocal seen
        seen += capfd.readouterr().out
        return "ready" in seen

    with l4re.spawn([sys.executable, "-c", code], log="p", stdin=read) as task:
        wait_until(came, PATIENCE)
        os.close(write_end)
        assert task.wait(PATIENCE) == 0
    os.close(read)


def test_there_is_nothing_to_read_unless_it_is_given(tmp_path: Path) -> None:
    with sh("cat") as task:
        assert task.wait(PATIENCE) == 0
    (tmp_path / "in").write_text("3")
    with open(tmp_path / "in") as file, sh("read n; exit $n", stdin=file) as task:
        assert task.wait(PATIENCE) == 3


def variables(env: dict[str, str] | None, tmp_path: Path) -> dict[str, str]:
    out = tmp_path / "env"
    with l4re.spawn(["/usr/bin/env", "sh", "-c", f"env -0 > {out}"], env=env) as task:
        assert task.wait(PATIENCE) == 0
    return dict(item.split("=", 1) for item in out.read_text().split("\0") if item)


def test_the_environment_is_ours_without_our_wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L4RE_ENV", "77")
    monkeypatch.setenv("L4RE_SPIN_US", "0")
    monkeypatch.setenv("COLOUR", "green")
    seen = variables(None, tmp_path)
    assert seen["COLOUR"] == "green"
    assert "L4RE_SPIN_US" not in seen
    assert seen["L4RE_ENV"] == "3"


def test_a_given_environment_is_all_there_is(tmp_path: Path) -> None:
    seen = variables({"PATH": "/usr/bin:/bin", "A": "x=y"}, tmp_path)
    assert {key: seen[key] for key in seen if key not in ("PWD", "SHLVL", "_", "OLDPWD")} == {
        "PATH": "/usr/bin:/bin", "A": "x=y", "L4RE_ENV": "3", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def test_a_program_has_its_capabilities_and_no_other_descriptor(capfd: pytest.CaptureFixture[str]) -> None:
    ours = os.pipe()
    os.set_inheritable(ours[0], True)
    with (
        l4re.env().mem_alloc.alloc(4096) as ds,
        sh("ls /proc/self/fd", log="x", caps={"ds": ds.ro, "b": ds.ro}) as task,
    ):
        task.wait(PATIENCE)
    for fd in ours:
        os.close(fd)
    numbers = [int(line.split("| ")[1]) for line in capfd.readouterr().out.splitlines()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) <= 4 + 2 * 2 + 1


def test_signals_have_their_default_effect(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        with sh("grep Sig /proc/self/status", log="x") as task:
            task.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    state = dict(line.split("| ")[1].split(":\t") for line in capfd.readouterr().out.splitlines())
    libc = 0b11 << 31  # 32 and 33 are the C library's own, and posix_spawn (as of make) leaves 32 ignored
    assert int(state["SigBlk"], 16) & ~libc == int(state["SigIgn"], 16) & ~libc == 0


def test_a_program_leads_a_process_group_of_its_own() -> None:
    with l4re.spawn(["sleep", "1000"]) as task:
        assert os.getpgid(task.pid) == task.pid != os.getpgrp()


def test_a_working_directory_can_be_chosen(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with sh("pwd", cwd=tmp_path, log="x") as task:
        task.wait(PATIENCE)
    assert capfd.readouterr().out == f"x       | {tmp_path}\n"


def test_a_python_file_is_run_with_this_interpreter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    program = write(tmp_path, "prog.py", "import sys; print(sys.executable, sys.argv[1:])")
    with l4re.spawn([program, "a b"], log="x") as task:
        assert task.wait(PATIENCE) == 0
    assert capfd.readouterr().out == f"x       | {sys.executable} ['a b']\n"


# ---- capabilities ----


def test_a_receive_right_moves(tmp_path: Path) -> None:
    channel = l4re.new_channel()
    with channel.gate, l4re.spawn(["sleep", "1000"], caps={"shm": channel.svr}):
        assert channel.svr.closed
        with pytest.raises(l4re.Closed):
            l4re.spawn(["sleep", "1000"], caps={"shm": channel.svr})


def test_a_call_to_a_server_that_ended_ends() -> None:
    channel = l4re.new_channel()
    with channel.gate, l4re.spawn(["sleep", "1000"], caps={"shm": channel.svr}) as task:
        timer = threading.Timer(0.05, task.kill)
        timer.start()
        with pytest.raises(l4re.PeerGone):
            channel.gate.call(b"hello", timeout=PATIENCE)
        timer.join()


def test_capabilities_arrive_by_name_and_work(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        "prog.py",
        """
        import l4re
        env = l4re.env()
        assert list(env.caps) == ["memory", "bell", "read only"], env
        memory = env.get_cap("memory", l4re.Dataspace)
        with env.rm.attach(memory) as region:
            memoryview(region)[:5] = b"hello"
        try:
            env.get_cap("read only", l4re.Dataspace).write(0, b"x")
        except PermissionError:
            env.get_cap("bell", l4re.Irq).trigger()
        """,
    )
    with l4re.env().mem_alloc.alloc(5000) as ds, l4re.Irq.create() as bell:
        caps = {"memory": ds, "bell": bell, "read only": ds.ro}
        with l4re.spawn([program], caps=caps) as task:
            assert task.wait(PATIENCE) == 0
            bell.receive(timeout=PATIENCE)
        assert ds.read(0, 5) == b"hello"


# ---- what cannot be ----


@pytest.mark.parametrize(
    ("program", "error", "text"),
    [
        (["no-such-program"], l4re.NotFound, "no program 'no-such-program' in PATH"),
        (["/no/such/program"], l4re.NotFound, "no program '/no/such/program'"),
        (["./nope.py"], l4re.NotFound, "nope.py"),
        (["/etc/passwd"], l4re.PermissionDenied, "not executable"),
        ([], l4re.InvalidArgument, "list of words"),
        ("ls -l", l4re.InvalidArgument, "list of words"),
        (["ls", "a\0b"], l4re.InvalidArgument, "NUL"),
        (["ls", 3], WrongType, "not 3"),
        ([""], l4re.NotFound, "no program ''"),
    ],
)
def test_a_program_that_cannot_be_is_refused(program: list[str], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        l4re.spawn(program)


def test_a_program_that_cannot_be_executed_takes_nothing_away(tmp_path: Path) -> None:
    script = write(tmp_path, "script", "#!/no/such/interpreter\n", mode=0o755)
    blank = write(tmp_path, "blank", "no first line\n", mode=0o755)
    channel = l4re.new_channel()
    with channel.gate, channel.svr, l4re.env().mem_alloc.alloc(4096) as ds:
        caps = {"svr": channel.svr, "ds": ds, "gate": channel.gate}
        with pytest.raises(l4re.NotFound, match="interpreter"):
            l4re.spawn([script], caps=caps)
        with pytest.raises(l4re.L4Error, match="Exec format error"):
            l4re.spawn([blank], caps=caps, log="x")
        with pytest.raises(l4re.NotFound, match="/no/such/folder"):
            l4re.spawn(["true"], caps=caps, cwd="/no/such/folder")
        assert not channel.svr.closed
        assert not ds.closed


@pytest.mark.parametrize(
    "options",
    [
        {"env": {"A=B": "x"}}, {"env": {"": "x"}}, {"env": {"A": "x\0"}}, {"env": {"A": 3}}, {"caps": {"x": 3}},
        {"caps": {"x": None}}, {"log": ()}, {"log": (3, 4)},
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(l4re.InvalidArgument):
        l4re.spawn(["true"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 300])
def test_names_that_cannot_be_are_refused(name: str) -> None:
    with l4re.env().mem_alloc.alloc(4096) as ds, pytest.raises(l4re.InvalidArgument, match="name"):
        l4re.spawn(["true"], caps={"ok": ds, name: ds})


def test_a_receive_right_cannot_go_under_two_names() -> None:
    channel = l4re.new_channel()
    with channel.gate, channel.svr:
        with pytest.raises(l4re.InvalidArgument, match="two names"):
            l4re.spawn(["true"], caps={"a": channel.svr, "b": channel.svr})
        assert not channel.svr.closed


# ---- the end of the parent ----

PARENT = """
import l4re, sys, threading, time
def start():
    for _ in range(3):
        tasks.append(l4re.spawn(["sleep", "1000"]))
tasks = []
thread = threading.Thread(target=start)
thread.start()
thread.join()
print(*(task.pid for task in tasks), flush=True)
{end}
"""


def children_of(end: str) -> tuple[subprocess.Popen[str], list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(end=end)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    return parent, [int(word) for word in _line(parent.stdout).split()]


def _line(stream: IO[str]) -> str:
    return stream.readline()


def test_programs_outlive_the_thread_that_started_them_but_not_the_process() -> None:
    parent, pids = children_of("sys.stdin.read()")
    with parent:
        assert alive(pids) == pids
        parent.kill()
    wait_until(lambda: not alive(pids), PATIENCE)


def test_programs_end_when_their_parent_returns() -> None:
    parent, pids = children_of("")
    with parent:
        pass
    wait_until(lambda: not alive(pids), PATIENCE)


def test_a_forked_child_can_start_programs_of_its_own() -> None:
    with l4re.spawn(["true"], log="x"):
        pass
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            with l4re.spawn(["true"], log="x") as task:
                status = task.wait(PATIENCE)
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_an_interrupted_start_leaves_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    from l4re.linux import process

    waits = 0
    wait = process._Job.wait
    discard = process._discard
    started: list[int] = []

    def interrupted_once(self: process._Job) -> None:
        nonlocal waits
        waits += 1
        if waits == 1:
            raise KeyboardInterrupt
        wait(self)

    def note(spawned: process.Spawned) -> None:
        started.append(spawned.pid)
        discard(spawned)

    monkeypatch.setattr(process._Job, "wait", interrupted_once)
    monkeypatch.setattr(process, "_discard", note)
    channel = l4re.new_channel()
    with channel.gate, channel.svr:
        with pytest.raises(KeyboardInterrupt):
            l4re.spawn(["sleep", "1000"], caps={"shm": channel.svr})
        assert not channel.svr.closed
    assert alive(started) == []
    assert len(started) == 1


def test_a_capability_is_handed_over_with_at_most_the_rights_named(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import l4re; print(*(f'{name} {cap.rights.letters()}' for name, cap in l4re.env().caps.items()))"
    with l4re.new_channel() as channel, l4re.env().mem_alloc.alloc(1) as ds:
        caps = {
            "a": channel.m("r"),
            "b": channel.gate.m("rw"),
            "c": ds.m(l4re.Rights.R),
            "d": channel.gate.m("r").m("rws"),
        }
        with l4re.spawn([sys.executable, "-c", code], caps=caps) as task:
            assert task.wait(PATIENCE) == 0
    assert capfd.readouterr().out == "a r b rw c r d r\n"
    with pytest.raises(l4re.InvalidArgument, match="rights are letters"):
        channel.m("x")


# ---- services ----

ASKS = "import l4re; print(l4re.env().mem_alloc.info().quota, sorted(l4re.env().services))"


def test_a_child_uses_the_services_it_is_given(capfd: pytest.CaptureFixture[str]) -> None:
    services = Services(quota=1 << 20)
    try:
        with services.factory() as factory, l4re.Factory(factory).create(l4re.Proto.FACTORY, 1 << 16) as smaller:
            for gate, quota in ((factory, 1 << 20), (smaller, 1 << 16)):
                assert isinstance(gate, l4re.Gate)
                with l4re.spawn([sys.executable, "-c", ASKS], services={"mem_alloc": gate}) as task:
                    assert task.wait(PATIENCE) == 0
                assert capfd.readouterr().out == f"{quota} ['mem_alloc']\n"
    finally:
        services.close()


def test_a_grandchild_gets_what_its_parent_was_given(capfd: pytest.CaptureFixture[str]) -> None:
    between = f"import sys, l4re; l4re.spawn([sys.executable, '-c', {ASKS!r}]).wait()"
    services = Services(quota=1 << 20)
    try:
        with services.factory() as factory:
            with l4re.spawn([sys.executable, "-c", between], services={"mem_alloc": factory}) as task:
                assert task.wait(PATIENCE) == 0
            assert capfd.readouterr().out == f"{1 << 20} ['mem_alloc']\n"
    finally:
        services.close()


def test_a_service_that_nobody_knows_is_refused() -> None:
    with l4re.new_channel().gate as gate, pytest.raises(l4re.InvalidArgument, match="name others in caps"):
        l4re.spawn(["true"], services={"clock": gate})
