"""psy-doit doctor: what it finds is so, what it needs to find out is gone afterwards."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from project import Project
from psyrun import probes
from psyrun.doctor import lines, owners, report
from psyrun.machine import (
    ERROR,
    OK,
    WARNING,
    Finding,
    cgroup_cores,
    cgroup_memory,
    cores,
    file_system,
    kind_of,
    libraries,
    memory,
    open_files,
    own_version,
    packages_in,
    processes,
)

TASK = "from psyrun import Param\npspace = Param(x=[1, 2])\ndef execute(x): return dict(y=x)\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return a directory on a disk of 64 kB and 40 files."""
    path = tmp_path / "psy-work"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=40", "tmpfs", str(path)]
    told = subprocess.run(mount, capture_output=True, text=True)
    assert told.returncode == 0, f"{told.stderr}This test needs a file system of its own, and root to mount it"
    yield path
    subprocess.run(["umount", str(path)], check=True)


def found(project: Project, *words: str, status: int | None = 0, **extra: str) -> dict[str, dict[str, str]]:
    """Return what doctor --json finds, by check."""
    told = json.loads(project.run("doctor", "--json", *words, status=status, **extra).stdout)
    assert told["schema_version"] == 1
    return {finding["check"]: finding for finding in told["findings"]}


# The command


def test_a_machine_on_which_tests_run_has_no_errors(project: Project) -> None:
    """Status 0, a line a check, and nothing is left behind: not before the first run, nor after it."""
    project.task("t", TASK)
    told = project.run("doctor").stdout
    assert told.startswith(f"{project.path}, and this machine:\n")
    assert "error" not in told
    assert sorted(os.listdir(project.path)) == ["psy-tasks"]
    project.run("t")
    before = {path: path.stat().st_mtime_ns for path in (project.path / "psy-work/t").rglob("*")}
    findings = found(project, "t")
    assert {path: path.stat().st_mtime_ns for path in (project.path / "psy-work/t").rglob("*")} == before
    assert os.listdir(project.path / "psy-work") == ["t"]
    assert findings["write"]["told"] == f"in {project.path / 'psy-work'}"
    needed = ["write and sync", "exclusive create", "rename a file", "rename a directory", "listing", "clock", "names"]
    assert [findings[check]["level"] for check in [*needed, "owners", "libraries"]] == [OK] * 9
    assert "numpy" in findings["libraries"]["told"]
    project.run("doctor", "u", status=3)


def test_what_is_not_to_be_trusted_is_an_error_with_the_remedy(project: Project) -> None:
    """Status 75; what is typed as told mends it."""
    project.task("t", TASK)
    project.run("t")
    marker = project.path / "psy-work" / "t"
    marker.chmod(0o777)
    finding = found(project, status=75)["owners"]
    assert finding["level"] == ERROR
    assert "can be written by other users" in finding["told"]
    command = finding["remedy"].removeprefix("If you trust it: ").partition(" (or")[0]
    subprocess.run(command, shell=True, check=True)
    assert found(project)["owners"]["level"] == OK
    marker.chmod(0o777)
    assert found(project, PSYRUN_TRUST="1")["owners"]["level"] == WARNING


def test_a_task_file_that_cannot_be_loaded_does_not_hide_the_rest(project: Project) -> None:
    """It is one error among the findings."""
    project.task("t", "(")
    findings = found(project, "t", status=75)
    assert "task_t.py:1" in findings["task file"]["told"]
    assert findings["write"]["level"] == OK


def test_a_full_disk(project: Project, disk: Path) -> None:
    """An error where nothing more can be written, a warning where little can; nothing is left behind."""
    findings = found(project, status=75)  # it takes more than 64 kB to try
    assert findings["write and sync"]["level"] == ERROR
    assert "No space left on device" in findings["write and sync"]["told"]
    assert findings["exclusive create"]["level"] == OK
    assert findings["free space"]["level"] == findings["free inodes"]["level"] == WARNING
    assert findings["file system"]["told"].startswith("tmpfs: in memory")
    assert os.listdir(disk) == []
    for i in range(39):
        (disk / str(i)).touch()
    assert found(project, status=75)["write"]["level"] == ERROR


def test_a_read_only_disk(project: Project, disk: Path) -> None:
    """One error says so, with the remedy; what needs no writing is found out all the same."""
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    findings = found(project, status=75)
    assert "Read-only file system" in findings["write"]["told"]
    assert "another workdir" in findings["write"]["remedy"]
    assert "exclusive create" not in findings
    assert findings["cores"]


def test_a_work_directory_on_another_disk_is_found_through_its_link(project: Project, disk: Path) -> None:
    """It is that disk that is looked at."""
    project.task("t", TASK + "workdir = 'work'\n")
    (project.path / "work").mkdir()
    (project.path / "work" / "t").symlink_to(disk)
    assert found(project, "t", status=75)["file system"]["told"].startswith("tmpfs")


@pytest.mark.parametrize("n_signals", [1, 2])
def test_ctrl_c_leaves_nothing_behind(project: Project, n_signals: int) -> None:
    """Status 130, not a word; a second Ctrl-C changes nothing."""
    program = (
        "import signal, sys; from psyrun import cli, probes\n"
        "def stop(path):\n"
        "    print(path, flush=True)\n"
        "    signal.pause()\n"
        "probes._sync = stop\n"
        "sys.argv = ['psy-doit', 'doctor']\n"
        "cli.main()\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, cwd=project.path, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        bench = Path(process.stdout.readline().strip()).parent
        assert bench.is_dir()
        for _ in range(n_signals):
            process.send_signal(signal.SIGINT)
        told, said = process.communicate(timeout=20)
    if n_signals == 1:
        assert (process.returncode, told, said) == (130, "", "")
    assert not bench.exists()


# What a file system may lack


def level(findings: list[Finding], check: str) -> str:
    return next(finding.level for finding in findings if finding.check == check)


def test_a_file_system_that_makes_files_twice_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As some over the network did."""
    original = os.open
    monkeypatch.setattr(os, "open", lambda path, flags, *rest: original(path, flags & ~os.O_EXCL, *rest))
    assert level(probes.probe(tmp_path), "exclusive create") == ERROR


def test_renames_that_are_not_what_they_should_be_are_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Onto a directory with files in it, or twice; one that is refused is an error with the system's words."""
    monkeypatch.setattr(Path, "rename", lambda path, target: None)
    findings = probes.probe(tmp_path)
    assert (level(findings, "rename a file"), level(findings, "rename a directory")) == (ERROR, ERROR)

    def refused(path: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "rename", refused)
    findings = probes.probe(tmp_path)
    assert (level(findings, "rename a file"), level(findings, "rename a directory")) == (ERROR, ERROR)
    assert os.listdir(tmp_path) == []


def test_listings_that_lag_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time it took; it is an error if the file does not come."""
    original = os.listdir
    looks: list[int] = []

    def lagging(path: Any) -> list[str]:
        looks.append(1)
        return original(path) if len(looks) > 5 else []

    monkeypatch.setattr(os, "listdir", lagging)
    assert level(probes.probe(tmp_path), "listing") == WARNING
    monkeypatch.setattr(os, "listdir", lambda path: [])
    monkeypatch.setattr(probes, "_MOST_DELAY", 0.05)
    assert level(probes.probe(tmp_path), "listing") == ERROR


@pytest.mark.parametrize("shift", [100.0, -100.0])
def test_another_clock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """Ahead or behind; it is no error, for no clocks are compared."""
    clock = probes.time.time  # type: ignore[attr-defined]
    monkeypatch.setattr("time.time", lambda: clock() - shift)
    (finding,) = (finding for finding in probes.probe(tmp_path) if finding.check == "clock")
    assert finding.level == WARNING
    assert f"is 1.67 minutes {'ahead of' if shift > 0 else 'behind'}" in finding.told


def test_the_bench_is_removed_whatever_ends_its_use(tmp_path: Path) -> None:
    """Also an interruption."""
    with pytest.raises(KeyboardInterrupt), probes.workbench(tmp_path) as bench:
        (bench / "file").touch()
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_ctrl_c_while_the_bench_is_removed_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is removed to its end, and afterwards Ctrl-C does what it did before."""
    original = shutil.rmtree

    def interrupted(path: Path, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        original(path, **options)

    monkeypatch.setattr(shutil, "rmtree", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with probes.workbench(tmp_path) as bench:
        (bench / "file").touch()
    assert os.listdir(tmp_path) == []
    assert signal.getsignal(signal.SIGINT) is before


# The machine


@pytest.mark.parametrize(
    ("finding", "expected", "word"),
    [
        (cores(8, 8, None), OK, "8 of 8"),
        (cores(8, 16, 2.5), WARNING, "2.5"),
        (cores(2, 16, 4.0), OK, "2 of 16"),
        (memory(8 * 10**9, -1, None), OK, "8 GB"),
        (memory(8 * 10**9, 5 * 10**8, None), WARNING, "RLIMIT_AS 500 MB"),
        (memory(8 * 10**9, -1, 10**8), WARNING, "control group allows 100 MB"),
        (memory(-1, -1, None), OK, "is not told"),
        (open_files(1024, 8), OK, "1024"),
        (open_files(-1, 8), OK, "no limit"),
        (open_files(64, 8), WARNING, "may need 96"),
        (processes(True), OK, "/proc"),
        (libraries({"numpy": "2.0", "nengo": ""}), ERROR, "Not installed: click"),
        (kind_of("ext4"), OK, "ext4"),
        (kind_of("nfs4"), OK, "lag behind"),
        (kind_of("lustre"), OK, "of the network"),
        (kind_of("tmpfs"), WARNING, "gone when"),
        (kind_of("overlay"), WARNING, "container"),
        (kind_of("fuse.sshfs"), WARNING, "renames"),
        (kind_of("9p"), WARNING, "renames"),
        (kind_of(""), OK, "is not told"),
    ],
)
def test_what_is_found_of_a_machine(finding: Finding, expected: str, word: str) -> None:
    """What is no warning needs no remedy, and a warning has one."""
    assert finding.level == expected
    assert word in finding.told
    assert bool(finding.remedy) == (expected != OK)


@pytest.mark.parametrize(
    ("groups", "files", "bytes_", "quota"),
    [
        ("0::/user/job\n", {"memory.max": "max"}, None, None),
        ("0::/user/job\n", {"user/job/memory.max": "2000", "user/memory.max": "1000"}, 1000, None),
        ("0::/user/job\n", {"user/cpu.max": "150000 100000", "user/job/cpu.max": "max 100000"}, None, 1.5),
        ("4:memory:/a\n1:cpu,cpuacct:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None, None),
        ("4:memory:/a/b\n", {"memory/a/memory.limit_in_bytes": "3000"}, 3000, None),
        (
            "1:cpu,cpuacct:/a\n",
            {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
            None,
            0.5,
        ),
        ("1:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/a/cpu.cfs_period_us": "100000"}, None, None),
        (None, {}, None, None),
    ],
)
def test_limits_of_control_groups(
    tmp_path: Path, groups: str | None, files: dict[str, str], bytes_: int | None, quota: float | None
) -> None:
    """Of both versions, and of all groups above; the least counts."""
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    assert cgroup_memory(tmp_path) == bytes_
    assert cgroup_cores(tmp_path) == quota


MOUNTS = r"""/dev/sda / ext4 rw 0 0
proc /proc proc rw 0 0
filer:/home /home nfs4 rw 0 0
tmpfs /home/me/my\040work tmpfs rw 0 0
/dev/sdb /data xfs ro 0 0
scratch /data lustre rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/x", "ext4"), ("/home/me", "nfs4"), ("/home/me/my work/a", "tmpfs"), ("/data/a", "lustre"), ("/homes", "ext4")],
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    """The longest place counts, of equal ones the last; names are whole."""
    assert file_system(MOUNTS, Path(path)) == kind


def test_another_psyrun_is_told(tmp_path: Path) -> None:
    """A package or a module of that name, another version, another program."""
    ours = tmp_path / "ours" / "psyrun"
    for package in (ours, tmp_path / "theirs" / "psyrun"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "psyrun.py").touch()
    directories = [str(tmp_path / name) for name in ("ours", "here", "theirs", "ours", "nowhere")]
    packages = packages_in(directories)
    assert packages == [ours, tmp_path / "here" / "psyrun.py", tmp_path / "theirs" / "psyrun"]
    assert own_version(ours, [ours], "", None).level == OK
    assert "psyrun.py" in own_version(ours, packages, "", None).told
    assert "0.8" in own_version(ours, [ours], "0.8", None).told
    program = own_version(ours, [ours], "", "/elsewhere/psy-doit")
    assert (program.level, "/elsewhere" in program.told) == (WARNING, True)


# Text


def test_how_findings_are_told() -> None:
    """A line each, the remedy below, a summary in the end."""
    findings = [
        Finding("cores", OK, "2 of 2 may be used"),
        Finding("free space", WARNING, "5 MB", "make room"),
        Finding("names", ERROR, "too short"),
    ]
    assert lines(Path("/work"), findings) == [
        "/work, and this machine:",
        "ok       cores       2 of 2 may be used",
        "warning  free space  5 MB",
        "                     make room",
        "error    names       too short",
        "1 error, 1 warning",
    ]
    assert lines(Path("/work"), findings[:1])[-1] == "all is well"
    assert report(Path("/work"), findings)["n_errors"] == 1


def test_owners_of_what_is_not_there_are_no_finding(tmp_path: Path) -> None:
    """A project that is not begun yet is fine; a psy-work that all can write is warned of."""
    assert [finding.level for finding in owners([tmp_path / "psy-tasks"], tmp_path / "psy-work", [])] == [OK]
    (tmp_path / "psy-work").mkdir()
    (tmp_path / "psy-work").chmod(0o777)
    assert [finding.level for finding in owners([], tmp_path / "psy-work", [])] == [WARNING]
