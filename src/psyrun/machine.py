"""What this machine offers: cores, memory, limits, libraries, file systems. Nothing is written, nothing is started."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import resource
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psyrun
from psyrun.claims import boot_id, start_time, ttl_seconds
from psyrun.scheduler import available_cores
from psyrun.units import shown_bytes, shown_seconds

OK, WARNING, ERROR = "ok", "warning", "error"

NEEDED = ("numpy", "click", "doit", "rich", "joblib", "threadpoolctl", "h5py", "tables")
OPTIONAL = ("pandas", "nengo", "hypothesis", "pytest")

_LEAST_MEMORY = 10**9
_FILES_A_CHILD = 4
_LEAST_FILES = 64
_NETWORK = ("nfs", "lustre", "gpfs", "beegfs", "ceph", "afs", "pvfs", "orangefs", "wekafs", "panfs", "glusterfs")
_IN_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_FOREIGN = ("cifs", "smb", "9p", "vboxsf", "drvfs", "fuse", "vfat", "exfat", "msdos", "virtiofs", "prl_fs", "ntfs")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check : str
        What was looked at, in a word or two.
    level : str
        OK, WARNING or ERROR.
    told : str
        What was found, and what it means if it is not as it should be.
    remedy : str
        What to do about it, '' if there is nothing to do.
    """

    check: str
    level: str
    told: str
    remedy: str = ""


def machine(*directories: Path) -> list[Finding]:
    """Return what there is to say of this machine and this Python.

    Parameters
    ----------
    *directories : Path
        Where task files look for modules first.
    """
    elsewhere = packages_in([*map(str, directories), *filter(None, sys.path)])
    return [
        cores(available_cores(), os.cpu_count() or 1, cgroup_cores()),
        memory(physical_memory(), resource.getrlimit(resource.RLIMIT_AS)[0], cgroup_memory()),
        open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0], available_cores()),
        processes(bool(start_time(os.getpid()) and boot_id())),
        libraries({name: _version(name) for name in (*NEEDED, *OPTIONAL)}),
        own_version(Path(psyrun.__file__).parent, elsewhere, _version("psyrun"), shutil.which("psy-doit")),
    ]


def cores(usable: int, n: int, quota: float | None) -> Finding:
    """Return what the cores allow: usable ones of n, and how many of them a control group pays for."""
    told = f"{usable} of {n} may be used" + (f"; the control group allows the time of {quota:g}" if quota else "")
    if quota and quota < usable:
        most = max(1, int(quota))
        return Finding("cores", WARNING, f"{told}. More items at a time only take longer", f"run with -n {most}")
    return Finding("cores", OK, told)


def memory(physical: int, limit: int, cgroup: int | None) -> Finding:
    """Return what there is of memory, by the machine, RLIMIT_AS (-1: none) and the control group, in bytes."""
    found = {"the machine has": physical, "RLIMIT_AS": limit, "the control group allows": cgroup or -1}
    found = {name: size for name, size in found.items() if size > 0}
    told = ", ".join(f"{name} {shown_bytes(size)}" for name, size in found.items()) or "is not told"
    if found and min(found.values()) < _LEAST_MEMORY:
        raised = "ulimit -v unlimited" if 0 < limit < _LEAST_MEMORY else "ask for more, or run fewer items at a time"
        return Finding("memory", WARNING, f"{told}. Large items, and many at a time, may be killed", raised)
    return Finding("memory", OK, told)


def open_files(limit: int, n: int) -> Finding:
    """Return whether n children can have their files open."""
    least = _LEAST_FILES + _FILES_A_CHILD * n
    told = f"{limit} at a time" if limit >= 0 else "no limit"
    if 0 <= limit < least:
        return Finding("open files", WARNING, f"{told}; {n} items at a time may need {least}", f"ulimit -n {4 * least}")
    return Finding("open files", OK, told)


def processes(visible: bool) -> Finding:
    """Return whether a process can be told from a later one of its number."""
    if visible:
        return Finding("processes", OK, "/proc tells when a worker was killed")
    if sys.platform != "linux":
        return Finding("processes", OK, "the system tells when a worker was killed; there is no /proc")
    silence = shown_seconds(ttl_seconds())
    told = f"/proc is not there: a killed worker is only noticed when it was silent for {silence}"
    return Finding("processes", WARNING, told, "mount -t proc proc /proc, or have the container do it")


def libraries(versions: dict[str, str]) -> Finding:
    """Return which libraries are there; '' is the version of one that is not."""
    there = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    told = f"Python {platform.python_version()} ({sys.executable}), {there}"
    absent = [name for name in NEEDED if not versions.get(name)]
    if absent:
        install = f"{sys.executable} -m pip install {' '.join(absent)}"
        return Finding("libraries", ERROR, f"{told}. Not installed: {', '.join(absent)}", install)
    optional = [name for name in OPTIONAL if not versions.get(name)]
    return Finding(
        "libraries", OK, told + (f"; without {', '.join(optional)}, which nothing needs" if optional else "")
    )


def own_version(ours: Path, found: Sequence[Path], installed: str, program: str | None) -> Finding:
    """Return whether it is clear which psyrun runs.

    Parameters
    ----------
    ours : Path
        The package that runs now.
    found : sequence of Path
        Packages and modules of this name, in the order in which Python looks for them.
    installed : str
        The version that is installed, '' if none is.
    program : str or None
        Which psy-doit the shell finds.
    """
    told = f"{psyrun.__version__} in {ours}"
    others = [path for path in found if path.resolve() != ours.resolve()]
    if others:
        shown = ", ".join(map(str, others))
        return Finding(
            "psyrun", WARNING, f"{told}; another is in the way: {shown}", f"move it away, or uninstall it: {others[0]}"
        )
    if installed and installed != psyrun.__version__:
        update = f"{sys.executable} -m pip install --force-reinstall psyrun"
        return Finding("psyrun", WARNING, f"{told}, but what is installed says it is {installed}", update)
    if program and Path(program).parent.resolve() != Path(sys.executable).parent.resolve():
        own = Path(sys.executable).with_name("psy-doit")
        return Finding("psyrun", WARNING, f"{told}; the psy-doit of the shell is another: {program}", f"type {own}")
    return Finding("psyrun", OK, told)


def packages_in(directories: Iterable[str]) -> list[Path]:
    """Return where in directories a psyrun could be imported from, each once."""
    found: dict[Path, Path] = {}
    for directory in directories:
        for path in (Path(directory) / "psyrun", Path(directory) / "psyrun.py"):
            if path.is_file() or (path / "__init__.py").is_file():
                found.setdefault(path.resolve(), path)
    return list(found.values())


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def physical_memory() -> int:
    """Return the bytes of memory of this machine, -1 if that is not told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return -1


# Control groups: a limit of any group above counts, too. In version 2 a file has "max" for none, in version 1 a number
# that is larger than any machine, or -1.


def cgroup_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that the control group allows, None if it has no limit."""
    limits = []
    for text in [*_control(root, "", "memory.max"), *_control(root, "memory", "memory.limit_in_bytes")]:
        if text.isdecimal() and int(text) < 2**60:
            limits.append(int(text))
    return min(limits, default=None)


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """Return the cores whose time the control group allows, None if it has no limit."""
    limits = []
    for text in _control(root, "", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            limits.append(int(quota) / int(period))
    quotas = _control(root, "cpu", "cpu.cfs_quota_us")
    for first, second in zip(quotas, _control(root, "cpu", "cpu.cfs_period_us"), strict=False):
        if first.isdecimal() and second.isdecimal() and int(second):
            limits.append(int(first) / int(second))
    return min(limits, default=None)


def _control(root: Path, controller: str, file: str) -> Iterator[str]:
    """Yield what a file says in the control group of this process and all above it; '' is version 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers if controllers else root / "sys/fs/cgroup"
        below = top / path.lstrip("/")
        for group in dict.fromkeys([below, *below.parents]):
            if group == top or group.is_relative_to(top):
                with suppress(OSError):
                    yield (group / file).read_text().strip()


# File systems


def file_system(mounts: str, path: Path) -> str:
    r"""Return the type of the file system that a path is on, '' if it is not told.

    Parameters
    ----------
    mounts : str
        The text of /proc/mounts.
    path : Path
        Without links.

    Examples
    --------
    >>> file_system("/dev/a / ext4 rw 0 0\nhost:/x /my\\040home nfs4 rw 0 0", Path("/my home/psy-work"))
    'nfs4'
    """
    best, kind = -1, ""
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1]))
        if path.is_relative_to(place) and len(place.parts) >= best:  # of two on one place the later one covers
            best, kind = len(place.parts), fields[2]
    return kind


def kind_of(kind: str) -> Finding:
    """Return what the type of a file system means."""
    if kind in _IN_MEMORY:
        told = f"{kind}: in memory, and gone when the machine starts again"
        return Finding("file system", WARNING, told, "have psy-work on a disk: workdir = ... in the task file")
    if kind == "overlay":
        told = "overlay: of a container, and gone with it"
        return Finding("file system", WARNING, told, "mount a directory of the host there")
    if kind.startswith(_FOREIGN):
        told = f"{kind}: psyrun rests on renames that exactly one of several processes can do; this may not keep that"
        return Finding("file system", WARNING, told, "have psy-work on a disk, or on NFS, Lustre or GPFS")
    if kind.startswith(_NETWORK):
        return Finding("file system", OK, f"{kind}: of the network; listings may lag behind, which psyrun reckons with")
    return Finding("file system", OK, kind or "is not told")
