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
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate import streams
from blinkscope.estimate.allocation import best_counts, whole
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.lookahead import pooled_counts
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.smoother import joint_draws, spread
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Estimator
from blinkscope.posterior import Posterior

PILOT = 1  # draws of each half of each open position in the first round
SMALLEST_ROUND = 32  # draws, so that an engine's batch stays full
GROWTH = 0.25  # cost of a later round, as a share of everything spent before it
STEERING = {"chains": 40, "sweeps": 3, "kept": 2}  # enough to decide where to draw next


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The divergence decomposition of one path as a ``Method`` of the loop.

    strata: the positions to draw at; key is the position.
    limit: most labels kept apart. seed, generation: key of the streams.
    """

    recursion: Recursion
    strata: tuple[Stratum, ...]
    final_label: str
    limit: int
    seed: int
    estimator: Estimator = "unbiased"
    generation: int = 0
    adaptive: bool = field(default=True, init=False)
    _last: dict[tuple[tuple[str, ...], bytes], Float[np.ndarray, "draws rows labels"]] = field(
        default_factory=dict, init=False, repr=False
    )

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        """A pilot everywhere, then rounds that lower the curve's largest variance most for their cost."""
        if not self.strata:
            return []
        if round_ == 0:
            weight = self.recursion.sensitivity(np.ones((self.recursion.steps + 1, 1)))[:, 0]
            ranked = sorted(self.strata, key=lambda stratum: -weight[stratum.key])
            pilot = [
                Order(stratum.key, half, 0, pilot_draws(stratum, half, len(self.strata)))
                for half in (0, 1)
                for stratum in ranked
            ]
            return [order for order in pilot if order.count]
        labels, counts = self._counts(draws)
        cost = self._cost()
        spent = float((counts.sum(axis=(1, 2)) * cost).sum())
        budget = max(SMALLEST_ROUND * float(np.mean([s.cost for s in self.strata])), GROWTH * spent) / 2
        if self.estimator == "pooled":
            return self._lookahead(counts, labels, cost, 2 * budget)
        orders = []
        for half in (0, 1):
            per_draw = self._spread(counts[:, 1 - half], labels, round_, half)
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
    ) -> list[Order]:
        """What lowers the pooled curve's largest variance most. Without a claim to unbiasedness, one half is enough."""
        have = counts.sum(axis=2)
        room = np.maximum(np.stack([self._room(half) for half in (0, 1)], axis=1) - have, 0)
        numbers = pooled_counts(self.recursion, self._joint(counts, labels), cost, budget, room.sum(axis=1))
        orders = []
        for position in np.flatnonzero(numbers):
            total = int(numbers[position])
            first = int(min(max((total + 1) // 2, total - room[position, 1]), room[position, 0]))
            for half, number in enumerate((first, total - first)):
                if number:
                    orders.append(Order(int(position), half, int(have[position, half]), number))
        return sorted(orders, key=lambda order: (-order.count, order.stratum, order.half))

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        labels, counts = self._counts(draws)
        index = np.arange(self.recursion.steps + 1, dtype=float)
        joint = self._joint(counts, labels)
        if self.estimator == "pooled":
            return Posterior(index, labels, joint.mean(axis=0), joint)
        mean = self.recursion.curve(proportions(counts), self._final(labels))
        return Posterior(index, labels, mean, self._about(mean, joint, counts), believed=joint)

    def _about(
        self,
        mean: Float[np.ndarray, "rows labels"],
        joint: Float[np.ndarray, "draws rows labels"],
        counts: Int[np.ndarray, "steps halves labels"],
    ) -> Float[np.ndarray, "draws rows labels"]:
        """Joint draws about the unbiased mean, with its own standard deviation, which is larger than the smoother's.

        Deviations are stretched entry by entry, so rows keep moving together; draws are cut at 0 and made laws again.
        """
        drawn = counts.sum(axis=2)
        # Var((A + B) / 2) = v (1/n_A + 1/n_B) / 4; with one half empty the other one's proportion stands alone.
        share = np.where((drawn > 0).all(axis=1), 0.25, 1.0)[:, None]
        # Few labels say little about their own variance, and a run ends where it looks small: 1 / (n + 1) of it more.
        inverse = share * np.divide(1 + 1 / (drawn + 1), drawn, out=np.zeros(drawn.shape), where=drawn > 0)
        sampling = self.recursion.variance(spread(self.recursion, joint) * inverse.sum(axis=1)[:, None])
        center, own = joint.mean(axis=0), joint.var(axis=0)
        stretch = np.sqrt(np.divide(np.maximum(sampling, own), own, out=np.ones_like(own), where=own > 0))
        draws = np.maximum(mean + (joint - center) * stretch, 0.0)
        return draws / draws.sum(axis=2, keepdims=True)

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
        self, counts: Int[np.ndarray, "steps labels"], labels: tuple[str, ...], *key: int
    ) -> Float[np.ndarray, "steps labels"]:
        """Expected variance of one draw at each position that was drawn from, as these counts suggest."""
        rng = streams.stream(self.seed, streams.BANDS, self.generation, *key)
        joint = joint_draws(self.recursion, counts, self._final(labels), rng, **STEERING)
        return np.where(counts.sum(axis=1, keepdims=True) > 0, spread(self.recursion, joint), 0.0)

    def _final(self, labels: tuple[str, ...]) -> Float[np.ndarray, " labels"]:
        return np.asarray([label == self.final_label for label in labels], dtype=float)

    def _counts(self, draws: Sequence[Draw]) -> tuple[tuple[str, ...], Int[np.ndarray, "steps halves labels"]]:
        pilot_size = sum(pilot_draws(stratum, half, len(self.strata)) for stratum in self.strata for half in (0, 1))
        labels = kept_labels(self.final_label, draws[:pilot_size], draws[pilot_size:], self.limit)
        return labels, count(draws, labels, range(self.recursion.steps))

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


def pilot_draws(stratum: Stratum, half: int, strata: int) -> int:
    """Draws that a half of a stratum gets in the first round, one of ``strata``.

    More where there are few, so that the first round fills a batch, and so that a run does not end because two or four
    draws happened to agree: that would bias the unbiased mean, whatever the later rounds do.
    """
    return int(min(max(PILOT, math.ceil(SMALLEST_ROUND / (2 * strata))), stratum.room(half)))


def proportions(counts: Int[np.ndarray, "steps halves labels"]) -> Float[np.ndarray, "steps labels"]:
    """Average over the halves of each half's proportions; over one where the other is empty; NaN where both are."""
    drawn = counts.sum(axis=2, keepdims=True)
    share = counts / np.maximum(drawn, 1)
    halves = (drawn > 0).sum(axis=1)
    return np.where(halves > 0, share.sum(axis=1) / np.maximum(halves, 1), np.nan)
