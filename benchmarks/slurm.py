"""What psyrun costs on Slurm, beside plain sbatch and submitit: alternating runs, the median of each.

    python benchmarks/slurm.py [--runs 5] [NAME...]

Run it with the interpreter of an environment that psyrun is installed in; submitit is installed (from PyPI) into an
environment of its own. It uses the cluster of SLURM_CONF, if no job of yours is in
its queue, or else starts one of three nodes on this machine.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PYTHON = sys.executable
PSY_DOIT = str(Path(PYTHON).with_name("psy-doit"))
SCRIPTS = Path(__file__).parents[1] / "tests" / "cluster"
N_CHUNKS, N_ELEMENTS = 1000, 50

TASK = f"""
import time
import psyrun
pspace = psyrun.Param(x=range({N_CHUNKS}))
scheduler = psyrun.Slurm()
max_jobs = {N_CHUNKS}
min_items = 1
def execute(x):
    time.sleep(0.001)
    return {{'y': x}}
"""

PLAIN = "exec python3 -c 'import time; time.sleep(0.001)'"

SUBMITIT = """
import sys, time
import submitit
executor = submitit.SlurmExecutor(folder=sys.argv[1])
executor.update_parameters(time=5, array_parallelism=1000, stderr_to_stdout=True)
start = time.perf_counter()
jobs = executor.map_array(time.sleep, [0.001] * int(sys.argv[2]))
while not all(job.paths.result_pickle.exists() for job in jobs):
    time.sleep(0.05)
print(time.perf_counter() - start)
"""

# In process, as a submission by psyrun does it, without what the command does beside.
SUBMIT_MANY = """
import sys, time
from pathlib import Path
import psyrun
from psyrun.scheduler.base import Job
here = Path.cwd()
command = ("/bin/sleep", "0.001")
job = Job("bench", f"bench-{time.time_ns()}", command, here, here, n=100)
scheduler = psyrun.Slurm()
start = time.perf_counter()
scheduler.submit_many(job)
print(time.perf_counter() - start)
"""


class Bench:
    """The things to measure, in a directory; each method returns seconds."""

    def __init__(self, root: Path):
        self.root = root
        (root / "psy-tasks").mkdir()
        (root / "psy-tasks" / "task_t.py").write_text(TASK)
        (root / "submitit.d").mkdir()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, check=False, cwd=self.root, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def idle(self) -> None:
        """Wait until the queue is empty, so that no run pays for the one before it."""
        while self.run("squeue", "-h", "--me"):
            time.sleep(0.2)

    def fresh(self) -> None:
        """Forget the task, and end its jobs: their work is gone."""
        self.run("scancel", "--me")
        self.idle()
        shutil.rmtree(self.root / "psy-work", ignore_errors=True)

    def psyrun(self) -> float:
        """From typing the command until the result is in place."""
        self.fresh()
        start = time.perf_counter()
        self.run(PSY_DOIT, "t")
        while not (self.root / "psy-work" / "t" / "result.npz").exists():
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        self.run(PSY_DOIT, "wait", "t")  # ends with another status if not all is done
        return seconds

    def psyrun_submits(self) -> float:
        self.fresh()
        start = time.perf_counter()
        self.run(PSY_DOIT, "t")
        return time.perf_counter() - start

    def submit_many(self) -> float:
        self.fresh()
        return float(self.run(PYTHON, "-c", SUBMIT_MANY))

    def sbatch(self, n: int) -> str:
        words = ("--parsable", "-o", "/dev/null", f"--array=0-{n - 1}", "--wrap", PLAIN)
        return self.run("sbatch", *words).strip()

    def sbatch_submits(self) -> float:
        self.fresh()
        start = time.perf_counter()
        self.sbatch(100)
        return time.perf_counter() - start

    def plain(self) -> float:
        self.fresh()
        start = time.perf_counter()
        job = self.sbatch(N_ELEMENTS)
        while self.run("squeue", "-h", "-j", job):
            time.sleep(0.05)
        return time.perf_counter() - start

    def submitit(self) -> float:
        self.fresh()
        python = self.root / "venv" / "bin" / "python"
        if not python.exists():
            self.run(PYTHON, "-m", "venv", str(self.root / "venv"))
            self.run(str(python), "-m", "pip", "install", "-q", "submitit")
        return float(self.run(str(python), "-c", SUBMITIT, str(self.root / "submitit.d"), str(N_ELEMENTS)))


def cases(bench: Bench) -> dict[str, tuple[str, Callable[[], float], int]]:
    """Return what each is called, measures, and how many chunks (or submissions) that is."""
    return {
        "psyrun": ("psyrun, a chunk of 1000", bench.psyrun, N_CHUNKS),
        "plain": ("an element of a plain array of 50", bench.plain, N_ELEMENTS),
        "submitit": ("submitit, an element of map_array of 50", bench.submitit, N_ELEMENTS),
        "psyrun_submits": ("psy-doit submits", bench.psyrun_submits, 1),
        "submit_many": ("submit_many of 100, in process", bench.submit_many, 1),
        "sbatch_submits": ("sbatch --array=0-99", bench.sbatch_submits, 1),
    }


def compare(bench: Bench, names: list[str], runs: int) -> None:
    """Measure in turns, and print the table and the ratios."""
    chosen = {name: case for name, case in cases(bench).items() if name in names}
    found: dict[str, list[float]] = {name: [] for name in chosen}
    for i in range(runs + 1):
        for name, (_, measured, n) in chosen.items():
            seconds = measured() / n
            if i:  # the first round warms the caches
                found[name].append(seconds)
    medians = {name: statistics.median(times) for name, times in found.items()}
    print(f"{'what':42} {'ms':>9} {'least':>9} {'most':>9}")
    for name, times in found.items():
        told = " ".join(f"{1000 * seconds:9.2f}" for seconds in (medians[name], min(times), max(times)))
        print(f"{chosen[name][0]:42} {told}")
    beside = [("psyrun", "plain"), ("psyrun", "submitit"), ("submitit", "plain")]
    for ours, other in [*beside, ("psyrun_submits", "sbatch_submits"), ("submit_many", "sbatch_submits")]:
        if ours in found and other in found:
            ratio = statistics.median(a / b for a, b in zip(found[ours], found[other], strict=True))
            print(f"{ours} / {other}: {ratio:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ["psyrun", "plain", "submitit", "psyrun_submits", "submit_many", "sbatch_submits"]
    parser.add_argument("names", nargs="*", help=f"which: {' '.join(every)}; default all")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    if unknown := set(given.names) - set(every):
        parser.error(f"{', '.join(sorted(unknown))}: take of {' '.join(every)}")
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    started = "" if os.environ.get("SLURM_CONF") else str(root / "slurm")
    try:
        if started:
            subprocess.run([SCRIPTS / "slurm-up", started], check=True, env={**os.environ, "MAX_JOBS": "20000"})
            os.environ["SLURM_CONF"] = str(root / "slurm" / "slurm.conf")
        bench = Bench(root)
        if bench.run("squeue", "-h", "--me"):  # all jobs are cancelled between runs
            raise SystemExit("There are jobs of yours in the queue. Type when they are over, or without SLURM_CONF")
        compare(bench, given.names or every, given.runs)
    finally:
        if started:
            subprocess.run([SCRIPTS / "slurm-down", started], check=True)
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
