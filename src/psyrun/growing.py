"""More jobs for a run under way than its task file asks for."""

from __future__ import annotations

from psyrun.activity import Lookout
from psyrun.claims import HELD, OPEN
from psyrun.errors import RefusedError
from psyrun.guest import plan_to_join
from psyrun.jobs import Jobs
from psyrun.orders import share
from psyrun.plan import Plan
from psyrun.queued import QueuedRun
from psyrun.run import Choices
from psyrun.state import look
from psyrun.submissions import GROWN
from psyrun.tasks import Task


def plan_under_way(task: Task, jobs: Jobs | None) -> Plan:
    """Return the newest plan of a task, if somebody is at work on it.

    Raises
    ------
    RefusedError
        Nobody is, or nobody can join them.
    """
    lookout = Lookout(task.workdir, jobs)
    activity = lookout.look()
    plan = plan_to_join(task, look(task, lookout.observer))
    if not activity.at_work:
        raise RefusedError(f"{task.name}: nobody is at work on it. To start a run: {task.command(task.name)}")
    return plan


def grow(task: Task, n: int) -> str:
    """Give more jobs for the newest plan of a task to its queues; return what to tell.

    Parameters
    ----------
    task : Task
    n : int
        How many for each queue; there are no more than find something to claim.

    Raises
    ------
    RefusedError
        Nobody is at work on it, or nothing is left.
    QueueError
        No queue gives an answer, so nothing is submitted.
    """
    run = QueuedRun(task, Choices(), task.scheduler, GROWN)
    plan = plan_under_way(task, run.jobs)
    claims = plan.claims()
    n_left = sum(map(len, claims.tokens(OPEN))) + sum(len(token) - 1 for token in claims.tokens(HELD))  # one is in hand
    if not n_left:
        wait = task.command("wait", task.name)
        raise RefusedError(f"{task.name}: nothing is left to claim, only to be finished by those at work: {wait}")
    run.join(plan)
    share(plan)
    run.submit_more(min(n, n_left))
    return run.summary()
