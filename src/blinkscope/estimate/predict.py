"""What a run will cost, said before anything is drawn, and what other methods would.

All that is known is the scored path. How much the off-path laws vary is not, so a typical variance of one draw stands
in for all of them (``TYPICAL_SPREAD``): where little is open after all, a run costs less, and ``USUAL_RANGE`` says by
how much runs differ from what is predicted. A method that has had its first look knows better (``loop.Foreseeing``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.estimate.allocation import counts_for
from blinkscope.estimate.pilot import pilot
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.resampling import fraction_rows
from blinkscope.estimate.source import Stratum
from blinkscope.estimate.trace import Estimator, Target

TYPICAL_SPREAD: Mapping[Estimator, float] = {"unbiased": 1 / 6, "pooled": 0.07}
"""Assumed gamma (1 - gamma) of a fork, 0.25 at most. 1/6 is its mean if every probability is as likely as another; for
the pooled estimator, which needs fewer draws, the value was fitted to the cases of ``benchmarks/cost.py``."""
USUAL_RANGE: Mapping[Estimator, tuple[float, float]] = {"unbiased": (1 / 3, 2.0), "pooled": (1 / 4, 3.0)}
"""Between which multiples of the predicted tokens eight runs in ten end, on the same cases at errors 0.1 and 0.05."""
WINDOWS_OVER_FIRST_LOOK = 2.0
WINDOWS_USUAL_RANGE = (1 / 2, 5.0)
"""The same where windows are sought: what a run costs in median over its first look, and the range about that."""
PLANNED_ERRORS = (0.1, 0.05, 0.02)
EVERY_TOKEN, FORKING_FROM, FORKING_DRAWS, BISECTION_DRAWS = 100, 0.05, 30, 50


@dataclass(frozen=True)
class Prediction:
    """Expected number of continuations and of generated tokens.

    usual: generated tokens between which eight runs in ten end; None where the number is fixed, or not known for this.
    """

    continuations: int
    generated_tokens: int
    usual: tuple[int, int] | None = None

    def at_most(self, there: Prediction) -> Prediction:
        """The same where there is no more than this to draw."""
        tokens = there.generated_tokens
        usual = None if self.usual is None else (min(self.usual[0], tokens), min(self.usual[1], tokens))
        return Prediction(min(self.continuations, there.continuations), min(self.generated_tokens, tokens), usual)


@dataclass(frozen=True)
class MethodCost:
    """What one method is expected to cost; ``error`` is None where it does not aim at one."""

    method: str
    error: float | None
    expected: Prediction


def predict(recursion: Recursion, strata: Sequence[Stratum], target: Target) -> Prediction:
    """Continuations and tokens of the divergence method until the target is met, budgets left aside.

    To an error, the allocation is the one that method uses, for a path whose forks all have the same spread; the first
    look is the least that is spent.
    """
    if target.until == "windows":
        return _until_windows(recursion, strata)
    if not strata:
        return Prediction(0, 0)
    estimator = target.estimator
    cost = np.ones(recursion.steps)
    spreads = np.zeros((recursion.steps, 1))
    least = pilot(recursion, strata, estimator).sum(axis=1).astype(float)
    for stratum in strata:
        cost[stratum.key] = stratum.cost
        spreads[stratum.key] = TYPICAL_SPREAD[estimator]
    counts = counts_for(recursion, spreads, least, cost, target.error)
    tokens = float((counts * cost).sum())
    low, high = (round(factor * tokens) for factor in USUAL_RANGE[estimator])
    return Prediction(round(float(counts.sum())), round(tokens), (low, high))


def _until_windows(recursion: Recursion, strata: Sequence[Stratum]) -> Prediction:
    """The same until the windows are known.

    How much there is to decide only draws can tell, so the first look stands for all that is known.
    """
    counts = pilot(recursion, strata, "pooled", seeking=True).sum(axis=1)
    tokens = WINDOWS_OVER_FIRST_LOOK * sum(counts[stratum.key] * stratum.cost for stratum in strata)
    low, high = (round(factor * tokens) for factor in WINDOWS_USUAL_RANGE)
    return Prediction(round(WINDOWS_OVER_FIRST_LOOK * float(counts.sum())), round(tokens), (low, high))


def bisection(steps: int, draws: int) -> Prediction:
    """``draws`` at the first row and at those that halve the way to the one token that decides."""
    halving = math.ceil(math.log2(max(steps, 2)))
    return Prediction(draws * (1 + halving), round(draws * (steps + halving * steps / 2)))


def planned_costs(
    steps: int, divergence: Callable[[Target], Prediction], alternatives: Sequence[int]
) -> tuple[MethodCost, ...]:
    """The divergence method to several errors, and the other ways to look at a path of N tokens.

    A free continuation at row t is taken to cost N - t tokens. Resampling every token to an error needs
    ``TYPICAL_SPREAD`` / error^2 continuations at each row. Bisection costs every row at worst.

    Parameters
    ----------
    steps : N.
    divergence : what the divergence method is expected to cost to a target.
    alternatives : at each position, how many alternatives have a probability above ``FORKING_FROM``.
    """
    left = [float(steps - t) for t in range(steps)]

    def free(rows: Sequence[int], draws: int) -> Prediction:
        return Prediction(draws * len(rows), round(draws * sum(left[row] for row in rows)))

    every = range(steps)
    found = [
        MethodCost(f"divergence, {estimator}", error, divergence(Target(error=error, estimator=estimator)))
        for estimator in TYPICAL_SPREAD
        for error in PLANNED_ERRORS
    ]
    windows = divergence(Target().changed(until="windows"))
    found.append(MethodCost("divergence, until windows are known", None, windows))
    found += [
        MethodCost("resampling every token", error, free(every, math.ceil(TYPICAL_SPREAD["unbiased"] / error**2)))
        for error in PLANNED_ERRORS
    ]
    found.append(MethodCost(f"resampling every token {EVERY_TOKEN} times", None, free(every, EVERY_TOKEN)))
    fractions = fraction_rows(steps, [i / 10 for i in range(10)])
    found.append(MethodCost(f"grid of ten fractions, {EVERY_TOKEN} each", None, free(fractions, EVERY_TOKEN)))
    one = bisection(steps, BISECTION_DRAWS)
    found.append(MethodCost(f"bisection, {BISECTION_DRAWS} each, one decisive token", None, one))
    found.append(MethodCost(f"bisection, {BISECTION_DRAWS} each, at worst", None, free(every, BISECTION_DRAWS)))
    tokens = FORKING_DRAWS * sum(count * (steps - s - 1) for s, count in enumerate(alternatives))
    forking = Prediction(FORKING_DRAWS * sum(alternatives), tokens)
    found.append(MethodCost(f"forking paths, {FORKING_DRAWS} of each alternative", None, forking))
    return tuple(found)
