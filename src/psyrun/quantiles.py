"""What parameters are drawn from: intervals, values, distributions; and their values where points of a design are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from numbers import Real
from typing import Any

import numpy as np

from psyrun.arrays import Array
from psyrun.axes import Axis, Indices, is_sequence, materialised
from psyrun.designs import Design, Points
from psyrun.errors import UnsupportedValueError
from psyrun.keys import Lanes, canonical, value_lanes

# Probabilities at which a distribution is tried: of two lengths, which tells arguments that are arrays.
_PROBES = tuple((np.arange(n) + 0.5) / n for n in (2, 101))


class Choice:
    """What a parameter is drawn from when it is one of some values, each as likely as the others.

    Parameters
    ----------
    values : list, tuple, range or array
        At least one value of any kind that `psyrun.Param` takes. They are given to tasks as they are written here.

    Examples
    --------
    >>> from psyrun import Random
    >>> sorted(set(Random(50, seed=1, n=Choice(range(2, 5)))['n'].tolist()))
    [2, 3, 4]
    """

    def __init__(self, values: Any):
        values = materialised("Choice", values)
        if not is_sequence(values) or not len(values):
            raise ValueError(f"Choice({values!r}) has no values to choose from; write a list, as in Choice([1, 2, 5])")
        self.values = values

    def __repr__(self) -> str:
        return f"Choice({self.values!r})"


class Chosen:
    """A parameter that is one of some values."""

    def __init__(self, name: str, choice: Choice, design: Design):
        self._axis = Axis(name, choice.values, len(choice.values))
        self._many = len(choice.values)
        self._design = design
        self.mutable = self._axis.mutable

    def _which(self, at: Indices) -> Indices:
        return np.minimum(self._design.at(at) * self._many, self._many - 1).astype(np.int64)

    def rows(self, at: Indices, plain: bool) -> Iterable[Any]:
        """Return the values as written, or as Python scalars."""
        return self._axis.rows(self._which(at), plain)

    def column(self, at: Indices) -> Array:
        """Return the values as an array, shape (n, ...)."""
        return self._axis.column(self._which(at))

    def lanes(self, at: Indices) -> Lanes:
        """Return the hashes of the values, shape (n, 2)."""
        return self._axis.lanes(self._which(at))

    def digest(self, n: int) -> bytes:
        """Return what differs where one of the first n values may differ."""
        return b"choice" + self._axis.digest()


class Drawn:
    """A parameter that has a distribution of numbers."""

    mutable = False

    def __init__(self, name: str, distribution: Any, design: Design):
        self._name = name
        self._design = design
        self._quantile, self._told = _quantile(name, distribution)

    def rows(self, at: Indices, plain: bool) -> Iterable[Any]:
        """Return the values as Python scalars."""
        values: list[Any] = self.column(at).tolist()
        return values

    def column(self, at: Indices) -> Array:
        """Return the values as an array, shape (n,)."""
        return self._quantile(self._design.at(at))

    def lanes(self, at: Indices) -> Lanes:
        """Return the hashes of the values, shape (n, 2)."""
        return value_lanes(self._name, self.column(at))

    def digest(self, n: int) -> bytes:
        """Return what differs where one of the first n values may differ."""
        name = value_lanes(self._name, ["name"]).tobytes()
        return name + (self._told or b"values" + self.lanes(np.arange(n)).tobytes())


def _quantile(name: str, distribution: Any) -> tuple[Callable[[Points], Array], bytes]:
    """Return the quantile function of a parameter, and what tells it from others; nothing if only its values do."""
    if isinstance(distribution, tuple) and len(distribution) == 2 and all(map(_is_number, distribution)):
        low, high = map(float, distribution)
        if not (low < high and math.isfinite(high - low)):
            raise ValueError(f"parameter {name!r}: ({low}, {high}) is no interval; write (low, high) with low < high")
        return partial(_uniform, low, high), b"uniform" + np.array([low, high], dtype="<f8").tobytes()
    ppf = getattr(distribution, "ppf", None) or getattr(distribution, "icdf", None)
    if not callable(ppf):
        raise TypeError(
            f"parameter {name!r} cannot be drawn from {distribution!r}; it takes (low, high) for a uniform draw, "
            "Choice([...]) for one of some values, or a distribution with a quantile function ppf, such as "
            f"scipy.stats.norm(0, 1). One value for all rows is * Param({name}=...)"
        )
    whole = _is_discrete(distribution, _probed(name, distribution, ppf))
    return partial(_whole, name, ppf) if whole else partial(_real, ppf), _of_scipy(distribution)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _uniform(low: float, high: float, points: Points) -> Array:
    return low + points * (high - low)


def _whole(name: str, ppf: Callable[[Points], Any], points: Points) -> Array:
    values = np.asarray(ppf(points))
    if not ((np.abs(values) < 2.0**63) & (np.mod(values, 1) == 0)).all():
        raise ValueError(f"parameter {name!r}: its distribution is discrete, but has values that int64 does not hold")
    return values.astype(np.int64)


def _real(ppf: Callable[[Points], Any], points: Points) -> Array:
    return np.asarray(ppf(points))


def _probed(name: str, distribution: Any, ppf: Callable[[Points], Any]) -> Array:
    """Return some quantiles of a distribution, or say why there are none."""
    kind = getattr(distribution, "dist", distribution)
    described = f"parameter {name!r}: the distribution {getattr(kind, 'name', None) or distribution!r}"
    try:
        found = [np.asarray(ppf(points)) for points in _PROBES]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{described} gives no quantiles for an array of probabilities ({error}); "
            "does it have all its arguments, as in scipy.stats.gamma(2)?"
        ) from None
    if any(f.shape != points.shape or f.dtype.kind not in "biuf" for f, points in zip(found, _PROBES, strict=True)):
        raise ValueError(f"{described} gives more or less than a real number for a probability; give it single numbers")
    if not all(np.isfinite(f).all() for f in found):
        raise ValueError(f"{described} has quantiles that are not finite; are its arguments in their range?")
    return np.concatenate(found)


def _is_discrete(distribution: Any, probed: Array) -> bool:
    """Whether a distribution is of whole numbers, which SciPy gives as floats."""
    kind = getattr(distribution, "dist", distribution)
    if not any(c.__name__ == "rv_discrete" for c in type(kind).__mro__):
        return False
    return bool((np.mod(np.append(probed, getattr(kind, "xk", [])), 1) == 0).all())


def _of_scipy(distribution: Any) -> bytes:
    """Return name and arguments if these tell all about a distribution: it is one of SciPy's own."""
    kind = getattr(distribution, "dist", distribution)
    if not type(kind).__module__.startswith("scipy."):
        return b""
    import scipy
    from scipy import stats

    name = getattr(kind, "name", None) or ""
    if type(getattr(stats, name, None)) is not type(kind):
        return b""
    arguments = getattr(distribution, "args", ()), getattr(distribution, "kwds", {})
    try:
        # Quantiles of another version may differ in their last digits.
        return b"scipy" + canonical([scipy.__version__, name, *arguments])[1]
    except UnsupportedValueError:
        return b""
