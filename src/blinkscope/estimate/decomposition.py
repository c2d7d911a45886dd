"""The divergence method: off-path continuations only, wherever one more is worth most.

Two estimators read the same draws. ``pooled`` is the mean of the smoother's joint draws, which share data between
neighbouring positions. ``unbiased`` is the plain recursion on each position's own proportions.

The unbiased mean stays unbiased although counts adapt to what was seen. Adaptive counts bias a plain pooled proportion,
because a pilot that happens to agree with itself is not topped up. So every position's draws come in two halves: how
many draws one half gets is decided from the labels of the other half alone, and gamma_s is the plain average of the two
halves' proportions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate import streams
from blinkscope.estimate.allocation import best_counts, counts_for, whole
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.lookahead import expected_spread, pooled_counts
from blinkscope.estimate.off_path import OffPathLaws, off_path_laws
from blinkscope.estimate.pilot import SMALLEST_ROUND, pilot
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.seeking import Sought, Undecided
from blinkscope.estimate.smoother import joint_draws
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Estimator
from blinkscope.feature import OTHER
from blinkscope.posterior import Posterior

GROWTH = 0.25  # largest cost of a later round, as a share of everything spent before it
SEEKING_ROUND, SEEKING_GROWTH = 8, 0.12  # smallest and largest rounds where windows alone are sought
AIM = 0.99  # a round aims a little below a round error, so that it seldom takes another one to get there
DRAWS = 300  # joint draws about the unbiased mean
WIDER = 1.2  # draws deviate by this factor more: a run ends where its variance happens to look small
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
    _last: dict[tuple[tuple[str, ...], bytes], Float[np.ndarray, "draws rows labels"]] = field(
        default_factory=dict, init=False, repr=False
    )
    _doubts: dict[tuple[tuple[str, ...], bytes], Undecided] = field(default_factory=dict, init=False, repr=False)

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
        labels, counts = self._counts(draws)
        cost = self._cost()
        spent = float((counts.sum(axis=(1, 2)) * cost).sum())
        each = float(np.mean([s.cost for s in self.strata]))
        if self.sought is not None:
            budget = max(SEEKING_ROUND * each, SEEKING_GROWTH * spent)
            return self._lookahead(counts, labels, cost, budget, self._undecided(draws, self.sought).rows)
        smallest = SMALLEST_ROUND * each
        if self.estimator == "pooled":
            return self._lookahead(counts, labels, cost, max(smallest, GROWTH * spent))
        error = self.reached(draws)
        budget = max(smallest, min(GROWTH, (error / round_error_below(error)) ** 2 - 1) * spent) / 2
        orders = []
        for half in (0, 1):
            per_draw = self._spread(counts[:, 1 - half], labels)
            have = counts[:, half].sum(axis=1).astype(float)
            room = self._room(half) - have
            extra = best_counts(self.recursion, per_draw, have, cost, budget, room > 0) - have
            for position, number in enumerate(np.minimum(whole(extra, cost, budget), room)):
                if number > 0:
                    orders.append(Order(position, half, int(have[position]), int(number)))
        return sorted(orders, key=lambda order: (-order.count, order.stratum, order.half))

    def _lookahead(
        self,
        counts: Int[np.ndarray, "steps halves labels"],
        labels: tuple[str, ...],
        cost: Float[np.ndarray, " steps"],
        budget: float,
        between: tuple[int, int] | None = None,
    ) -> list[Order]:
        """What lowers the largest variance of the pooled curve, or of the change ``between`` two rows, most.

        Without a claim to unbiasedness, one half is enough.
        """
        have = counts.sum(axis=2)
        room = np.maximum(np.stack([self._room(half) for half in (0, 1)], axis=1) - have, 0)
        numbers = pooled_counts(self.recursion, self._joint(counts, labels), cost, budget, room.sum(axis=1), between)
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
        if self.sought is not None:
            return self._undecided(draws, self.sought).probability
        if self.estimator == "pooled":
            return float(self.estimate(draws).sd.max())
        labels, counts = self._counts(draws)
        return float(self._deviation(self._laws(counts.sum(axis=1), labels), counts).max())

    def _undecided(self, draws: Sequence[Draw], sought: Sought) -> Undecided:
        """What is undecided about the windows; kept as ``_joint`` is, since a round starts from what the last left."""
        labels, counts = self._counts(draws)
        key = (labels, counts.tobytes())
        if key not in self._doubts:
            found = sought.undecided(self.estimate(draws))
            self._doubts.clear()
            self._doubts[key] = found
        return self._doubts[key]

    def foreseen(self, draws: Sequence[Draw], error: float) -> float | None:
        """Generated tokens that a run to this error is expected to cost in all, judged by its draws so far.

        None where windows are sought.
        """
        if self.sought is not None:
            return None
        labels, counts = self._counts(draws)
        if self.estimator == "pooled":
            spread = expected_spread(self.recursion, self._joint(counts, labels))
        else:
            spread = self._laws(counts.sum(axis=1), labels).spread
        drawable = np.zeros((self.recursion.steps, 1))
        drawable[[stratum.key for stratum in self.strata]] = FORESEEN[self.estimator]
        have, cost = counts.sum(axis=(1, 2)).astype(float), self._cost()
        return float((counts_for(self.recursion, spread * drawable, have, cost, error) * cost).sum())

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        labels, counts = self._counts(draws)
        index = np.arange(self.recursion.steps + 1, dtype=float)
        joint = self._joint(counts, labels)
        if self.estimator == "pooled":
            return Posterior(index, labels, joint.mean(axis=0), widened(joint), deviation=joint.std(axis=0))
        mean = self.recursion.curve(proportions(counts), self._final(labels))
        laws = self._laws(counts.sum(axis=1), labels)
        about = self._about(mean, laws, counts)
        return Posterior(index, labels, mean, about, believed=widened(joint), deviation=self._deviation(laws, counts))

    def _deviation(
        self, laws: OffPathLaws, counts: Int[np.ndarray, "steps halves labels"]
    ) -> Float[np.ndarray, "rows labels"]:
        """Standard deviation of the unbiased mean, its off-path laws being what these labels suggest."""
        inverse = inverse_counts(counts.sum(axis=2))
        off_path = np.where(inverse > 0, self.recursion.off_path, 0.0)  # rows before other positions are copies
        return np.sqrt(Recursion(1 - off_path, off_path).variance(laws.spread * inverse[:, None]))

    def _about(
        self,
        mean: Float[np.ndarray, "rows labels"],
        laws: OffPathLaws,
        counts: Int[np.ndarray, "steps halves labels"],
    ) -> Float[np.ndarray, "draws rows labels"]:
        """Joint draws about the unbiased mean, cut at 0 and made laws again."""
        rng = streams.stream(self.seed, streams.BANDS, self.generation, 1)
        inverse = inverse_counts(counts.sum(axis=2))
        moved = laws.deviations(np.where(inverse > 0, WIDER**2 * inverse, np.nan), DRAWS, rng)
        rows = self.recursion.curve(np.moveaxis(moved, 0, 1), np.zeros(moved.shape[::2]))
        return as_laws(mean + np.moveaxis(rows, 1, 0))

    def _joint(
        self, counts: Int[np.ndarray, "steps halves labels"], labels: tuple[str, ...]
    ) -> Float[np.ndarray, "draws rows labels"]:
        """Joint draws given these counts. The last ones are kept: a round starts from those the last ended with."""
        key = (labels, counts.tobytes())
        if key not in self._last:
            rng = streams.stream(self.seed, streams.BANDS, self.generation)
            joint = joint_draws(self.recursion, counts.sum(axis=1), self._final(labels), rng)
            self._last.clear()
            self._last[key] = joint
        return self._last[key]

    def _spread(
        self, counts: Int[np.ndarray, "steps labels"], labels: tuple[str, ...]
    ) -> Float[np.ndarray, "steps labels"]:
        """Expected variance of one draw at each position that was drawn from, as these counts suggest."""
        return np.where(counts.sum(axis=1, keepdims=True) > 0, self._laws(counts, labels).spread, 0.0)

    def _laws(self, counts: Int[np.ndarray, "steps labels"], labels: tuple[str, ...]) -> OffPathLaws:
        return off_path_laws(self.recursion, counts, self._final(labels))

    def _final(self, labels: tuple[str, ...]) -> Float[np.ndarray, " labels"]:
        return np.asarray([label == self.final_label for label in labels], dtype=float)

    def _counts(self, draws: Sequence[Draw]) -> tuple[tuple[str, ...], Int[np.ndarray, "steps halves labels"]]:
        pilot_size = int(self._pilot().sum())
        labels = kept_labels(self.final_label, draws[:pilot_size], draws[pilot_size:], self.limit)
        if len(labels) == 1:
            labels = (*labels, OTHER)  # where one outcome alone was seen, there may be another one all the same
        return labels, count(draws, labels, range(self.recursion.steps))

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


def widened(joint: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "draws rows labels"]:
    """The joint draws, ``WIDER`` times as far from their mean."""
    mean = joint.mean(axis=0)
    return as_laws(mean + WIDER * (joint - mean))


def as_laws(draws: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "draws rows labels"]:
    """Draws that were moved, cut at 0 and made laws again."""
    draws = np.maximum(draws, 0.0)
    return np.asarray(draws / draws.sum(axis=2, keepdims=True))


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


def proportions(counts: Int[np.ndarray, "steps halves labels"]) -> Float[np.ndarray, "steps labels"]:
    """Average over the halves of each half's proportions; over one where the other is empty; NaN where both are."""
    drawn = counts.sum(axis=2, keepdims=True)
    share = counts / np.maximum(drawn, 1)
    halves = (drawn > 0).sum(axis=1)
    return np.where(halves > 0, share.sum(axis=1) / np.maximum(halves, 1), np.nan)


def inverse_counts(drawn: Int[np.ndarray, "steps halves"]) -> Float[np.ndarray, " steps"]:
    """Variance of ``proportions`` over that of a single draw, 0 where nothing was drawn.

    Var((A + B) / 2) = v (1/n_A + 1/n_B) / 4; with one half empty the other one's proportion stands alone.
    """
    share = np.where((drawn > 0).all(axis=1), 0.25, 1.0)[:, None]
    return np.asarray((share * np.divide(1.0, drawn, out=np.zeros(drawn.shape), where=drawn > 0)).sum(axis=1))
