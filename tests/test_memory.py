"""Whether a process was killed for want of memory."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from psyrun import memory
from psyrun.memory import MemoryLimit, oom_kills

MIB = 2**20
KILLED, RAISED, SEGV = int(signal.SIGKILL), 1 << 8, int(signal.SIGSEGV)


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list whose last number is what the kernel counts."""
    counts = [0]
    monkeypatch.setattr(memory, "oom_kills", lambda: counts[-1])
    return counts


@pytest.mark.parametrize(
    ("peak", "children", "told"), [(79, 1, False), (81, 1, True), (300, 1, True), (41, 2, True), (39, 2, False)]
)
def test_the_peak_tells(kills: list[int], peak: int, children: int, told: bool) -> None:
    """Near the share that the process has of the job's memory."""
    assert kills == [0]
    assert bool(MemoryLimit(100 * MIB, children).told(peak * MIB, KILLED)) is told


def test_the_kernel_tells(kills: list[int]) -> None:
    """One more kill in the control group, whatever the peak; each kill is the cause of one end only."""
    limit = MemoryLimit(100 * MIB, 1)
    kills.append(1)
    assert limit.told(
        10 * MIB, KILLED
    ) == "was killed: out of memory; its process used 10M of the 100M that the job " + ("may use (memory)")
    assert limit.told(10 * MIB, KILLED) == ""


def test_no_limit_is_known(kills: list[int]) -> None:
    """Only the kernel can tell then."""
    limit = MemoryLimit(None, 1)
    assert limit.told(10**12, KILLED) == ""
    kills.append(2)
    assert limit.told(10 * MIB, KILLED) == "was killed: out of memory; its process used 10M"


@pytest.mark.parametrize("status", [RAISED, SEGV, 0])
def test_other_ends(kills: list[int], status: int) -> None:
    """Who is out of memory is killed by SIGKILL; anything else is not it."""
    kills.append(1)
    assert MemoryLimit(MIB, 1).told(100 * MIB, status) == ""


@pytest.mark.parametrize(
    ("group", "file", "text", "found"),
    [
        ("0::/slurm/job_7", "slurm/job_7/memory.events", "low 0\nhigh 0\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("0::/", "memory.events", "oom_kill 5\n", 5),
        ("9:memory:/slurm/job_7\n0::/", "memory/slurm/job_7/memory.oom_control", "under_oom 0\noom_kill 4\n", 4),
        ("9:cpu,cpuacct:/x", "memory/x/memory.oom_control", "oom_kill 4\n", 0),
        ("0::/other", "slurm/memory.events", "oom_kill 4\n", 0),
        ("0::/", "memory.events", "oom_kill many\n", 0),
    ],
)
def test_what_the_kernel_counts(tmp_path: Path, group: str, file: str, text: str, found: int) -> None:
    """In both versions of control groups; 0 where there is nothing to read."""
    proc = tmp_path / "cgroup"
    proc.write_text(f"{group}\n")
    path = tmp_path / "root" / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert oom_kills(proc, tmp_path / "root") == found


def test_no_control_groups(tmp_path: Path) -> None:
    """No kernel that counts: none."""
    assert oom_kills(tmp_path / "absent", tmp_path) == 0
