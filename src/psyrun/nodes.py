"""The nodes that jobs ran on, as their logs tell: on which of them no worker gets to start."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Collection
from contextlib import suppress

from psyrun.workdir import Workdir

STARTED = "the worker has started"
"""What a worker prints first."""
GAVE_UP = "the worker gave up"
"""What it prints before the reason if it ends though something is left."""
_ON_NODE = re.compile(r"^psyrun: job (\S+) on node (\S+)", re.MULTILINE)
_GAVE_UP = re.compile(rf"^psyrun: {GAVE_UP}: (.*)", re.MULTILINE)
# Slurm gives a reason where it was not people who wanted it.
_CANCELLED = re.compile(r"\*\*\* .* CANCELLED AT \S+ \*\*\*")
_MOST_READ = 2**16
_MOST_LOGS = 1000
_DAY = 86400.0


def starts(log: str) -> tuple[str, bool] | None:
    r"""Return the node that a job ran on last ('': not told), and whether its worker got to start.

    None: the log is empty, or somebody cancelled the job first.

    >>> starts("psyrun: job 7_0 on node n1\npsyrun: " + STARTED)
    ('n1', True)
    >>> starts("psyrun: job 7_1 on node n2\nNo module named psyrun")
    ('n2', False)
    """
    found = list(_ON_NODE.finditer(log))
    if not found:
        return ("", STARTED in log) if log.strip() else None
    rest = log[found[-1].end() :]
    if STARTED not in rest and _CANCELLED.search(rest):
        return None
    return found[-1][2], STARTED in rest


def broken_nodes(workdir: Workdir, alive: Collection[str] = ()) -> tuple[list[str], str]:
    """Return the nodes on which workers end before they start, and what to tell of them.

    Nodes on which another worker did start are not among them; and if none starts anywhere, it is not the nodes. What
    is older than a day does not count: a node that is left out shows no more that it was mended.

    Parameters
    ----------
    workdir : Workdir
    alive : collection of str
        Ids of jobs that are not over: their workers may be starting now.
    """
    failed: Counter[str] = Counter()
    good: set[str] = set()
    example: dict[str, str] = {}
    with suppress(OSError):
        logs = sorted(workdir.logs.glob("job-*.log"), key=lambda path: path.stat().st_mtime)[-_MOST_LOGS:]
        for path in logs:
            if time.time() - path.stat().st_mtime > _DAY:
                continue
            with path.open("rb") as file:
                text = file.read(_MOST_READ).decode(errors="replace")
            seen = starts(text)
            if seen is None or (not seen[1] and path.stem.removeprefix("job-") in alive):
                continue
            if seen[1]:
                good.add(seen[0])
            else:
                failed[seen[0]] += 1
                example[seen[0]] = f"{path}: {(text.strip().splitlines() or [''])[-1]:.200}"
    if good:
        failed.pop("", None)  # of queues whose jobs tell no node, none can be left out
    broken = sorted(failed.keys() - good)
    if not broken:
        return [], ""
    names = ", ".join(filter(None, broken))
    told = f"workers end before they start{f' on {names}' if names else ''} ({example[broken[-1]]})"
    return (broken, f"{told}; left out") if good and names else ([], told)


def gave_up(workdir: Workdir) -> str:
    """Return what the last job said if it gave up, with its log; '' if it did not."""
    with suppress(OSError, ValueError):
        path = max(workdir.logs.glob("job-*.log"), key=lambda path: path.stat().st_mtime)
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _MOST_READ))
            found = _GAVE_UP.findall(file.read().decode(errors="replace"))
        if found:
            return f"{GAVE_UP}: {found[-1]:.300} ({path})"
    return ""


def what_ails(workdir: Workdir, alive: Collection[str] = ()) -> str:
    """Return why jobs end before all is done, as far as their logs tell; '' if they do not."""
    return broken_nodes(workdir, alive)[1] or gave_up(workdir)
