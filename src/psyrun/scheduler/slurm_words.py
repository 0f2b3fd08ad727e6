"""What Slurm says: listings of jobs, its words for their states, why it refused, and limits."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from psyrun.scheduler.base import JobState, JobStatus, QueueError
from psyrun.scheduler.resources import time_limit
from psyrun.scheduler.slurm_text import elements
from psyrun.units import shown_seconds

LISTING = "%i|%T|%r|%k|%j"
"""What squeue is asked for: id, state, reason, comment and, because it may have any character, the name last."""

_WORDS = {
    JobState.QUEUED: ("PENDING", "REQUEUED", "REQUEUE_FED", "PREEMPTED"),
    JobState.HELD: ("REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"),
    JobState.RUNNING: (
        *("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING"),
        *("POWER_UP_NODE", "UPDATE_DB"),
    ),
    JobState.DONE: ("COMPLETED",),
    JobState.FAILED: (
        *("FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "LAUNCH_FAILED"),
        *("RECONFIG_FAIL",),
    ),
    JobState.CANCELLED: ("CANCELLED", "REVOKED"),
}
STATES = {word: state for state, words in _WORDS.items() for word in words}
"""All words for states in Slurm's source, and what they mean for us. A preempted job is requeued, or listed no more."""

_HELD = re.compile(r"JobHeld(User|Admin)|JobHoldMaxRequeue|.*\bheld\b.*")
# Limits on what is running now may go away; those on one job do not. PartitionConfig is told of what no node of the
# partition has, not of what is in use or out of service.
_NEVER = re.compile(
    r"Partition(TimeLimit|NodeLimit|Config)|DependencyNeverSatisfied|BadConstraints|Invalid(Account|QOS)|"
    r"(Account|QOS)NotAllowed|MaxMemPerLimit|ReservationDeleted|(Assoc|QOS)Max\w*Per(Job|Node)(Limit)?|QOSMin\w+"
)
_LIMITS = re.compile(
    r"Max\w*SubmitJob\w*Limit|Grp\w*SubmitJobs?\w*Limit|MaxSubmitJobsPerAccount|job queue full|"
    r"temporarily unable to accept job|MaxJobCount|job submit limit",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"timed out|connect failure|connection (refused|reset|failure)|zero bytes|not connected|incomplete|broken pipe|"
    r"unexpected (msg|message)|unable to contact|communication|send/recv|(send|receive|shutdown) failure|end of file",
    re.IGNORECASE,
)


_SHORT_OF = {"OUT_OF_MEMORY": "memory", "TIMEOUT": "time", "DEADLINE": "time"}


@dataclass(frozen=True)
class Row:
    """What squeue says of some elements of an array: None means all that no other row has."""

    array: str
    numbers: list[int] | None
    status: JobStatus
    token: str
    name: str


@dataclass(frozen=True)
class Listing:
    """What squeue says.

    Attributes
    ----------
    rows : list of Row
    bad : list of str
        Lines that cannot be understood.
    """

    rows: list[Row] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)

    def of(self, tokens: Collection[str]) -> dict[str, tuple[str, JobStatus]]:
        """Return token and status by id, for jobs that have one of the tokens; ``17``: the rest of that array."""
        found: dict[str, tuple[str, JobStatus]] = {}
        for row in self.rows:
            if row.token in tokens:
                ids = [row.array] if row.numbers is None else [f"{row.array}_{number}" for number in row.numbers]
                found |= dict.fromkeys(ids, (row.token, row.status))
        return found

    def hides(self, token: str) -> bool:
        """Whether there is a line that cannot be understood, and may be about the jobs with a token."""
        return any(token in line for line in self.bad)


def listing(output: str) -> Listing:
    """Return what squeue says, asked for `LISTING`.

    Raises
    ------
    QueueError
        Nothing of it can be understood.
    """
    found = Listing()
    for line in filter(str.strip, output.split("\n")):
        try:
            job, word, reason, token, name = line.split("|", 4)
            array, numbers = elements(job)
        except ValueError:
            found.bad.append(line)
        else:
            found.rows.append(Row(array, numbers, status_of(word, reason), token, name))
    if found.bad and not found.rows:
        raise QueueError(f"squeue said {found.bad[0]!r:.120}, which is no listing of jobs. Try again later")
    return found


def status_of(word: str, reason: str = "") -> JobStatus:
    """Return what a state and a reason of Slurm mean.

    >>> status_of('PENDING', 'PartitionTimeLimit')
    JobStatus(state=<JobState.QUEUED: 'queued'>, word='PENDING', reason='PartitionTimeLimit', never=True, short_of='')
    """
    state = STATES.get(word, JobState.UNKNOWN)
    told = "" if reason in ("None", "(null)") else reason
    if state is JobState.QUEUED and _HELD.fullmatch(told):
        state = JobState.HELD
    never = state is JobState.QUEUED and _NEVER.fullmatch(told) is not None
    return JobStatus(state, word, told, never, _SHORT_OF.get(word, ""))


def submitted_id(output: str) -> str | None:
    """Return the id that ``sbatch --parsable`` tells, None if there is none; sites may have it say more.

    >>> submitted_id('17;cluster')
    '17'
    """
    found = re.findall(r"^(\d+)(?:;\S+)?\s*$", output, re.MULTILINE | re.ASCII)
    return found[-1] if found else None


def is_limit(errors: str) -> bool:
    """Whether the number of jobs is what sbatch was refused for: fewer may be taken.

    Slurm's sentence for that is also the one for a job that is too large or too long; a line before it may tell which.
    """
    return _LIMITS.search(errors) is not None and _never_word(errors) is None


def is_gone(line: str) -> bool:
    """Whether a line of scancel only says that a job is over, as it may be since it was listed."""
    return "Invalid job id specified" in line or "Job/step already completing or completed" in line


def is_unsure(errors: str, status: int) -> bool:
    """Whether sbatch failed so that the jobs may have been taken: it was stopped, or the connection failed."""
    return status == 124 or status < 0 or _UNSURE.search(errors) is not None


def _never_word(errors: str) -> str | None:
    return next((word for word in re.findall(r"\w+", errors) if _NEVER.fullmatch(word)), None)


def max_array_size(config: str) -> int | None:
    """Return how many elements an array may have, from ``scontrol show config``."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return int(match[1]) if match else None


@dataclass(frozen=True)
class Partition:
    """A part of the cluster, and how many seconds a job may take in it; None: as long as it likes."""

    name: str
    longest: int | None
    default: bool

    def takes(self, seconds: int) -> bool:
        """Whether a job of that time limit can start; Slurm has time limits in whole minutes, rounded up."""
        return self.longest is None or -(-seconds // 60) * 60 <= self.longest


def partitions(output: str) -> list[Partition]:
    """Return the partitions that ``scontrol show partition -o`` tells of."""
    found = []
    for line in output.splitlines():
        words = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in words and "MaxTime" in words:
            try:
                longest = None if words["MaxTime"] in ("UNLIMITED", "INFINITE") else time_limit(words["MaxTime"])
            except ValueError:
                longest = None
            found.append(Partition(words["PartitionName"], longest, words.get("Default") == "YES"))
    return found


def too_long(limit: int, asked: Sequence[Partition], known: Collection[Partition]) -> str:
    """Return what to say of a time limit in seconds that is above those of the partitions that were asked for."""
    limits = ", ".join(f"{p.name!r} takes jobs of up to {shown_seconds(p.longest or 0)}" for p in asked)
    longer = [repr(p.name) for p in known if p.takes(limit)]
    hint = f"Partitions that take it: {', '.join(longer)}" if longer else "No partition takes it"
    return (
        f"scheduler_args: with a timelimit of {shown_seconds(limit)} the jobs would wait for ever: partition {limits}. "
        f"{hint}. Set 'partition', or a shorter 'timelimit'"
    )


def post_mortem(output: str) -> dict[str, str]:
    r"""Return how jobs ended, by id, from ``sacct -n -P -o JobID,State,ExitCode,MaxRSS,Elapsed,ReqMem``.

    >>> post_mortem('17_3|OUT_OF_MEMORY|0:125||00:01:02|1G\n17_3.batch|OUT_OF_MEMORY|0:125|1023K|00:01:02|')
    {'17_3': 'OUT_OF_MEMORY after 00:01:02, exit status 0:125, used 1023K of 1G'}
    """
    rows = [cells for line in output.splitlines() if len(cells := line.strip().split("|")) == 6]
    used = {cells[0].removesuffix(".batch"): cells[3] for cells in rows if cells[0].endswith(".batch") and cells[3]}
    found = {}
    for job, state, status, _, elapsed, asked in rows:
        if "." not in job:
            memory = f", used {used[job]} of {asked or 'what was not told'}" if job in used else ""
            found[job] = f"{state} after {elapsed}, exit status {status}{memory}"
    return found
