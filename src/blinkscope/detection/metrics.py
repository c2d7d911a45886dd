"""How well a score tells two kinds of text apart, with intervals.

Intervals are percentile bootstraps over *texts*: those with label 1 and those with label 0 are drawn again, each kind
by itself, and the threshold is found again in every draw. A bootstrap sees nothing where a number is the same in every
draw (a perfect separation, say), so none is given there, nor with fewer than five texts of a kind.

A missing score (NaN) is never flagged: a detector cannot flag what it cannot score. It counts as lower than all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.studies.intervals import FEWEST_CLUSTERS

BOOTSTRAPS = 1000
FALSE_POSITIVE_RATE = 0.01

Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Quality:
    """How well "flag what lies above a threshold" works.

    auroc: probability that a text with label 1 scores above one with label 0, ties counted half.
    threshold: the lowest one at which at most a share ``FALSE_POSITIVE_RATE`` of the texts with label 0 lies above it.
    recall: share of the texts with label 1 above it. false_positives: share of the texts with label 0 above it.
    false_positives_high: the rate of new texts of that kind above the threshold is at most this, at the asked level.
    """

    auroc: float
    auroc_limits: Limits
    recall: float
    recall_limits: Limits
    threshold: float
    false_positives: float
    false_positives_high: float


@dataclass(frozen=True, eq=False)
class Resamples:
    """How often each text of either kind is drawn in every bootstrap."""

    positive: Int[np.ndarray, "draws positives"]
    negative: Int[np.ndarray, "draws negatives"]

    @classmethod
    def of(cls, positives: int, negatives: int, rng: np.random.Generator) -> Resamples:
        """As many as there are, with replacement."""

        def counts(n: int) -> Int[np.ndarray, "draws n"]:
            return rng.multinomial(n, np.full(n, 1 / n), size=BOOTSTRAPS).astype(np.int32)

        return cls(counts(positives), counts(negatives))


def quality(
    positive: Float[np.ndarray, " positives"],
    negative: Float[np.ndarray, " negatives"],
    resamples: Resamples,
    level: float = 0.95,
) -> Quality:
    """How well high scores go with label 1; for the other direction hand over the negated scores.

    Parameters
    ----------
    positive, negative : scores of the texts with label 1 and with label 0, at least one of each; NaN where missing.
    resamples : of the same numbers of texts.
    """
    ranks = _Ranks.of(positive, negative)
    once = Resamples(np.ones((1, len(positive)), dtype=np.int32), np.ones((1, len(negative)), dtype=np.int32))
    auroc, recall = (float(values[0]) for values in ranks.measure(once))
    limits: list[Limits] = [None, None]
    if min(len(positive), len(negative)) >= FEWEST_CLUSTERS:
        limits = [_limits(values, level) for values in ranks.measure(resamples)]
    allowed = allowed_false_positives(len(negative))
    threshold = float(np.sort(_filled(negative))[::-1][allowed])
    return Quality(
        auroc=auroc,
        auroc_limits=limits[0],
        recall=recall,
        recall_limits=limits[1],
        threshold=threshold,
        false_positives=float((_filled(negative) > threshold).mean()),
        false_positives_high=rate_above(len(negative), level),
    )


def allowed_false_positives(negatives: int) -> int:
    """How many of the texts with label 0 may lie above the threshold."""
    return int(np.floor(FALSE_POSITIVE_RATE * negatives + 1e-9))


def rate_above(negatives: int, level: float = 0.95) -> float:
    """What the rate of new texts above the threshold is at most, with confidence ``level``, whatever the scores' law.

    The threshold is the (k + 1)-th largest of n scores, with k the allowed number, so the rate above it is at most a
    Beta(k + 1, n - k) variable (exactly one where no two scores agree).
    """
    from scipy.stats import beta

    allowed = allowed_false_positives(negatives)
    return float(beta.ppf(level, allowed + 1, negatives - allowed))


@dataclass(frozen=True, eq=False)
class _Ranks:
    """Both kinds of scores in one descending order, equal ones together.

    order: of positives and negatives. starts: where in that order a new value begins.
    """

    positive_order: Int[np.ndarray, " positives"]
    negative_order: Int[np.ndarray, " negatives"]
    positive_value: Int[np.ndarray, " positives"]
    negative_value: Int[np.ndarray, " negatives"]
    values: int

    @classmethod
    def of(cls, positive: Float[np.ndarray, " positives"], negative: Float[np.ndarray, " negatives"]) -> _Ranks:
        both = _filled(np.concatenate([positive, negative]))
        _, value = np.unique(-both, return_inverse=True)
        p, n = value[: len(positive)], value[len(positive) :]
        p_order, n_order = np.argsort(p, kind="stable"), np.argsort(n, kind="stable")
        return cls(p_order, n_order, p[p_order], n[n_order], int(value.max()) + 1)

    def measure(self, drawn: Resamples) -> tuple[Float[np.ndarray, " draws"], Float[np.ndarray, " draws"]]:
        """AUROC and recall of every draw."""
        p = self._by_value(drawn.positive[:, self.positive_order], self.positive_value)
        n = self._by_value(drawn.negative[:, self.negative_order], self.negative_value)
        positives, negatives = p.sum(axis=1), n.sum(axis=1)
        above = np.cumsum(n, axis=1)  # negatives at or above each value
        auroc = (p * (negatives[:, None] - above + 0.5 * n)).sum(axis=1) / (positives * negatives)
        flagged = above <= allowed_false_positives(drawn.negative.shape[1])
        return auroc, (p * flagged).sum(axis=1) / positives

    def _by_value(
        self, counts: Int[np.ndarray, "draws texts"], value: Int[np.ndarray, " texts"]
    ) -> Int[np.ndarray, "draws values"]:
        """Counts of equal scores together, from counts that are sorted by value."""
        sums = np.zeros((len(counts), self.values), dtype=np.int64)
        present, starts = np.unique(value, return_index=True)
        sums[:, present] = np.add.reduceat(counts, starts, axis=1)
        return sums


def _filled(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Missing scores are the lowest ones."""
    return np.where(np.isnan(scores), -np.inf, scores)


def _limits(values: Float[np.ndarray, " draws"], level: float) -> Limits:
    if values.min() == values.max():
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
