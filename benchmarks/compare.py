"""Whole-process comparisons: each pair in alternating runs, the median of each and of their ratios.

    python benchmarks/compare.py [--runs 5] [NAME...]

Run it with the interpreter of an environment that psyrun is installed in. Machines are noisy: believe the ratios.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
PSY_DOIT = str(Path(PYTHON).with_name("psy-doit"))

TRIVIAL = """
from psyrun import Param, Multiprocessing
pspace = Param(x=range({n}))
scheduler = Multiprocessing(2)
max_jobs = {max_jobs}
def execute(x):
    return {{'y': x * x}}
"""

FUTURES = """
import sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
def f(x):
    return {'y': x * x}
if __name__ == '__main__':
    n = int(sys.argv[1])
    with ProcessPoolExecutor(2) as pool:
        rows = list(pool.map(f, range(n), chunksize=max(1, n // 100)))
    np.savez('futures.npz', x=np.arange(n), y=np.array([row['y'] for row in rows]))
"""


@dataclass(frozen=True)
class Pair:
    """Our command, the one beside it, whether both start without a work directory, and the goal."""

    what: str
    ours: list[str]
    other: list[str]
    fresh: bool
    goal: str


def _pairs(root: Path) -> dict[str, Pair]:
    tasks = root / "psy-tasks"
    tasks.mkdir()
    for name, n, max_jobs in (("one", 1, 100), ("e5", 100_000, 100), ("e6", 1_000_000, 100), ("chunks", 1000, 1000)):
        (tasks / f"task_{name}.py").write_text(TRIVIAL.format(n=n, max_jobs=max_jobs))
    (tasks / "task_few.py").write_text(TRIVIAL.format(n=1000, max_jobs=1))
    (root / "futures.py").write_text(FUTURES)
    click = [PYTHON, "-c", "import click"]

    def futures(n: int) -> list[str]:
        return [PYTHON, "futures.py", str(n)]

    return {
        "one": Pair("one item", [PSY_DOIT, "one"], futures(1), True, "0.25 s"),
        "1e5": Pair("1e5 trivial items, 2 workers", [PSY_DOIT, "e5"], futures(100_000), True, "1.5 x"),
        "1e6": Pair("1e6 trivial items, 2 workers", [PSY_DOIT, "e6"], futures(1_000_000), True, "1.2 x"),
        "chunks": Pair("1000 chunks against 1", [PSY_DOIT, "chunks"], [PSY_DOIT, "few"], True, "2 ms a chunk"),
        "list": Pair("list", [PSY_DOIT, "list"], click, False, "1.2 x"),
        "help": Pair("--help", [PSY_DOIT, "--help"], click, False, "1.2 x"),
        "again": Pair("nothing to do", [PSY_DOIT, "one"], click, False, ""),
    }


def _timed(command: list[str], root: Path, fresh: bool) -> float:
    """Return the wall seconds of a whole process."""
    if fresh:
        shutil.rmtree(root / "psy-work", ignore_errors=True)
    start = time.perf_counter()
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    print(f"{'what':32} {'ours s':>9} {'other s':>9} {'ratio':>7}  goal")
    try:
        for name, pair in _pairs(root).items():
            if given.names and name not in given.names:
                continue
            runs = []
            for i in range(given.runs + 1):
                ours = _timed(pair.ours, root, pair.fresh)
                other = _timed(pair.other, root, pair.fresh)
                if i:  # the first pair warms the caches
                    runs.append((ours, other, ours / other))
            medians = [statistics.median(column) for column in zip(*runs, strict=True)]
            print(f"{pair.what:32} {medians[0]:9.3f} {medians[1]:9.3f} {medians[2]:7.2f}  {pair.goal}", flush=True)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
