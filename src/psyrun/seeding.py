"""Random numbers of an item: the same ones whatever the chunks, workers, order, scheduler and attempts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from psyrun.columns import HIDDEN

SEED = HIDDEN + "seed"
"""The column of a row that says with which seed it was computed."""
NAMES = ("rng", "seed_sequence")
"""Arguments of execute that are given what follows from seed and key."""


def asked_for(execute: Callable[..., Any], taken: Collection[str]) -> tuple[str, ...]:
    """Return which random arguments a function has by name.

    Parameters
    ----------
    execute : callable
    taken : collection of str
        Names that are given something else: parameters, and what setup returns.
    """
    try:
        parameters = inspect.signature(execute, follow_wrapped=False).parameters
    except (TypeError, ValueError):  # a builtin that does not tell
        return ()
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return tuple(n for n in NAMES if n not in taken and n in parameters and parameters[n].kind in named)


def arguments(names: Sequence[str], seed: int, key: Sequence[int]) -> dict[str, Any]:
    """Return the random arguments of an item.

    Parameters
    ----------
    names : sequence of str
        Of `NAMES`.
    seed : int
        The option of the task, 0 <= seed < 2**63.
    key : two ints
        The item's identity key.

    Returns
    -------
    dict
        ``rng``, a `numpy.random.Generator` of PCG64; ``seed_sequence``, a `numpy.random.SeedSequence` for generators
        of other kinds. They are independent of each other, and of those of other items and seeds, as NumPy has it for
        different spawn keys and entropies.

    Examples
    --------
    >>> float(arguments(['rng'], 0, (1, 2))['rng'].random()) == float(arguments(['rng'], 0, (1, 2))['rng'].random())
    True
    """
    entropy = [seed, int(key[0]), int(key[1])]
    made: dict[str, Any] = {}
    for number, name in enumerate(NAMES):
        if name in names:
            sequence = np.random.SeedSequence(entropy, spawn_key=(number,))
            made[name] = np.random.Generator(np.random.PCG64(sequence)) if name == "rng" else sequence
    return made
