"""Where is one more draw worth most, if draws are shared between positions?

With independent positions a draw at s lowers the variance of gamma_s and nothing else (``allocation.py``). Where a
posterior shares data along the path, what it teaches about a row of the curve is in the joint draws: to first order a
label drawn at s, of law gamma_s, lowers the variance of an entry pi_t(theta) by

    sum_j Cov(pi_t(theta), gamma_s(j))^2 / E gamma_s(j)

The budget is spent in portions. Each goes to the position that lowers the largest variance of what is sought most for
its cost, be that the rows of the curve or the difference between two of them. The joint draws are then narrowed as by a
Kalman filter (its ensemble square-root form: Whitaker and Hamill, "Ensemble data assimilation without perturbed
observations", 2002), so that the next portion sees what it left.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate.recursion import Recursion

PORTIONS = 16
NOTHING = 1e-15  # variance that rounding errors make
SEEN = 1e-3  # least expected share of a label that is reckoned with


def pooled_counts(
    recursion: Recursion,
    draws: Float[np.ndarray, "draws rows labels"],
    cost: Float[np.ndarray, " steps"],
    budget: float,
    room: Float[np.ndarray, " steps"],
    between: tuple[int, int] | None = None,
) -> Int[np.ndarray, " steps"]:
    """How many more labels to draw at each position when about ``budget`` is spent; ``room`` at most.

    between: two rows whose difference is sought; all rows of the curve where None.
    """
    open_ = np.flatnonzero((recursion.off_path > 0) & (room > 0))
    numbers = np.zeros(recursion.steps, dtype=np.int64)
    if not len(open_):
        return numbers
    size, _, labels = draws.shape
    p, q, price, room = recursion.p[open_, None], recursion.off_path[open_, None], cost[open_], room[open_].copy()
    # Other rows are copies of these, or certain.
    before = draws[:, open_] - draws[:, open_].mean(axis=0)
    after = draws[:, open_ + 1] - draws[:, open_ + 1].mean(axis=0)
    gamma = (before - p * after) / q
    share = (draws[:, open_] - p * draws[:, open_ + 1]).mean(axis=0) / q
    seen = share > SEEN
    share = np.maximum(share, SEEN)
    sought = before
    if between is not None:
        change = draws[:, between[1]] - draws[:, between[0]]
        sought = (change - change.mean(axis=0))[:, None]
    state = np.concatenate([sought, gamma], axis=1).reshape(size, -1)
    entries = sought.shape[1] * labels
    left = budget
    for portion in range(PORTIONS, 0, -1):
        variance = (state[:, :entries] ** 2).mean(axis=0)
        worst = state[:, int(np.argmax(variance))]
        covariance = (worst @ state[:, entries:] / size).reshape(len(open_), labels)
        value = np.where(seen, covariance**2 / share, 0.0).sum(axis=1) / price * (room > 0)
        best = int(np.argmax(value))
        if value[best] < NOTHING:
            break
        number = int(min(max(1, round(left / portion / price[best])), room[best]))
        room[best] -= number
        numbers[open_[best]] += number
        left -= number * price[best]
        if left <= 0:
            break
        for label in np.flatnonzero(seen[best]):
            _narrow(state, entries + best * labels + label, share[best, label] / number)
    return numbers


def expected_spread(
    recursion: Recursion, draws: Float[np.ndarray, "draws rows labels"]
) -> Float[np.ndarray, "steps labels"]:
    """E gamma_s (1 - gamma_s), the expected variance of one continuation, by the joint draws; 0 where none can fork."""
    p, q = recursion.p[:, None], recursion.off_path[:, None]
    gamma = np.divide(draws[:, :-1] - p * draws[:, 1:], q, out=np.zeros_like(draws[:, 1:]), where=q > 0)
    gamma = np.clip(gamma, 0.0, 1.0)
    return np.asarray((gamma * (1 - gamma)).mean(axis=0))


def _narrow(state: Float[np.ndarray, "draws entries"], entry: int, noise: float) -> None:
    """Condition centred joint draws, in place, on an observation of one entry with a known variance of its error."""
    seen = state[:, entry].copy()
    covariance = seen @ state / len(state)
    total = covariance[entry] + noise
    if covariance[entry] > 0:
        state -= np.outer(seen, covariance / (total * (1 + np.sqrt(noise / total))))
