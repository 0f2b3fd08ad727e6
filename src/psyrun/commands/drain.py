"""``psy-doit drain``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from psyrun.activity import Activity, Lookout
from psyrun.jobs import Jobs, jobs_of, shown_ids
from psyrun.orders import drain, is_paused
from psyrun.plan import Plan
from psyrun.scheduler import QueueError
from psyrun.state import look
from psyrun.tasks import Task, load_task


@click.command("drain")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_obj
def command(taskdir: Path, names: tuple[str, ...]) -> None:
    """Have the workers of tasks finish what they have in hand, and leave. Jobs that did not start are cancelled."""
    tasks = [load_task(name, taskdir) for name in dict.fromkeys(names)]
    for task in tasks:
        jobs = jobs_of(task.scheduler, task.workdir, max_age=0.0)
        activity = Lookout(task.workdir, jobs).look()
        if activity.plan is None or not activity.at_work:
            rest = "All items are done" if look(task).complete else f"To compute what is missing: {_start(task)}"
            click.echo(f"{task.name}: nobody is at work on it. {rest}")
            continue
        # Workers of older plans have no more than what they hold, but that may be much.
        for plan in {activity.plan, *(plan for plan, _ in activity.held)}:
            drain(task.workdir.plans / plan)
        told = [f"{task.name}: drained; {_leaving(activity)}"]
        if jobs is not None:
            told += [f"{task.name}: {line}" for line in _cancelled(jobs, task, activity.plan)]
        click.echo("\n".join(told))
        click.echo(f"    to wait for the last of them: {task.command('wait', task.name)}; to go on: {_start(task)}")


def _start(task: Task) -> str:
    """Return what to type to have the rest computed."""
    resume = [task.command("resume", task.name)] if is_paused(task.workdir) else []
    return "; ".join([*resume, task.command(task.name)])


def _leaving(activity: Activity) -> str:
    """Return who will leave, in words."""
    if activity.workers:
        return f"{activity.who()} will finish what is in hand, and leave"
    return f"nothing is in hand; {activity.who()} will leave"


def _cancelled(jobs: Jobs, task: Task, plan: str) -> list[str]:
    """Take jobs that did not start from the queue; return what to tell."""
    leave = "jobs that start leave at once"
    with suppress(QueueError):  # told below
        jobs.ask(fresh=True)
    cancelled, why_not = jobs.cancel_waiting(Plan.read(task.workdir.plans / plan))
    why_not = jobs.trouble or why_not
    told = [f"cancelled {shown_ids(job.id for job in cancelled)}, which did not start"] if cancelled else []
    return told + ([f"not all jobs that wait could be cancelled; {leave} ({why_not})"] if why_not else [])
