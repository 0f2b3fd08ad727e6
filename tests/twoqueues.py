"""A project with two queues that know nothing of each other, and give their jobs the same numbers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from psyrun.testing.sqsub import install
from queueproject import QueueProject

MODULE = '''
import os
from contextlib import contextmanager

from psyrun.scheduler import Sqsub
from psyrun.scheduler.base import JobRefusedError
from psyrun.scheduler.cache import Cache


class Emulated(Sqsub):
    """One of several emulators, whose programs are in a directory of its own."""

    programs = ()

    def __init__(self, workdir, place, **own):
        super().__init__(workdir, **own)
        self.place = place
        self._jobs = Cache("sqsub-jobs", lambda: place)

    def submit(self, job, number=0):
        if os.path.exists(os.path.join(self.place, "refuses")):
            raise JobRefusedError("no such queue")
        with self._there():
            return super().submit(job, number)

    def cancel(self, ids):
        with self._there():
            super().cancel(ids)

    def _rows(self, max_age=0.0):
        with self._there():
            return super()._rows(max_age)

    @contextmanager
    def _there(self):
        before = os.environ["PATH"]
        os.environ["PATH"] = os.path.join(self.place, "bin") + os.pathsep + before
        try:
            yield
        finally:
            os.environ["PATH"] = before
'''


class TwoQueues(QueueProject):
    """A project directory with the queues ``near`` and ``far``.

    Parameters
    ----------
    path : Path
        An empty directory.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self.near = self._at("near")
        self.far = self._at("far")
        (path / "emulated.py").write_text(MODULE)

    def _at(self, name: str) -> QueueProject:
        there = copy.copy(self)
        there.queue = self.path / name
        there.programs = install(there.queue)
        return there

    def scheduler(self, name: str, own: str = "") -> str:
        """Return what stands for one of the queues in a task file."""
        return f"Emulated('files-{name}', {str(self.path / name)!r}{own})"

    def task_in_both(self, *own: str, options: str = "", **more: Any) -> None:
        """Write a task for both queues, the second time with arguments of their own, which begin with a comma."""
        queues = [self.scheduler(*pair) for pair in zip(("near", "far"), own or ("", ""), strict=True)]
        lines = ["from emulated import Emulated", f"scheduler = [{', '.join(queues)}]", options]
        self.queued_task(options="\n".join(lines), **more)

    def log(self) -> str:
        """Return what all jobs of a task wrote."""
        return "".join(path.read_text() for path in sorted((self.path / "psy-work/t/log").glob("job-*.log")))

    def ended(self) -> bool:
        """Whether neither queue has anything of this project that waits or runs."""
        return not self.near.jobs("QR", "t") and not self.far.jobs("QR", "t")

    def close(self) -> None:
        """End everything."""
        for queue in (self.near, self.far):
            (queue.queue / "slots").write_text("0")
        super().close()
