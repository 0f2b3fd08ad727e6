"""Columns of a result: from the values of rows to arrays that a file format can hold.

A column may come with hidden ones: ``__psyrun_none_<name>`` marks the rows that had no value,
``__psyrun_shape_<name>`` holds the true shapes of arrays that were padded to one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psyrun.arrays import Array, exact_array, join, objects, same_number
from psyrun.errors import StoreError, UnsupportedValueError

HIDDEN = "__psyrun_"
"""Prefix of the columns that `load` keeps to itself."""
KEYS = HIDDEN + "key"
N_ITEMS = HIDDEN + "n_items"
NONE = HIDDEN + "none_"
SHAPE = HIDDEN + "shape_"

_NUMBERS = "biufc"


def is_name(name: Any) -> bool:
    """Whether a column that is not hidden may have this name."""
    return isinstance(name, str) and name != "" and name.isprintable() and not name.startswith(HIDDEN)


def settled(name: str, values: Sequence[Any] | Array, objects_ok: bool = False) -> dict[str, Array]:
    """Return the column for the values of n rows, with the hidden columns that it needs.

    Parameters
    ----------
    name : str
    values : sequence of n values
        None stands for "no value": NaN among numbers (integers and truth values become floats), '' among text.
        Arrays of differing shapes are padded with NaN to their largest.
    objects_ok : bool
        Whether the store holds any Python object.

    Returns
    -------
    dict of arrays, each of shape (n, ...)

    Raises
    ------
    UnsupportedValueError
        No array of numbers, text or times holds these values.
    """
    array = values if isinstance(values, np.ndarray) and not values.dtype.hasobject else exact_array(list(values))
    if array.dtype != object:
        return {name: array}
    absent = np.array([v is None for v in values], dtype=bool)
    hidden = {NONE + name: absent} if absent.any() else {}
    present = [v for v in values if v is not None]
    if not present:
        return {name: np.full(len(values), np.nan), **hidden}
    column = _of_numbers(present) if _all_numbers(present) else exact_array(present)
    if column is not None and column.dtype != object:
        return {name: spread(column, ~absent), **hidden}
    arrays = [_as_array(v) for v in present]
    if all(a is not None for a in arrays):
        padded, shapes = _padded([a for a in arrays if a is not None], absent)
        if padded is not None:
            return {name: padded, SHAPE + name: shapes, **hidden}
    if objects_ok:
        return {name: objects(list(values))}
    raise UnsupportedValueError(
        f"column {name!r} holds {_kinds(present)}, which no array of numbers or text can hold unchanged. "
        "Return one kind of value, or keep it whole with: store = psyrun.PickleStore()"
    )


def spread(column: Array, present: Array) -> Array:
    """Return a column with the given rows at the places marked present and fillers at the others."""
    if present.all():
        return column
    result = filled(len(present), column)
    result[present] = column.astype(result.dtype)
    return result


def filled(n: int, like: Array) -> Array:
    """Return n rows of "no value" in the dtype that can hold it beside the values of ``like``."""
    kind = like.dtype.kind
    shape = (n, *like.shape[1:])
    if kind in "US":
        return np.full(shape, "" if kind == "U" else b"", dtype=like.dtype)
    if kind in "Mm":
        return np.full(shape, np.array("NaT", dtype=like.dtype))
    if kind in "fc":
        return np.full(shape, np.nan, dtype=like.dtype)
    if same_number(like, np.dtype(np.float64)):
        return np.full(shape, np.nan)
    # Integers that no float can hold stay what they are: a wrong digit is worse than a 0 with a mask.
    return np.zeros(shape, dtype=like.dtype)


def _all_numbers(values: Sequence[Any]) -> bool:
    kinds = set(map(type, values))
    # NumPy counts durations among the integers.
    return np.timedelta64 not in kinds and all(issubclass(k, (int, float, complex, np.number, np.bool_)) for k in kinds)


def _of_numbers(values: Sequence[Any]) -> Array | None:
    """Return mixed numbers in the first dtype that holds each as the same number."""
    places: dict[type, list[int]] = {}
    for i, value in enumerate(values):
        places.setdefault(type(value), []).append(i)
    parts = [exact_array([values[i] for i in at]) for at in places.values()]
    if any(p.dtype == object for p in parts):
        return None
    for dtype in (np.result_type(*{p.dtype for p in parts}), np.dtype(np.float64), np.dtype(np.complex128)):
        if all(same_number(p, dtype) for p in parts):
            column = np.empty(len(values), dtype=dtype)
            for at, part in zip(places.values(), parts, strict=True):
                column[at] = part
            return column
    return None


def _as_array(value: Any) -> Array | None:
    if isinstance(value, (list, tuple)):
        value = exact_array(list(value))
    if isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS + "USMm":
        return value
    return np.asarray(value) if _all_numbers([value]) else None


def _padded(arrays: list[Array], absent: Array) -> tuple[Array | None, Array]:
    """Return arrays of differing shapes as one, padded, and their shapes, shape (n, ndim); -1 for single numbers."""
    depth = max(a.ndim for a in arrays)
    shapes = np.zeros((len(absent), depth), dtype=np.int64)
    # What is empty says nothing of the kind of its values: [] is an array of floats for want of better.
    dtype = _common([a for a in arrays if a.size] or arrays)
    if dtype is None or not depth or any(a.ndim not in (0, depth) for a in arrays):
        return None, shapes
    shapes[~absent] = [a.shape or (-1,) * depth for a in arrays]
    padded = filled(len(absent), np.zeros((0, *np.abs(shapes).max(axis=0)), dtype=dtype))
    for row, array in zip(np.flatnonzero(~absent), arrays, strict=True):
        padded[row][tuple(slice(k) for k in array.shape or (1,) * depth)] = array
    return padded, shapes


def _common(arrays: list[Array]) -> np.dtype[Any] | None:
    """Return the dtype that holds each of some arrays unchanged, and fillers too."""
    dtypes = {a.dtype for a in arrays}
    kinds = {d.kind for d in dtypes}
    if not kinds <= set(_NUMBERS):
        return np.result_type(*dtypes) if kinds in ({"U"}, {"S"}) or len(dtypes) == 1 else None
    dtype = np.result_type(*dtypes)
    if dtype.kind in "biu":
        dtype = np.dtype(np.float64)
    return dtype if all(same_number(a, dtype) for a in arrays) else None


def _kinds(values: Sequence[Any]) -> str:
    return " and ".join(sorted({type(v).__name__ for v in values})[:4])


def restored(name: str, data: Mapping[str, Array]) -> list[Any]:
    """Return the values that `settled` made a column of, as far as the arrays tell them apart."""
    column = data[name]
    shapes = data.get(SHAPE + name)
    values: list[Any] = list(column)
    if shapes is not None:
        values = [_cut(row, shape.tolist()) for row, shape in zip(column, shapes, strict=True)]
    absent = data.get(NONE + name)
    if absent is None:
        return values
    return [None if gone else v for v, gone in zip(values, absent, strict=True)]


def _cut(padded: Array, shape: Sequence[int]) -> Any:
    return padded.flat[0] if -1 in shape else padded[tuple(map(slice, shape))]


def stacked(first: Mapping[str, Array], second: Mapping[str, Array], objects_ok: bool) -> dict[str, Array]:
    """Return the rows of two sets of columns, one below the other; names that one lacks have no value there.

    Hidden columns such as keys are kept where both have them: half of them would be worth nothing.
    """
    names = [n for n in dict.fromkeys([*first, *second]) if not n.startswith(HIDDEN)]
    names += [n for n in first if n.startswith(HIDDEN) and n in second and not n.startswith((NONE, SHAPE, N_ITEMS))]
    result: dict[str, Array] = {}
    for name in names:
        if name in first and name in second and not {NONE + name, SHAPE + name} & (set(first) | set(second)):
            both = join([first[name], second[name]])
            if both.dtype != object:
                result[name] = both
                continue
        values = [v for part in (first, second) for v in _values(name, part)]
        result |= settled(name, values, objects_ok)
    return result


def _values(name: str, data: Mapping[str, Array]) -> list[Any]:
    return restored(name, data) if name in data else [None] * height(data)


def height(data: Mapping[str, Array]) -> int:
    """Return the number of rows."""
    return next((len(column) for name, column in data.items() if name != N_ITEMS), 0)


def chosen(
    data: Mapping[str, Array], what: str, row: int | slice | None, names: Sequence[str] | None, hidden: bool
) -> dict[str, Array]:
    """Return some rows and columns.

    Parameters
    ----------
    data : dict of arrays
    what : str
        Where they are from, for messages.
    row : int, slice or None
    names : sequence of str or None
        Which columns, in this order; default all.
    hidden : bool
        Whether hidden columns belong to all.

    Raises
    ------
    StoreError
        There is no column of a name.
    """
    if names is None:
        names = [name for name in data if hidden or not name.startswith(HIDDEN)]
    absent = [name for name in names if name not in data]
    if absent:
        there = ", ".join(name for name in data if not name.startswith(HIDDEN))
        raise StoreError(f"{what}: no column {', '.join(absent)}; it has {there}")
    return {n: data[n] if row is None or not data[n].ndim else data[n][row] for n in names}
