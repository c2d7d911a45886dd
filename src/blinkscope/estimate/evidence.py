"""What the draws of one path amount to.

Two estimators read the same labels. ``pooled`` is the mean of the smoother's joint draws, which share data between
neighbouring positions. ``unbiased`` is the plain recursion on each position's own proportions; what looks large in it
is judged by the smoother's joint draws as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate import streams
from blinkscope.estimate.lookahead import expected_spread
from blinkscope.estimate.off_path import OffPathLaws, off_path_laws
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.seeking import Sought, Undecided
from blinkscope.estimate.smoother import joint_draws
from blinkscope.estimate.trace import Estimator
from blinkscope.posterior import Posterior

DRAWS = 300  # joint draws about the unbiased mean
WIDER = 1.2  # draws deviate by this factor more: a run ends where its variance happens to look small


@dataclass(frozen=True, eq=False)
class Evidence:
    """The labels that were counted along a path, and what they say of its curve.

    counts: of the labels that came out of each half of each position.
    seed, generation: key of the streams of the joint draws.
    sought: the windows that are looked for; None where it is the whole curve.
    """

    recursion: Recursion
    labels: tuple[str, ...]
    counts: Int[np.ndarray, "steps halves labels"]
    final_label: str
    estimator: Estimator
    seed: int
    generation: int
    sought: Sought | None

    @cached_property
    def posterior(self) -> Posterior:
        """The curve, with joint draws as wide as its bands."""
        index = np.arange(self.recursion.steps + 1, dtype=float)
        believed = widened(self.joint)
        if self.estimator == "pooled":
            return Posterior(index, self.labels, self.joint.mean(axis=0), believed, deviation=self.deviation)
        mean = self.recursion.curve(proportions(self.counts), self._final)
        return Posterior(index, self.labels, mean, self._about(mean), believed=believed, deviation=self.deviation)

    @cached_property
    def deviation(self) -> Float[np.ndarray, "rows labels"]:
        """Standard deviation of the curve; of the unbiased one, its off-path laws being what these labels suggest."""
        if self.estimator == "pooled":
            return np.asarray(self.joint.std(axis=0))
        inverse = inverse_counts(self.counts.sum(axis=2))
        off_path = np.where(inverse > 0, self.recursion.off_path, 0.0)  # rows before other positions are copies
        return np.sqrt(Recursion(1 - off_path, off_path).variance(self._laws.spread * inverse[:, None]))

    @cached_property
    def joint(self) -> Float[np.ndarray, "draws rows labels"]:
        """Joint draws of the curve given everything seen."""
        rng = streams.stream(self.seed, streams.BANDS, self.generation)
        return joint_draws(self.recursion, self.counts.sum(axis=1), self._final, rng)

    @cached_property
    def undecided(self) -> Undecided | None:
        """What is undecided about the windows that are looked for."""
        return None if self.sought is None else self.sought.undecided(self.posterior)

    @property
    def spread(self) -> Float[np.ndarray, "steps labels"]:
        """Expected variance of one continuation at each position, by the estimator's own lights."""
        return expected_spread(self.recursion, self.joint) if self.estimator == "pooled" else self._laws.spread

    def spread_by(self, half: int) -> Float[np.ndarray, "steps labels"]:
        """The same as the labels of one half alone suggest; 0 where it has none."""
        counts = self.counts[:, half]
        laws = off_path_laws(self.recursion, counts, self._final)
        return np.where(counts.sum(axis=1, keepdims=True) > 0, laws.spread, 0.0)

    @cached_property
    def _laws(self) -> OffPathLaws:
        return off_path_laws(self.recursion, self.counts.sum(axis=1), self._final)

    @property
    def _final(self) -> Float[np.ndarray, " labels"]:
        return np.asarray([label == self.final_label for label in self.labels], dtype=float)

    def _about(self, mean: Float[np.ndarray, "rows labels"]) -> Float[np.ndarray, "draws rows labels"]:
        """Joint draws about the unbiased mean, cut at 0 and made laws again."""
        rng = streams.stream(self.seed, streams.BANDS, self.generation, 1)
        inverse = inverse_counts(self.counts.sum(axis=2))
        moved = self._laws.deviations(np.where(inverse > 0, WIDER**2 * inverse, np.nan), DRAWS, rng)
        rows = self.recursion.curve(np.moveaxis(moved, 0, 1), np.zeros(moved.shape[::2]))
        return as_laws(mean + np.moveaxis(rows, 1, 0))


def widened(joint: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "draws rows labels"]:
    """The joint draws, ``WIDER`` times as far from their mean."""
    mean = joint.mean(axis=0)
    return as_laws(mean + WIDER * (joint - mean))


def as_laws(draws: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "draws rows labels"]:
    """Draws that were moved, cut at 0 and made laws again."""
    draws = np.maximum(draws, 0.0)
    return np.asarray(draws / draws.sum(axis=2, keepdims=True))


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
