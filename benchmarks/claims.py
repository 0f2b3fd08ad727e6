"""How many chunks a second processes can claim and finish when all want the same ones, and that each is had once.

    python benchmarks/claims.py [--runs 5] [--tokens 10000] [--profile]

Each process goes as a worker does: it lists the tokens of a plan, claims one after the other, and marks it as done;
the items cost nothing, and nothing is written of them. Beside it, in turns, as many processes do the two renames of
their own share of as many files, which nobody else wants: what the file system allows. The last line has one of the
processes killed (SIGKILL) when a third is done; the others take over what it held.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import shutil
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.claims import DONE, Beat, Observer, Token, new_worker_id
from psyrun.holdings import Holdings
from psyrun.plan import Plan
from psyrun.run import Choices, Run
from psyrun.tasks import load_task
from psyrun.workdir import Workdir

FORK = multiprocessing.get_context("fork")

TASK = """
import psyrun
pspace = psyrun.Param(x=range({n}))
workdir = {work!r}
max_jobs = {n}
min_items = 1
def execute(x):
    return {{'y': x}}
"""


@dataclass
class Seen:
    """What processes write into shared memory, so that it is there when they are killed.

    Attributes
    ----------
    times : array of float64, shape (n_processes, 2)
        When each began and ended.
    taken : array of int64, shape (n_processes, n_tokens)
        How often each was dealt the item of a token.
    """

    times: Any
    taken: Any

    @classmethod
    def of(cls, n_processes: int, n_tokens: int) -> Seen:
        times = np.frombuffer(mmap(-1, 16 * n_processes)).reshape(n_processes, 2)
        return cls(times, np.frombuffer(mmap(-1, 8 * n_processes * n_tokens), np.int64).reshape(n_processes, n_tokens))

    def seconds(self) -> float:
        """From the first that began to the last that ended."""
        ended = self.times[self.times[:, 1] > 0]
        return float(ended[:, 1].max() - ended[:, 0].min())


def planned(root: Path, n: int) -> tuple[Workdir, Plan]:
    """Make a plan of n tokens, one item each, in an empty directory."""
    (root / "psy-tasks").mkdir()
    (root / "psy-tasks" / "task_t.py").write_text(TASK.format(n=n, work=str(root / "work")))
    run = Run(load_task("t", root / "psy-tasks"), Choices())
    run.prepare()
    run.split()
    return run.workdir, Plan.read(run.workdir.plans / run.workdir.plan_ids()[-1])


def work(number: int, workdir: Workdir, plan: Plan, worker: str, seen: Seen, start: Barrier) -> None:
    """Claim and finish until nothing is left, as a supervisor does."""
    observer = Observer(workdir.beats, ttl=60.0)
    holdings = Holdings(workdir, plan, worker, observer, sync=lambda parts: None, done=lambda token: None)
    Beat(workdir.beats, worker, interval=60.0).beat()
    start.wait()
    seen.times[number, 0] = time.monotonic()
    while (taken := holdings.take(1, 1)) is not None:
        holding, block = taken
        seen.taken[number, block[0]] += 1
        holdings.give_back(holding, block)
        holdings.finish()
    seen.times[number, 1] = time.monotonic()


def rename(number: int, plan: Plan, n_processes: int, seen: Seen, start: Barrier) -> None:
    """Do the renames of every n-th token, without a look at anything."""
    mine = plan.tokens()[number::n_processes]
    start.wait()
    seen.times[number, 0] = time.monotonic()
    for token in mine:
        (plan.path / "open" / token.name).rename(plan.path / "held" / token.name)
        (plan.path / "held" / token.name).rename(plan.path / "done" / token.name)
    seen.times[number, 1] = time.monotonic()


def in_processes(n: int, target: Callable[..., None], *arguments: Any, kill: Callable[[], bool] | None = None) -> None:
    """Run a function in n processes that begin together; kill the first of them as soon as it is to be."""
    start = FORK.Barrier(n)
    processes = [FORK.Process(target=target, args=(i, *arguments, start)) for i in range(n)]
    for process in processes:
        process.start()
    if kill is not None:
        while not kill():
            time.sleep(0.001)
        processes[0].kill()
        processes[0].join()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes[kill is not None :]):
        raise SystemExit("a process failed; what it says stands above")


def check(done: list[Token], seen: Seen, killed: str) -> None:
    """Raise if not each position was done once, or one was dealt twice that the killed one had not in hand."""
    n = seen.taken.shape[1]
    if sorted((token.first, token.last) for token in done) != [(i, i) for i in range(n)]:
        raise SystemExit(f"of {n} tokens, {len({token.first for token in done})} are done, {len(done)} times")
    lost = {token.first for token in done if token.epoch}
    twice = set(np.flatnonzero(seen.taken.sum(axis=0) > 1).tolist())
    if (seen.taken.sum(axis=0) < 1).any() or not twice <= lost or (lost and not killed):
        raise SystemExit(f"dealt twice: {sorted(twice)}; taken over: {sorted(lost)}")


def contend(n_processes: int, n_tokens: int, kill: bool) -> tuple[float, int, int]:
    """Return claims a second, how many the first process finished, and how many tokens changed hands."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        workdir, plan = planned(root, n_tokens)
        seen = Seen.of(n_processes, n_tokens)
        workers = [new_worker_id() for _ in range(n_processes)]

        def target(number: int, start: Barrier) -> None:
            work(number, workdir, plan, workers[number], seen, start)

        third = (lambda: bool(seen.taken.sum() >= n_tokens // 3)) if kill else None
        in_processes(n_processes, target, kill=third)
        done = plan.claims().tokens(DONE)
        check(done, seen, workers[0] if kill else "")
        by = Counter(token.worker for token in done)
        return n_tokens / seen.seconds(), by[workers[0]], sum(token.epoch > 0 for token in done)
    finally:
        shutil.rmtree(root)


def bare(n_processes: int, n_tokens: int) -> float:
    """Return how many pairs of renames are done a second."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        _, plan = planned(root, n_tokens)
        seen = Seen.of(n_processes, n_tokens)
        in_processes(n_processes, rename, plan, n_processes, seen)
        return n_tokens / seen.seconds()
    finally:
        shutil.rmtree(root)


def compare(n_processes: int, n_tokens: int, runs: int, kill: bool) -> None:
    """Print a line of the table."""
    found = []
    for i in range(runs + 1):
        pair = contend(n_processes, n_tokens, kill), bare(n_processes, n_tokens)
        if i:  # the first pair warms the caches
            found.append(pair)
    rates = [ours[0] for ours, _ in found]
    ratio = statistics.median(ours[0] / other for ours, other in found)
    what = f"{n_processes} process{'es' * (n_processes > 1)}{', one is killed' * kill}"
    told = " ".join(f"{rate:10.0f}" for rate in (statistics.median(rates), min(rates), max(rates)))
    print(f"{what:30} {told} {statistics.median(other for _, other in found):10.0f} {ratio:7.2f}", flush=True)
    if kill:
        ends = ", ".join(f"{finished} and {held}" for (_, finished, held), _ in found)
        print(f"  the one that was killed had finished, and held (others did that): {ends}")


def profile(n_tokens: int) -> None:
    """Print where one process alone spends its time."""
    root = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        workdir, plan = planned(root, n_tokens)
        profiler = cProfile.Profile()
        seen, start = Seen.of(1, n_tokens), FORK.Barrier(1)
        profiler.runcall(work, 0, workdir, plan, new_worker_id(), seen, start)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(12)
    finally:
        shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true", help="Tell where one process alone spends its time.")
    given = parser.parse_args()
    print(f"{'':30} {'claims/s':>10} {'least':>10} {'most':>10} {'bare/s':>10} {'ratio':>7}")
    for n_processes, kill in ((1, False), (2, False), (8, False), (8, True)):
        compare(n_processes, given.tokens, given.runs, kill)
    if given.profile:
        profile(given.tokens)


if __name__ == "__main__":
    main()
