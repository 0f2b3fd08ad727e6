"""Programs that say what Slurm's say, for tests: their state, their moods and a log of all calls are in one directory.

Run as ``python slurm.py <program> <words>`` by the small programs that `Fake.install` makes.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sacct")
POLICY = "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
FAILED = "sbatch: error: Batch job submission failed: "
TIMED_OUT = "Socket timed out on send/recv operation"
DOWN = "Unable to contact slurm controller (connect failure)"


class Fake:
    """A Slurm that is a file.

    Its moods are replayed one a call of the program that they are for: ``["sbatch", "accept, time out"]``.
    """

    def __init__(self, directory: Path):
        self.directory = directory

    def install(self) -> Path:
        """Make the programs, and return the directory that they are in."""
        programs = self.directory / "bin"
        programs.mkdir(parents=True)
        for name in PROGRAMS:
            text = f'#!/bin/sh\nFAKE_SLURM="{self.directory}" exec "{sys.executable}" -S "{__file__}" {name} "$@"\n'
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        self.write({"next": 17, "jobs": [], "moods": [], "size": 1001, "limit": None, "partitions": "", "sacct": None})
        return programs

    def read(self) -> dict[str, Any]:
        """Return the state."""
        return json.loads((self.directory / "state.json").read_text())  # type: ignore[no-any-return]

    def write(self, state: dict[str, Any]) -> None:
        """Put a state in place."""
        (self.directory / "state.json").write_text(json.dumps(state))

    def set(self, **changes: Any) -> None:
        """Change parts of the state."""
        self.write(self.read() | changes)

    def put(self, array: str, number: int, word: str, reason: str = "None") -> None:
        """Change the state of one element."""
        state = self.read()
        for job in state["jobs"]:
            if job["array"] == array:
                job["elements"][str(number)] = [word, reason]
        self.write(state)

    def calls(self, program: str) -> list[dict[str, Any]]:
        """Return the calls of a program: its words, its standard input and its environment."""
        log = self.directory / "log"
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [call for call in calls if call["program"] == program]

    @contextmanager
    def alone(self) -> Iterator[dict[str, Any]]:
        """Give the state to one program at a time, and keep what it makes of it."""
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.read()
            yield state
            self.write(state)


def mood_for(state: dict[str, Any], program: str) -> str:
    """Take the first mood that is for a program."""
    for mood in state["moods"]:
        if mood[0] == program:
            state["moods"].remove(mood)
            return str(mood[1])
    return ""


def fail(text: str) -> int:
    """Say what is wrong."""
    sys.stderr.write(text + "\n")
    return 1


def alive(job: dict[str, Any]) -> list[str]:
    """Return the numbers of the elements that wait or run."""
    return [number for number, (word, _) in job["elements"].items() if word in ("PENDING", "RUNNING")]


def sbatch(state: dict[str, Any], words: list[str], mood: str) -> int:
    """Take an array, or not, and tell so, or not."""
    options = dict(word.split("=", 1) for word in words if "=" in word)
    if mood == "down":
        return fail(FAILED + DOWN)
    if mood.startswith("refuse: "):
        return fail(FAILED + mood.removeprefix("refuse: "))
    if mood == "time out":
        return fail(FAILED + TIMED_OUT)
    n = int(options["--array"].partition("%")[0].removeprefix("0-")) + 1
    if n > state["size"]:
        return fail(FAILED + "Invalid job array specification")
    if state["limit"] is not None and sum(len(alive(job)) for job in state["jobs"]) + n > state["limit"]:
        return fail(f"sbatch: error: QOSMaxSubmitJobPerUserLimit\n{FAILED}{POLICY}")
    array = str(state["next"])
    state["next"] += 1
    elements = {str(number): ["PENDING", "Priority"] for number in range(n)}
    # Slurm may be busy: so many listings do not have it yet.
    late = int(mood.removeprefix("accept late, time out ")) if "late" in mood else 0
    job = {"array": array, "comment": options["--comment"], "name": options["--job-name"], "late": late}
    state["jobs"].append(job | {"elements": elements})
    if "time out" in mood:
        return fail(FAILED + TIMED_OUT)
    print("no id" if mood == "accept, no id" else f"{array};cluster")
    return 0


def squeue(state: dict[str, Any], words: list[str], mood: str) -> int:
    """List all elements; those that wait in one line."""
    if mood == "down":
        return fail(f"slurm_load_jobs error: {DOWN}")
    if mood == "garbage":
        print("<html>502 Bad gateway</html>")
        return 0
    for job in state["jobs"]:
        if job["late"]:
            job["late"] -= 1
            continue
        groups: dict[tuple[str, str], list[str]] = {}
        for number, (word, reason) in job["elements"].items():
            groups.setdefault((word, reason), []).append(number)
        for (word, reason), numbers in groups.items():
            ids = [f"{job['array']}_{number}" for number in numbers]
            if word == "PENDING" and len(numbers) > 1:
                ids = [f"{job['array']}_[{','.join(numbers)}%3]"]
            if mood == "as a whole":
                ids = [job["array"]]
            if mood == "truncate":
                ids = [f"{job['array']}_[0,1,...,2"]
            for id_ in ids:
                print(f"{id_}|{word}|{reason}|{job['comment']}|{job['name']}")
    return 0


def scancel(state: dict[str, Any], words: list[str], mood: str) -> int:
    """End elements or whole arrays; with --state=PENDING only what did not start."""
    if mood == "down":
        return fail(f"scancel: error: {DOWN}")
    pending = "--state=PENDING" in words
    for word in words:
        array, _, part = word.partition("_")
        numbers: set[str] = set()
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", part):
            numbers |= {str(number) for number in range(int(first), int(last or first) + 1)}
        for job in state["jobs"]:
            if job["array"] == array:
                for number in alive(job):
                    if (not part or number in numbers) and not (pending and job["elements"][number][0] != "PENDING"):
                        job["elements"][number] = ["CANCELLED", "None"]
    return 0


def scontrol(state: dict[str, Any], words: list[str], mood: str) -> int:
    """Tell the configuration."""
    if mood == "down":
        return fail(DOWN)
    print(state["partitions"] if words[1] == "partition" else f"MaxArraySize            = {state['size']}")
    return 0


def sacct(state: dict[str, Any], words: list[str], mood: str) -> int:
    """Tell what is on record, which is nothing on many sites."""
    if state["sacct"] is None:
        return fail("Slurm accounting storage is disabled")
    print(state["sacct"])
    return 0


def main() -> int:
    """Run one program."""
    fake = Fake(Path(os.environ.pop("FAKE_SLURM")))
    name, words = sys.argv[1], sys.argv[2:]
    call = {"program": name, "words": words, "environment": dict(os.environ)}
    with fake.alone() as state:
        call["stdin"] = sys.stdin.read() if name == "sbatch" else ""
        with (fake.directory / "log").open("a") as log:
            log.write(json.dumps(call) + "\n")
        mood = mood_for(state, name)
        run = {"sbatch": sbatch, "squeue": squeue, "scancel": scancel, "scontrol": scontrol, "sacct": sacct}[name]
        status = 0 if mood == "hang" else run(state, words, mood.removesuffix(", hang"))
        sys.stdout.flush()
    if mood.endswith("hang"):
        time.sleep(60)
    return status


if __name__ == "__main__":
    sys.exit(main())
