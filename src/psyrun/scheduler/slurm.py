"""Slurm: all jobs of a plan in one array, found again by their token."""

from __future__ import annotations

import os
import random
import shlex
import shutil
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psyrun.errors import TaskError
from psyrun.scheduler import resources
from psyrun.scheduler.base import Job, JobId, JobState, JobStatus, Queue, QueueError, SubmitError
from psyrun.scheduler.cache import Cache
from psyrun.scheduler.slurm_text import compressed, elements, sbatch_command, script
from psyrun.scheduler.slurm_words import (
    LISTING,
    Listing,
    Partition,
    is_limit,
    is_unsure,
    listing,
    max_array_size,
    partitions,
    post_mortem,
    submitted_id,
)
from psyrun.shell import Answer, run_command
from psyrun.units import shown_seconds

TIMEOUT = 60.0
TRIES = 3
PAUSES = (2.0, 4.0, 8.0)
"""Seconds before each look for jobs that may have been taken: Slurm may still be at it when sbatch has given up."""
DAY = 86400.0
DEFAULT_ARRAY_SIZE = 1001

# A job that submits jobs must not hand on what it was given; and the user's settings for listings would hide jobs.
_SCRUBBED = ("SLURM_", "SBATCH_", "SQUEUE_", "SCANCEL_", "SACCT_", "SCONTROL_")
# How Slurm is reached; and whom to charge, which sites have their users set for all jobs.
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT", "SBATCH_ACCOUNT")
# What psyrun tells sbatch itself, or what would have it tell something else than an id.
_OURS = (
    *("--array", "--chdir", "--comment", "--job-name", "--open-mode", "--output", "--parsable", "--signal"),
    *("--wait", "--wrap", "--test-only", "--help", "--version", "--usage", "--input", "--clusters"),
)
_OURS_SHORT = "aDJoWhViM"


class Slurm(Queue):
    """Slurm. The jobs of a plan are the elements of an array; ``scheduler_args`` tells what each of them asks for.

    Parameters
    ----------
    workdir : path, optional
        As psyrun 0.8 took it; it does not matter.
    """

    programs = ("sbatch", "squeue", "scancel")

    def __init__(self, workdir: str | os.PathLike[str] | None = None):
        self.workdir = None if workdir is None else os.fspath(workdir)
        self._last: tuple[float, Listing] | None = None
        self._jobs = Cache("slurm-jobs", _world)
        self._array_size = Cache("slurm-array-size", _world)

    def __repr__(self) -> str:
        return f"Slurm({'' if self.workdir is None else repr(self.workdir)})"

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        """Raise a TaskError if there is an argument that is not taken, or a value that cannot be."""
        resources.check(scheduler_args, resources.RESOURCES, "Slurm")
        asked = resources.resolved(scheduler_args, resources.SAMPLE_NAME)
        if "memory" in asked and "memory_per_cpu" in asked:
            raise TaskError("scheduler_args: Slurm takes 'memory' or 'memory_per_cpu', not both. Leave one out")
        for word in asked.get("extra", []):
            if word.partition("=")[0] in _OURS or (word[1] != "-" and word[1] in _OURS_SHORT):
                raise TaskError(f"scheduler_args['extra']: {word!r} is what psyrun sets itself. Leave it out")

    # Submitting

    def submit(self, job: Job, number: int = 0) -> JobId:
        """Give one job to Slurm, as an array of one element."""
        return self.submit_many(replace(job, n=1))[0]

    def submit_many(self, job: Job) -> list[JobId]:
        """Give all jobs to Slurm, in as few arrays as it takes; no array is submitted twice.

        Raises
        ------
        SubmitError
        """
        taken: list[JobId] = []
        for part in self._parts(job):
            try:
                taken += self._submit_what_fits(part, {id_.id.partition("_")[0] for id_ in taken})
            except SubmitError as error:
                raise SubmitError(str(error), [*taken, *error.taken], error.limited, error.unsure) from error
        return taken

    def _parts(self, job: Job) -> list[Job]:
        most = self._largest_array()
        sizes = [min(most, job.n - begin) for begin in range(0, job.n, most)]
        asked = dict(job.resources)
        if "throttle" in asked:  # which Slurm knows for each array
            asked["throttle"] = max(1, asked["throttle"] // len(sizes))
        return [replace(job, n=size, resources=asked) for size in sizes]

    def _submit_what_fits(self, job: Job, known: Collection[str]) -> list[JobId]:
        size = job.n
        while True:
            try:
                taken = self._submit_array(replace(job, n=size), known)
            except SubmitError as error:
                if not error.limited or size == 1:
                    raise
                said = str(error)
                size //= 2
            else:
                if size < job.n:
                    raise SubmitError(f"Slurm took {size} of {job.n} jobs. {said}", taken, limited=True)
                return taken

    def _submit_array(self, job: Job, known: Collection[str]) -> list[JobId]:
        command, text = sbatch_command(job, job.n), script(job)
        for _ in range(TRIES):
            try:
                answer = _run(command, stdin=text)
            finally:
                self._forget()
            array = submitted_id(answer.output) if answer.status == 0 else None
            if array is not None:
                return _ids([array], job)
            if answer.status == 0 or is_unsure(answer.errors, answer.status):
                found = self._look(job, known, _said(answer))
                if found:
                    return _ids(found, job)
            elif not is_limit(answer.errors):
                self._array_size.forget()  # it may be what is wrong
                raise SubmitError(f"sbatch refused {job.n} jobs: {_said(answer)}")
            if is_limit(answer.errors):
                raise SubmitError(f"Slurm takes no {job.n} jobs more at present: {_said(answer)}", limited=True)
        raise SubmitError(
            f"sbatch failed {TRIES} times, and took none of {job.n} jobs: {_said(answer)}. Type the command again later"
        )

    def _look(self, job: Job, known: Collection[str], said: str) -> list[str]:
        """Return the arrays with the token of a job that are not known, looking until it is sure that there is none."""
        last: QueueError | None = None
        for pause in PAUSES:
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - many commands may fail at a time
            try:
                found = {elements(id_.id)[0] for id_ in self.find(job.token)} - set(known)
            except QueueError as error:
                last = error
            else:
                last = None
                if found:
                    return sorted(found, key=int)
        if last is not None:
            raise SubmitError(
                f"{said}. Whether Slurm took {job.n} jobs is not known: {last}. When 'squeue --me' answers again, type "
                "the command again: it finds them",
                unsure=True,
            )
        return []

    def check_submission(self, job: Job) -> None:
        """Raise a TaskError if the time limit is above that of the partition: Slurm takes such jobs, and keeps them."""
        limit = job.resources.get("timelimit")
        if limit is None:
            return
        answer = _run(["scontrol", "show", "partition", "-o"])
        known = {p.name: p for p in partitions(answer.output)} if answer.status == 0 else {}
        asked = job.resources.get("partition")
        names = asked.split(",") if asked else [p.name for p in known.values() if p.default]
        if names and all(name in known and not known[name].takes(limit) for name in names):
            raise TaskError(_too_long(limit, [known[name] for name in names], known.values()))

    def preview(self, job: Job) -> str:
        """Return the lines that submit a job, and its script."""
        lines = [shlex.join(sbatch_command(part, part.n)) for part in self._parts(job)]
        return "\n".join([*lines, "", script(job)])

    def _largest_array(self) -> int:
        def ask() -> str:
            answer = _run(["scontrol", "show", "config"])
            size = max_array_size(answer.output) if answer.status == 0 else None
            if not size:
                raise QueueError(f"scontrol show config: {_said(answer)}")
            return str(size)

        kept = self._array_size.read(DAY)
        if kept is not None and kept[0].isdecimal():
            return int(kept[0])
        try:
            return int(self._array_size.keep(ask))
        except QueueError:
            return DEFAULT_ARRAY_SIZE

    # Looking

    def poll(self, ids: Sequence[JobId], max_age: float = 0.0) -> dict[JobId, JobStatus]:
        """Return what Slurm says of jobs; it is asked once, or not at all if there is an answer young enough."""
        listed = self._list(max_age)
        known = listed.of({id_.token for id_ in ids})

        def status(id_: JobId) -> JobStatus:
            for name in (id_.id, id_.id.partition("_")[0]):
                if name in known and known[name][0] == id_.token:
                    return known[name][1]
            return JobStatus(JobState.UNKNOWN if listed.hides(id_.token) else JobState.GONE)

        return {id_: status(id_) for id_ in ids}

    def find(self, token: str) -> list[JobId]:
        """Return all jobs that Slurm knows with a token, ended ones too for some minutes."""
        listed = self._list(0)
        if listed.hides(token):
            raise QueueError(f"squeue said of {token} what cannot be understood: {listed.bad[0]!r:.120}")
        return [JobId(id_, token) for id_ in listed.of({token})]

    def ended(self, ids: Sequence[JobId]) -> dict[JobId, str]:
        """Return how jobs ended, in the words of Slurm's accounting; nothing where there is none."""
        if not ids:
            return {}
        arrays = sorted({id_.id.partition("_")[0] for id_ in ids})
        form = "JobID,State,ExitCode,MaxRSS,Elapsed,ReqMem"
        answer = _run(["sacct", "-n", "-P", "-j", ",".join(arrays), "-o", form])
        told = post_mortem(answer.output) if answer.status == 0 else {}
        return {id_: told[id_.id] for id_ in ids if id_.id in told}

    def _list(self, max_age: float) -> Listing:
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < max_age:
            return self._last[1]
        kept = self._jobs.read(max_age)
        if kept is None:
            kept = self._jobs.keep(_ask_for_jobs), 0.0
        text, age = kept
        self._last = now - age, listing(text)
        return self._last[1]

    def _forget(self) -> None:
        self._last = None
        self._jobs.forget()

    # Ending

    def cancel(self, ids: Sequence[JobId]) -> None:
        """End jobs that are ours and not over, by one command."""
        known = self._list(0).of({id_.token for id_ in ids})
        alive: dict[str, set[str]] = defaultdict(set)
        for name, (_, status) in known.items():
            if not status.state.over:
                alive[name.partition("_")[0]].add(name)
        wanted = {id_.id for id_ in ids if id_.id in known and known[id_.id][0] == id_.token}
        words = [_cancelled(array, there, wanted & there) for array, there in alive.items() if wanted & there]
        if not words:
            return
        try:
            answer = _run(["scancel", *words])
        finally:
            self._forget()
        if answer.status != 0:
            raise QueueError(f"scancel {' '.join(words)}: {_said(answer)}. Type the command again later")

    def warn(self, job: JobId) -> bool:
        """Send the process that a job of ours is the signal that Slurm sends before its time is over."""
        if job.id in self._list(0).of({job.token}):
            answer = _run(["scancel", "--batch", "--signal=USR1", job.id])
            if answer.status != 0:
                raise QueueError(f"scancel --batch --signal=USR1 {job.id}: {_said(answer)}")
            return True
        raise QueueError(f"{job.id} is no job of this task any more")

    def version(self) -> str:
        """Return what ``sbatch --version`` says."""
        answer = _run(["sbatch", "--version"])
        return answer.output.strip() if answer.status == 0 else ""


def _cancelled(array: str, there: set[str], wanted: set[str]) -> str:
    if wanted == there:
        return array
    return compressed(array, [number for name in wanted for number in elements(name)[1] or []])


def _ids(arrays: Sequence[str], job: Job) -> list[JobId]:
    return [JobId(f"{array}_{number}", job.token) for array in arrays for number in range(job.n)]


def _too_long(limit: int, asked: Sequence[Partition], known: Collection[Partition]) -> str:
    limits = ", ".join(f"{p.name!r} takes jobs of up to {shown_seconds(p.longest or 0)}" for p in asked)
    longer = [repr(p.name) for p in known if p.takes(limit)]
    hint = f"Partitions that take it: {', '.join(longer)}" if longer else "No partition takes it"
    return (
        f"scheduler_args: with a timelimit of {shown_seconds(limit)} the jobs would wait for ever: partition {limits}. "
        f"{hint}. Set 'partition', or a shorter 'timelimit'"
    )


def _ask_for_jobs() -> str:
    answer = _run(["squeue", "--me", "-h", "-a", "-t", "all", "-o", LISTING])
    if answer.status != 0:
        raise QueueError(f"squeue gave no answer: {_said(answer)}. Type the command again later")
    listing(answer.output)  # what is no listing is not kept
    return answer.output


def _run(command: Sequence[str], stdin: str | None = None) -> Answer:
    environment = {k: v for k, v in os.environ.items() if k in _KEPT or not k.startswith(_SCRUBBED)}
    if command[0] == "squeue":
        environment["SLURM_BITSTR_LEN"] = "0"  # or arrays are truncated
    return run_command(command, timeout=TIMEOUT, stdin=stdin, environment=environment)


def _said(answer: Answer) -> str:
    lines = [line.strip() for line in (answer.errors or answer.output).splitlines() if line.strip()]
    return "; ".join(dict.fromkeys(lines[-3:])) or f"exit status {answer.status}"


def _world() -> str:
    return "\0".join([os.environ.get("SLURM_CONF", ""), shutil.which("squeue") or ""])
