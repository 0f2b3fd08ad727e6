"""Parameter spaces that are drawn: at random, from a Sobol' sequence, as a Latin hypercube; and repetitions.

They are spaces like any other. Values are computed when asked for, and the same in every process: a seed is required.

>>> space = Random(3, seed=1, gain=(0, 2), kind=Choice(['spiking', 'rate']))
>>> [(round(row['gain'], 3), row['kind']) for row in space]
[(1.934, 'rate'), (1.165, 'rate'), (0.465, 'rate')]
>>> Random(100, seed=1, gain=(0, 2))[:3] == Random(3, seed=1, gain=(0, 2))
True
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from hashlib import blake2b
from itertools import repeat
from typing import Any, ClassVar

import numpy as np

from psyrun.arrays import Array
from psyrun.axes import Selection, indices_of
from psyrun.designs import MOST_POINTS, SOBOL_DIMENSIONS, Design, Independent, LatinDimension, SobolDimension
from psyrun.keys import Lanes
from psyrun.pspace import Param, ParameterSpace
from psyrun.quantiles import Choice, Chosen, Drawn

__all__ = ["Choice", "LatinHypercube", "Random", "Repeat", "Sobol"]

# Rows made at a time.
_PIECE = 1 << 14


class _Sample(ParameterSpace):
    _design: ClassVar[type[Design]]

    def __init__(self, n: int, /, *, seed: int | None = None, **distributions: Any):
        kind = type(self).__name__
        self._length = _count(kind, n)
        if seed is None:
            raise TypeError(
                f"{kind} needs a seed, such as {kind}({n}, seed=1, ...): without one, each process that loads the "
                "task file would draw other values"
            )
        if not _is_whole(seed):
            raise TypeError(f"{kind}: seed is {seed!r}; it takes a whole number, such as seed=1")
        if not distributions:
            raise TypeError(f"{kind} has no parameters; name some, as in {kind}({n}, seed={seed}, x=(0, 1))")
        for name in distributions:
            if not name.isidentifier():
                raise ValueError(f"{kind}: {name!r} is no name for a parameter; write letters, digits and underscores")
        self.parameters = tuple(distributions)
        self._seed = operator.index(seed)
        self._sources = [
            (Chosen if isinstance(given, Choice) else Drawn)(
                name, given, self._design(self._length, self._seed, name, dimension)
            )
            for dimension, (name, given) in enumerate(distributions.items())
        ]

    def __len__(self) -> int:
        return self._length

    def _rows(self, at: Selection, plain: bool) -> Iterator[dict[str, Any]]:
        for low in range(0, len(at), _PIECE):
            piece = indices_of(at[low : low + _PIECE])
            values = zip(*(source.rows(piece, plain) for source in self._sources), strict=True)
            yield from map(dict, map(zip, repeat(self.parameters), values))

    def _columns(self, at: Selection) -> dict[str, Array]:
        numbers = indices_of(at)
        return {name: source.column(numbers) for name, source in zip(self.parameters, self._sources, strict=True)}

    def _lanes(self, at: Selection, names: frozenset[str]) -> Lanes:
        numbers = indices_of(at)
        total = np.zeros((len(numbers), 2), dtype=np.uint64)
        for name, source in zip(self.parameters, self._sources, strict=True):
            if name in names:
                total += source.lanes(numbers)
        return total

    @property
    def _mutable(self) -> frozenset[str]:
        return frozenset(n for n, source in zip(self.parameters, self._sources, strict=True) if source.mutable)

    def _digest(self) -> bytes:
        state = blake2b(f"{type(self).__name__} {len(self)} {self._seed}".encode(), digest_size=16)
        for source in self._sources:
            told = source.digest(len(self))
            state.update(b" %d:" % len(told) + told)
        return state.digest()


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _count(kind: str, n: Any) -> int:
    if not _is_whole(n):
        raise TypeError(f"{kind}: n is {n!r}; it takes a whole number, such as {kind}(100, ...)")
    if not 0 <= n <= MOST_POINTS:
        raise ValueError(f"{kind}: n is {n}; it takes 0 to 2**40")
    return operator.index(n)


class Random(_Sample):
    """n rows drawn at random, each parameter on its own.

    Parameters
    ----------
    n : int
        Number of rows.
    seed : int
        Required, so that every process that loads the task file draws the same values.
    **distributions
        What each parameter is drawn from, by name: a pair ``(low, high)`` for a uniform draw of floats; `Choice` for
        one of some values; or a distribution with a quantile function ``ppf`` (or ``icdf``) that takes arrays, such as
        ``scipy.stats.norm(0, 1)``. Discrete distributions of SciPy give integers.

    Raises
    ------
    TypeError, ValueError
        There is no seed or no parameter, n is not a whole number from 0 to 2**40, a name is not an identifier, or
        there is nothing to draw from, such as a distribution whose arguments are not given.

    Notes
    -----
    A row does not change when n grows, and a parameter does not change with the others or their order: its values
    depend on the seed, its name and its distribution. Columns are arrays of shape (n,): float64 for pairs, int64 for
    discrete distributions, whatever ppf returns for others; those of `Choice` are as `Param` has them.

    Uniform draws are the same numbers everywhere. Those of SciPy's distributions are as equal as its functions are from
    version to version; rows whose values an update changes are new rows.

    Examples
    --------
    >>> Random(1000, seed=1, x=(-1, 1)).columns()['x'].shape
    (1000,)
    """

    _design = Independent


class Sobol(_Sample):
    """n rows of a scrambled Sobol' sequence: they fill the space more evenly than random ones.

    Parameters are those of `Random`; there may be 37 of them. Means over the rows have the smallest errors where n is a
    power of two [1]_.

    Raises
    ------
    TypeError, ValueError
        As for `Random`; or there are more than 37 parameters.

    Notes
    -----
    A row does not change when n grows. Dimensions of the sequence go to parameters in the order written, and are
    scrambled by seed and name: a parameter that is added at the end changes none of the others.

    The sequence is that of Joe and Kuo [2]_; it is scrambled by a random linear matrix and a digital shift [3]_, which
    keeps its evenness and makes each point uniform, as Owen's scrambling does [4]_.

    References
    ----------
    .. [1] A. B. Owen, "On dropping the first Sobol' point", 2020.
    .. [2] S. Joe and F. Y. Kuo, "Constructing Sobol sequences with better two-dimensional projections", 2008.
    .. [3] J. Matousek, "On the L2-discrepancy for anchored boxes", Journal of Complexity 14, 1998.
    .. [4] A. B. Owen, "Scrambling Sobol' and Niederreiter-Xing points", Journal of Complexity 14, 1998.

    Examples
    --------
    >>> rows = Sobol(8, seed=1, x=(0, 8), y=(0, 8)).columns()
    >>> sorted(rows['x'].astype(int).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7]
    """

    _design = SobolDimension

    def __init__(self, n: int, /, *, seed: int | None = None, **distributions: Any):
        if len(distributions) > SOBOL_DIMENSIONS:
            raise ValueError(f"Sobol takes {SOBOL_DIMENSIONS} parameters at most, not {len(distributions)}; use Random")
        super().__init__(n, seed=seed, **distributions)


class LatinHypercube(_Sample):
    """n rows so that each parameter has one value in each of n intervals of the same probability [1]_.

    Parameters and errors are those of `Random`.

    Notes
    -----
    It grows by doubling [2]_: ``LatinHypercube(2 * n, ...)`` begins with the rows of ``LatinHypercube(n, ...)``. Other
    sizes are other draws, because two points of a small hypercube may share an interval of a larger one. To grow by any
    number of rows, add a hypercube with another seed: ``LatinHypercube(100, seed=1, ...) + LatinHypercube(50, seed=2,
    ...)``.

    A parameter does not change with the others or their order. A row needs the permutations of all rows: they are
    computed at the first use, in O(n log n), and kept.

    References
    ----------
    .. [1] M. D. McKay, R. J. Beckman and W. J. Conover, "A comparison of three methods for selecting values of input
       variables in the analysis of output from a computer code", Technometrics 21, 1979.
    .. [2] C. J. Sallaberry, J. C. Helton and S. C. Hora, "Extension of Latin hypercube samples with correlated
       variables", Reliability Engineering and System Safety 93, 2008.

    Examples
    --------
    >>> sorted(LatinHypercube(5, seed=1, x=(0, 5))['x'].astype(int).tolist())
    [0, 1, 2, 3, 4]
    """

    _design = LatinDimension


class Repeat(Param):
    """n repetitions of whatever it is multiplied with, counted from 0 by a parameter.

    Parameters
    ----------
    n : int
        How often.
    name : str
        The parameter that counts. It is part of the assignment, so each repetition has its own key, and its own seed.

    Examples
    --------
    >>> print(Param(D=[2, 3]) * Repeat(2))
    Param(D=[2, 2, 3, 3], trial=[0, 1, 0, 1])
    """

    def __init__(self, n: int, name: str = "trial"):
        super().__init__(**{name: range(_count("Repeat", n))})
