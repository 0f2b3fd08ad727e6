"""Which queue a submission was given to, and what speaks with it again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from psyrun.arrays import plain
from psyrun.errors import PsyrunError, TemporaryError
from psyrun.scheduler import JobId, Queue, QueueError, Scheduler, queues_of
from psyrun.submissions import Submission
from psyrun.workdir import Workdir


def recipe_of(queue: Queue) -> dict[str, Any]:
    """Return how to make a scheduler again, as JSON has it: its class, its arguments, and `Queue.own` among them.

    Beside stands which queue it speaks with, and what people call it.
    """
    return _described(queue) | {"world": queue.world(), "called": repr(queue)}


def made(recipe: Mapping[str, Any]) -> Queue:
    """Return the scheduler of a recipe.

    Raises
    ------
    TemporaryError
        Its class cannot be imported here.
    """
    called = recipe.get("class", "")
    try:
        module, _, name = called.partition(":")
        queue = getattr(import_module(module), name)(**recipe["arguments"], **recipe.get("own", {}))
    except Exception as error:
        raise TemporaryError(f"the scheduler {called} cannot be made here ({error})") from error
    if not isinstance(queue, Queue):
        raise TemporaryError(f"{called} is no scheduler that speaks with a queue")
    return queue


class Queues:
    """The queues that jobs of one work directory were given to. Each is asked for its own jobs, and no others.

    Parameters
    ----------
    scheduler : Scheduler or None
        As the task file has it now; other queues are made as the submissions have them on record.
    workdir : Workdir
    defined : callable, optional
        Gives the scheduler of a task file that may define a class itself, where this cannot be imported.
    """

    def __init__(
        self, scheduler: Scheduler | None, workdir: Workdir, defined: Callable[[], Scheduler] | None = None
    ) -> None:
        self.given = queues_of(scheduler)
        self._workdir = workdir
        self._defined = defined
        self._known: dict[str, Queue] = {}

    def of(self, submission: Submission) -> Queue:
        """Return what speaks with the queue of a submission; what it was given itself may be another's.

        Raises
        ------
        QueueError
            It cannot be made here.
        RefusedError
            Others could have written into the work directory, so what it says of queues is not used.
        """
        if not self._known:
            self._learn(self.given)
        key = _key(submission.scheduler)
        if key not in self._known:
            self._workdir.check_trust()
            try:
                self._known[key] = made(submission.scheduler)
            except TemporaryError as error:
                if self._defined is not None:
                    self._learn_from_file(self._defined)
                if key not in self._known:
                    raise QueueError(str(error)) from error
        return self._known[key]

    def _learn(self, queues: Iterable[Queue]) -> None:
        for queue in queues:
            self._known.setdefault(_key(_described(queue)), queue)

    def _learn_from_file(self, defined: Callable[[], Scheduler]) -> None:
        self._defined = None
        try:
            self._learn(queues_of(defined()))
        except PsyrunError:  # then these are queues that cannot be asked
            return

    def elsewhere(self, submission: Submission) -> str:
        """Return the name of another cluster that has the jobs of a submission; '' if the one that is asked has."""
        theirs = str(submission.scheduler.get("world", ""))
        try:
            ours = self.of(submission).world() if theirs else ""
        except QueueError:
            return ""
        return theirs if theirs and ours and theirs != ours else ""

    def are_one_cluster(self) -> bool:
        """Whether all queues of the task are the same one, but for what jobs ask for, as partitions are."""
        return len({_key(_described(queue)) for queue in self.given}) == 1

    def reaches(self, queue: Queue, submission: Submission) -> bool:
        """Whether a queue is that of a submission, but perhaps for what its jobs ask for."""
        return _key(_described(queue)) == _key(submission.scheduler)

    def has(self, queue: Queue, submission: Submission) -> bool:
        """Whether a submission was given to just this one, with the same `Queue.own`."""
        return identity(_described(queue)) == identity(submission.scheduler)

    def each(
        self,
        submissions: Iterable[Submission],
        do: Callable[[Queue, list[JobId]], object],
        jobs: Iterable[JobId] | None = None,
    ) -> dict[str, str]:
        """Have something done about jobs by the queue that has them, once a queue.

        Parameters
        ----------
        submissions : iterable of Submission
            Those in other clusters are left out.
        do : callable
            Gets a queue and the jobs that it has.
        jobs : iterable of JobId, optional
            The jobs that are meant; default all.

        Returns
        -------
        dict of str to str
            Of submissions whose queue gave no answer the names, and why.
        """
        wanted = None if jobs is None else set(jobs)
        together: dict[str, list[Submission]] = {}
        for submission in submissions:
            if submission.ids and not self.elsewhere(submission):
                together.setdefault(_key(submission.scheduler), []).append(submission)
        why: dict[str, str] = {}
        for some in together.values():
            ids = [job for submission in some for job in submission.ids or () if wanted is None or job in wanted]
            try:
                if ids:
                    do(self.of(some[0]), ids)
            except QueueError as error:
                why |= {submission.name: str(error) for submission in some}
        return why


def identity(recipe: Mapping[str, Any]) -> str:
    """Return what two recipes share if they are of the same queue, with the same arguments."""
    return json.dumps([_key(recipe), recipe.get("own", {})], sort_keys=True)


def called(recipe: Mapping[str, Any]) -> str:
    """Return what people call the queue of a recipe."""
    return str(recipe.get("called") or recipe.get("class", ""))


def _described(queue: Queue) -> dict[str, Any]:
    name = f"{type(queue).__module__}:{type(queue).__qualname__}"
    content = {"class": name, "arguments": queue.arguments(), "own": dict(queue.own)}
    found: dict[str, Any] = json.loads(json.dumps(content, default=_simple))
    return found


def _simple(value: Any) -> Any:
    number = plain(value)
    return str(value) if number is value else number


def _key(recipe: Mapping[str, Any]) -> str:
    """Return what tells which queue a recipe speaks with, whatever its jobs ask for."""
    return json.dumps([recipe.get("class"), recipe.get("arguments")], sort_keys=True)
