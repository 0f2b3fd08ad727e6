"""What psyrun costs, beside what others cost: pairs in alternating runs of whole processes, the median of each.

    python benchmarks/compare.py [--runs 5] [--where] [NAME...]

Run it with the interpreter of an environment that psyrun is installed in with its extra `test`. Machines are noisy:
believe the ratios. `--where` adds what the time of a run with one item, and with 1e6, goes to.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PYTHON = sys.executable
PSY_DOIT = str(Path(PYTHON).with_name("psy-doit"))
CASES = str(Path(__file__).with_name("cases.py"))

TRIVIAL = """
from psyrun import Param, Multiprocessing
pspace = Param(x=range({n}))
scheduler = Multiprocessing(2)
max_jobs = {max_jobs}
def execute(x):
    return {{'y': x * x}}
"""

BALANCED = """
from psyrun import LoadBalancingBackend
backend = LoadBalancingBackend()
"""

GRID = """
import numpy as np
from psyrun import Param, Multiprocessing
pspace = Param(a=np.arange(100)) * Param(b=np.arange(100)) * Param(c=np.linspace(0, 1, 100))
scheduler = Multiprocessing(2)
early_stop = False
def execute(a, b, c):
    if a >= {good}:
        raise ValueError('as in one of ten')
    return {{'y': a * b}}
"""

GROWN = """
from pathlib import Path
import numpy as np
from psyrun import Multiprocessing, Param
n = 110 if Path('grown').exists() else 100
pspace = Param(a=np.arange(n)) * Param(b=np.arange(100)) * Param(c=np.linspace(0, 1, 100))
scheduler = Multiprocessing(2)
def execute(a, b, c):
    return {'y': a * b}
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
    """Two things to measure, and the most that ours may take.

    Attributes
    ----------
    ours, other : list of str
        Commands; one word names a case of cases.py, which measures itself.
    goal : str
        As a ratio (``1.5 x``), in seconds or in megabytes.
    fresh : bool
        Whether the work directory of the task is removed before each run.
    before : tuple of list of str
        Commands that prepare the pair, once.
    """

    what: str
    ours: list[str]
    other: list[str]
    goal: str
    fresh: bool = False
    before: tuple[list[str], ...] = ()


@dataclass(frozen=True)
class Measured:
    """Seconds, and the peak memory of the process in MB."""

    seconds: float
    peak: float


def _futures(n: int) -> list[str]:
    return [PYTHON, "futures.py", str(n)]


def _pairs() -> dict[str, Pair]:
    click, numpy = [PYTHON, "-c", "import click"], [PYTHON, "-c", "import click, numpy"]
    parts, results = ["make_parts"], ["make_results"]
    grown = [PSY_DOIT, "grown"], ["touch", "grown"]
    grid90, grid100 = [PSY_DOIT, "grid90"], [PSY_DOIT, "grid100"]
    balanced = [PSY_DOIT, "balanced"]
    pairs = {
        "one": Pair("one item", [PSY_DOIT, "one"], _futures(1), "0.25 s", True),
        "1e5": Pair("1e5 trivial items, 2 workers", [PSY_DOIT, "e5"], _futures(10**5), "1.5 x", True),
        "1e6": Pair("1e6 trivial items, 2 workers", [PSY_DOIT, "e6"], _futures(10**6), "1.2 x", True),
        "1e7": Pair("1e7 trivial items, 2 workers", [PSY_DOIT, "e7"], _futures(10**7), "300 MB above", True),
        "chunks": Pair("1000 chunks against 1", [PSY_DOIT, "chunks"], [PSY_DOIT, "few"], "2 ms a chunk", True),
        "balanced": Pair("1e6, LoadBalancingBackend; fixed", balanced, [PSY_DOIT, "e6"], "1.25 x", True),
        "list": Pair("list, import click", [PSY_DOIT, "list"], click, "1.2 x"),
        "help": Pair("--help, import click", [PSY_DOIT, "--help"], click, "1.2 x"),
        "status90": Pair("status of 1e6, 90 %", [PSY_DOIT, "status", "grid90"], numpy, "0.15 s", before=(grid90,)),
        "status": Pair("status of 1e6, all", [PSY_DOIT, "status", "grid100"], numpy, "0.15 s", before=(grid100,)),
        "again": Pair("nothing to do of 1e6", grid100, numpy, "0.35 s", before=(grid100,)),
        "plan": Pair("plan of a grown 1e6", [PSY_DOIT, "plan", "grown"], numpy, "0.7 s", before=grown),
        "same": Pair("missing, same space", ["missing_same"], ["pandas_merge"], "0.02 s"),
    }
    for kind in ("grown", "shuffled", "foreign"):
        pairs[kind] = Pair(f"missing, {kind}; pandas", [f"missing_{kind}"], ["pandas_merge"], "0.5 s")
    pairs |= {
        "columns": Pair("columns; repeat and tile", ["columns"], ["repeat_and_tile"], "2 x"),
        "dicts": Pair("dicts; itertools.product", ["dicts"], ["product_of_dicts"], "0.35 s"),
        "huge": Pair("1000 x len, [i], [i:j] of 1e9", ["huge"], ["repeat_and_tile"], "us each"),
        "merge": Pair("merge, in order; savez", ["merge_ordered"], ["concatenate_and_savez"], "0.6 x", before=(parts,)),
        "mixed": Pair(
            "merge, interleaved; savez", ["merge_interleaved"], ["concatenate_and_savez"], "0.9 x", before=(parts,)
        ),
        "h5": Pair("merge to HDF5; h5py", ["merge_h5"], ["h5py_append"], "1.1 x", before=(parts,)),
        "load": Pair("load NPZ; np.load", ["load_npz"], ["np_load"], "1.2 x", before=(results,)),
        "loadh5": Pair("load HDF5; h5py", ["load_h5"], ["h5py_read"], "1.2 x", before=(results,)),
    }
    return pairs


def _write_tasks(root: Path) -> None:
    tasks = root / "psy-tasks"
    tasks.mkdir()
    sizes = (("one", 1, 100), ("e5", 10**5, 100), ("e6", 10**6, 100), ("e7", 10**7, 100))
    for name, n, max_jobs in (*sizes, ("chunks", 1000, 1000), ("few", 1000, 1)):
        (tasks / f"task_{name}.py").write_text(TRIVIAL.format(n=n, max_jobs=max_jobs))
    (tasks / "task_balanced.py").write_text(TRIVIAL.format(n=10**6, max_jobs=100) + BALANCED)
    for good in (90, 100):
        (tasks / f"task_grid{good}.py").write_text(GRID.format(good=good))
    (tasks / "task_grown.py").write_text(GROWN)
    (root / "futures.py").write_text(FUTURES)


def _measured(command: list[str], root: Path, fresh: bool = False) -> Measured:
    """Run a command to its end."""
    if len(command) == 1:
        done = subprocess.run([PYTHON, CASES, command[0], str(root)], check=True, capture_output=True, text=True)
        told = json.loads(done.stdout or "{}")
        return Measured(told.get("seconds", 0.0), told.get("peak", 0.0))
    if fresh:  # of what is not psyrun's there is none
        shutil.rmtree(root / "psy-work" / command[-1], ignore_errors=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):  # 1: some items failed, as they should
        raise SystemExit(f"{command} ended with {process.returncode}")
    return Measured(seconds, usage.ru_maxrss / 1024)


def _compare(pair: Pair, root: Path, runs: int) -> str:
    """Return a line of the table."""
    found: list[tuple[Measured, Measured]] = []
    for i in range(runs + 1):
        both = _measured(pair.ours, root, pair.fresh), _measured(pair.other, root, pair.fresh)
        if i:  # the first pair warms the caches
            found.append(both)
    ours, other = ([pair[i] for pair in found] for i in (0, 1))
    ratio = statistics.median(a.seconds / b.seconds for a, b in found)
    seconds = [statistics.median(m.seconds for m in side) for side in (ours, other)]
    peaks = [max(m.peak for m in side) for side in (ours, other)]
    told = f"{seconds[0]:9.4f} {seconds[1]:9.4f} {ratio:7.2f} {peaks[0]:7.0f} {peaks[1]:7.0f}"
    return f"{pair.what:30} {told}  {pair.goal}"


def _where(name: str, root: Path) -> None:
    """Print what the time of a run goes to."""
    shutil.rmtree(root / "psy-work" / name, ignore_errors=True)
    began = time.time()
    _measured([PSY_DOIT, name], root)
    ended = time.time()
    work = root / "psy-work" / name
    tokens = [path.stat().st_ctime for path in work.glob("plan/*/done/*")]
    steps = {
        "until the plan is in place": next(work.glob("plan/0*")).stat().st_ctime,
        "until the last chunk is done": max(tokens),
        "until the result is in place": (work / "result.npz").stat().st_ctime,
        "until the command ends": ended,
    }
    print(f"\n{name}:")
    for step, moment in steps.items():
        print(f"  {step:32} {moment - began:7.3f} s")
        began = moment
    shutil.rmtree(work)
    told = subprocess.run(
        [PYTHON, "-X", "importtime", "-m", "psyrun", name], cwd=root, capture_output=True, text=True, check=True
    )
    packages: Counter[str] = Counter()
    for line in told.stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) == 3 and fields[0].strip().isdecimal():
            top = fields[2].strip().partition(".")[0]
            packages[top if top in ("psyrun", "numpy", "click", "doit", "rich") else "standard library"] += int(
                fields[0]
            )
    print("  of that, imports of the command: ", end="")
    print(", ".join(f"{package} {micros / 1e6:.3f} s" for package, micros in packages.most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"which pairs: {' '.join(_pairs())}; default all but 1e7")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--where", action="store_true")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp())
    prepared: list[list[str]] = []
    try:
        _write_tasks(root)
        print(f"{'what':30} {'ours s':>9} {'other s':>9} {'ratio':>7} {'MB':>7} {'MB':>7}  at most")
        for name, pair in _pairs().items():
            if name not in (given.names or set(_pairs()) - {"1e7"}):
                continue
            for command in pair.before:
                if command not in prepared:
                    _measured(command, root)
                    prepared.append(command)
            print(_compare(pair, root, given.runs), flush=True)
        for name in ("one", "e6") if given.where else ():
            _where(name, root)
    finally:
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
