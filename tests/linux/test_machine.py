"""What the machine can do: as it is here, and as it could be elsewhere."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable

import pytest

from l4re import spawn
from l4re.linux import machine
from l4re.linux.cgroup import Delegation
from l4re.linux.machine import Finding, Verdict, examine, tasks
from l4re.testing import wait_until
from support.processes import PATIENCE

OK, LIMITED, MISSING = Verdict


def finding(what: str) -> Finding:
    (found,) = [each for each in examine() if each.what == what]
    return found


def test_where_the_tests_run_nothing_is_missing_and_every_limit_comes_with_what_was_seen() -> None:
    found = examine()
    assert len({each.what for each in found}) == len(found)
    assert all(each.seen for each in found)
    assert [each for each in found if each.verdict is MISSING] == []
    assert [each for each in found if each.verdict is OK and each.advice] == []


def test_what_was_seen_is_what_there_is() -> None:
    assert os.uname().release in finding("kernel").seen
    assert str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]) in finding("descriptors").seen
    with open("/proc/sys/vm/max_map_count") as count:
        assert count.read().strip() in finding("regions").seen


@pytest.mark.parametrize(
    ("what", "path", "text", "verdict", "seen"),
    [
        ("tracing", "/proc/sys/kernel/yama/ptrace_scope", "1\n", OK, "ptrace_scope is 1"),
        ("tracing", "/proc/sys/kernel/yama/ptrace_scope", "0\n", LIMITED, "ptrace_scope is 0"),
        ("tracing", "/proc/sys/kernel/yama/ptrace_scope", "", LIMITED, "no yama"),
        ("large pages", machine._SHMEM, "always within_size [advise] never deny force\n", OK, "'advise'"),
        ("large pages", machine._SHMEM, "always within_size advise [never] deny force\n", LIMITED, "'never'"),
        ("large pages", machine._SHMEM, "", LIMITED, "has none"),
        ("hugetlb pool", "/proc/meminfo", "HugePages_Total:  7\nHugePages_Free:  5\n", OK, "5 of 7"),
        ("regions", "/proc/sys/vm/max_map_count", "100\n", LIMITED, "is 100"),
        ("regions", "/proc/sys/vm/max_map_count", "", LIMITED, "cannot be read"),
        ("inotify", "/proc/sys/fs/inotify/max_user_watches", "10\n", LIMITED, "10 dataspaces"),
        ("inotify", "/proc/sys/fs/inotify/max_user_watches", "", LIMITED, "cannot be read"),
    ],
)
def test_a_setting_decides(
    what: str, path: str, text: str, verdict: Verdict, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = machine._text
    monkeypatch.setattr(machine, "_text", lambda name: text if name == path else real(name))
    found = finding(what)
    assert found.verdict is verdict
    assert seen in found.seen


@pytest.mark.parametrize(
    ("name", "value", "what", "verdict", "seen"),
    [
        ("delegation", lambda: Delegation("/g"), "quotas", OK, "the kernel's"),
        ("delegation", lambda: Delegation("/g", "/g holds 2 more processes"), "quotas", LIMITED, "2 more processes"),
        ("available", lambda: 1 << 20, "memory", LIMITED, "1 MiB of"),
        ("total", lambda: 1, "memory", OK, "of 1 bytes"),
    ],
)
def test_an_answer_decides(
    name: str,
    value: Callable[[], object],
    what: str,
    verdict: Verdict,
    seen: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, name, value)
    found = finding(what)
    assert found.verdict is verdict
    assert seen in found.seen


@pytest.mark.parametrize(
    ("release", "verdict"), [("5.3.9", MISSING), ("5.4", OK), ("5.10.0-1-amd64", OK), ("5.15+", OK)]
)
def test_an_old_kernel_is_not_enough(release: str, verdict: Verdict, monkeypatch: pytest.MonkeyPatch) -> None:
    about = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((about[0], about[1], release, about[3], about[4])))
    assert finding("kernel").verdict is verdict


def test_few_descriptors_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 128))
    assert finding("descriptors").verdict is LIMITED


@pytest.mark.processes
def test_programs_that_were_given_capabilities_are_counted() -> None:
    with spawn(["sleep", "1000"]) as task:
        wait_until(lambda: dict(tasks()).get(task.pid) is False, PATIENCE, "it to be seen")  # once it has begun
        assert finding("tasks").verdict is LIMITED
    assert task.pid not in dict(tasks())


@pytest.mark.processes
def test_a_program_without_procfs_is_isolated() -> None:
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "umount -R /proc && exec sleep 1000"],
        env={**os.environ, "L4RE_ENV": "3"},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_until(lambda: process.poll() is not None or dict(tasks()).get(process.pid) is True, PATIENCE)
            if process.poll() is not None:
                pytest.skip("takes a user that may have mounts of its own")
        finally:
            process.kill()
