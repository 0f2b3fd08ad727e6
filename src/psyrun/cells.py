"""Values as bytes: what parts hold of the outputs of items."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np

from psyrun.arrays import Array, exact_array, is_masked
from psyrun.errors import UnsupportedValueError

FIXED_KINDS = "biufcMm"
"""Kinds of dtypes whose values are stored as they are in memory."""

_PYTHON_SCALARS = {float: "<f8", int: "<i8", bool: "|b1", complex: "<c16"}


def plain_dtype(text: str, more_kinds: str = "") -> np.dtype[Any]:
    """Return the dtype of a text: of numbers and times, and of other kinds (letters) on request; never of objects."""
    dtype = np.dtype(text)
    if dtype.kind not in FIXED_KINDS + more_kinds:
        raise ValueError(f"dtype {text} in a part")
    return dtype


def fixed_cells(values: Sequence[Any]) -> Array | None:
    """Return an array if all values are numbers or times of one type, or arrays of such of one shape."""
    types = set(map(type, values))
    if len(types) != 1:
        return None
    kind = types.pop()
    dtype = _PYTHON_SCALARS.get(kind)
    if dtype is None and issubclass(kind, (np.bool_, np.number)) and not issubclass(kind, np.timedelta64):
        dtype = np.dtype(kind).newbyteorder("<").str
    if dtype is not None:
        try:
            return np.array(values, dtype=dtype)
        except OverflowError:
            return None
    if not issubclass(kind, (np.generic, np.ndarray)) or is_masked(values[0]):
        return None
    if len({(v.dtype, v.shape) for v in values}) != 1:
        return None
    found = values[0].dtype
    if found.kind not in FIXED_KINDS or found.hasobject or values[0].size == 0:
        return None
    return np.array(values, dtype=found.newbyteorder("<"))


def cell(name: str, value: Any, objects_ok: bool) -> bytes:
    """Return the bytes of a value in a column of variable size: a letter for its kind, then its content.

    Raises
    ------
    UnsupportedValueError
        Only a `PickleStore` can hold it.
    """
    if value is None:
        return b"n"
    if isinstance(value, str):
        return b"s" + str.encode(value, "utf-8", "surrogatepass")
    if isinstance(value, bytes):
        return b"b" + bytes(value)
    try:
        array = exact_array(list(value)) if isinstance(value, Sequence) else np.asarray(value)
        if array.dtype.kind in FIXED_KINDS + "US" and not is_masked(value):
            head = json.dumps([array.dtype.newbyteorder("<").str, list(array.shape)]).encode()
            return b"a" + head + b"\n" + array.astype(array.dtype.newbyteorder("<")).tobytes()
        if objects_ok:
            return b"p" + pickle.dumps(value)
        shown = f"{value!r:.60}"
    except Exception as error:  # user code: __array__, __reduce__ and __repr__ may raise anything
        raise UnsupportedValueError(f"{name!r} is a {type(value).__name__} that cannot be stored: {error}") from error
    what = "an integer of more than 64 bits" if isinstance(value, int) else f"a {type(value).__name__}"
    raise UnsupportedValueError(
        f"{name!r} is {what} ({shown}); a result file takes numbers, text, bytes, times and arrays of them. "
        "To keep any Python object: store = psyrun.PickleStore()"
    )


def value_of(data: bytes, objects_ok: bool) -> Any:
    """Return the value of a cell; pickles are read only for the store that wrote them."""
    kind, content = data[:1], data[1:]
    if kind == b"n":
        return None
    if kind == b"s":
        return content.decode("utf-8", "surrogatepass")
    if kind == b"b":
        return content
    if kind == b"a":
        head, raw = content.split(b"\n", 1)
        dtype, shape = json.loads(head)
        return np.frombuffer(raw, dtype=plain_dtype(dtype, "US")).reshape(shape)[()]
    if kind == b"p" and objects_ok:
        return pickle.loads(content)  # noqa: S301 - written by this task's own workers, in a directory of mode 0700
    raise UnsupportedValueError("a part holds a Python object; only a PickleStore can hold it")
