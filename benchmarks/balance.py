"""How well items of very different lengths are balanced, beside what others make of them.

    python benchmarks/balance.py [--runs 1] [--seeds 5] [--only NAME...]

200 items sleep for times drawn from a log-normal distribution (sigma 1), 40 s in all, eight at a time. Each way is a
whole process, run in turns, in an empty directory; a way that cannot be run here is told and left out. The bounds are
of the times alone: the mean load or the longest item, and what longest-processing-time list scheduling makes of them.

Items sleep, so that eight run at a time on fewer cores, but starting eight programs (`apart`) takes cores: in brackets
stands the time from the start of the first item to the end of the last one, by the record.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from psyrun.claims import DONE
from psyrun.plan import Plan
from psyrun.record import read_parts
from psyrun.run import Choices, Run
from psyrun.tasks import load_task
from psyrun.workdir import Workdir

PYTHON = sys.executable
PSY_DOIT = str(Path(PYTHON).with_name("psy-doit"))
N_ITEMS, N_WORKERS, SECONDS = 200, 8, 40.0

TASK = """
import time
import psyrun
seconds = {seconds}
pspace = psyrun.Param(x=range(len(seconds)))
backend = psyrun.{backend}
max_jobs = {workers}
workdir = {work!r}
{more}
def execute(x):
    time.sleep(seconds[x])
    return {{'y': seconds[x]}}
"""

COST = """
def cost(x):
    return seconds[x]
"""

PEER = """
import sys, time
import numpy as np
seconds = {seconds}
def execute(x):
    time.sleep(seconds[x])
    return {{'x': x, 'y': seconds[x]}}
if __name__ == '__main__':
    n = len(seconds)
    {rows}
    rows.sort(key=lambda row: row['x'])
    np.savez('result.npz', **{{name: np.array([row[name] for row in rows]) for name in rows[0]}})
"""

PEERS = {
    "pool": """
    from multiprocessing import Pool
    with Pool({workers}) as pool:
        rows = list(pool.imap_unordered(execute, range(n), chunksize=1))
""",
    "joblib": """
    from joblib import Parallel, delayed
    rows = Parallel(n_jobs={workers})(delayed(execute)(x) for x in range(n))
""",
    "dask": """
    from dask.distributed import Client, LocalCluster
    with LocalCluster(n_workers={workers}, threads_per_worker=1, dashboard_address=None) as cluster:
        with Client(cluster) as client:
            rows = client.gather(client.map(execute, range(n)))
""",
}

WAYS = {
    "pool": "multiprocessing.Pool, imap_unordered by 1",
    "balanced": "psy-doit, LoadBalancingBackend",
    "again": "the same, with recorded durations (--again)",
    "cost": "the same, with the option cost",
    "fixed": "psy-doit, DistributeBackend",
    "joblib": "joblib",
    "dask": "Dask distributed",
    "apart": "8 workers apart, LoadBalancingBackend",
    "apart_fixed": "8 workers apart, DistributeBackend",
    "start": "psy-doit, one item of 0 s",
    "start_pool": "multiprocessing.Pool, one item of 0 s",
}


class CannotRunError(Exception):
    """What a way needs is not installed here."""


def drawn(seed: int) -> list[float]:
    """Return the seconds that the items of a seed take."""
    generator = random.Random(seed)
    times = [generator.lognormvariate(0, 1) for _ in range(N_ITEMS)]
    return [SECONDS * x / sum(times) for x in times]


def longest_first(times: list[float], n_machines: int = N_WORKERS) -> float:
    """Return the makespan if the longest comes first, each to the machine that is free first.

    >>> longest_first([2, 2, 3, 3, 2], 2)
    7
    """
    ends = [type(times[0])(0)] * n_machines
    for seconds in sorted(times, reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


class Bench:
    """The ways to run the items of one seed, in a directory; each returns seconds, and those of the items alone."""

    def __init__(self, root: Path, times: list[float]):
        self.root = root
        self.times = times
        self.tasks = root / "psy-tasks"
        self.tasks.mkdir()

    def write(self, name: str, times: list[float], backend: str, more: str = "") -> None:
        text = TASK.format(seconds=times, backend=backend, workers=N_WORKERS, work=str(self.root / "work"), more=more)
        (self.tasks / f"task_{name}.py").write_text(text)

    def run(self, *command: str) -> float:
        """Run a command to its end."""
        start = time.perf_counter()
        done = subprocess.run(command, check=False, cwd=self.root, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        if "ModuleNotFoundError" in done.stderr:
            raise CannotRunError(done.stderr.splitlines()[-1])
        if done.returncode:
            raise SystemExit(f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}")
        return seconds

    def _doit(self, name: str, *words: str, n: int = N_ITEMS) -> tuple[float, float]:
        seconds = self.run(PSY_DOIT, "run", name, "-n", str(N_WORKERS), *words)
        return seconds, self.check(Workdir(self.root / "work" / name), n)

    def _peer(self, kind: str, times: list[float]) -> tuple[float, float]:
        rows = PEERS[kind].strip().format(workers=N_WORKERS)
        (self.root / f"with_{kind}.py").write_text(PEER.format(seconds=times, rows=rows))
        seconds = self.run(PYTHON, f"with_{kind}.py")
        with np.load(self.root / "result.npz") as result:
            assert result["y"].tolist() == times
        return seconds, 0.0

    def check(self, workdir: Workdir, n: int) -> float:
        """Check that each item was done once; return the seconds from the first item's start to the last one's end."""
        parts = list(read_parts(workdir))
        indices = np.sort(np.concatenate([part.indices for part in parts]))
        assert indices.tolist() == list(range(n)), f"{len(indices)} rows of {n}"
        starts, durations = (np.concatenate([p.joined(name) for p in parts]) for name in ("start", "duration"))
        return float((starts + durations).max() - starts.min())

    def pool(self) -> tuple[float, float]:
        return self._peer("pool", self.times)

    def joblib(self) -> tuple[float, float]:
        return self._peer("joblib", self.times)

    def dask(self) -> tuple[float, float]:
        return self._peer("dask", self.times)

    def start_pool(self) -> tuple[float, float]:
        return self._peer("pool", [0.0])

    def start(self) -> tuple[float, float]:
        self.write("start", [0.0], "LoadBalancingBackend()")
        return self._doit("start", n=1)

    def balanced(self) -> tuple[float, float]:
        self.write("balanced", self.times, "LoadBalancingBackend()")
        return self._doit("balanced")

    def again(self) -> tuple[float, float]:
        if not (self.root / "work" / "balanced").exists():
            self.balanced()
        return self._doit("balanced", "--again")

    def cost(self) -> tuple[float, float]:
        self.write("cost", self.times, "LoadBalancingBackend()", COST)
        return self._doit("cost")

    def fixed(self) -> tuple[float, float]:
        self.write("fixed", self.times, "DistributeBackend()")
        return self._doit("fixed")

    def apart(self) -> tuple[float, float]:
        self.write("apart", self.times, "LoadBalancingBackend()")
        return self._apart("apart")

    def apart_fixed(self) -> tuple[float, float]:
        self.write("apart_fixed", self.times, "DistributeBackend()")
        return self._apart("apart_fixed")

    def _apart(self, name: str) -> tuple[float, float]:
        """Have eight programs of one child each work on one plan, as jobs of a queue do."""
        run = Run(load_task(name, self.tasks), Choices())
        run.prepare()
        run.split()
        plan = Plan.read(run.workdir.plans / run.workdir.plan_ids()[-1])
        command = [PYTHON, "-m", "psyrun.worker", str(run.workdir.path), plan.id, "--children", "1"]
        start = time.perf_counter()
        workers = [subprocess.Popen(command, cwd=self.root) for _ in range(N_WORKERS)]
        statuses = [worker.wait() for worker in workers]
        seconds = time.perf_counter() - start
        assert not any(statuses), statuses
        assert sum(len(token) for token in plan.claims().tokens(DONE)) == N_ITEMS
        return seconds, self.check(run.workdir, N_ITEMS)


def measure(times: list[float], names: list[str], missing: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Run each way once, in an empty directory."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    found: dict[str, tuple[float, float]] = {}
    try:
        bench = Bench(root, times)
        for name in names:
            if name not in missing:
                way: Callable[[], tuple[float, float]] = getattr(bench, name)
                try:
                    found[name] = way()
                except CannotRunError as error:
                    missing[name] = str(error)
    finally:
        shutil.rmtree(root)
    return found


class Table:
    """Ways in lines: seconds, those of the items alone, and both ratios, as medians of the runs."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[float, float, float, float]]] = {}

    def add(self, found: dict[str, tuple[float, float]], bound: float) -> None:
        beside = found.get("pool", (float("nan"),))[0]
        for name, (seconds, alone) in found.items():
            self.rows.setdefault(name, []).append((seconds, alone, seconds / beside, seconds / bound))

    def show(self, what: str) -> None:
        print(f"{what:44} {'s':>7} {'(items)':>9} {'/ pool':>7} {'/ bound':>7} {'least':>7} {'most':>7}")
        for name, rows in self.rows.items():
            seconds, alone, beside, bound = (statistics.median(column) for column in zip(*rows, strict=True))
            told = f"({alone:.2f})" if alone else ""
            line = f"{WAYS[name]:44} {seconds:7.2f} {told:>9}"
            if not name.startswith("start"):
                ratios = [row[3] for row in rows]
                line += f" {beside:7.3f} {bound:7.3f} {min(ratios):7.3f} {max(ratios):7.3f}"
            print(line)
        print(flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1, help="Runs of each seed.")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="NAME")
    given = parser.parse_args()
    missing: dict[str, str] = {}
    total = Table()
    for seed in range(given.seeds):
        times, table = drawn(seed), Table()
        least, bound = max(SECONDS / N_WORKERS, *times), longest_first(times)
        for _ in range(given.runs):
            found = measure(times, given.only, missing)
            table.add(found, bound)
            total.add(found, bound)
        table.show(f"seed {seed}: at least {least:.2f} s, longest first {bound:.2f} s")
    total.show(f"all seeds, medians; on {os.cpu_count()} cores")
    for name, why in missing.items():
        print(f"not run: {WAYS[name]}: {why}")


if __name__ == "__main__":
    main()
