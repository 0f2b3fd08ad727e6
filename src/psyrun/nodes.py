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
_ON_NODE = re.compile(r"^psyrun: job (\S+) on node (\S+)", re.MULTILINE)
_MOST_READ = 2**16
_MOST_LOGS = 1000
_DAY = 86400.0


def starts(log: str) -> tuple[str, bool] | None:
    r"""Return the node that a job ran on last ('': not told), and whether its worker got to start; None: an empty log.

    >>> starts("psyrun: job 7_0 on node n1\npsyrun: " + STARTED)
    ('n1', True)
    >>> starts("psyrun: job 7_1 on node n2\nNo module named psyrun")
    ('n2', False)
    """
    found = list(_ON_NODE.finditer(log))
    if not found:
        return ("", STARTED in log) if log.strip() else None
    return found[-1][2], STARTED in log[found[-1].end() :]


def broken_nodes(workdir: Workdir, at_work: Collection[str] = ()) -> tuple[list[str], str]:
    """Return the nodes on which workers end before they start, and what to tell of them.

    Nodes on which another worker did start are not among them; and if none starts anywhere, it is not the nodes. What
    is older than a day does not count: a node that is left out shows no more that it was mended.

    Parameters
    ----------
    workdir : Workdir
    at_work : collection of str
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
            if seen is None or (not seen[1] and path.stem.removeprefix("job-") in at_work):
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
