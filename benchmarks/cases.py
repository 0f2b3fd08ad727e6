"""One measured thing a process: ``python benchmarks/cases.py NAME DIRECTORY`` prints seconds and peak memory in MB.

What is prepared before the clock starts, and what is read from DIRECTORY, is the same for a case and the one that it
is compared with.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

Case = Callable[[], Any]
N_PARTS, N_ROWS = 1000, 1000


def grid(first: int = 100) -> Any:
    from psyrun import Param

    return Param(a=np.arange(first)) * Param(b=np.arange(100)) * Param(c=np.linspace(0, 1, 100))


# Spaces


def columns(_: Path) -> Case:
    space = grid()
    return lambda: space.columns(0, len(space))


def repeat_and_tile(_: Path) -> Case:
    a, b, c = np.arange(100), np.arange(100), np.linspace(0, 1, 100)
    return lambda: (np.repeat(a, 10**4), np.tile(np.repeat(b, 100), 100), np.tile(c, 10**4))


def dicts(_: Path) -> Case:
    space = grid()
    return lambda: sum(1 for _ in space.iterate(0, len(space)))


def product_of_dicts(_: Path) -> Case:
    a, b, c = np.arange(100).tolist(), np.arange(100).tolist(), np.linspace(0, 1, 100).tolist()
    return lambda: sum(1 for _ in ({"a": i, "b": j, "c": k} for i, j, k in product(a, b, c)))


def huge(_: Path) -> Case:
    from psyrun import Param

    space = Param(a=np.arange(1000)) * Param(b=np.arange(1000)) * Param(c=np.arange(1000))
    return lambda: [(len(space), space[i], len(space[i : i + 10**8])) for i in range(0, 9 * 10**8, 9 * 10**5)]


# What is missing of 1e6 items, 90 % done


def missing_same(_: Path) -> Case:
    """By index, as a command that looks at a task does it."""
    from psyrun.parts import Failure  # noqa: F401 - what a command has imported
    from psyrun.record import _first_rows  # the part of it that is not reading files

    class Rows:
        pass

    blocks: list[Any] = [(Rows(), np.arange(i, i + 3000)) for i in range(0, 900_000, 3000)]
    return lambda: ~_first_rows(blocks, 10**6, {}, []).done


def _missing(kind: str) -> Case:
    from psyrun import Param
    from psyrun.pspace import missing

    rng = np.random.default_rng(0)
    rows = grid().columns(0, 10**6)
    chosen = {"grown": np.arange(900_000), "shuffled": rng.permutation(10**6)[:900_000]}
    chosen["foreign"] = chosen["shuffled"]
    done = {name: column[chosen[kind]] for name, column in rows.items()}
    done = {n: c.tolist() for n, c in done.items()} if kind == "foreign" else done
    return lambda: len(missing(grid(), Param(**done)))


def missing_grown(_: Path) -> Case:
    return _missing("grown")


def missing_shuffled(_: Path) -> Case:
    return _missing("shuffled")


def missing_foreign(_: Path) -> Case:
    return _missing("foreign")


def pandas_merge(_: Path) -> Case:
    import pandas as pd

    rows = grid().columns(0, 10**6)
    done = {name: column[np.random.default_rng(0).permutation(10**6)[:900_000]] for name, column in rows.items()}

    def run() -> int:
        both = pd.DataFrame(rows).merge(pd.DataFrame(done), how="left", indicator=True)
        return int((both["_merge"] == "left_only").sum())

    return run


# Merging parts


def make_parts(directory: Path) -> None:
    """Write the same rows as parts and as NPZ files: each 1000 x (5 floats and one of shape (16,))."""
    from psyrun.parts import Writer

    rng = np.random.default_rng(0)
    orders = {"ordered": lambda k: np.arange(k * N_ROWS, (k + 1) * N_ROWS)}
    orders["interleaved"] = lambda k: np.arange(k, N_PARTS * N_ROWS, N_PARTS)
    for kind, items_of in orders.items():
        (directory / kind / "parts").mkdir(parents=True)
        (directory / kind / "npz").mkdir()
        for k in range(N_PARTS):
            items = items_of(k)
            rows = {f"f{i}": rng.random(N_ROWS) for i in range(5)} | {"v": rng.random((N_ROWS, 16))}
            times = np.zeros(N_ROWS)
            keys = np.stack([items, items], axis=1).astype(np.uint64)
            with (directory / kind / "parts" / f"{k:04}").open("xb", buffering=0) as file:
                writer = Writer(file.fileno())
                writer.header({"code": "c", "space": "s"})
                writer.rows({"key": keys, "index": items, "start": times, "duration": times}, {}, rows)
            np.savez(directory / kind / "npz" / f"{k:04}.npz", **rows)  # type: ignore[arg-type]


def _merge(directory: Path, kind: str, ext: str) -> Case:
    from psyrun import H5Store, NpzStore, scan
    from psyrun.collect import result_columns, write_result
    from psyrun.record import place

    store = NpzStore() if ext == ".npz" else H5Store()

    def run() -> None:
        parts = [scan.read(path) for path in sorted((directory / kind / "parts").iterdir())]
        placement = place(parts, "s", N_PARTS * N_ROWS, lambda keys: np.full(len(keys), -1), ["c"])
        write_result(directory / f"ours{ext}", result_columns(placement, [], False)[0], store)

    return run


def merge_ordered(directory: Path) -> Case:
    return _merge(directory, "ordered", ".npz")


def merge_interleaved(directory: Path) -> Case:
    return _merge(directory, "interleaved", ".npz")


def merge_h5(directory: Path) -> Case:
    return _merge(directory, "ordered", ".h5")


def concatenate_and_savez(directory: Path) -> Case:
    def run() -> None:
        found: dict[str, list[Any]] = {}
        for path in sorted((directory / "ordered" / "npz").iterdir()):
            with np.load(path) as data:
                for name in data:
                    found.setdefault(name, []).append(data[name])
        np.savez(directory / "peer.npz", **{n: np.concatenate(c) for n, c in found.items()})  # type: ignore[arg-type]

    return run


def h5py_append(directory: Path) -> Case:
    import h5py

    def run() -> None:
        with h5py.File(directory / "peer.h5", "w") as file:
            for path in sorted((directory / "ordered" / "npz").iterdir()):
                with np.load(path) as data:
                    for name in data:
                        piece = data[name]
                        if name not in file:
                            file.create_dataset(name, data=piece, maxshape=(None, *piece.shape[1:]), chunks=True)
                        else:
                            file[name].resize(len(file[name]) + len(piece), axis=0)
                            file[name][-len(piece) :] = piece

    return run


# Loading


def make_results(directory: Path) -> None:
    import h5py

    from psyrun import H5Store, NpzStore

    rng = np.random.default_rng(0)
    data = {f"f{i}": rng.random(10**6) for i in range(6)}
    NpzStore().save(directory / "load.npz", data)
    H5Store().save(directory / "load.h5", data)
    with h5py.File(directory / "contiguous.h5", "w") as file:
        for name, column in data.items():
            file[name] = column


def load_npz(directory: Path) -> Case:
    from psyrun import NpzStore

    return lambda: NpzStore().load(directory / "load.npz")


def np_load(directory: Path) -> Case:
    return lambda: dict(np.load(directory / "load.npz"))


def load_h5(directory: Path) -> Case:
    import h5py  # noqa: F401 - its import is not what is compared

    from psyrun import H5Store

    return lambda: H5Store().load(directory / "load.h5")


def h5py_read(directory: Path) -> Case:
    import h5py

    def run() -> dict[str, Any]:
        with h5py.File(directory / "contiguous.h5") as file:
            return {name: file[name][()] for name in file}

    return run


def main() -> None:
    name, directory = sys.argv[1:]
    if name.startswith("make_"):
        globals()[name](Path(directory))
        return
    run = globals()[name](Path(directory))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak / 1024, "before": before / 1024}))
    sys.stdout.flush()
    os._exit(0)  # freeing what was made is not what is measured


if __name__ == "__main__":
    main()
