"""Apply a function to every row of a parameter space, in this process or with joblib."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from psyrun.arrays import plain
from psyrun.columns import HIDDEN, height, restored
from psyrun.errors import AmbiguousOperationError, IneffectiveExcludeWarning, UnsupportedValueError
from psyrun.keys import Lanes, find
from psyrun.pspace import Param, ParameterSpace, Rows, dict_concat

if TYPE_CHECKING:
    from psyrun.store import Store

Function = Callable[..., Mapping[str, Any]]
Columns = dict[str, list[Any]]

_QUICK = 0.001
_BUFFERED = 0.02
"""Seconds: results that took less than the first may wait as long as the second to be written together."""


def get_result(fn: Function, params: Mapping[str, Any], exclude: Iterable[str] | None = None) -> dict[str, Any]:
    """Return the parameters and what the function returned for them, as one dict of Python scalars and arrays.

    Raises
    ------
    UnsupportedValueError
        The function returned something else than a dict.

    Examples
    --------
    >>> get_result(lambda x: {'y': x * x}, {'x': 4})
    {'x': 4, 'y': 16}
    """
    outputs = fn(**params)
    if not isinstance(outputs, Mapping):
        raise UnsupportedValueError(
            f"{getattr(fn, '__name__', fn)} returned {outputs!r:.60} (a {type(outputs).__name__}); "
            "it takes a dict, such as {'y': y}"
        )
    excluded = _names(exclude)
    return {name: plain(v) for name, v in {**params, **outputs}.items() if name not in excluded}


def _names(exclude: Iterable[str] | None) -> set[str]:
    return {exclude} if isinstance(exclude, str) else set(exclude or ())


def _warn_if_ineffective(excluded: set[str], rows: Sequence[Iterable[str]]) -> None:
    """Warn the caller of the caller of names that were excluded from rows, if there are any, that lack them."""
    absent = excluded.difference(*rows)
    if absent and rows:
        told = f"excluded from the results, but not in any: {', '.join(sorted(absent))}"
        warnings.warn(told, IneffectiveExcludeWarning, stacklevel=3)


def _gathered(rows: Sequence[dict[str, Any]], pspace: ParameterSpace, excluded: set[str]) -> Columns:
    result = dict_concat(rows) if rows else {name: [] for name in pspace.parameters}
    return {name: column for name, column in result.items() if name not in excluded}


def map_pspace(fn: Function, pspace: ParameterSpace, exclude: Iterable[str] | None = None) -> Columns:
    """Call a function with every row of a space.

    Parameters
    ----------
    fn : callable
        Called as ``fn(**assignment)``; returns a dict.
    pspace : ParameterSpace
    exclude : iterable of str, optional
        Names to leave out of the result; a name that no row has gives an `IneffectiveExcludeWarning`.

    Returns
    -------
    dict of lists
        Parameters and outputs, in the order of the space; a key that a row lacks is None in it.

    Examples
    --------
    >>> from psyrun import Param
    >>> map_pspace(lambda x: {'y': x * x}, Param(x=[1, 2]))
    {'x': [1, 2], 'y': [1, 4]}
    """
    rows = [get_result(fn, params) for params in pspace.iterate()]
    excluded = _names(exclude)
    _warn_if_ineffective(excluded, rows)
    return _gathered(rows, pspace, excluded)


def map_pspace_parallel(
    fn: Function,
    pspace: ParameterSpace,
    n_jobs: int = -1,
    backend: str = "multiprocessing",
    exclude: Iterable[str] | None = None,
) -> Columns:
    """Call a function with every row of a space, several at a time.

    Parameters
    ----------
    fn : callable
        As for `map_pspace`; with processes it must be importable.
    pspace : ParameterSpace
    n_jobs : int
        How many at a time; -1 for one a core.
    backend : str
        'multiprocessing', 'threading' or 'loky', as joblib's Parallel takes it.
    exclude : iterable of str, optional

    Returns
    -------
    dict of lists
        As `map_pspace`, in the same order.
    """
    import joblib

    run = joblib.Parallel(n_jobs=n_jobs, backend=backend)
    rows = run(joblib.delayed(get_result)(fn, params) for params in pspace.iterate())
    excluded = _names(exclude)
    _warn_if_ineffective(excluded, rows)
    return _gathered(rows, pspace, excluded)


def map_pspace_hdd_backed(
    fn: Function,
    pspace: ParameterSpace,
    filename: str | Path,
    store: Store,
    return_data: bool = True,
    exclude: Iterable[str] | None = None,
) -> Columns | None:
    """Call a function with every row of a space that a file does not hold yet, adding each result to the file.

    Parameters
    ----------
    fn, pspace, exclude
        As for `map_pspace`.
    filename : path
        Read first, if it is there: its rows are not computed again.
    store : Store
        How the file is read and written.
    return_data : bool
        Whether to return what the file holds in the end.

    Returns
    -------
    dict of lists, or None
        The rows of the file, in the order in which they were computed.
    """
    path, excluded = Path(filename), _names(exclude)
    rest, keys = _not_in(path, pspace, store)
    seen: dict[str, None] = {}
    waiting: list[dict[str, Any]] = []
    n_done, written_at = 0, time.monotonic()

    def write() -> None:
        nonlocal waiting, written_at
        rows, waiting = waiting, []
        columns = _gathered(rows, pspace, excluded)
        store.append(path, {**columns, store.KEYS: keys[n_done - len(rows) : n_done]})
        written_at = time.monotonic()

    try:
        for params in rest.iterate():
            began = time.monotonic()
            waiting.append(get_result(fn, params))
            n_done += 1
            seen |= dict.fromkeys(waiting[-1])
            if time.monotonic() - began >= _QUICK or time.monotonic() - written_at >= _BUFFERED:
                write()
    finally:
        if waiting:
            write()
    if not path.exists():
        write()
    _warn_if_ineffective(excluded, [seen] if seen else [])
    if not return_data:
        return None
    data = store.load(path, keys=True)
    return {name: [plain(v) for v in restored(name, data)] for name in data if not name.startswith(HIDDEN)}


def _not_in(path: Path, pspace: ParameterSpace, store: Store) -> tuple[ParameterSpace, Lanes]:
    """Return the rows of a space that a file lacks, and their keys."""
    keys = pspace.item_keys()
    if not path.exists():
        return pspace, keys
    data = store.load(path, keys=True)
    done = data.get(store.KEYS, keys[:0])
    foreign = store.KEYS not in data and height(data) > 0
    if foreign:
        lacking = [name for name in pspace.parameters if name not in data]
        if lacking:
            raise AmbiguousOperationError(
                f"{path}: nothing tells which items its rows are, for it has no column {', '.join(lacking)}. "
                "Move it away, or name another file"
            )
        done = Param(**{name: restored(name, data) for name in pspace.parameters}).item_keys()
    at = np.flatnonzero(find(keys, done) < 0)
    if foreign and len(at):
        store.save(path, data | {store.KEYS: done})
    return Rows(pspace, at), keys[at]
