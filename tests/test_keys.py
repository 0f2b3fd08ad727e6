"""Identity keys: equal exactly when two assignments are the same work."""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable, Hashable, Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from psyrun.arrays import Array
from psyrun.errors import UnsupportedValueError
from psyrun.keys import assignment_key, canonical, find, finish, occurrences, order, value_lanes

GOLDEN = Path(__file__).parents[1] / "docs" / "keys.md"


def key(value: Any) -> tuple[int, ...]:
    return tuple(assignment_key({"x": value}).tolist())


# What the rules of equality are measured by: plain Python, slow and obvious.

UNITS = {"D": 86400 * 10**9, "h": 3600 * 10**9, "m": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


def identity(value: Any) -> Hashable:
    """Return something hashable that is equal for two values exactly when their keys have to be."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        unit, step = np.datetime_data(value.dtype)
        count = "NaT" if np.isnat(value) else int(value.astype(np.int64)) * step * UNITS[unit]
        return type(value).__name__, count
    if isinstance(value, (bool, int, float, np.bool_, np.integer, np.floating)):
        if value != value:
            return "nan"
        return (
            str(value)
            if value in (np.inf, -np.inf)
            else Fraction(*value.item().as_integer_ratio())
            if isinstance(value, np.bool_)
            else Fraction(*(value if isinstance(value, (int, np.floating, float)) else int(value)).as_integer_ratio())
        )
    if isinstance(value, (complex, np.complexfloating)):
        return identity(value.real) if value.imag == 0 else ("complex", identity(value.real), identity(value.imag))
    if isinstance(value, (str, bytes)):
        return (str(value) if isinstance(value, str) else bytes(value)), isinstance(value, str)
    if isinstance(value, np.ndarray):
        if not value.ndim:
            return identity(value[()])
        if not len(value) and value.ndim > 1:
            return "empty", value.shape
    if isinstance(value, (list, tuple, range, np.ndarray)):
        return "sequence", tuple(map(identity, value))
    if isinstance(value, dict):
        return "dict", frozenset((identity(k), identity(v)) for k, v in value.items())
    assert value is None
    return None
