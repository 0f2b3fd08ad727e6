"""All that `psy-doit doctor` looks at, and how it is told."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psyrun.errors import PsyrunError
from psyrun.machine import ERROR, OK, WARNING, Finding, file_system, kind_of, machine
from psyrun.options import OPTIONS
from psyrun.owners import GROUP_AND_OTHERS, OTHERS, WAIVER, mistrust, remedy
from psyrun.probes import probe, room
from psyrun.taskfiles import CONFIG, SCHEMA_VERSION, task_names, task_path
from psyrun.tasks import Task
from psyrun.workdir import Workdir


def place_of(workdir: Path) -> Path:
    """Return the directory that stands for a work directory, on its file system: it, or where it would be made."""
    path = workdir.resolve()
    while not path.is_dir() and path != path.parent:
        path = path.parent
    return path


def examined(task: Task | None, taskdir: Path) -> tuple[Path, list[Finding]]:
    """Return the directory that was looked at, and all findings.

    Parameters
    ----------
    task : Task, optional
        Whose work directory is meant; without, the place where psy-work is or would be.
    taskdir : Path
    """
    psy_work = Path(OPTIONS["workdir"].default).absolute() if task is None else task.workdir.path.parent
    whole = psy_work if task is None else task.workdir.path
    place = place_of(psy_work)
    if task is not None and whole.exists() and whole.stat().st_dev != place.stat().st_dev:
        place = place_of(whole)  # a link, or a file system of its own
    names = task_names(taskdir) if task is None else [task.name]
    workdirs = _workdirs(psy_work) if task is None else [task.workdir]
    findings = [
        kind_of(file_system(_mounts(), place)),
        *probe(place, max(names, key=len, default="")),
        *room(place),
        *owners([taskdir, taskdir / CONFIG, *(task_path(name, taskdir) for name in names)], psy_work, workdirs),
        *formats(workdirs),
        *machine(Path.cwd(), taskdir),
    ]
    return place, findings


def _mounts() -> str:
    try:
        return Path("/proc/mounts").read_text(errors="surrogateescape")
    except OSError:
        return ""


def _workdirs(psy_work: Path) -> list[Workdir]:
    try:
        names = sorted(os.listdir(psy_work))
    except OSError:
        return []
    return [workdir for name in names if not name.startswith(".") and (workdir := Workdir(psy_work / name)).exists()]


def owners(files: Sequence[Path], psy_work: Path, workdirs: Sequence[Workdir]) -> list[Finding]:
    """Return what others could have written of what is run or trusted."""
    if os.environ.get(WAIVER) == "1":
        told = f"{WAIVER}=1: not looked at, so others may have put code into what is run"
        return [Finding("owners", WARNING, told, f"unset {WAIVER} where owners and modes mean something")]
    found = []
    for path in files:
        if path.exists() and (why := mistrust(path, OTHERS)):
            found.append(Finding("owners", ERROR, f"{path}: {why}, so it is not run", remedy(path)))
    if psy_work.exists() and (why := mistrust(psy_work, OTHERS)):
        found.append(Finding("owners", WARNING, f"{psy_work}: {why}, who could move what is in it", remedy(psy_work)))
    for workdir in workdirs:
        for path in (workdir.path, workdir.marker, workdir.plans, workdir.parts):
            if path.exists() and (why := mistrust(path, GROUP_AND_OTHERS)):
                told = f"{path}: {why}, so nothing in it is trusted"
                found.append(Finding("owners", ERROR, told, remedy(path, workdir.path)))
                break
    return found or [Finding("owners", OK, "task files and work directories are this user's, or are not there yet")]


def formats(workdirs: Sequence[Workdir]) -> list[Finding]:
    """Return the work directories that this version cannot use."""
    found = []
    for workdir in workdirs:
        try:
            workdir.check_format()
        except PsyrunError as error:
            found.append(Finding("format", ERROR, str(error)))
    return found


def lines(place: Path, findings: Sequence[Finding]) -> list[str]:
    """Return findings as people read them: a line each, and the remedy below."""
    told = [f"{place}, and this machine:"]
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        told.append(f"{finding.level:<7}  {finding.check:<{width}}  {finding.told}")
        if finding.remedy:
            told.append(textwrap.indent(finding.remedy, " " * (11 + width)))
    counts = {level: sum(finding.level == level for finding in findings) for level in (ERROR, WARNING)}
    parts = [f"{n} {level}{'s' if n > 1 else ''}" for level, n in counts.items() if n]
    return [*told, ", ".join(parts) or "all is well"]


def report(place: Path, findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as JSON has them."""
    return {
        "schema_version": SCHEMA_VERSION,
        "place": str(place),
        "n_errors": sum(finding.level == ERROR for finding in findings),
        "n_warnings": sum(finding.level == WARNING for finding in findings),
        "findings": [vars(finding) for finding in findings],
    }
