"""What a run will cost, said before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.estimate.allocation import best_counts
from blinkscope.estimate.decomposition import pilot_draws
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Stratum

RESCALINGS = 4
TYPICAL_SPREAD = 0.08
"""Assumed gamma (1 - gamma) of a fork; 0.25 is the most it can be. Chosen by eye, so a prediction is a rough one."""


@dataclass(frozen=True)
class Prediction:
    """Expected number of continuations and of generated tokens."""

    continuations: int
    generated_tokens: int


def predict(
    recursion: Recursion, strata: Sequence[Stratum], error: float, spread: float = TYPICAL_SPREAD
) -> Prediction:
    """Continuations and tokens until the curve's largest standard deviation is ``error``.

    The allocation is the one the divergence method uses, for a path whose forks all have the same spread; the pilot's
    draws at every open position are the least that is spent.
    """
    if not strata:
        return Prediction(0, 0)
    cost = np.ones(recursion.steps)
    spreads = np.zeros((recursion.steps, 1))
    least = np.zeros(recursion.steps)
    for stratum in strata:
        cost[stratum.key] = stratum.cost
        spreads[stratum.key] = spread
        least[stratum.key] = sum(pilot_draws(stratum, half, len(strata)) for half in (0, 1))
    # Beyond the pilot the variance falls like one over the cost, so a few rescalings of the budget settle it.
    budget = float((least * cost).sum())
    for _ in range(RESCALINGS):
        counts = best_counts(recursion, spreads, least, cost, budget)
        per_draw = np.divide(spreads, counts[:, None], out=np.zeros_like(spreads), where=counts[:, None] > 0)
        excess = float(recursion.variance(per_draw).max()) / error**2
        total = float((counts * cost).sum())
        budget = max(total * excess - float((least * cost).sum()), 0.0)
    return Prediction(round(float(counts.sum())), round(total))
