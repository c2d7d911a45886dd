"""Where is one more draw worth most?

The goal is the smallest largest variance of the curve for a given cost. For fixed weights on the curve's entries the
best counts are n_s ~ sqrt(a_s / c_s), a_s being what a unit of variance at s adds to the weighted variance and c_s the
cost of one draw; the worst-case weights are found by moving weight towards the entries whose variance is largest.
Counts that exist already cannot be taken back, so the new ones fill up to a common level ("water filling").
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.estimate.recursion import Recursion

ITERATIONS = 40
STEP = 1.0  # exponent with which an entry's weight follows its relative variance, each iteration


def best_counts(
    recursion: Recursion,
    spread: Float[np.ndarray, "steps labels"],
    have: Float[np.ndarray, " steps"],
    cost: Float[np.ndarray, " steps"],
    budget: float,
    room: Bool[np.ndarray, " steps"] | None = None,
) -> Float[np.ndarray, " steps"]:
    """Counts, not rounded, that make the curve's largest variance smallest when ``budget`` more may be spent.

    Parameters
    ----------
    spread : variance of one draw at each position and label, gamma (1 - gamma); zero rows are never given a draw.
    have : draws that each position has already.
    cost : cost of one draw at each position.
    room : positions that can be given another draw; all of them by default.
    """
    room = np.ones(recursion.steps, dtype=bool) if room is None else room
    open_ = (spread.sum(axis=1) > 0) & (room | (have > 0))
    counts = np.where(open_, np.maximum(have, 1e-9), 0.0)
    weight = np.ones((recursion.steps + 1, spread.shape[1]))
    for _ in range(ITERATIONS):
        per_draw = np.zeros_like(spread)
        per_draw[open_] = spread[open_] / counts[open_, None]
        variance = recursion.variance(per_draw)
        if variance.max() <= 0:
            break
        relative = variance / variance.max()
        weight = weight * np.maximum(relative, 1e-12) ** STEP
        weight = weight / weight.max()
        value = (recursion.sensitivity(weight) * spread).sum(axis=1)
        counts = fill(np.where(room, np.sqrt(value / cost), 0.0), have, cost, budget)
    return np.maximum(counts, have)


def fill(
    shape: Float[np.ndarray, " steps"],
    have: Float[np.ndarray, " steps"],
    cost: Float[np.ndarray, " steps"],
    budget: float,
) -> Float[np.ndarray, " steps"]:
    """max(have, level * shape) with the level at which the additional draws cost ``budget``."""
    active = shape > 0
    if not active.any():
        return have
    ratio = np.zeros_like(shape)
    ratio[active] = have[active] / shape[active]
    order = np.argsort(np.where(active, ratio, np.inf), kind="stable")[: int(active.sum())]
    # Positions join in the order of have/shape; between two joins the cost grows linearly with the level.
    slope = np.cumsum((shape * cost)[order])
    spent = np.cumsum((have * cost)[order])
    levels = (budget + spent) / slope
    joined = np.flatnonzero(levels >= ratio[order])
    # Nothing joins where the budget is nothing but a rounding error.
    return np.maximum(have, levels[joined[-1]] * shape) if len(joined) else have


def whole(
    extra: Float[np.ndarray, " steps"], cost: Float[np.ndarray, " steps"], budget: float
) -> Int[np.ndarray, " steps"]:
    """Whole numbers of draws near ``extra`` that cost about ``budget``: floors first, then the largest remainders."""
    counts = np.floor(extra).astype(np.int64)
    left = budget - float((counts * cost).sum())
    for s in np.argsort(counts - extra, kind="stable"):
        if left < cost[s] / 2 or extra[s] <= counts[s]:
            break
        counts[s] += 1
        left -= cost[s]
    return counts
