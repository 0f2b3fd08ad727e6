"""Times and sizes as people write them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyrun.units import seconds, shown_bytes, shown_seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [("10m", 600), ("1h30m", 5400), ("2d", 172800), ("1w", 604800), ("1.5h", 5400), ("1h 30m", 5400), (" 90s ", 90)],
)
def test_times_are_read_as_people_write_them(text: str, expected: float) -> None:
    """Terms of number and unit add up."""
    assert seconds(text) == expected


@given(st.integers(0, 10), st.integers(0, 100), st.integers(0, 100), st.integers(1, 1000))
def test_terms_add_up(d: int, h: int, m: int, s: int) -> None:
    """Whatever their sizes."""
    assert seconds(f"{d}d{h}h{m}m{s}s") == ((d * 24 + h) * 60 + m) * 60 + s


@pytest.mark.parametrize("value", ["", "10", "m", "10 minutes", "-1m", "1m-", "0s", 0, -3, True, None, [3], "1e3s"])
def test_what_is_no_time_is_an_error(value: Any) -> None:
    """A bare number in a text might be minutes or seconds; nobody knows."""
    with pytest.raises(ValueError, match="is no time"):
        seconds(value)


@given(st.floats(1e-3, 1e10))
def test_what_is_shown_is_close(value: float) -> None:
    """To three digits, in a unit that fits."""
    number, unit = shown_seconds(value).split(" ")
    sizes = {"s": 1, "minutes": 60, "hours": 3600, "days": 86400, "years": 365.25 * 86400}
    assert float(number.replace(",", "")) * sizes[unit] == pytest.approx(value, rel=0.01)
    number, unit = shown_bytes(value).split(" ")
    sizes = {"bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
    assert float(number) * sizes[unit] == pytest.approx(value, rel=0.01, abs=1)
