"""Slurm as it behaves: replies that are lost, limits, garbage, numbers that are used again."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

import psyrun
from fakes.slurm import POLICY, Fake
from psyrun.errors import TaskError
from psyrun.scheduler import Job, JobId, JobState, QueueError, Slurm, SubmitError, slurm, slurm_programs

TOKEN = "psy:0123abcd"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A Slurm of its own, and a cache of its own; nothing waits."""
    there = Fake(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{there.install()}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(slurm, "PAUSES", (0.0, 0.0, 0.0))
    return there


def job(n: int = 4, token: str = TOKEN, **resources: Any) -> Job:
    """Return one to submit."""
    return Job("square", token, ("/bin/true",), Path("/data"), Path("/data/log"), n, resources)


def ids(*texts: str, token: str = TOKEN) -> list[JobId]:
    """Return ids with our token."""
    return [JobId(text, token) for text in texts]


def a_while_ago(tmp_path: Path, n: int = 1) -> list[JobId]:
    """Submit jobs, and wait until the file system's clock has gone on: it has ticks of some milliseconds."""
    taken = Slurm().submit_many(job(n))
    file = tmp_path / "tick"
    file.touch()
    begun = file.stat().st_mtime_ns
    while file.stat().st_mtime_ns == begun:
        file.touch()
    return taken


def states(queue: Slurm, asked: list[JobId], max_age: float = 0.0) -> list[JobState]:
    """Return the states of jobs in their order."""
    polled = queue.poll(asked, max_age)
    return [polled[id_].state for id_ in asked]


# Submitting


def test_all_jobs_are_one_array(fake: Fake) -> None:
    """Slurm gets script and token; the ids are those of the elements."""
    taken = Slurm().submit_many(job(3, timelimit=600))
    assert taken == ids("17_0", "17_1", "17_2")
    (call,) = fake.calls("sbatch")
    assert "--array=0-2" in call["words"]
    assert f"--comment={TOKEN}" in call["words"]
    assert "--time=0-00:10:00" in call["words"]
    assert call["stdin"].startswith("#!/bin/sh\n")
    assert Slurm().find(TOKEN) == taken
    assert Slurm().submit(job(3)) == JobId("18_0", TOKEN)


@pytest.mark.parametrize("mood", ["accept, time out", "accept, no id", "accept late, time out 2"])
def test_jobs_that_were_taken_without_a_word_are_not_submitted_again(fake: Fake, mood: str) -> None:
    """They are found by their token, also when Slurm is late to list them."""
    fake.set(moods=[["sbatch", mood]])
    assert Slurm().submit_many(job(3)) == ids("17_0", "17_1", "17_2")
    assert len(fake.calls("sbatch")) == 1
    assert len(fake.read()["jobs"]) == 1


def test_a_program_that_hangs_after_it_gave_the_jobs(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped, and the jobs are found."""
    monkeypatch.setattr(slurm_programs, "TIMEOUT", 2.0)
    fake.set(moods=[["sbatch", "accept, hang"]])
    assert len(Slurm().submit_many(job(3))) == 3
    assert len(fake.calls("sbatch")) == 1


@pytest.mark.parametrize("mood", ["time out", "down"])
def test_jobs_that_were_not_taken_are_submitted_again(fake: Fake, mood: str) -> None:
    """Once it is sure, after looking several times."""
    fake.set(moods=[["sbatch", mood]])
    assert Slurm().submit_many(job(2)) == ids("17_0", "17_1")
    assert len(fake.calls("sbatch")) == 2
    assert len(fake.calls("squeue")) == len(slurm.PAUSES)


def test_a_queue_that_never_takes_them(fake: Fake) -> None:
    """A few times are enough; nothing is taken, and that is sure."""
    fake.set(moods=[["sbatch", "time out"]] * 9)
    with pytest.raises(SubmitError, match="took none of 2 jobs") as told:
        Slurm().submit_many(job(2))
    assert (told.value.taken, told.value.limited, told.value.unsure) == ([], False, False)
    assert len(fake.calls("sbatch")) == slurm.TRIES


@pytest.mark.parametrize("answer", ["down", "garbage"])
def test_where_nothing_is_known_nothing_is_submitted_again(fake: Fake, answer: str) -> None:
    """The jobs may be there, and squeue says nothing."""
    fake.set(moods=[["sbatch", "accept, time out"], *[["squeue", answer]] * 9])
    with pytest.raises(SubmitError, match=r"is not known.*type the command again") as told:
        Slurm().submit_many(job(2))
    assert told.value.unsure
    assert len(fake.calls("sbatch")) == 1
    fake.set(moods=[])
    assert Slurm().find(TOKEN) == ids("17_0", "17_1")


def test_a_silent_squeue_is_asked_again(fake: Fake) -> None:
    """The second look finds what the first could not."""
    fake.set(moods=[["sbatch", "accept, time out"], ["squeue", "down"], ["squeue", "truncate"]])
    assert len(Slurm().submit_many(job(2))) == 2
    assert len(fake.calls("sbatch")) == 1


def test_the_last_look_tells(fake: Fake) -> None:
    """What was not known at first is known when squeue answers again: the jobs are not there."""
    fake.set(moods=[["sbatch", "time out"], ["squeue", "down"]])
    assert len(Slurm().submit_many(job(2))) == 2
    assert len(fake.calls("sbatch")) == 2


def test_jobs_that_are_found_ended_as_a_whole(fake: Fake) -> None:
    """Slurm lists only their array."""
    fake.set(moods=[["sbatch", "accept, time out"], *[["squeue", "as a whole"]] * 3])
    assert Slurm().submit_many(job(2)) == ids("17_0", "17_1")


def test_jobs_that_are_found_when_fewer_are_tried(fake: Fake) -> None:
    """All of the array that turned up are taken."""
    moods = ["accept late, time out 3", f"refuse: {POLICY}", "time out"]
    fake.set(moods=[["sbatch", mood] for mood in moods])
    assert Slurm().submit_many(job(4)) == ids("17_0", "17_1", "17_2", "17_3")
    assert len(fake.calls("sbatch")) == 3


def test_a_refusal_is_one(fake: Fake) -> None:
    """It is not tried again, and says what Slurm said."""
    fake.set(moods=[["sbatch", "refuse: Invalid feature specification"]])
    with pytest.raises(SubmitError, match=r"refused 2 jobs: .*Invalid feature specification") as told:
        Slurm().submit_many(job(2))
    assert not told.value.unsure
    assert len(fake.calls("sbatch")) == 1
    assert fake.calls("squeue") == []


def test_no_slurm_at_all(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says where to type the command."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SubmitError, match="login node"):
        Slurm().submit_many(job(2))
    with pytest.raises(QueueError, match="squeue"):
        Slurm().poll(ids("17_0"))


def test_a_limit_on_the_number_of_jobs(fake: Fake) -> None:
    """Half as many, until it fits; those do the work of all."""
    fake.set(limit=6)
    with pytest.raises(SubmitError, match=r"took 5 of 20 jobs.*QOSMaxSubmitJobPerUserLimit") as told:
        Slurm().submit_many(job(20))
    assert told.value.taken == ids(*(f"17_{n}" for n in range(5)))
    assert told.value.limited
    fake.set(limit=5)
    with pytest.raises(SubmitError) as told:
        Slurm().submit_many(job(20))
    assert (told.value.taken, told.value.limited) == ([], True)


def test_more_jobs_than_an_array_may_have(fake: Fake) -> None:
    """Several arrays with one token, and the throttle shared between them; the size is asked once a day."""
    fake.set(size=3)
    taken = Slurm().submit_many(job(8, throttle=6))
    assert taken == ids(*(f"{a}_{n}" for a, size in (("17", 3), ("18", 3), ("19", 2)) for n in range(size)))
    assert [word for call in fake.calls("sbatch") for word in call["words"] if word.startswith("--array")] == [
        "--array=0-2%2",
        "--array=0-2%2",
        "--array=0-1%2",
    ]
    assert Slurm().find(TOKEN) == taken
    Slurm().submit_many(job(8))
    assert len(fake.calls("scontrol")) == 1


def test_a_part_that_is_lost_between_others(fake: Fake) -> None:
    """An array of the same token that is known already is not taken for it; and what was taken is told."""
    fake.set(size=3, moods=[["sbatch", ""], ["sbatch", "accept, time out"], ["sbatch", "time out"]])
    assert Slurm().submit_many(job(9)) == ids(*(f"{array}_{n}" for array in (17, 18, 19) for n in range(3)))
    assert len(fake.calls("sbatch")) == 4
    fake.set(moods=[["sbatch", ""], ["sbatch", "refuse: Invalid account"]])
    with pytest.raises(SubmitError) as told:
        Slurm().submit_many(job(6))
    assert told.value.taken == ids("20_0", "20_1", "20_2")


def test_no_answer_on_the_size_of_arrays(fake: Fake) -> None:
    """It is as Slurm has it without configuration; the next command asks again."""
    fake.set(moods=[["scontrol", "down"]])
    assert len(Slurm().submit_many(job(4))) == 4
    fake.set(size=2)
    assert len(Slurm().submit_many(job(4))) == 4
    assert len(fake.calls("sbatch")) == 3


def test_an_array_size_that_was_made_smaller_since(fake: Fake) -> None:
    """A refusal has it asked again."""
    Slurm().submit_many(job(4))
    fake.set(size=2)
    with pytest.raises(SubmitError, match="Invalid job array"):
        Slurm().submit_many(job(4))
    assert len(Slurm().submit_many(job(4))) == 4


def test_a_job_that_submits_does_not_hand_on_what_it_was_given(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of its array would be taken for that of the new one. How Slurm is reached stays, and who pays."""
    for name in ("SLURM_ARRAY_TASK_ID", "SLURM_MEM_PER_NODE", "SBATCH_TIMELIMIT", "SQUEUE_STATES"):
        monkeypatch.setenv(name, "7")
    for name in ("SLURM_CONF", "SBATCH_ACCOUNT", "PSYRUN_X"):
        monkeypatch.setenv(name, "kept")
    queue = Slurm()
    queue.poll(queue.submit_many(job(1)))
    for call in fake.calls("sbatch") + fake.calls("squeue"):
        there = {k: v for k, v in call["environment"].items() if k.startswith(("SLURM", "SBATCH", "SQUEUE", "PSYRUN"))}
        bits = {"SLURM_BITSTR_LEN": "0"} if call["program"] == "squeue" else {}
        assert there == {"SLURM_CONF": "kept", "SBATCH_ACCOUNT": "kept", "PSYRUN_X": "kept"} | bits


# Looking


def test_states_are_told_with_one_question(fake: Fake) -> None:
    """Whatever the number of jobs; an element that is not listed is gone, an unknown word is not an end."""
    queue = Slurm()
    taken = queue.submit_many(job(6))
    for number, word in enumerate(["RUNNING", "COMPLETED", "TIMEOUT", "TELEPORTING"]):
        fake.put("17", number, word)
    polled = queue.poll([*taken, *ids("99_0")])
    expected = [JobState.RUNNING, JobState.DONE, JobState.FAILED, JobState.UNKNOWN, JobState.QUEUED, JobState.QUEUED]
    assert [status.state for status in polled.values()] == [*expected, JobState.GONE]
    assert polled[taken[2]].word == "TIMEOUT"
    assert polled[taken[4]].reason == "Priority"
    assert len(fake.calls("squeue")) == 1


def test_a_job_that_waits_for_ever_is_told_so(fake: Fake) -> None:
    """For a person to mend."""
    queue = Slurm()
    taken = queue.submit_many(job(1))
    fake.put("17", 0, "PENDING", "PartitionTimeLimit")
    assert queue.poll(taken)[taken[0]].never


@pytest.mark.parametrize("mood", ["down", "garbage"])
def test_no_answer_is_not_gone(fake: Fake, mood: str, tmp_path: Path) -> None:
    """It is an error; and it is not kept for the next command."""
    taken = a_while_ago(tmp_path)
    fake.set(moods=[["squeue", mood]])
    with pytest.raises(QueueError):
        Slurm().poll(taken, max_age=30)
    assert states(Slurm(), taken, 30) == [JobState.QUEUED]


def test_a_squeue_that_hangs(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is stopped."""
    monkeypatch.setattr(slurm_programs, "TIMEOUT", 0.5)
    fake.set(moods=[["squeue", "hang"]])
    with pytest.raises(QueueError, match="no answer"):
        Slurm().poll(ids("17_0"))


def test_a_line_that_cannot_be_understood_may_be_about_our_jobs(fake: Fake) -> None:
    """They are not gone; who looks for them is told that it cannot be said."""
    taken = Slurm().submit_many(job(1))
    Slurm().submit_many(job(1, token="psy:other"))
    state = fake.read()
    state["jobs"][0]["array"] = "17_[0,...,"
    fake.write(state)
    assert states(Slurm(), taken) == [JobState.UNKNOWN]
    assert states(Slurm(), ids("5_0", token="psy:third")) == [JobState.GONE]
    with pytest.raises(QueueError, match="cannot be understood"):
        Slurm().find(TOKEN)


def test_an_array_that_was_ended_as_a_whole(fake: Fake) -> None:
    """Slurm lists only its number: that is each element of it which is not listed alone."""
    taken = Slurm().submit_many(job(3))
    state = fake.read()
    state["jobs"][0]["elements"] = {"1": ["RUNNING", "None"]}
    ended = {"array": "17|CANCELLED|JobHeldUser|psy:0123abcd|x\n17", "elements": {"1": ["RUNNING", "None"]}}
    state["jobs"][0] |= ended
    fake.write(state)
    assert states(Slurm(), taken) == [JobState.CANCELLED, JobState.RUNNING, JobState.CANCELLED]


def test_a_job_of_somebody_elses_token_is_not_ours(fake: Fake) -> None:
    """The number was used again: the job is neither told of as ours nor ended."""
    taken = Slurm().submit_many(job(2, token="psy:foreign"))
    ours = [JobId(id_.id, TOKEN) for id_ in taken]
    assert states(Slurm(), ours) == [JobState.GONE, JobState.GONE]
    assert states(Slurm(), [*ours, *taken])[:2] == [JobState.GONE, JobState.GONE]
    Slurm().cancel(ours)
    Slurm().cancel([*ours, JobId("99_0", "psy:foreign")])
    assert fake.calls("scancel") == []
    assert Slurm().find(TOKEN) == []
    assert states(Slurm(), taken) == [JobState.QUEUED, JobState.QUEUED]


# Answers that are shared


def test_commands_share_an_answer_for_a_while(fake: Fake, tmp_path: Path) -> None:
    """Within the age that they take; without one, each asks."""
    taken = a_while_ago(tmp_path, 2)
    assert states(Slurm(), taken, 30) == states(Slurm(), taken, 30)
    assert len(fake.calls("squeue")) == 1
    states(Slurm(), taken)
    assert len(fake.calls("squeue")) == 2


def test_a_command_asks_once(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing can be kept for others; but a loop that waits sees what is new."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    queue = Slurm()
    taken = queue.submit_many(job(2))
    assert states(queue, taken, 30) == states(queue, taken, 30)
    assert len(fake.calls("squeue")) == 1
    fake.put("17", 0, "COMPLETED")
    assert states(queue, taken) == [JobState.DONE, JobState.QUEUED]


def test_an_answer_is_dropped_when_something_is_submitted_or_cancelled(fake: Fake) -> None:
    """A new job is in no older answer, and must not come out as gone, however old an answer may be."""
    first, second = Slurm(), Slurm()
    one = first.submit_many(job(1))
    assert states(second, one, 999) == [JobState.QUEUED]
    two = second.submit_many(job(1))
    assert states(second, two, 999) == states(Slurm(), two, 999) == [JobState.QUEUED]
    second.cancel(one)
    assert states(second, one, 999) == states(Slurm(), one, 999) == [JobState.CANCELLED]


def test_an_answer_that_was_asked_for_before_a_job_and_comes_after_it(
    fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two commands at once: the slow listing of one is not kept for the other."""
    taken: list[JobId] = []
    ask = slurm_programs.list_jobs

    def slow() -> str:
        answer = ask()
        taken.extend(a_while_ago(tmp_path))
        return answer

    monkeypatch.setattr("psyrun.scheduler.slurm.list_jobs", slow)
    Slurm().poll([], 30)
    monkeypatch.setattr("psyrun.scheduler.slurm.list_jobs", ask)
    assert states(Slurm(), taken, 30) == [JobState.QUEUED]


def kept(tmp_path: Path) -> Path:
    """Return the file of the last listing."""
    (file,) = [p for p in (tmp_path / "cache/psyrun").iterdir() if p.name.startswith("slurm-jobs") and not p.suffix]
    return file


def make_older(tmp_path: Path, seconds: float) -> None:
    """Have the last listing be of so many seconds ago, and what was changed before it a second older."""
    changed = kept(tmp_path).with_name(f"{kept(tmp_path).name}.changed")
    for file, age in ((kept(tmp_path), seconds), (changed, seconds + 1)):
        os.utime(file, (time.time() - age, time.time() - age))


def test_an_answer_has_the_age_that_it_had(fake: Fake, tmp_path: Path) -> None:
    """Also in the command that found it."""
    queue, taken = Slurm(), a_while_ago(tmp_path)
    states(Slurm(), taken)
    make_older(tmp_path, 20)
    states(queue, taken, 30)
    assert len(fake.calls("squeue")) == 1
    states(queue, taken, 10)
    assert len(fake.calls("squeue")) == 2


def test_whose_answers_are_trusted(fake: Fake, tmp_path: Path) -> None:
    """Not those of the future, and not those that others can write; and others can read none."""
    taken = a_while_ago(tmp_path)
    states(Slurm(), taken, 30)
    assert kept(tmp_path).stat().st_mode & 0o777 == 0o600
    assert kept(tmp_path).parent.stat().st_mode & 0o777 == 0o700
    make_older(tmp_path, -100)
    states(Slurm(), taken, 30)
    assert len(fake.calls("squeue")) == 2
    kept(tmp_path).chmod(0o666)
    states(Slurm(), taken, 30)
    assert len(fake.calls("squeue")) == 3
    make_older(tmp_path, 31)
    states(Slurm(), taken, 30)
    assert len(fake.calls("squeue")) == 4


def test_another_cluster_has_answers_of_its_own(fake: Fake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Told by its configuration."""
    taken = a_while_ago(tmp_path)
    states(Slurm(), taken, 30)
    monkeypatch.setenv("SLURM_CONF", "/elsewhere")
    states(Slurm(), taken, 30)
    assert len(fake.calls("squeue")) == 2


# Ending


def test_only_what_was_asked_for_is_ended(fake: Fake) -> None:
    """By one command: elements in short, an array as a whole, and nothing that is over."""
    queue = Slurm()
    first, second = queue.submit_many(job(8)), queue.submit_many(job(3))
    other = queue.submit_many(job(2, token="psy:other"))
    fake.put("17", 7, "COMPLETED")
    fake.put("18", 2, "FAILED")
    queue.cancel([*(first[n] for n in (0, 1, 2, 5, 7)), *second])
    (call,) = fake.calls("scancel")
    assert call["words"] == ["17_[0-2,5]", "18"]
    assert states(queue, [first[3], *second, *other]) == [
        *(JobState.QUEUED, JobState.CANCELLED, JobState.CANCELLED, JobState.FAILED),
        *[JobState.QUEUED] * 2,
    ]
    queue.cancel(second)
    queue.cancel([])
    assert len(fake.calls("scancel")) == 1


def test_an_array_is_not_ended_as_a_whole_if_not_all_of_it_is_seen(fake: Fake) -> None:
    """A line that cannot be understood may be about the rest of it."""
    taken = Slurm().submit_many(job(3))
    state = fake.read()
    state["jobs"][0]["name"] = f"square\n17_[3,4,...,|RUNNING|None|{TOKEN}|square"
    fake.write(state)
    Slurm().cancel(taken)
    assert fake.calls("scancel")[0]["words"] == ["17_[0-2]"]


def test_what_cannot_be_ended(fake: Fake) -> None:
    """It is told; without a listing nothing is tried."""
    taken = Slurm().submit_many(job(1))
    fake.set(moods=[["scancel", "down"]])
    with pytest.raises(QueueError, match=r"scancel 17: .*again later"):
        Slurm().cancel(taken)
    fake.set(moods=[["squeue", "down"]])
    with pytest.raises(QueueError, match="squeue"):
        Slurm().cancel(taken)
    assert len(fake.calls("scancel")) == 1


def test_how_jobs_ended(fake: Fake) -> None:
    """Where there is accounting."""
    taken = Slurm().submit_many(job(2))
    assert Slurm().ended(taken) == Slurm().ended([]) == {}
    fake.set(sacct="17_0|FAILED|1:0||00:00:05|1G\n17_0.batch|FAILED|1:0|20M|00:00:05|\n18_0|FAILED|1:0||00:00:05|1G")
    assert Slurm().ended(taken) == {taken[0]: "FAILED after 00:00:05, exit status 1:0, used 20M of 1G"}


# Before anything is submitted


def test_a_time_above_the_limit_of_the_partition(fake: Fake) -> None:
    """Slurm would take the jobs, and keep them for ever; the error tells who takes them."""
    line = "PartitionName={} Default={} MaxTime={} State=UP"
    rows = [("short", "YES", "01:00:00"), ("long", "NO", "7-00:00:00"), ("any", "NO", "UNLIMITED")]
    fake.set(partitions="\n".join(line.format(*row) for row in rows))
    queue = Slurm()
    queue.check_submission(job())
    queue.check_submission(job(timelimit=3600))
    with pytest.raises(
        TaskError, match=r"wait for ever.*'short' takes jobs of up to 60 minutes.*'long', 'any'"
    ) as told:
        queue.check_submission(job(timelimit=7200))
    assert "Set 'partition'" in str(told.value)
    for partition in ("long", "any", "short,long", "unknown"):
        queue.check_submission(job(timelimit=7200, partition=partition))
    with pytest.raises(TaskError, match=r"'short'.*'long'.*take it: 'any'"):
        queue.check_submission(job(timelimit=10**6, partition="short,long"))
    fake.set(moods=[["scontrol", "down"]])
    queue.check_submission(job(timelimit=7200))


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"time_limit": "1h"}, "Did you mean 'timelimit'"),
        ({"memory": "1G", "memory_per_cpu": "1G"}, "not both"),
        ({"extra": ["--array=0-9"]}, "psyrun sets itself"),
        ({"extra": ["--arr=0-9"]}, "psyrun sets itself"),
        ({"extra": ["-a0-9"]}, "psyrun sets itself"),
    ],
)
def test_arguments_are_checked(args: dict[str, Any], error: str) -> None:
    """When the task file is read."""
    with pytest.raises(TaskError, match=error):
        Slurm().check(args)


def test_arguments_that_are_taken() -> None:
    """Without a look at any Slurm."""
    Slurm().check({"timelimit": "1h", "memory": ["1G", "2G"], "extra": ["--exclusive", "-Cavx2", "--hold"]})


def test_a_preview_is_what_is_submitted(fake: Fake) -> None:
    """As one could type it; nothing is submitted."""
    text = Slurm().preview(job(2, constraint="a&b"))
    assert "sbatch --parsable --comment=psy:0123abcd --job-name=square --array=0-1 " in text
    assert "'--constraint=a&b'" in text
    assert "exec '/bin/true'\n" in text
    assert fake.calls("sbatch") == []


def test_as_psyrun_0_8_had_it() -> None:
    """With or without the directory that it took; making one does nothing."""
    assert repr(psyrun.Slurm()) == "Slurm()"
    assert repr(psyrun.Slurm("/nowhere/x")) == "Slurm(workdir='/nowhere/x')"
    assert not Slurm.local


def test_what_waits_is_cancelled_alone(fake: Fake) -> None:
    """What started since it was listed goes on, and squeue is asked once."""
    taken = Slurm().submit_many(job(3))
    fake.put("17", 1, "RUNNING")
    queue = Slurm()
    assert queue.cancel_waiting(taken) == ids("17_0", "17_2")
    assert states(queue, taken) == [JobState.CANCELLED, JobState.RUNNING, JobState.CANCELLED]
    (call,) = fake.calls("scancel")
    assert call["words"] == ["--state=PENDING", "17_[0,2]"]
    assert len(fake.calls("squeue")) == 2


def test_a_machine_without_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told by what to do: to type the command again later does not help."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(QueueError, match=r"no squeue on this machine\. Type the command on a login node"):
        Slurm().poll(ids("7_0"))
