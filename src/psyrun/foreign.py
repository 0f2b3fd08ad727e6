"""Columns of files that psyrun 0.8 or other programs wrote, and what their values are in a parameter space."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psyrun.arrays import Array, exact_array, objects, plain
from psyrun.columns import HIDDEN, NONE, SHAPE, restored
from psyrun.errors import RefusedError, StoreError, TaskError
from psyrun.keys import find, value_lanes
from psyrun.owners import GROUP_AND_OTHERS, mistrust, remedy
from psyrun.pspace import ParameterSpace
from psyrun.store.auto import readable
from psyrun.store.h5 import columns_at_root

_PRINTED = (".csv", ".tsv", ".txt")
_WINDOW = 2**16
_CLOSE = 1e-6
_TRUTH = {"True": True, "False": False}
_ABSENT = {"", "nan", "NaN", "None"}


def is_printed(path: Path) -> bool:
    """Whether all values in a file are text, as they were printed."""
    return path.suffix.lower() in _PRINTED


def read_columns(
    path: Path, parameters: Collection[str], unpickle: bool, trusted: bool, optional: Collection[str] = ()
) -> dict[str, Array]:
    """Return the columns of a file, but for hidden ones; parameters in text files as text.

    Parameters
    ----------
    path : Path
        CSV if it `is_printed`, else what `psyrun.AutodetectStore` reads, or HDF5 with data sets at its root.
    parameters : collection of str
        Columns that have to be there.
    unpickle, trusted : bool
        Whether Python objects may be read, where nobody else could have written the file; whether the user said so.
    optional : collection of str
        Parameters that may be absent.

    Raises
    ------
    StoreError, TaskError
        It cannot be read, or has no such columns, all of one length.
    RefusedError
        It was to be unpickled, but others could have written it.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such file; it takes a result of psyrun, or an .npz, .h5 or .csv file")
    data = _texts(path, parameters, optional) if is_printed(path) else _stored(path, unpickle, trusted)
    absent = [name for name in parameters if name not in data and name not in optional]
    if absent:
        told = ", ".join(data) or "none"
        raise TaskError(
            f"{path}: has no column {', '.join(absent)}, so nothing tells which items its rows are. It has: {told}"
        )
    heights = {name: len(column) if column.ndim else "none" for name, column in data.items()}
    if len(set(heights.values())) > 1:
        told = ", ".join(f"{name} has {n}" for name, n in heights.items())
        raise TaskError(
            f"{path}: columns need the same number of rows, or nobody can tell which belong together: {told}"
        )
    return data


def _stored(path: Path, unpickle: bool, trusted: bool) -> dict[str, Array]:
    why = mistrust(path, GROUP_AND_OTHERS)
    if trusted and why:
        raise RefusedError(f"{path}: {why}, so it is not unpickled. {remedy(path)}")
    found = columns_at_root(path) if path.suffix.lower() in (".h5", ".hdf5") else None
    if found is not None:
        return found
    store = readable(path, (unpickle or trusted) and not why, "if it is yours: psy-doit adopt ... --trust-pickle")
    data = store.load(path, keys=True)
    changed = {name for name in data if {NONE + name, SHAPE + name} & set(data)}
    return {
        name: objects(restored(name, data)) if name in changed else column
        for name, column in data.items()
        if not name.startswith(HIDDEN)
    }


def _texts(path: Path, parameters: Collection[str], optional: Collection[str]) -> dict[str, Array]:
    """Return the columns of a text file; the sign between them is the first that shows the parameters."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        for sign in ",;\t":
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sign) if row]
            names = [name.strip() for name in rows[0]] if rows else []
            if names and set(parameters) - set(optional) <= set(names):
                break
        else:
            raise TaskError(f"{path}: its first line does not name the parameters: {', '.join(parameters)}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StoreError(f"{path}: cannot be read as CSV in UTF-8: {error}") from error
    if len(set(names)) < len(names):
        raise TaskError(f"{path}: two columns have one name: {', '.join(names)}")
    for number, row in enumerate(rows):
        if len(row) != len(names):
            raise TaskError(f"{path}: row {number - 1} has {len(row)} values, the first line {len(names)} names")
    columns = {name: objects([row[i] for row in rows[1:]]) for i, name in enumerate(names)}
    return {name: column if name in parameters else _output_of(column) for name, column in columns.items()}


def _output_of(column: Array) -> Array:
    """Return a column of text as what it shows, if all of it is of one kind: truth values, numbers, text.

    What is empty is no value among whole numbers and truth values, NaN among others, and text in text.
    """
    texts = column.tolist()
    readers: list[Callable[[str], Any]] = [_TRUTH.get, _number]
    for read in readers:
        values = {text: read(text) for text in set(texts) - _ABSENT}
        if values and None not in values.values():
            absent = np.nan if float in map(type, values.values()) else None
            return exact_array([values.get(text, absent) for text in texts])
    return column


def _number(text: str) -> int | float | None:
    """Return the number that Python printed so."""
    if re.fullmatch(r"[+-]?[0-9]{1,1000}", text):
        return int(text)
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _meanings(value: Any, dtype: np.dtype[Any]) -> Iterator[Any]:
    """Yield what bytes, or printed text, may have been in a space that has values of a dtype."""
    yield value
    if isinstance(value, bytes):
        yield value.decode("utf-8", "surrogateescape")
        return
    number = _number(value)
    if number is not None:
        yield number
        if dtype.kind == "f" and dtype.itemsize < 8:  # these are printed with fewer digits
            yield dtype.type(value)
    if value in _TRUTH:
        yield _TRUTH[value]
    if value in _ABSENT:
        yield None
        yield np.nan
    if re.match(r"[0-9]{4}-[0-9]{2}", value):
        try:
            yield np.datetime64(value)
        except ValueError:
            return


def own_values(name: str, column: Array, space: ParameterSpace, printed: bool) -> Array | list[Any]:
    """Return the values of a parameter as the space has them, where they were written as bytes or, printed, as text.

    HDF5 makes bytes of text. Values that the space does not have are returned as the number that they show, or as
    they are.

    Raises
    ------
    TaskError
        The space has two values that are written alike.
    """
    if column.dtype.kind not in "OS" or column.ndim > 1:
        return column
    values: list[Any] = column.tolist()
    kinds = (bytes, str) if printed else (bytes,)
    distinct = list(dict.fromkeys(value for value in values if isinstance(value, kinds)))
    if not distinct:
        return values
    dtype = next(iter(_windows(space, name)), np.empty(0)).dtype
    meanings = [list(_meanings(value, dtype)) for value in distinct]
    there = iter(present(space, name, [meaning for group in meanings for meaning in group]))
    known: dict[Any, Any] = {}
    for value, group in zip(distinct, meanings, strict=True):
        found = [meaning for meaning in group if next(there)]
        lanes = {row.tobytes(): meaning for meaning in found for row in value_lanes(name, [meaning])}
        if len(lanes) > 1:
            told = " and ".join(map(repr, lanes.values()))
            raise TaskError(
                f"column {name!r}: {value!r} can be {told}, and the space has both. Use an NPZ or HDF5 file"
            )
        numbers = [m for m in group if isinstance(m, (int, float))]
        known[value] = found[0] if found else (numbers or group)[0]
    return [known[value] if isinstance(value, kinds) else value for value in values]


def present(space: ParameterSpace, name: str, values: Sequence[Any]) -> list[bool]:
    """Return which values a parameter has in some item."""
    lanes = value_lanes(name, values)
    found = np.zeros(len(lanes), dtype=bool)
    for column in _windows(space, name):
        found |= find(lanes, value_lanes(name, column)) >= 0
    return found.tolist()


def _windows(space: ParameterSpace, name: str) -> Iterator[Array]:
    """Yield the values of a parameter in pieces, without repetitions where that is cheap to tell."""
    for first in range(0, len(space), _WINDOW):
        column = space.columns(first, first + _WINDOW)[name]
        yield np.unique(column) if column.ndim == 1 and column.dtype.kind in "biufUS" else column


def similar(space: ParameterSpace, name: str, value: Any) -> str:
    """Return what the space has in place of a value, '' if there is nothing like it."""
    value = plain(value)
    text = value.strip() if isinstance(value, str) else value if isinstance(value, bytes) else str(value)
    meanings = list(_meanings(text, np.dtype(float)))
    for meaning, there in zip(meanings, present(space, name, meanings), strict=True):
        if there:
            return f"the space has {meaning!r}"
    if isinstance(value, (bool, str)) or not isinstance(value, (int, float)):
        return ""
    best = None
    for column in _windows(space, name):
        numbers = column.tolist() if column.dtype.kind in "iuf" and column.ndim == 1 else map(plain, column)
        for own in numbers:
            if isinstance(own, (int, float)) and own == own and (best is None or abs(own - value) < abs(best - value)):
                best = own
    if best is not None and abs(best - value) <= _CLOSE * max(abs(best), abs(value)):
        return f"the nearest in the space is {best!r}, which is another number"
    return ""
