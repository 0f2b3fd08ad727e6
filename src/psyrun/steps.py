"""Split, process and merge as doit tasks. The only module that imports doit."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from doit.control import TaskControl
from doit.dependency import Dependency, SqliteDB
from doit.exceptions import TaskFailed
from doit.reporter import ConsoleReporter
from doit.runner import Runner
from doit.task import Stream, Task

from psyrun.errors import DrainedError, EarlyStopError
from psyrun.progress import progress
from psyrun.run import Run


class Steps:
    """Runs tasks as doit steps, and keeps the first error for the command.

    Parameters
    ----------
    runs : sequence of Run
        Prepared.
    """

    def __init__(self, runs: Sequence[Run]):
        self._runs = runs
        self.error: Exception | None = None

    def execute(self) -> None:
        """Run all steps, in order; doit reports them on standard output.

        Raises
        ------
        PsyrunError
            What ended a step.
        """
        for run in self._runs:
            with progress(run.task.name, run.n_missing) as run.progress:
                self._execute(run)
            run.progress = None

    def _execute(self, run: Run) -> None:
        self._round(self._tasks(run))
        if isinstance(self.error, (EarlyStopError, DrainedError)):
            ended, self.error = self.error, None
            run.stopped = str(ended)
            self._round([self._task(f"{run.task.name}:merge", run.merge, False)])
            if isinstance(ended, DrainedError):  # others went on without this command: it must not say that all is done
                self.error = self.error or ended
        if self.error is not None:
            raise self.error

    def _round(self, tasks: list[Task]) -> None:
        control = TaskControl(tasks)
        control.process(None)
        memory = Dependency(SqliteDB, ":memory:")
        reporter = ConsoleReporter(_StandardOutput(), {})
        runner = Runner(memory, reporter, stream=Stream(2))
        runner.run_all(control.task_dispatcher())

    def _tasks(self, run: Run) -> list[Task]:
        return [self._task(f"{run.task.name}:{step.name}", step.action, step.up_to_date) for step in run.steps()]

    def _task(self, name: str, action: Callable[[], None], up_to_date: bool) -> Task:
        def guarded() -> Any:
            try:
                action()
            except Exception as error:
                self.error = error
                return TaskFailed(str(error), report=False)
            return True

        return Task(name, [(guarded,)], uptodate=[up_to_date], verbosity=2, io={"capture": False})


class _StandardOutput:
    """Standard output as it is when written to; a progress bar puts itself in its place for a while."""

    def write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader has seen enough; the work goes on
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
