"""Where is one more draw worth most?

The goal is the smallest largest variance of the curve for a given cost. For fixed weights on the curve's entries the
best counts are n_s ~ sqrt(a_s / c_s), a_s being what a unit of variance at s adds to the weighted variance and c_s the
cost of one draw; the worst-case weights are found by moving weight towards the entries whose variance is largest.
Counts that exist already cannot be taken back, so the new ones fill up to a common level ("water filling").

``cheapest_counts`` answers the same question the other way round, for known variances: the least cost at which the
largest variance is small enough. It comes with a bound that no allocation can beat, so what the loop spends can be
compared with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.estimate.recursion import Recursion

ITERATIONS = 10
STEP = 2.0  # exponent with which an entry's weight follows its relative variance; within 2 % of the best by then
CHEAPEST_STEP = 2.0  # the same for ``cheapest_counts``; from about 4 on it swings without end
GAP, MOST_ITERATIONS = 0.005, 2000
RESCALINGS = 4
LEAST = 1e-9  # draws and costs that are as good as none


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
    even = budget / max(float(cost[open_].sum()), LEAST)  # a start where there is nothing yet
    counts = np.where(have > 0, have, even)
    weight = np.ones((recursion.steps + 1, spread.shape[1]))
    for _ in range(ITERATIONS):
        per_draw = np.zeros_like(spread)
        per_draw[open_] = spread[open_] / np.maximum(counts[open_, None], LEAST)
        variance = recursion.variance(per_draw)
        if variance.max() <= 0:
            break
        relative = variance / variance.max()
        weight = weight * np.maximum(relative, 1e-12) ** STEP
        weight = weight / weight.max()
        value = (recursion.sensitivity(weight) * spread).sum(axis=1)
        counts = fill(np.where(room, np.sqrt(value / cost), 0.0), have, cost, budget)
    return np.where(open_, np.maximum(counts, have), have)


def counts_for(
    recursion: Recursion,
    spread: Float[np.ndarray, "steps labels"],
    have: Float[np.ndarray, " steps"],
    cost: Float[np.ndarray, " steps"],
    error: float,
) -> Float[np.ndarray, " steps"]:
    """Counts, not rounded, at which the curve's largest standard deviation is about ``error``; ``have`` at least.

    Allocated as ``best_counts`` does. Beyond ``have`` the variance falls like one over the cost, so a few rescalings of
    the budget settle it.
    """
    counts, budget, before = have, float((have * cost).sum()), float((have * cost).sum())
    for _ in range(RESCALINGS):
        counts = best_counts(recursion, spread, have, cost, budget)
        per_draw = np.divide(spread, counts[:, None], out=np.zeros_like(spread), where=counts[:, None] > 0)
        excess = float(recursion.variance(per_draw).max()) / error**2
        budget = max(float((counts * cost).sum()) * excess - before, 0.0)
    return counts


@dataclass(frozen=True, eq=False)
class Cheapest:
    """The cheapest way to an error.

    counts: draws at each position, not rounded. cost: of these counts. least: no counts that reach the error cost less.
    """

    counts: Float[np.ndarray, " steps"]
    cost: float
    least: float


def cheapest_counts(
    recursion: Recursion,
    spread: Float[np.ndarray, "steps labels"],
    cost: Float[np.ndarray, " steps"],
    error: float,
) -> Cheapest:
    """The counts n that minimise sum_s cost_s n_s while no sum_s W_ts^2 spread_s(theta) / n_s exceeds error^2.

    For weights w >= 0 on the entries (t, theta) that sum to one, every allowed n has sum_s a_s / n_s <= error^2 with
    a_s = sum w W_ts^2 spread_s, and by Cauchy and Schwarz costs at least (sum_s sqrt(cost_s a_s) / error)^2, which is
    the cost of n_s ~ sqrt(a_s / cost_s) if w sits on the largest variances alone. So weights are moved there, entries
    above the average variance gaining, until bound and cost agree within ``GAP`` (the multiplicative algorithm of
    optimal design; Silvey, Titterington and Torsney 1978, in its dual form).

    Parameters
    ----------
    spread : variance of one draw at each position and label; positions without any need no draws.
    cost : cost of one draw at each position.
    error : largest standard deviation of the curve.
    """
    weight = np.ones((recursion.steps + 1, spread.shape[1]))
    best = Cheapest(np.zeros(recursion.steps), 0.0, 0.0)
    for _ in range(MOST_ITERATIONS):
        weight = weight / weight.sum()
        shape = np.sqrt((recursion.sensitivity(weight) * spread).sum(axis=1) / cost)
        total = float((shape * cost).sum())
        if total == 0:
            return best
        each = np.divide(spread, shape[:, None], out=np.zeros_like(spread), where=shape[:, None] > 0)
        variance = recursion.variance(each)
        level = float(variance.max()) / error**2
        least = max(best.least, (total / error) ** 2)
        best = Cheapest(shape * level, total * level, least) if not best.cost or total * level < best.cost else best
        best = Cheapest(best.counts, best.cost, least)
        if best.cost <= (1 + GAP) * best.least:
            break
        weight = weight * (variance / variance.max()) ** CHEAPEST_STEP
    return best


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
