"""Apply a function to every row of a parameter space, in this process or with joblib."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psyrun.arrays import plain
from psyrun.errors import IneffectiveExcludeWarning, UnsupportedValueError
from psyrun.pspace import ParameterSpace, Rows, dict_concat, missing

if TYPE_CHECKING:
    from psyrun.store import Store

Function = Callable[..., Mapping[str, Any]]


def get_result(fn: Function, params: Mapping[str, Any], exclude: Iterable[str] = ()) -> dict[str, Any]:
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
    excluded = set(exclude)
    return {name: plain(v) for name, v in {**params, **outputs}.items() if name not in excluded}


def _warn_of_ineffective(exclude: Iterable[str], names: Iterable[str]) -> None:
    absent = set(exclude) - set(names)
    if absent:
        warnings.warn(
            f"excluded from the results, but not in any: {', '.join(sorted(absent))}",
            IneffectiveExcludeWarning,
            stacklevel=3,
        )


def _gathered(rows: list[dict[str, Any]], exclude: Iterable[str]) -> dict[str, list[Any]]:
    result = dict_concat(rows)
    excluded = set(exclude)
    _warn_of_ineffective(excluded, result)
    return {name: column for name, column in result.items() if name not in excluded}


def map_pspace(fn: Function, pspace: ParameterSpace, exclude: Iterable[str] = ()) -> dict[str, list[Any]]:
    """Call a function with every row of a space.

    Parameters
    ----------
    fn : callable
        Called as ``fn(**assignment)``; returns a dict.
    pspace : ParameterSpace
    exclude : iterable of str
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
    return _gathered([get_result(fn, params) for params in pspace.iterate()], exclude)


def map_pspace_parallel(
    fn: Function,
    pspace: ParameterSpace,
    n_jobs: int = -1,
    backend: str = "multiprocessing",
    exclude: Iterable[str] = (),
) -> dict[str, list[Any]]:
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
    exclude : iterable of str

    Returns
    -------
    dict of lists
        As `map_pspace`, in the same order.
    """
    import joblib

    run = joblib.Parallel(n_jobs=n_jobs, backend=backend)
    return _gathered(run(joblib.delayed(get_result)(fn, params) for params in pspace.iterate()), exclude)


def map_pspace_hdd_backed(
    fn: Function,
    pspace: ParameterSpace,
    filename: str | Path,
    store: Store,
    return_data: bool = True,
    exclude: Iterable[str] = (),
) -> dict[str, list[Any]] | None:
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
    excluded = set(exclude)
    for params, key in _not_in(pspace, filename, store):
        row = get_result(fn, params)
        _warn_of_ineffective(excluded, row)
        kept = {name: [value] for name, value in row.items() if name not in excluded}
        store.append(filename, kept | {store.KEYS: key})
    if not Path(filename).exists():
        store.save(filename, {name: [] for name in pspace.parameters if name not in excluded})
    if not return_data:
        return None
    return {name: [plain(v) for v in column] for name, column in store.load(filename).items()}


def _not_in(pspace: ParameterSpace, filename: str | Path, store: Store) -> Iterable[tuple[dict[str, Any], Any]]:
    """Yield the assignments that the file lacks, each with its key, shape (1, 2)."""
    from psyrun.keys import find

    keys = pspace.item_keys()
    wanted: Iterable[int] = range(len(pspace))
    if Path(filename).exists():
        data = store.load(filename, keys=True)
        if store.KEYS in data:
            wanted = (find(keys, data[store.KEYS]) < 0).nonzero()[0]
        else:
            rest = missing(pspace, {name: data[name] for name in pspace.parameters})
            wanted = rest._at if isinstance(rest, Rows) else wanted
    for i in wanted:
        yield pspace[int(i)], keys[i : i + 1]
