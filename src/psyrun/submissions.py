"""Submissions: what was given to a queue for a plan, noted before and after, so that no job is lost or doubled.

Each is a directory of `submit/`: ``intent.json`` is there before the queue hears of it, ``jobs.json`` holds its answer.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psyrun.claims import Process
from psyrun.errors import TemporaryError
from psyrun.files import as_json, write_json, write_new
from psyrun.plan import Plan
from psyrun.scheduler import Job, JobId
from psyrun.terms import Terms
from psyrun.workdir import Workdir

FORMAT = 1
COMMAND, CONTINUED, RETRIED, GROWN = "command", "continued", "retried", "grown"
"""Why something was submitted: typed; the time of those before was over; with more resources; for more jobs."""
_INTENT, _ANSWER, _OVER = "intent.json", "jobs.json", "over"


@dataclass(frozen=True)
class Submission:
    """What was, or is to be, given to the queue.

    Attributes
    ----------
    plan : str
        The id of the plan that the jobs work on.
    uid : str
        Its uid.
    number : int
        Of the submissions of this plan, from 0.
    cause : str
    job : Job
    first, last : int
        Positions of the work list that they claim from.
    rung : int
        Of the ladders of resources.
    n_rows : int
        Rows and failures on record when it was made: more of them later are progress.
    resubmit : int
        How many submissions may continue those of the plan.
    scheduler : dict
        How to make the object that speaks with the queue, see `recipe_of`.
    by : Process
        Who submits it.
    ids : list of JobId or None
        What the queue calls the jobs; None: it is not noted, so they may be there or not.
    """

    plan: str
    uid: str
    number: int
    cause: str
    job: Job
    first: int
    last: int
    rung: int = 0
    n_rows: int = 0
    resubmit: int = 0
    scheduler: Mapping[str, Any] = field(default_factory=dict)
    by: Process = field(default_factory=Process.current)
    ids: list[JobId] | None = None

    @property
    def name(self) -> str:
        """Its directory's name, which the jobs are told."""
        return f"{self.uid}-{self.number}"

    @property
    def token(self) -> str:
        """What the queue is given with the jobs, to find them again."""
        return f"psy:{self.name}"

    def terms(self, job: str) -> Terms:
        """Return what the worker keeps to that is the job of that id."""
        resources = self.job.resources
        mebibytes = resources.get("memory") or resources.get("memory_per_cpu", 0) * resources.get("n_cpus", 1)
        memory = mebibytes * 2**20 if mebibytes else None
        return Terms(job, self.token, self.first, self.last, resources.get("timelimit"), memory, self.rung)

    def begin(self, workdir: Workdir) -> bool:
        """Note that it is about to be submitted; return False if another process has a submission of that number."""
        job = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.job).items()}
        job |= {"directory": str(self.job.directory), "logs": str(self.job.logs), "token": self.token}
        content = {k: v for k, v in vars(self).items() if k != "ids"}
        content |= {"format": FORMAT, "job": job, "by": vars(self.by)}
        with workdir.new_submission(self.name) as place:
            write_new(place.beside / _INTENT, as_json(content))
            return place.commit()

    def answered(self, workdir: Workdir, ids: list[JobId], told: str = "") -> None:
        """Note which jobs the queue has taken, and what else it said."""
        content = {"ids": [job.id for job in ids], "told": told}
        write_json(workdir.submissions / self.name / _ANSWER, content)

    def answered_ago(self, workdir: Workdir) -> float:
        """Return for how many seconds the answer is there."""
        try:
            return max(0.0, time.time() - (workdir.submissions / self.name / _ANSWER).stat().st_mtime)
        except OSError:
            return 0.0

    def is_over(self, workdir: Workdir) -> None:
        """Note that none of its jobs is left, so that nobody asks the queue for them again."""
        with suppress(OSError):
            (workdir.submissions / self.name / _OVER).touch(mode=0o600)


def read_submission(workdir: Workdir, name: str) -> Submission:
    """Return a submission by its name.

    Raises
    ------
    TemporaryError
        It cannot be read.
    """
    path = workdir.submissions / name
    try:
        content = json.loads((path / _INTENT).read_text())
        if content.pop("format") != FORMAT:
            raise ValueError("of another version of psyrun")
        job = content["job"]
        job |= {k: tuple(job[k]) for k in ("command", "prologue", "exclude")}
        job |= {k: Path(job[k]) for k in ("directory", "logs")}
        content |= {"job": Job(**job), "by": Process(**content["by"])}
        found = Submission(**content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TemporaryError(f"{path}: the submission cannot be read ({error})") from error
    return Submission(**{**content, "ids": _ids(path, found.token)})


def _ids(path: Path, token: str) -> list[JobId] | None:
    try:
        return [JobId(str(job), token) for job in json.loads((path / _ANSWER).read_text())["ids"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_noted_as_over(workdir: Workdir, token: str) -> bool:
    """Whether it is noted that no job with a token is left."""
    name = Path(token.removeprefix("psy:")).name
    return bool(name) and (workdir.submissions / name / _OVER).exists()


def next_number(workdir: Workdir, plan: Plan) -> int:
    """Return the number of the next submission of a plan: what cannot be read has one, too."""
    used = [-1]
    with suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(workdir.submissions):
            uid, _, number = name.rpartition("-")
            if uid == plan.uid and number.isdecimal():
                used.append(int(number))
    return max(used) + 1


def read_submissions(workdir: Workdir, plan: Plan | None = None) -> list[Submission]:
    """Return the submissions whose jobs may be there, the oldest first; or all of one plan."""
    try:
        names = os.listdir(workdir.submissions)
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for name in names:
        wanted = not (workdir.submissions / name / _OVER).exists() if plan is None else name.startswith(f"{plan.uid}-")
        if wanted and not name.startswith("."):
            with suppress(TemporaryError):  # a foreign file, or one that was damaged: then its jobs end by themselves
                found.append(read_submission(workdir, name))
    return sorted(found, key=lambda submission: (submission.plan, submission.number))
