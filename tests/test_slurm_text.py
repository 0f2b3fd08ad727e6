"""What is told to Slurm, to the letter; and what it says, as it said it (22.05, with names of nodes changed)."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.errors import TaskError
from psyrun.scheduler import Job, JobState, QueueError
from psyrun.scheduler.resources import resolved
from psyrun.scheduler.slurm_text import (
    compressed,
    elements,
    job_name,
    log_name,
    node_of,
    resource_options,
    sbatch_command,
    script,
    starts,
)
from psyrun.scheduler.slurm_words import (
    STATES,
    is_gone,
    is_limit,
    is_unsure,
    listing,
    max_array_size,
    partitions,
    post_mortem,
    status_of,
    submitted_id,
)

GOLDEN = Path(__file__).parent / "golden" / "slurm"

PLAIN = Job(
    name="square",
    token="psy:0123abcd",
    command=("/opt/venv/bin/python", "-m", "psyrun.worker", "/data/psy-work/square"),
    directory=Path("/data"),
    logs=Path("/data/psy-work/square/log"),
    n=4,
)
HOSTILE = Job(
    name="a/b; echo 'c' %j\n",
    token="psy:0123abcd",
    command=("/o p/it's/python", "; echo x", '"$HOME"', "`id`", "a\nb", "\\", "", "*", "ä"),
    directory=Path("/d a/it's; echo %j $(id) \\"),
    logs=Path("/d a/it's; echo %j $(id)/%%"),
    n=1,
)
FULL = replace(
    PLAIN,
    n=100,
    resources=resolved(
        {
            "timelimit": "1h30m",
            "memory": "1.5GB",
            "n_cpus": 4,
            "n_nodes": 1,
            "cores-per-socket": 2,
            "sockets-per-node": 1,
            "gpus": "a100:2",
            "partition": "short,long",
            "account": "def-x",
            "qos": "high",
            "constraint": "avx2&ssd",
            "nodelist": ["n1", "n2"],
            "exclude": "n[7-8]",
            "reservation": "r",
            "nice": 10,
            "mail_type": "END",
            "mail_user": "me@example.org",
            "dependency": "afterany:17",
            "throttle": 5,
            "extra": ["--exclusive", "--licenses=matlab:1"],
        },
        "square",
    ),
    prologue=("module load python/3.11", "source '/opt/my env/bin/activate'"),
    exclude=("n3", "n4"),
)


@pytest.mark.parametrize(("name", "job"), [("plain", PLAIN), ("hostile", HOSTILE), ("full", FULL)])
def test_scripts_and_lines_are_as_they_were(name: str, job: Job) -> None:
    """A change of what Slurm is told is a change of a file that one reads."""
    text = script(job) + "\n" + "\n".join(f"# {word!r}" for word in sbatch_command(job, job.n)) + "\n"
    assert text == (GOLDEN / f"{name}.sh").read_text()


def run_script(job: Job, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a job as Slurm does."""
    given_ = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "PATH": "/usr/bin:/bin", **environment}
    shell = script(job).split("\n")[0].removeprefix("#!").split()
    return subprocess.run(
        [*shell, "/dev/stdin"], input=script(job), env=given_, capture_output=True, text=True, cwd="/", timeout=30
    )


def test_hostile_words_arrive_as_they_are(tmp_path: Path) -> None:
    """Through a real shell: spaces, quotes, line breaks, and what would be commands."""
    directory = tmp_path / "it's a; echo $(id) %j"
    directory.mkdir()
    tell = "import os, sys; print(sys.argv[1:], os.getcwd(), os.environ['PSYRUN_JOB'])"
    words = HOSTILE.command[1:]
    done = run_script(replace(HOSTILE, directory=directory, command=(sys.executable, "-c", tell, *words)))
    assert done.stdout.split("\n", 1)[1] == f"{list(words)} {directory} 17_3\n"
    assert done.stderr == ""


def test_the_log_tells_job_and_node(tmp_path: Path) -> None:
    """What the script prints is what the parser reads; a job that was begun again is on its last node."""
    job = replace(PLAIN, directory=tmp_path, command=("/bin/true",), prologue=("echo prologue",))
    first = run_script(job, SLURMD_NODENAME="n1").stdout
    second = run_script(job, SLURMD_NODENAME="n2").stdout
    assert starts("noise\n" + first + "slurmstepd: error\n" + second) == [("17_3", "n1"), ("17_3", "n2")]
    assert node_of(first + second) == "n2"
    assert node_of("psyrun: nothing\n") is None
    assert node_of(run_script(job).stdout) == subprocess.check_output("hostname", text=True).strip()
    assert first.endswith("prologue\n")


def test_a_signal_that_comes_too_early(tmp_path: Path) -> None:
    """Slurm may send it up to a minute before it should: neither the prologue nor a Python that starts ends of it."""
    tell = "import os, signal; os.kill(os.getpid(), signal.SIGUSR1); print('lives')"
    limited = replace(PLAIN, directory=tmp_path, command=(sys.executable, "-c", tell), resources={"timelimit": 60})
    assert run_script(replace(limited, prologue=("kill -USR1 $$",))).stdout.endswith("lives\n")
    assert not [word for word in sbatch_command(limited, 1) if word.startswith("--signal")]
    assert "--signal=B:USR1@60" in sbatch_command(replace(limited, resources={"timelimit": 600}), 1)
    assert "--signal=B:USR1@60" in sbatch_command(replace(limited, resources={"timelimit": 600}), 1)


def test_a_directory_that_is_missing_on_the_node(tmp_path: Path) -> None:
    """Slurm would run the job elsewhere."""
    done = run_script(replace(PLAIN, directory=tmp_path / "gone", command=("/bin/echo", "ran")))
    assert done.returncode == 75
    assert "ran" not in done.stdout


@pytest.mark.parametrize(
    "job",
    [
        *[replace(PLAIN, logs=Path(text)) for text in ("/a\nb", "/a\\b", "relative", "/a\udc80")],
        *[replace(PLAIN, directory=Path(text)) for text in ("/a\nb", "relative", "/a\udc80")],
    ],
)
def test_paths_that_slurm_cannot_have_are_refused(job: Job) -> None:
    """It would run the jobs elsewhere, or lose their logs."""
    with pytest.raises(TaskError, match="Rename it"):
        sbatch_command(job, 1)


@pytest.mark.parametrize(
    "job",
    [
        *[replace(PLAIN, command=("/bin/echo", word)) for word in ("a\0b", "a\rb", "a\udc80")],
        replace(PLAIN, prologue=("#SBATCH --time=5",)),
    ],
)
def test_scripts_that_slurm_cannot_have_are_refused(job: Job) -> None:
    """It refuses those with carriage returns, and overlooks options that stand behind a command."""
    with pytest.raises(TaskError):
        script(job)


def test_no_time_limit_no_signal() -> None:
    """Slurm would have no moment to send it; and nothing that was not asked for is told."""
    assert resource_options({}) == []
    assert resource_options({"memory_per_cpu": 512}) == ["--mem-per-cpu=512M"]


def test_names_for_the_queue() -> None:
    """A slash in one costs the log."""
    assert job_name("") == "psyrun"
    assert len(job_name("x" * 5000)) <= 200
    assert log_name("17_3") in "/".join(sbatch_command(PLAIN, 1)).replace("%A_%a", "17_3")


# Ids


@pytest.mark.parametrize(
    ("text", "array", "numbers"),
    [
        ("7", "7", None),
        ("7_3", "7", [3]),
        ("7_[4]", "7", [4]),
        ("7_[0-3,9%2]", "7", [0, 1, 2, 3, 9]),
        ("7_[1,5-9]", "7", [1, 5, 6, 7, 8, 9]),
        ("7_[0-10:5]", "7", [0, 5, 10]),
        ("12+1", "12+1", None),
    ],
)
def test_ids(text: str, array: str, numbers: list[int] | None) -> None:
    """One element, several, or all that are not listed alone."""
    assert elements(text) == (array, numbers)


@pytest.mark.parametrize("text", ["110_[17,46,75,...,208,2", "110_[17,46,75,...]", "110_[17,46"])
def test_truncated_ids(text: str) -> None:
    """Of 64 bytes, in the middle of a number: 2 may be 2 or 213."""
    with pytest.raises(ValueError, match="truncated"):
        elements(text)


@pytest.mark.parametrize("text", ["", "JOBID", "7_", "7_[]", "7_[a]", "_3", "7_[3-]", "7_[0-3]x", "7 ", "٣"])
def test_what_is_no_id(text: str) -> None:
    """It is an error, and nothing else."""
    with pytest.raises(ValueError):
        elements(text)


@given(st.sets(st.integers(0, 300), min_size=1))
def test_compressed_ids_are_read_as_the_same(numbers: set[int]) -> None:
    """What scancel gets is what squeue would say."""
    assert elements(compressed("17", numbers)) == ("17", sorted(numbers))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        *[("17\n", "17"), ("17;cluster\n", "17"), ("Welcome to 3 clusters\n17\n", "17"), ("", None)],
        *[("Submitted batch job 17\n", None), ("job 17;c\n", None), ("-17", None)],
    ],
)
def test_submitted_ids(output: str, expected: str | None) -> None:
    """With the name of a cluster, or behind a greeting."""
    assert submitted_id(output) == expected


# Listings

ANSWER = """\
1_0|COMPLETED|None|psy:x|sbatch
12_1|FAILED|NonZeroExitCode|psy:fail|sbatch
11_[0-3]|FAILED|BadConstraints|psy:mem|sbatch
6_[4-30%4]|PENDING|JobArrayTaskLimit|psy:run|we|ird na"me
7_[1-20]|PENDING|Resources|psy:wait|sbatch
10_[0-3]|PENDING|PartitionConfig|psy:never2|sbatch
24|PENDING|Dependency|psy:dep|sbatch
31|PENDING|ReqNodeNotAvail, UnavailableNodes:n3|psy:on3|sbatch
8|PENDING|JobHeldUser|psy:held|sbatch
6_1|RUNNING|None|psy:run|we|ird na"me
9|PENDING|PartitionTimeLimit|psy:never|sbatch
40|CANCELLED|JobArrayTaskLimit|psy:ended|sbatch
"""


def test_a_listing() -> None:
    """Each line is some elements, with the token; the name may have anything in it."""
    found = listing(ANSWER)
    assert found.bad == []
    assert len(found.rows) == 12
    assert found.rows[3].name == 'we|ird na"me'
    run = found.of({"psy:run", "psy:ended"})
    assert set(run) == {"6_1", *(f"6_{n}" for n in range(4, 31)), "40"}
    assert run["6_1"][1].state is JobState.RUNNING
    assert (run["6_7"][1].state, run["6_7"][1].reason) == (JobState.QUEUED, "JobArrayTaskLimit")
    assert run["40"] == ("psy:ended", status_of("CANCELLED", "JobArrayTaskLimit"))
    assert found.of({"psy:none"}) == {}
    assert listing("").rows == listing("\n").rows == []


def test_lines_that_cannot_be_understood() -> None:
    """They are kept, for they may be about ours; if there is nothing else, there was no answer."""
    found = listing(ANSWER + "slurm_load_jobs error\n110_[17,...,2|PENDING|None|psy:big|a\n")
    assert len(found.rows) == 12
    assert len(found.bad) == 2
    assert found.hides("psy:big")
    assert not found.hides("psy:run")
    with pytest.raises(QueueError, match="gateway"):
        listing("<html>502 Bad gateway</html>")


@pytest.mark.parametrize(
    ("word", "reason", "state", "never"),
    [
        *[("PENDING", reason, JobState.QUEUED, False) for reason in ("None", "Priority", "Resources", "BeginTime")],
        *[("PENDING", reason, JobState.QUEUED, False) for reason in ("AssocGrpCpuLimit", "QOSMaxCpuPerUserLimit")],
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-3]", JobState.QUEUED, False),
        ("PENDING", "Nodes required for job are DOWN, DRAINED or reserved for jobs", JobState.QUEUED, False),
        *[("PENDING", reason, JobState.QUEUED, True) for reason in ("PartitionTimeLimit", "PartitionNodeLimit")],
        *[("PENDING", reason, JobState.QUEUED, True) for reason in ("PartitionConfig", "BadConstraints")],
        *[("PENDING", reason, JobState.QUEUED, True) for reason in ("DependencyNeverSatisfied", "InvalidQOS")],
        *[("PENDING", f"{who}MaxWallDurationPerJobLimit", JobState.QUEUED, True) for who in ("Assoc", "QOS")],
        *[("PENDING", reason, JobState.HELD, False) for reason in ("JobHeldUser", "JobHeldAdmin")],
        ("PENDING", "launch failed requeued held", JobState.HELD, False),
        ("REQUEUE_HOLD", "None", JobState.HELD, False),
        ("SUSPENDED", "None", JobState.RUNNING, False),
        ("COMPLETING", "None", JobState.RUNNING, False),
        ("OUT_OF_MEMORY", "OutOfMemory", JobState.FAILED, False),
        ("CANCELLED", "PartitionTimeLimit", JobState.CANCELLED, False),
        ("TELEPORTING", "None", JobState.UNKNOWN, False),
        ("", "", JobState.UNKNOWN, False),
    ],
)
def test_states(word: str, reason: str, state: JobState, never: bool) -> None:
    """What waits, what is held, what will never start, and what has ended; a new word is not an end."""
    found = status_of(word, reason)
    assert (found.state, found.never, found.word) == (state, never, word)
    assert found.reason == ("" if reason == "None" else reason)


def test_every_word_of_slurm_is_known() -> None:
    """Those of job states in the manuals of squeue and sacct."""
    words = """BOOT_FAIL CANCELLED COMPLETED CONFIGURING COMPLETING DEADLINE FAILED NODE_FAIL OUT_OF_MEMORY PENDING
        PREEMPTED RUNNING RESV_DEL_HOLD REQUEUE_FED REQUEUE_HOLD REQUEUED RESIZING REVOKED SIGNALING SPECIAL_EXIT
        STAGE_OUT STOPPED SUSPENDED TIMEOUT"""
    assert set(words.split()) <= set(STATES)
    ends = {word for word, state in STATES.items() if state.over}
    assert ends == {
        *("COMPLETED", "FAILED", "TIMEOUT", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "CANCELLED"),
        *("REVOKED", "LAUNCH_FAILED", "RECONFIG_FAIL"),
    }


# Refusals

POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)


@pytest.mark.parametrize(
    ("errors", "limited"),
    [
        (POLICY, True),
        (f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{POLICY}", True),
        (f"sbatch: error: AssocMaxSubmitJobLimit\n{POLICY}", True),
        (f"sbatch: error: AssocGrpSubmitJobsLimit\n{POLICY}", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: Slurm job queue full, sleeping and retrying", True),
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{POLICY}", False),
        (f"sbatch: error: AssocMaxCpuPerJobLimit\n{POLICY}", False),
        ("sbatch: error: Batch job submission failed: Invalid job array specification", False),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", False),
        ("sbatch: error: invalid partition specified: foo", False),
    ],
)
def test_limits(errors: str, limited: bool) -> None:
    """Fewer jobs may be taken; a job that is too long is too long alone."""
    assert is_limit(errors) is limited
    assert not is_unsure(errors, 1)


@pytest.mark.parametrize(
    ("errors", "status", "unsure"),
    [
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", 1, True),
        ("sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", 1, True),
        ("sbatch: error: Batch job submission failed: Message receive failure", 1, True),
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", 1, True),
        ("sbatch: error: Batch job submission failed: Transport endpoint is not connected", 1, True),
        ("sbatch gave no answer within 60 s", 124, True),
        ("", -9, True),
        ("sbatch: error: Batch job submission failed: Invalid feature specification", 1, False),
        ("sbatch: unrecognized option '--extra-nonsense'", 1, False),
    ],
)
def test_what_leaves_it_open(errors: str, status: int, unsure: bool) -> None:
    """Whether the jobs were taken."""
    assert is_unsure(errors, status) is unsure


# Limits

CONFIG = """\
Configuration data as of 2024-11-21T20:00:03
MaxArraySize            = 101
MaxJobCount             = 500
"""
PARTITIONS = """\
PartitionName=debug AllowGroups=ALL Default=YES QoS=N/A DefaultTime=NONE MaxNodes=UNLIMITED MaxTime=UNLIMITED State=UP
PartitionName=short AllowGroups=ALL Default=NO QoS=N/A DefaultTime=NONE MaxNodes=UNLIMITED MaxTime=00:01:00 State=UP
PartitionName=long AllowGroups=ALL Default=NO QoS=N/A DefaultTime=NONE MaxNodes=UNLIMITED MaxTime=7-00:00:00 State=UP
"""


def test_the_configuration() -> None:
    """The highest index is one less."""
    assert max_array_size(CONFIG) == 101
    assert max_array_size("Unable to contact slurm controller") is None


def test_partitions() -> None:
    """Their limits in seconds; a job's limit is rounded up to whole minutes, as Slurm does."""
    debug, short, long = partitions(PARTITIONS)
    assert (debug.name, debug.longest, debug.default) == ("debug", None, True)
    assert (short.name, short.longest, short.default) == ("short", 60, False)
    assert long.longest == 7 * 86400
    assert short.takes(60)
    assert short.takes(1)
    assert not short.takes(61)
    assert debug.takes(10**9)
    assert partitions("slurm_load_partitions error: Unable to contact slurm controller\n") == []


def test_how_jobs_ended() -> None:
    """Memory is told of the step that ran the script."""
    output = (
        "17_3|OUT_OF_MEMORY|0:125||00:01:02|1G\n17_3.batch|OUT_OF_MEMORY|0:125|1023K|00:01:02|\n"
        "17_3.extern|COMPLETED|0:0|0|00:01:02|\n17_[4-9]|CANCELLED by 1000|0:0||00:00:00|1G\nnonsense\n"
    )
    assert post_mortem(output) == {
        "17_3": "OUT_OF_MEMORY after 00:01:02, exit status 0:125, used 1023K of 1G",
        "17_[4-9]": "CANCELLED by 1000 after 00:00:00, exit status 0:0",
    }
    assert post_mortem("") == {}


def test_scancel_complains_of_jobs_that_are_over() -> None:
    """That is no trouble; anything else is."""
    assert is_gone("scancel: error: Kill job error on job id 593: Invalid job id specified")
    assert is_gone("scancel: error: Kill job error on job id 17: Job/step already completing or completed")
    assert not is_gone("scancel: error: Kill job error on job id 17: Access/permission denied")
