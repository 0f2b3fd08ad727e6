"""Who is at work on a task, told by names, heartbeats and sizes of files alone: no row is read, nothing is written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from psyrun.claims import OPEN, Claims, Process
from psyrun.errors import TemporaryError
from psyrun.jobs import Jobs, observer_of, shown_ids
from psyrun.plan import Plan
from psyrun.state import Held, held_tokens
from psyrun.submissions import read_submissions
from psyrun.workdir import Workdir
from psyrun.workers import Worker

_WORKER = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Activity:
    """What goes on in a work directory.

    Attributes
    ----------
    plan : str or None
        The id of the newest plan.
    workers : list of Worker
    jobs : list of str
        What the queue has for this plan: ids of jobs that wait, run, or may be there. Empty once it is merged.
    stuck : list of str
        Ids of jobs that the queue has for this plan and will never start.
    planner : Process or None
        The command that made this plan, if it runs on this machine and did not merge yet: it starts workers, and
        others for those that die. Not once a queue took its jobs: these do all that.
    sizes : dict of str to int
        Bytes of each part of the record.
    """

    plan: str | None = None
    workers: list[Worker] = field(default_factory=list)
    jobs: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    planner: Process | None = None
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def at_work(self) -> bool:
        """Whether anybody is."""
        return bool(self.workers or self.jobs) or self.planner is not None

    @property
    def held(self) -> list[Held]:
        """All tokens in the hands of workers."""
        return [pair for worker in self.workers for pair in worker.held]

    def who(self) -> str:
        """Return who is at work, in words."""
        if self.workers:
            n = len(self.workers) - 1
            others = f" and {n} other{'s' if n > 1 else ''}" if n else ""
            return f"a worker {self.workers[0].where}{others}"
        if self.jobs:
            return f"jobs {shown_ids(self.jobs)}"
        return f"the command on {self.planner.host}, process {self.planner.pid}" if self.planner else "nobody"


class Lookout:
    """Looks at one work directory again and again, and so recognises workers that fall silent.

    Parameters
    ----------
    workdir : Workdir
    jobs : Jobs, optional
        Those of the task, if it has some in a queue.
    """

    def __init__(self, workdir: Workdir, jobs: Jobs | None = None):
        self.workdir = workdir
        self._jobs = jobs
        self.observer = observer_of(workdir, jobs)
        self._plan: Plan | None = None
        self._manifest: tuple[Any, dict[str, Any]] = None, {}

    def look(self) -> Activity:
        """Return what goes on now.

        Raises
        ------
        RefusedError
            The directory is of another version of psyrun, or others could have written it.
        """
        self.workdir.check_format()
        self.workdir.check_trust()
        ids = self.workdir.plan_ids()
        newest = ids[-1] if ids else None
        workers = self._workers(newest)  # looked at first: who leaves in between has written before
        sizes = part_sizes(self.workdir)
        if self._jobs is not None:
            self._jobs.look()
        jobs, stuck = self._alive(newest, sizes)
        return Activity(newest, workers, jobs, stuck, self._planner(newest, sizes), sizes)

    def _alive(self, newest: str | None, sizes: dict[str, int]) -> tuple[list[str], list[str]]:
        if self._jobs is None or newest is None or self._is_merged(newest, sizes):
            return [], []
        found = self._jobs.alive(lambda submission: submission.plan == newest)
        return [job.id for job, s in found.items() if not s.never], [job.id for job, s in found.items() if s.never]

    def _workers(self, newest: str | None) -> list[Worker]:
        held: dict[str, list[Held]] = {}
        for pair in held_tokens(self.workdir, self.observer):
            held.setdefault(pair[1].worker, []).append(pair)
        # Between two chunks a worker holds nothing, but its heart beats until it ends. One that was killed on another
        # machine leaves a heartbeat for ever, which means nothing once all chunks are done.
        is_open = newest is not None and Claims(self.workdir.plans / newest).has(OPEN)
        for worker in beating(self.workdir) if is_open else ():
            if worker not in held and not self.observer.dead(worker):
                held[worker] = []
        return [Worker.read(self.observer, worker, pairs) for worker, pairs in sorted(held.items())]

    def _planner(self, newest: str | None, sizes: dict[str, int]) -> Process | None:
        if newest is None:
            return None
        if self._plan is None or self._plan.id != newest:
            try:
                self._plan = Plan.read(self.workdir.plans / newest)
            except TemporaryError:
                return None
        process = Process(**self._plan.content["planner"])
        if process.gone() is not False or self._is_merged(newest, sizes):
            return None
        submissions = read_submissions(self.workdir, self._plan)
        if submissions and all(submission.ids is not None for submission in submissions):
            return None  # it gave the plan to a queue, and sees to other tasks now
        return process

    def _is_merged(self, plan: str, sizes: dict[str, int]) -> bool:
        """Whether the result is that of a plan, with all that is on record; the command may be at another task now."""
        try:
            found = self.workdir.manifest.stat()
        except OSError:
            return False
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if self._manifest[0] != stamp:
            self._manifest = stamp, self.workdir.read_manifest()
        manifest = self._manifest[1]
        return manifest.get("plan") == plan and all(
            sizes.get(name) == size for name, (_, size) in manifest["parts"].items()
        )


def part_sizes(workdir: Workdir) -> dict[str, int]:
    """Return the bytes of each part of a record, by name."""
    sizes = {}
    for path in workdir.part_paths():
        with suppress(FileNotFoundError):  # another command put it into the archive
            sizes[path.name] = path.stat().st_size
    return sizes


def beating(workdir: Workdir) -> Iterable[str]:
    """Return the workers that have a heartbeat, dead ones too."""
    try:
        return [name for name in os.listdir(workdir.beats) if _WORKER.fullmatch(name)]
    except FileNotFoundError:
        return []
