"""Where samples lie in the unit interval, one parameter at a time: at random, on a Sobol' sequence, a Latin hypercube.

A point depends on the seed, the parameter's name and the point's number (and on its dimension, for Sobol'), through
integer arithmetic alone: it is the same on every platform and with every version of NumPy, and no other point is
needed to compute it, but for the permutations of a Latin hypercube. All points are inside of the open interval, so that
every distribution has a finite quantile for them.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from psyrun.axes import Indices
from psyrun.keys import mix

Points = npt.NDArray[np.float64]
"""Numbers between 0 and 1, both excluded."""

Bits = npt.NDArray[np.uint64]
"""Words of 64 bits."""

_BITS = 52
"""Of a point: with half a unit added, a double holds it exactly."""

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)

MOST_POINTS = 2**40
"""As many points a design may have; those of a Latin hypercube are rounded to less than 1 / MOST_POINTS."""

# A primitive polynomial a dimension (its coefficients as bits), and the first direction numbers: those of Joe and Kuo,
# "Constructing Sobol sequences with better two-dimensional projections" (2008), file new-joe-kuo-6. The first dimension
# needs none. These are all polynomials up to degree 7.
_SOBOL = (
    *((3, 1), (7, 1, 3), (11, 1, 3, 1), (13, 1, 1, 1), (19, 1, 1, 3, 3), (25, 1, 3, 5, 13), (37, 1, 1, 5, 5, 17)),
    *((41, 1, 1, 5, 5, 5), (47, 1, 1, 7, 11, 19), (55, 1, 1, 5, 1, 1), (59, 1, 1, 1, 3, 11), (61, 1, 3, 5, 5, 31)),
    *((67, 1, 3, 3, 9, 7, 49), (91, 1, 1, 1, 15, 21, 21), (97, 1, 3, 1, 13, 27, 49), (103, 1, 1, 1, 15, 7, 5)),
    *((109, 1, 3, 1, 15, 13, 25), (115, 1, 1, 5, 5, 19, 61), (131, 1, 3, 7, 11, 23, 15, 103)),
    *((137, 1, 3, 7, 13, 13, 15, 69), (143, 1, 1, 3, 13, 7, 35, 63), (145, 1, 3, 5, 9, 1, 25, 53)),
    *((157, 1, 3, 1, 13, 9, 35, 107), (167, 1, 3, 1, 5, 27, 61, 31), (171, 1, 1, 5, 11, 19, 41, 61)),
    *((185, 1, 3, 5, 3, 3, 13, 69), (191, 1, 1, 7, 13, 1, 19, 1), (193, 1, 3, 7, 5, 13, 19, 59)),
    *((203, 1, 1, 3, 9, 25, 29, 41), (211, 1, 3, 5, 13, 23, 1, 55), (213, 1, 3, 7, 3, 13, 59, 17)),
    *((229, 1, 3, 1, 3, 5, 53, 69), (239, 1, 1, 5, 5, 23, 33, 13), (241, 1, 1, 7, 7, 1, 61, 123)),
    *((247, 1, 1, 7, 9, 13, 61, 49), (253, 1, 3, 3, 5, 3, 55, 33)),
)

SOBOL_DIMENSIONS = len(_SOBOL) + 1
"""As many parameters a Sobol' sequence may have here."""


class Stream:
    """Random words by number: the generator SplitMix64 with a second key, in counter form.

    Parameters
    ----------
    *label
        Whose stream it is. Streams of other labels are independent.

    Notes
    -----
    The generator is that of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
    """

    def __init__(self, *label: object):
        digest = blake2b(repr([str(part) for part in label]).encode(), digest_size=16).digest()
        self._start, self._key = np.frombuffer(digest, dtype="<u8").astype(np.uint64)

    def words(self, numbers: Indices | Bits) -> Bits:
        """Return the words of these numbers, of the same shape."""
        return mix(mix(numbers.astype(np.uint64) * _GAMMA + self._start) ^ self._key)

    def order(self, n: int) -> Indices:
        """Return the numbers 0 to n-1 in random order."""
        return np.argsort(self.words(np.arange(n)))


def inside(bits: Bits) -> Points:
    """Return the middles of intervals of 2**-52."""
    points: Points = (bits.astype(np.float64) + 0.5) * 2.0**-_BITS
    return points


class Independent:
    """Points drawn independently of each other."""

    def __init__(self, n: int, seed: int, name: str, dimension: int):
        self._stream = Stream("random", seed, name)

    def at(self, numbers: Indices) -> Points:
        """Return the points of these numbers."""
        return inside(self._stream.words(numbers) >> np.uint64(64 - _BITS))


class SobolDimension:
    """One dimension of a Sobol' sequence, in the order of Gray code, scrambled.

    The digits are multiplied by a random triangular matrix, then shifted (Matousek, "On the L2-discrepancy for anchored
    boxes", 1998): each point is uniform, and each elementary interval holds as many points as before.
    """

    def __init__(self, n: int, seed: int, name: str, dimension: int):
        words = [int(word) >> (64 - _BITS) for word in Stream("sobol", seed, name).words(np.arange(_BITS + 1))]
        # Row b of the matrix gives bit b: itself, and a random choice of the bits above.
        rows = [(word >> b | 1) << b for b, word in enumerate(words[:_BITS])]
        scrambled = [
            sum(((direction & row).bit_count() & 1) << b for b, row in enumerate(rows))
            for direction in direction_numbers(dimension)
        ]
        self._directions = np.array(scrambled, dtype=np.uint64)
        self._shift = np.uint64(words[_BITS])

    def at(self, numbers: Indices) -> Points:
        """Return the points of these numbers."""
        gray = numbers.astype(np.uint64)
        gray ^= gray >> _ONE
        bits = np.full(gray.shape, self._shift)
        for digit in range(int(gray.max(initial=0)).bit_length()):
            bits ^= (gray >> np.uint64(digit) & _ONE) * self._directions[digit]
        return inside(bits)


def direction_numbers(dimension: int) -> list[int]:
    """Return what each binary digit of a point's number adds, as integers of 52 bits.

    Notes
    -----
    The recurrence is that of Bratley and Fox, "Algorithm 659: implementing Sobol's quasirandom sequence generator"
    (1988), equation 2.
    """
    if not dimension:
        return [1 << (_BITS - 1 - i) for i in range(_BITS)]
    polynomial, *numbers = _SOBOL[dimension - 1]
    degree = len(numbers)
    for i in range(degree, _BITS):
        number = numbers[i - degree]
        for k in range(1, degree + 1):
            if polynomial >> (degree - k) & 1:
                number ^= numbers[i - k] << k
        numbers.append(number)
    return [number << (_BITS - 1 - i) for i, number in enumerate(numbers)]


class LatinDimension:
    """One dimension of a Latin hypercube: one point in each of n intervals of the same width.

    With n = m * 2**k and odd m, it begins as one of m points and is doubled k times. Each doubling halves the
    intervals; new points go, in random order, to the empty halves. So the first n points of 2 n are those of n.
    """

    def __init__(self, n: int, seed: int, name: str, dimension: int):
        self._n = n
        self._label = "latin", seed, name

    def at(self, numbers: Indices) -> Points:
        """Return the points of these numbers."""
        return self._points[numbers]

    @cached_property
    def _points(self) -> Points:
        if not self._n:
            return np.empty(0)
        size = self._n & -self._n
        odd = self._n // size
        interval = Stream(*self._label, odd, "order").order(odd)
        width = 1
        while odd * width < MOST_POINTS:
            half = Stream(*self._label, odd, "halves", width)
            taken = 2 * interval + _bit(half, interval)
            if width < size:
                fresh = Stream(*self._label, odd, "order", width).order(odd * width)
                taken = np.concatenate([taken, 2 * fresh + 1 - _bit(half, fresh)])
            interval, width = taken, 2 * width
        points: Points = (interval + 0.5) / (odd * width)
        return points


def _bit(stream: Stream, numbers: Indices) -> Indices:
    """Return 0 or 1 for each number."""
    return (stream.words(numbers) >> np.uint64(63)).astype(np.int64)


Design = Independent | SobolDimension | LatinDimension
"""The points of one parameter."""
