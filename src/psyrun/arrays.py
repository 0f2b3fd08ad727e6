"""Arrays of values as they were written: typed where no value changes, of objects where one would.

``np.asarray(['a', 1])`` makes both text, ``np.asarray([2**53 + 1, .5])`` makes the first another number and
``np.asarray([True, 2])`` makes the first a 1. The functions here do none of that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_EXACT_FLOAT = 2**53


def objects(values: Sequence[Any]) -> Array:
    """Return a one-dimensional array of objects, whatever the values are.

    >>> objects([[1, 2], 'a']).shape
    (2,)
    """
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def is_masked(value: Any) -> bool:
    """Whether a value is a masked array; NumPy's module for them is slow to load, and most arrays are plain."""
    return isinstance(value, np.ndarray) and type(value) is not np.ndarray and isinstance(value, np.ma.MaskedArray)


def plain(value: Any) -> Any:
    """Return the Python number for a NumPy number, and anything else as it is.

    >>> plain(np.float64(0.5)), plain(np.datetime64('2020-01-01'))
    (0.5, np.datetime64('2020-01-01'))
    """
    if isinstance(value, np.generic) and value.dtype.kind in "biufcUS":
        return value.item()
    return value


def plain_list(values: Sequence[Any] | Array) -> list[Any]:
    """Return the values as a list of Python scalars where they are scalars, of arrays where they are arrays."""
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "biufcUS":
        return list(values.tolist())
    return [plain(v) for v in values]


def exact_array(values: Sequence[Any]) -> Array:
    """Return an array that holds each value as it is.

    Parameters
    ----------
    values : sequence of n values
        Anything.

    Returns
    -------
    array, shape (n, ...)
        Of a numeric, text or time dtype if every value survives the conversion unchanged (an int beside floats may
        become a float only if it is the same number); otherwise of dtype object and shape (n,).

    Examples
    --------
    >>> exact_array([1, 2]).dtype, exact_array([1, .5]).dtype, exact_array([True, 2]).dtype
    (dtype('int64'), dtype('float64'), dtype('O'))
    >>> exact_array([2**53 + 1, .5]).dtype
    dtype('O')
    """
    types = set(map(type, values))
    if not types:
        return np.empty(0)
    if types == {float}:
        return np.array(values, dtype=np.float64)
    if types == {bool}:
        return np.array(values, dtype=bool)
    if types == {int}:
        return _integers(values)
    if types == {int, float}:
        exact = all(abs(v) <= _EXACT_FLOAT for v in values if type(v) is int)
        return np.array(values, dtype=np.float64) if exact else objects(values)
    if all(issubclass(t, str) for t in types):
        return objects(values) if any(v.endswith("\0") for v in values) else np.array(values, dtype=np.str_)
    if all(issubclass(t, bytes) for t in types):
        return objects(values) if any(v.endswith(b"\0") for v in values) else np.array(values, dtype=np.bytes_)
    if all(issubclass(t, (np.number, np.bool_, np.datetime64, np.timedelta64)) for t in types):
        return _numpy_scalars(values)
    if types == {complex}:
        return np.array(values, dtype=np.complex128)
    if all(issubclass(t, (np.ndarray, list, tuple)) for t in types):
        return _stacked(values)
    numbers = [plain(v) for v in values]
    # Numbers of NumPy beside Python's, as in [np.mean(a), 0.0]: they are the same numbers.
    mixed = all(issubclass(t, (float, int, np.floating, np.integer)) and not issubclass(t, bool) for t in types)
    return exact_array(numbers) if mixed and set(map(type, numbers)) <= {int, float} else objects(values)


def _integers(values: Sequence[int]) -> Array:
    low, high = min(values), max(values)
    if low >= -(2**63) and high < 2**63:
        return np.array(values, dtype=np.int64)
    if low >= 0 and high < 2**64:
        return np.array(values, dtype=np.uint64)
    return objects(values)


def _numpy_scalars(values: Sequence[Any]) -> Array:
    dtypes = {v.dtype for v in values}
    if len(dtypes) == 1:
        return np.array(values, dtype=dtypes.pop())
    return objects(values)


def _stacked(values: Sequence[Any]) -> Array:
    rows = [v if isinstance(v, np.ndarray) else exact_array(list(v)) for v in values]
    same = len({(r.dtype, r.shape) for r in rows}) == 1
    if same and rows[0].dtype != object:
        return np.stack(rows)
    return objects(values)


def same_number(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether every number of an array is the same number in another dtype; no where that takes a closer look."""
    if array.dtype == dtype:
        return True
    if array.dtype.kind in "biu" and dtype.kind in "iufc":
        limit = 2 ** (np.finfo(dtype).nmant + 1) if dtype.kind in "fc" else 0
        low, high = (-limit, limit) if limit else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        return not array.size or (low <= int(array.min()) and int(array.max()) <= high)
    if (array.dtype.kind, dtype.kind) not in (("f", "f"), ("f", "c"), ("c", "c")):
        return False
    with np.errstate(all="ignore"):
        other = array.astype(dtype)
    parts = (other.real, array.real), (other.imag, array.imag)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in parts)


def join(arrays: Iterable[Array]) -> Array:
    """Concatenate arrays by rows, without changing a value: of objects if no common dtype can hold them."""
    arrays = list(arrays)
    if len({(a.dtype, a.shape[1:]) for a in arrays}) == 1:
        return np.concatenate(arrays)
    kinds = {a.dtype.kind for a in arrays}
    if len({a.shape[1:] for a in arrays}) == 1 and (kinds <= set("iufc") or (len(kinds) == 1 and kinds <= set("US"))):
        dtype = np.result_type(*arrays)
        if kinds <= set("US") or all(same_number(a, dtype) for a in arrays):
            return np.concatenate(arrays, dtype=dtype, casting="unsafe")
    return np.concatenate([a if a.dtype == object else objects(list(a)) for a in arrays])


def evaluable(value: Any) -> str:
    """Return text that ``eval`` (with ``np``) makes an equal value of again; nan and inf included.

    >>> evaluable([1, float('nan')])
    "[1, float('nan')]"
    """
    value = plain(value)
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, complex):
        return f"complex({evaluable(value.real)}, {evaluable(value.imag)})"
    if isinstance(value, np.longdouble):
        return f"np.longdouble('{value!s}')"
    if isinstance(value, (np.datetime64, np.timedelta64)):
        return repr(value).replace("numpy.", "np.")
    if isinstance(value, np.ndarray):
        if not value.size:
            return f"np.empty({value.shape})"
        return evaluable(list(value) if value.dtype.kind in "Mm" else value.tolist())
    if isinstance(value, (list, tuple)):
        inner = ", ".join(map(evaluable, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{evaluable(k)}: {evaluable(v)}" for k, v in value.items()) + "}"
    # What is derived from these, such as a member of an enumeration, shows itself as something that eval cannot read.
    kind: Any = next((kind for kind in (bool, int, float, str, bytes) if isinstance(value, kind)), type(value))
    return str(kind.__repr__(value))
