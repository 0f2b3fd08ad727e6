"""Times, sizes and ranges as people write them."""

from __future__ import annotations

import math
import re
from typing import Any

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_TERM = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])\s*")


def seconds(value: Any) -> float:
    """Return a time in seconds.

    Parameters
    ----------
    value : float or str
        Seconds, or terms of ``s``, ``m``, ``h``, ``d`` and ``w``: seconds to weeks.

    Raises
    ------
    ValueError
        It is no time above 0.

    Examples
    --------
    >>> seconds('10m'), seconds('1h30m'), seconds('2d'), seconds(1.5)
    (600.0, 5400.0, 172800.0, 1.5)
    """
    if isinstance(value, str) and value.strip() and not _TERM.sub("", value.strip()):
        total = sum(float(number) * _SECONDS[unit] for number, unit in _TERM.findall(value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        total = float(value)
    else:
        raise ValueError(f"{value!r} is no time")
    if not (math.isfinite(total) and total > 0):
        raise ValueError(f"{value!r} is no time above 0")
    return total


def core_hours(value: Any) -> float:
    """Return an amount of computing in core-hours.

    Parameters
    ----------
    value : float or str
        A number, or one followed by ``core-hours``.

    Raises
    ------
    ValueError
        It is none.

    Examples
    --------
    >>> core_hours('1000 core-hours'), core_hours(0.5)
    (1000.0, 0.5)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*core-hours?\s*", value) if isinstance(value, str) else None
    if match:
        return float(match[1])
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError(f"{value!r} is no number of core-hours")


def shown_seconds(value: float) -> str:
    """Return a time in the largest unit that leaves a number above 1.

    >>> shown_seconds(0.25), shown_seconds(600), shown_seconds(200000)
    ('0.25 s', '10 minutes', '2.31 days')
    """
    size, unit = unit_of(value)
    return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:,.0f} {unit}"


def unit_of(value: float) -> tuple[float, str]:
    """Return the unit in which people write a time: its seconds and its name.

    >>> unit_of(89), unit_of(90)
    ((1.0, 's'), (60.0, 'minutes'))
    """
    for size, unit in ((365.25 * 86400, "years"), (86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if value >= 1.5 * size:
            return size, unit
    return 1.0, "s"


def as_option(value: float) -> str:
    """Return a time, rounded up, as it is written into a task file.

    >>> as_option(2.5), as_option(100), as_option(7000)
    ('3s', '2m', '2h')
    """
    unit = "s" if value < 90 else "m" if value < 90 * 60 else "h"
    return f"{math.ceil(value / _SECONDS[unit])}{unit}"


def shown_bytes(value: float) -> str:
    """Return a number of bytes in the largest unit that leaves a number above 1.

    >>> shown_bytes(512), shown_bytes(2_500_000)
    ('512 bytes', '2.5 MB')
    """
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} bytes"


def shown_ranges(found: list[list[int]], most: int = 20) -> str:
    """Return ranges first..last.

    >>> shown_ranges([[0, 4], [7, 7], [9, 10]], most=2)
    '0-4, 7 and 1 more ranges'
    """
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in found[:most]]
    return ", ".join(texts) + (f" and {len(found) - most} more ranges" if len(found) > most else "")
