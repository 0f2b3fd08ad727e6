"""The area of a circle, estimated by throwing points at a square around it (Monte Carlo)."""

import numpy as np

from psyrun import Param

pspace = Param(radius=np.linspace(0, 1, 100)) * Param(trial=range(50))
min_items = 10

SAMPLE_SIZES = np.array([10, 100, 1000])


def execute(radius, trial):
    """Return the estimate from all points, and how many of the first 10, 100, 1000 points fell inside."""
    # The seed is made of the exact assignment: the same item gives the same points on any machine.
    bits = int(np.float64(radius).view(np.uint64))
    x, y = np.random.default_rng([bits, int(trial)]).uniform(-1, 1, (2, SAMPLE_SIZES[-1]))
    hits = np.cumsum(x**2 + y**2 <= radius**2)
    inside = hits[SAMPLE_SIZES - 1]
    return {"area": float(4 * inside[-1] / SAMPLE_SIZES[-1]), "inside": inside}
