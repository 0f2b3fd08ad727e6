"""Slurm: all jobs of a plan in one array, found again by their token."""

from __future__ import annotations

import os
import random
import shlex
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psyrun.errors import TaskError
from psyrun.scheduler import resources
from psyrun.scheduler.base import Job, JobId, JobRefusedError, JobState, JobStatus, Queue, QueueError, SubmitError
from psyrun.scheduler.cache import Cache
from psyrun.scheduler.slurm_programs import TIMEOUT, cluster, list_jobs, run, said, world
from psyrun.scheduler.slurm_text import compressed, elements, sbatch_command, script
from psyrun.scheduler.slurm_words import (
    Listing,
    is_gone,
    is_limit,
    is_unsure,
    listing,
    max_array_size,
    partitions,
    post_mortem,
    submitted_id,
    too_long,
)

TRIES = 3
PAUSES = (2.0, 4.0, 8.0)
"""Seconds before each look for jobs that may have been taken: Slurm may still be at it when sbatch has given up."""
DAY = 86400.0
DEFAULT_ARRAY_SIZE = 1001

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
    **own
        ``scheduler_args`` for the jobs of this one, on top of those of the task.

    Examples
    --------
    >>> Slurm(partition='short', timelimit='1h')
    Slurm(partition='short', timelimit='1h')
    """

    programs = ("sbatch", "squeue", "scancel")

    def __init__(self, workdir: str | os.PathLike[str] | None = None, **own: Any):
        self.own = own
        self.workdir = None if workdir is None else os.fspath(workdir)
        self._last: tuple[float, Listing] | None = None
        self._jobs = Cache("slurm-jobs", world)
        self._array_size = Cache("slurm-array-size", world)

    def check(self, scheduler_args: Mapping[str, Any]) -> None:
        """Raise a TaskError if there is an argument that is not taken, or a value that cannot be."""
        args = self.asks(scheduler_args)
        resources.check_own(self.own, "Slurm")
        resources.check(args, resources.RESOURCES, "Slurm")
        asked = resources.resolved(args, resources.SAMPLE_NAME)
        if "memory" in asked and "memory_per_cpu" in asked:
            raise TaskError("scheduler_args: Slurm takes 'memory' or 'memory_per_cpu', not both. Leave one out")
        for word in asked.get("extra", []):
            # Slurm takes the beginning of an option for the whole.
            begun = word.startswith("--") and any(ours.startswith(word.partition("=")[0]) for ours in _OURS)
            if begun or (word[1] != "-" and word[1] in _OURS_SHORT):
                raise TaskError(f"scheduler_args['extra']: {word!r} is what psyrun sets itself. Leave it out")

    def world(self) -> str:
        """Return the name of the cluster."""
        return cluster()

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
                raise type(error)(str(error), [*taken, *error.taken], error.limited, error.unsure) from error
        return taken

    def _parts(self, job: Job) -> list[Job]:
        most = self._largest_array()
        sizes = [min(most, job.n - begin) for begin in range(0, job.n, most)]
        asked = dict(job.resources)
        if "throttle" in asked and sizes:  # which Slurm knows for each array
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
                why = str(error)
                size //= 2
            else:
                if len(taken) < job.n:
                    raise SubmitError(f"Slurm took {len(taken)} of {job.n} jobs. {why}", taken, limited=True)
                return taken

    def _submit_array(self, job: Job, known: Collection[str]) -> list[JobId]:
        command, text = sbatch_command(job, job.n), script(job)
        for _ in range(TRIES):
            try:
                answer = run(command, text)
            finally:
                self._forget()
            array = submitted_id(answer.output) if answer.status == 0 else None
            if array is not None:
                return _ids(array, range(job.n), job.token)
            if answer.status == 127:
                raise SubmitError(
                    f"{said(answer)}. Type the command where sbatch can be run, such as on a login node of the cluster"
                )
            if answer.status == 0 or is_unsure(answer.errors, answer.status):
                found = self._look(job, known, said(answer))
                if found:
                    return found
            elif not is_limit(answer.errors):
                self._array_size.forget()  # it may be what is wrong
                raise JobRefusedError(f"sbatch refused {job.n} jobs: {said(answer)}. Mend scheduler_args{self._hint()}")
            if is_limit(answer.errors):
                raise SubmitError(f"Slurm takes no {job.n} jobs more at present: {said(answer)}", limited=True)
        raise SubmitError(
            f"sbatch failed {TRIES} times, and took none of {job.n} jobs: {said(answer)}. Type the command again later"
        )

    def _hint(self) -> str:
        answer = run(["scontrol", "show", "partition", "-o"])
        names = [repr(p.name) for p in partitions(answer.output)] if answer.status == 0 else []
        return f"; partitions here: {', '.join(names)}" if names else ""

    def _look(self, job: Job, known: Collection[str], why: str) -> list[JobId]:
        """Return the jobs with the token of one, but for known arrays; look until it is sure that there are none."""
        trouble: QueueError | None = None
        for pause in PAUSES:
            time.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - many commands may fail at a time
            try:
                found = self._adopted(job, known)
            except QueueError as error:
                trouble = error
            else:
                trouble = None
                if found:
                    return found
        if trouble is not None:
            raise SubmitError(
                f"{why}. Whether Slurm took {job.n} jobs is not known: {trouble}. When 'squeue --me' answers again, "
                "type the command again: it finds them",
                unsure=True,
            )
        return []

    def _adopted(self, job: Job, known: Collection[str]) -> list[JobId]:
        # Of an array that was ended as a whole, Slurm lists no elements.
        arrays: dict[str, set[int]] = defaultdict(lambda: set(range(job.n)))
        for id_ in self.find(job.token):
            array, numbers = elements(id_.id)
            if array not in known:
                arrays[array] |= set(numbers or [])
        return [id_ for array in sorted(arrays, key=int) for id_ in _ids(array, sorted(arrays[array]), job.token)]

    def check_submission(self, job: Job) -> None:
        """Raise a TaskError if the time limit is above that of the partition: Slurm takes such jobs, and keeps them."""
        limit = job.resources.get("timelimit")
        if limit is None:
            return
        answer = run(["scontrol", "show", "partition", "-o"])
        known = {p.name: p for p in partitions(answer.output)} if answer.status == 0 else {}
        asked = job.resources.get("partition")
        names = asked.split(",") if asked else [p.name for p in known.values() if p.default]
        if names and all(name in known and not known[name].takes(limit) for name in names):
            raise TaskError(too_long(limit, [known[name] for name in names], known.values()))

    def preview(self, job: Job) -> str:
        """Return the lines that submit a job, and its script."""
        lines = [shlex.join(sbatch_command(part, part.n)) for part in self._parts(job)]
        return "\n".join([*lines, "", script(job)])

    def _largest_array(self) -> int:
        def ask() -> str:
            answer = run(["scontrol", "show", "config"])
            size = max_array_size(answer.output) if answer.status == 0 else None
            if not size:
                raise QueueError(f"scontrol show config: {said(answer)}")
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
        answer = run(["sacct", "-n", "-P", "-j", ",".join(arrays), "-o", form])
        told = post_mortem(answer.output) if answer.status == 0 else {}
        return {id_: told[id_.id] for id_ in ids if id_.id in told}

    def _list(self, max_age: float) -> Listing:
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < max_age:
            return self._last[1]
        kept = self._jobs.read(max_age)
        if kept is None:
            kept = self._jobs.keep(list_jobs), 0.0
        text, age = kept
        self._last = now - age, listing(text)
        return self._last[1]

    def _forget(self) -> None:
        self._last = None
        self._jobs.forget()

    # Ending

    def cancel(self, ids: Sequence[JobId]) -> None:
        """End jobs that are ours and not over, by one command."""
        self._cancel(ids)

    def cancel_waiting(self, ids: Sequence[JobId]) -> list[JobId]:
        """End those of our jobs that did not start, also if one does between the listing and its end."""
        waiting = [id_ for id_, status in self.poll(ids).items() if status.state in (JobState.QUEUED, JobState.HELD)]
        self._cancel(waiting, "--state=PENDING", max_age=TIMEOUT)  # what poll was told is still there
        return waiting

    def _cancel(self, ids: Sequence[JobId], *options: str, max_age: float = 0.0) -> None:
        listed = self._list(max_age)
        known = listed.of({id_.token for id_ in ids})
        alive: dict[str, set[str]] = defaultdict(set)
        for name, (_, status) in known.items():
            if not status.state.over:
                alive[name.partition("_")[0]].add(name)
        wanted = {id_.id for id_ in ids if id_.id in known and known[id_.id][0] == id_.token}
        words = [
            # Where a line cannot be understood, there may be more of the array than we see.
            array if wanted >= there and not listed.bad else _elements(array, wanted & there)
            for array, there in alive.items()
            if wanted & there
        ]
        if not words:
            return
        try:
            answer = run(["scancel", *options, *words])
        finally:
            self._forget()
        if answer.status != 0 and not all(map(is_gone, answer.errors.splitlines())):
            raise QueueError(f"scancel {' '.join(words)}: {said(answer)}. Type the command again later")

    def warn(self, job: JobId) -> bool:
        """Send the process that a job of ours is the signal that Slurm sends before its time is over."""
        if job.id in self._list(0).of({job.token}):
            answer = run(["scancel", "--batch", "--signal=USR1", job.id])
            if answer.status != 0:
                raise QueueError(f"scancel --batch --signal=USR1 {job.id}: {said(answer)}")
            return True
        raise QueueError(f"{job.id} is no job of this task any more")

    def version(self) -> str:
        """Return what ``sbatch --version`` says."""
        answer = run(["sbatch", "--version"])
        return answer.output.strip() if answer.status == 0 else ""


def _elements(array: str, ids: Collection[str]) -> str:
    return compressed(array, [number for id_ in ids for number in elements(id_)[1] or []])


def _ids(array: str, numbers: Iterable[int], token: str) -> list[JobId]:
    return [JobId(f"{array}_{number}", token) for number in numbers]
