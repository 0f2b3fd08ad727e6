"""Where points lie: what designs promise of them, and golden values."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from psyrun import LatinHypercube, Random, Sobol
from psyrun.arrays import Array
from psyrun.designs import SOBOL_DIMENSIONS, Stream, direction_numbers, inside

every_kind = pytest.mark.parametrize("kind", [Random, Sobol, LatinHypercube])
SEEDS = st.integers(-3, 2**70)


def points(kind: Any, n: int, seed: int = 1, dimensions: int = 2) -> Array:
    """Return points in the unit cube, shape (n, dimensions)."""
    space = kind(n, seed=seed, **{f"x{i}": (0, 1) for i in range(dimensions)})
    return np.stack(list(space.columns().values()), axis=1)


def even(x: Array, y: Array) -> float:
    """Return how probable it is that uniform pairs fill a grid of 64 boxes no more evenly than these."""
    counts = np.histogram2d(x, y, bins=8, range=[[0, 1], [0, 1]])[0]
    return float(stats.chisquare(counts.ravel()).pvalue)


class TestAll:
    @every_kind
    def test_parameters_and_seeds_are_independent(self, kind: Any) -> None:
        """Pairs of columns fill a grid evenly; but for Sobol', whose dimensions differ, not seeds."""
        n = 2**14
        other = points(kind, n, seed=2)[:, 0]
        x, y = points(kind, n).T
        assert len({*x, *y, *other}) == 3 * n
        for second in (y,) if kind is Sobol else (y, other):
            assert even(x, second) > 0.01

    def test_successive_rows_are_independent(self) -> None:
        """Neighbours fill a grid evenly too."""
        x = points(Random, 2**14, dimensions=1)[:, 0]
        assert even(x[:-1], x[1:]) > 0.01

    @every_kind
    def test_points_depend_on_the_name(self, kind: Any) -> None:
        """Of the first parameter too."""
        assert kind(9, seed=1, x=(0, 1))["x"].tolist() != kind(9, seed=1, y=(0, 1))["y"].tolist()

    def test_no_point_is_on_the_border(self) -> None:
        """Quantiles of all points are finite."""
        first, last = inside(np.array([0, 2**52 - 1], dtype=np.uint64)).tolist()
        assert 0 < first < last < 1
        assert np.isfinite(stats.norm.ppf([first, last])).all()
        found = points(LatinHypercube, 2**16)
        assert ((found > 0) & (found < 1)).all()


class TestSobol:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("m", [1, 4, 7])
    def test_each_box_of_the_same_volume_has_one_point(self, seed: int, m: int) -> None:
        """In two dimensions, 2**m points are a net: each way to cut the square into 2**m boxes gives one each."""
        found = points(Sobol, 2**m, seed)
        for k in range(m + 1):
            boxes = np.floor(found * [2**k, 2 ** (m - k)])
            assert len(np.unique(boxes, axis=0)) == 2**m

    @pytest.mark.parametrize("dimensions", [2, 5, 12])
    def test_it_is_more_even_than_random_points(self, dimensions: int) -> None:
        """By discrepancy, at powers of two and between them."""
        for n in (64, 200):
            sobol, random = (
                [stats.qmc.discrepancy(points(kind, n, s, dimensions)) for s in range(5)] for kind in (Sobol, Random)
            )
            assert max(sobol) < min(random)

    def test_the_sequence_is_that_of_scipy_before_it_is_scrambled(self) -> None:
        """All dimensions, in the order of Gray code."""
        directions = np.array([direction_numbers(d) for d in range(SOBOL_DIMENSIONS)], dtype=np.uint64)
        numbers = np.arange(1024)
        gray = numbers ^ numbers >> 1
        bits = np.zeros((1024, SOBOL_DIMENSIONS), dtype=np.uint64)
        for digit in range(10):
            bits[gray >> digit & 1 == 1] ^= directions[:, digit]
        expected = stats.qmc.Sobol(SOBOL_DIMENSIONS, scramble=False).random(1024)
        assert np.array_equal(bits * 2.0**-52, expected)

    def test_scrambling_does_more_than_to_shift(self) -> None:
        """Two scrambled sequences do not differ by the same digits in all rows."""
        one, two = ((points(Sobol, 64, seed)[:, 0] * 2**52).astype(np.int64) for seed in (1, 2))
        assert len(set((one ^ two).tolist())) > 32

    def test_scrambling_makes_each_point_uniform(self) -> None:
        """The same row under many seeds fills the square evenly."""
        found = np.array([points(Sobol, 8, seed)[5] for seed in range(800)])
        assert even(*found.T) > 0.01


class TestLatinHypercube:
    @given(st.integers(1, 300), SEEDS)
    def test_each_interval_has_one_value(self, n: int, seed: int) -> None:
        """Of each parameter, for any number of rows."""
        for column in points(LatinHypercube, n, seed).T:
            assert sorted(np.floor(column * n).astype(int)) == list(range(n))

    @given(st.integers(1, 50), st.integers(1, 4))
    def test_the_halves_of_a_doubled_one_are_hypercubes_in_random_order(self, n: int, doublings: int) -> None:
        """What is added is one by itself, too."""
        whole = points(LatinHypercube, n << doublings)
        added = whole[len(whole) // 2 :, 0] * (len(whole) // 2)
        assert len(set(np.floor(added))) == len(whole) // 2

    def test_all_pairings_come_up(self) -> None:
        """The 36 pairs of orders of three points are equally likely, and so are those of three more."""
        orders: Counter[tuple[int, ...]] = Counter()
        for seed in range(720):
            x = points(LatinHypercube, 6, seed)[:, 0]
            orders[(*np.argsort(x[:3]), *np.argsort(x[3:]))] += 1
        assert len(orders) == 36
        assert stats.chisquare(list(orders.values())).pvalue > 0.01

    def test_within_its_interval_a_value_is_anywhere(self) -> None:
        """It is not in the middle."""
        within = np.concatenate([points(LatinHypercube, 10, seed)[:, 0] * 10 % 1 for seed in range(300)])
        assert stats.kstest(within, "uniform").pvalue > 0.01


class TestGolden:
    """Results of years ago must still be found: none of these may change."""

    def test_random_words(self) -> None:
        """Of a stream."""
        words = Stream("random", 1, "x").words(np.array([0, 1, 2**40]))
        assert [f"{word:016x}" for word in words.tolist()] == [
            "acb2e3cce9bb3099",
            "33d239deff32fce0",
            "c3f1c8b778fcd252",
        ]

    @pytest.mark.parametrize(
        ("kind", "x", "y"),
        [
            (
                Random,
                "1.5965c799d3767p-1 1.9e91cef7f997cp-3 1.5d5c97933408fp-1",
                "1.b049643111869p-1 1.b443a991cbc4cp-3 1.ed1e4f7c42792p-2",
            ),
            (
                Sobol,
                "1.2a3fb11030bacp-3 1.f32a1329220ffp-1 1.788240348ab73p-1",
                "1.8a3faad2bdd6fp-1 1.e102eb92c3384p-3 1.77627032a474fp-1",
            ),
            (
                LatinHypercube,
                "1.f5e8c79c04aabp-1 1.f9f9088a10000p-4 1.3e05f6d916000p-1",
                "1.fa67a4e3a3555p-1 1.f3e6266872aabp-3 1.516a690cf6000p-1",
            ),
        ],
    )
    def test_points(self, kind: Any, x: str, y: str) -> None:
        """Of six rows the first three, to the last digit."""
        space = kind(6, seed=1, x=(0, 1), y=(0, 1))
        for name, digits in (("x", x), ("y", y)):
            assert space[name][:3].tolist() == [float.fromhex(number) for number in digits.split()]
