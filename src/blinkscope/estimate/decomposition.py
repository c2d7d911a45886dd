"""The divergence method: off-path continuations only, wherever one more is worth most.

What the draws amount to is in ``evidence.py``; here is where they go. The unbiased mean stays unbiased although counts
adapt to what was seen. Adaptive counts bias a plain pooled proportion, because a pilot that happens to agree with
itself is not topped up. So every position's draws come in two halves: how many draws one half gets is decided from the
labels of the other half alone, and gamma_s is the plain average of the two halves' proportions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate.allocation import best_counts, counts_for, whole
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.evidence import Evidence
from blinkscope.estimate.lookahead import pooled_counts
from blinkscope.estimate.pilot import SMALLEST_ROUND, pilot
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.seeking import Sought
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Estimator
from blinkscope.feature import OTHER
from blinkscope.posterior import Posterior

GROWTH = 0.25  # largest cost of a later round, as a share of everything spent before it
SEEKING_ROUND, SEEKING_GROWTH = 8, 0.12  # smallest and largest rounds where windows alone are sought
AIM = 0.99  # a round aims a little below a round error, so that it seldom takes another one to get there
FORESEEN: Mapping[Estimator, float] = {"unbiased": 1.4, "pooled": 0.5}
"""What a run spends over the best allocation to independent positions of the variances that its first look suggests:
more where it has to find them out, less where data are shared. Measured on the cases of ``benchmarks/cost.py``."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The divergence decomposition of one path as a ``Method`` of the loop.

    strata: the positions to draw at; key is the position.
    limit: most labels kept apart. seed, generation: key of the streams.
    sought: the windows to look for, with the pooled estimator; None to look for the whole curve.
    """

    recursion: Recursion
    strata: tuple[Stratum, ...]
    final_label: str
    limit: int
    seed: int
    estimator: Estimator = "unbiased"
    generation: int = 0
    sought: Sought | None = None
    _last: dict[tuple[tuple[str, ...], bytes], Evidence] = field(default_factory=dict, init=False, repr=False)

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        """A pilot, then rounds that lower the curve's largest variance most for their cost."""
        if not self.strata:
            return []
        if round_ == 0:
            weight = self.recursion.sensitivity(np.ones((self.recursion.steps + 1, 1)))[:, 0]
            ranked = sorted(self.strata, key=lambda stratum: -weight[stratum.key])
            counts = self._pilot()
            orders = [
                Order(stratum.key, half, 0, int(counts[stratum.key, half])) for half in (0, 1) for stratum in ranked
            ]
            return [order for order in orders if order.count]
        evidence, cost = self._evidence(draws), self._cost()
        counts = evidence.counts
        spent = float((counts.sum(axis=(1, 2)) * cost).sum())
        each = float(np.mean([s.cost for s in self.strata]))
        if evidence.undecided is not None:
            budget = max(SEEKING_ROUND * each, SEEKING_GROWTH * spent)
            return self._lookahead(evidence, budget, evidence.undecided.rows)
        smallest = SMALLEST_ROUND * each
        if self.estimator == "pooled":
            return self._lookahead(evidence, max(smallest, GROWTH * spent))
        error = float(evidence.deviation.max())
        budget = max(smallest, min(GROWTH, (error / round_error_below(error)) ** 2 - 1) * spent) / 2
        orders = []
        for half in (0, 1):
            have = counts[:, half].sum(axis=1).astype(float)
            room = self._room(half) - have
            extra = best_counts(self.recursion, evidence.spread_by(1 - half), have, cost, budget, room > 0) - have
            for position, number in enumerate(np.minimum(whole(extra, cost, budget), room)):
                if number > 0:
                    orders.append(Order(position, half, int(have[position]), int(number)))
        return sorted(orders, key=lambda order: (-order.count, order.stratum, order.half))

    def _lookahead(self, evidence: Evidence, budget: float, between: tuple[int, int] | None = None) -> list[Order]:
        """What lowers the largest variance of the pooled curve, or of the change ``between`` two rows, most.

        Without a claim to unbiasedness, one half is enough.
        """
        have = evidence.counts.sum(axis=2)
        room = np.maximum(np.stack([self._room(half) for half in (0, 1)], axis=1) - have, 0)
        numbers = pooled_counts(self.recursion, evidence.joint, self._cost(), budget, room.sum(axis=1), between)
        orders = []
        for position in np.flatnonzero(numbers):
            total = int(numbers[position])
            first = int(min(max((total + 1) // 2, total - room[position, 1]), room[position, 0]))
            for half, number in enumerate((first, total - first)):
                if number:
                    orders.append(Order(int(position), half, int(have[position, half]), number))
        return sorted(orders, key=lambda order: (-order.count, order.stratum, order.half))

    def reached(self, draws: Sequence[Draw]) -> float:
        """The largest standard deviation of the curve; the probability that is left undecided of windows sought."""
        evidence = self._evidence(draws)
        if evidence.undecided is not None:
            return evidence.undecided.probability
        return float(evidence.deviation.max())

    def foreseen(self, draws: Sequence[Draw], error: float) -> float | None:
        """Generated tokens that a run to this error is expected to cost in all, judged by its draws so far.

        None where windows are sought.
        """
        if self.sought is not None:
            return None
        evidence = self._evidence(draws)
        drawable = np.zeros((self.recursion.steps, 1))
        drawable[[stratum.key for stratum in self.strata]] = FORESEEN[self.estimator]
        have, cost = evidence.counts.sum(axis=(1, 2)).astype(float), self._cost()
        return float((counts_for(self.recursion, evidence.spread * drawable, have, cost, error) * cost).sum())

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        return self._evidence(draws).posterior

    def _evidence(self, draws: Sequence[Draw]) -> Evidence:
        """What these draws amount to. The last is kept: a round starts from what the last one ended with."""
        pilot_size = int(self._pilot().sum())
        labels = kept_labels(self.final_label, draws[:pilot_size], draws[pilot_size:], self.limit)
        if len(labels) == 1:
            labels = (*labels, OTHER)  # where one outcome alone was seen, there may be another one all the same
        counts = count(draws, labels, range(self.recursion.steps))
        key = (labels, counts.tobytes())
        if key not in self._last:
            self._last.clear()
            self._last[key] = Evidence(
                recursion=self.recursion,
                labels=labels,
                counts=counts,
                final_label=self.final_label,
                estimator=self.estimator,
                seed=self.seed,
                generation=self.generation,
                sought=self.sought,
            )
        return self._last[key]

    def _pilot(self) -> Int[np.ndarray, "steps halves"]:
        return pilot(self.recursion, self.strata, self.estimator, seeking=self.sought is not None)

    def _cost(self) -> Float[np.ndarray, " steps"]:
        cost = np.ones(self.recursion.steps)
        for stratum in self.strata:
            cost[stratum.key] = stratum.cost
        return cost

    def _room(self, half: int) -> Float[np.ndarray, " steps"]:
        room = np.zeros(self.recursion.steps)
        for stratum in self.strata:
            room[stratum.key] = stratum.room(half)
        return room


def round_error_below(error: float) -> float:
    """Just less than the next smaller number with one digit: 0.05 after 0.053.

    A round should not go far beyond the error that is asked for. What is asked for must not change what is drawn, or a
    run could not be topped up; but what people ask for is a number like this.
    """
    if error <= 0:
        return math.inf
    unit = 10.0 ** math.floor(math.log10(error))
    digit = math.ceil(error / unit - 1e-9) - 1
    return AIM * (digit * unit if digit else 0.9 * unit)
