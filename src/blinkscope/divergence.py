"""Distances between label laws and between sub-mixtures, from posteriors alone."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def total_variation(
    p: Float[np.ndarray, "*batch labels"], q: Float[np.ndarray, "*batch labels"]
) -> Float[np.ndarray, "*batch"]:
    """TV(p, q) = (1/2) sum_theta |p(theta) - q(theta)| between label laws; in [0, 1]."""
    return np.asarray(0.5 * np.abs(np.asarray(p) - np.asarray(q)).sum(axis=-1))
