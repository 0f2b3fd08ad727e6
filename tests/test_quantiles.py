"""What parameters are drawn from: values are spread as distributions say, and of the right types."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from psyrun import Choice, LatinHypercube, Random, Sobol
from psyrun.arrays import Array
from psyrun.axes import Indices
from psyrun.quantiles import Drawn

every_kind = pytest.mark.parametrize("kind", [Random, Sobol, LatinHypercube])


class Squared:
    """A distribution of the user's own."""

    def ppf(self, q: Array) -> Array:
        """Return the quantiles."""
        return q**2


class TestValues:
    @every_kind
    def test_values_are_spread_as_their_distribution_says(self, kind: Any) -> None:
        """The largest distance to the distribution function is that of one in a hundred true samples, or less."""
        n = 20_000
        space = kind(n, seed=1, a=(0, 1), b=(-5, 7.5), e=stats.norm(1, 2), f=stats.gamma(2.5), i=Squared())
        functions: dict[str, Callable[[Array], Array]] = {
            "a": stats.uniform(0, 1).cdf,
            "b": stats.uniform(-5, 12.5).cdf,
            "e": stats.norm(1, 2).cdf,
            "f": stats.gamma(2.5).cdf,
            "i": np.sqrt,
        }
        for name, function in functions.items():
            expected = function(np.sort(space[name]))
            distance = np.abs(expected - (np.arange(n) + 0.5) / n).max()
            assert distance < 1.63 / np.sqrt(n)

    @every_kind
    def test_choices_are_equally_likely(self, kind: Any) -> None:
        """Each value comes up as often as the others, and is as it was written."""
        counts = Counter(kind(4000, seed=1, c=Choice(["x", 2, 0.5, None])).build()["c"])
        assert set(counts) == {"x", 2, 0.5, None}
        assert stats.chisquare(list(counts.values())).pvalue > 0.01

    def test_discrete_distributions_give_integers(self) -> None:
        """Where all their values are whole."""
        space = Random(
            50,
            seed=1,
            a=stats.randint(2, 5),
            b=stats.poisson(3),
            c=stats.rv_discrete(values=([1, 7], [0.5, 0.5])),
            d=stats.poisson(3, loc=0.5),
            e=stats.rv_discrete(values=([1, 2.5], [0.999, 0.001])),
        )
        assert {name: column.dtype.kind for name, column in space.columns().items()} == dict(
            zip("abcde", "iiiff", strict=True)
        )
        assert set(space["a"].tolist()) == {2, 3, 4} and set(space["c"].tolist()) == {1, 7}
        assert all(type(row["b"]) is int and type(row["d"]) is float for row in space)

    def test_a_discrete_distribution_with_values_between_is_an_error(self) -> None:
        """They are not cut off."""

        class Rare(stats.rv_discrete):  # type: ignore[misc]
            def _ppf(self, q: Array) -> Array:
                return np.where((q > 0.9) & (q < 0.903), 0.5, 1.0)

        with pytest.raises(ValueError, match="'x': its distribution is discrete, but has values that int64"):
            Random(5000, seed=1, x=Rare(name="rare"))["x"]

    def test_a_distribution_without_arguments_has_its_defaults(self) -> None:
        """stats.norm is stats.norm(0, 1); other arguments may be named."""
        assert Random(9, seed=1, x=stats.norm) == Random(9, seed=1, x=stats.norm(0, 1))
        assert Random(9, seed=1, x=stats.norm(1)) == Random(9, seed=1, x=stats.norm(loc=1))

    def test_scipys_newer_distributions_have_another_word_for_quantiles(self) -> None:
        """Their icdf."""

        class Newer:
            icdf = Squared().ppf

        assert Random(9, seed=1, x=Newer()) == Random(9, seed=1, x=Squared())

    @given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300))
    def test_an_interval_is_not_left(self, one: float, two: float) -> None:
        """By the first and the last point that there may be, however they are rounded."""

        class Ends:
            def at(self, numbers: Indices) -> Array:
                return np.array([2.0**-53, 1 - 2.0**-53])

        low, high = sorted((one, two))
        if low < high:
            values = Drawn("x", (low, high), Ends()).column(np.arange(2))  # type: ignore[arg-type]
            assert low <= values[0] <= values[1] <= high
