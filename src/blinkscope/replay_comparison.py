"""Does the curve that off-path forks predict agree with continuations sampled directly along the path?

A recording that holds both measures the same curve twice, from continuations that have nothing in common: through the
recursion under the recorded law, and as plain shares of the free resamples at each position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.replay import labels_of, on_labels, one_hot, recorded_law
from blinkscope.replay_formats import Item


@dataclass(frozen=True, eq=False)
class ResampleComparison:
    """The curve predicted from off-path forks alone beside free resamples at the same positions.

    Arrays have shape (positions, labels). The two share no continuation. Predictions at neighbouring positions share
    forks, so z-scores are not independent of each other.
    predicted_error, observed_error: standard errors; the observed one is that of a binomial share at the mean of the
        two sides, which holds when both are right.
    """

    positions: tuple[int, ...]
    labels: tuple[str, ...]
    predicted: Float[np.ndarray, "positions labels"]
    observed: Float[np.ndarray, "positions labels"]
    predicted_error: Float[np.ndarray, "positions labels"]
    observed_error: Float[np.ndarray, "positions labels"]

    @property
    def z(self) -> Float[np.ndarray, "positions labels"]:
        """(observed - predicted) / standard error of the difference; NaN where neither side varies."""
        error = np.hypot(self.predicted_error, self.observed_error)
        return np.divide(self.observed - self.predicted, error, out=np.full(error.shape, np.nan), where=error > 0)


@dataclass(frozen=True)
class Agreement:
    """How well predictions and resamples agree.

    compared: number of (position, label) pairs behind ``spread`` and ``beyond_2``.
    correlation: of predicted and observed shares, over all pairs; NaN where one side is constant.
    spread: root mean square of the z-scores; 1 if the standard errors are right.
    beyond_2: share of z-scores beyond 2 in size; 0.046 for normal ones.
    """

    compared: int
    correlation: float
    spread: float
    beyond_2: float

    def to_json(self) -> dict[str, JSON]:
        """Fields by name; what cannot be told is null."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}


def compare_with_resamples(item: Item, labels: int = 12) -> ResampleComparison:
    """The prediction from forks against the resamples, at every position where something is open.

    ``labels`` most frequent ones are kept apart, the others are summed as ``(other)``.
    """
    steps = len(item.tokens)
    direct = sorted((entry for entry in item.resamples if entry.position < steps), key=lambda entry: entry.position)
    if not item.forks or not direct:
        raise UserError(f"item {item.id!r} needs forks and resamples before its end for a comparison of the two.")
    names = labels_of(item, labels)
    law = recorded_law(item)
    rows = [entry.position for entry in direct]
    predicted = law.recursion.curve(law.gamma(names), one_hot(item.final_label, names))[rows]
    counts = np.asarray([on_labels(tuple(e.outcomes), np.asarray(list(e.outcomes.values())), names) for e in direct])
    total = counts.sum(axis=1, keepdims=True)
    mean = (predicted + counts / total) / 2
    return ResampleComparison(
        positions=tuple(rows),
        labels=names,
        predicted=predicted,
        observed=counts / total,
        predicted_error=np.sqrt(law.recursion.variance(law.variance(names))[rows]),
        observed_error=np.sqrt(np.clip(mean * (1 - mean), 0, None) / total),
    )


def comparison_of(item: Item, labels: int = 12) -> dict[str, JSON] | None:
    """The comparison as results hold it; None for an item without forks or without resamples before its end."""
    if not item.forks or all(entry.position == len(item.tokens) for entry in item.resamples):
        return None
    comparison = compare_with_resamples(item, labels)
    return {
        **agreement([comparison]).to_json(),
        "positions": list(comparison.positions),
        "labels": list(comparison.labels),
        "predicted": comparison.predicted.tolist(),
        "observed": comparison.observed.tolist(),
        "predicted_error": comparison.predicted_error.tolist(),
        "observed_error": comparison.observed_error.tolist(),
        "z": [[None if np.isnan(z) else float(z) for z in row] for row in comparison.z],
    }


def agreement(comparisons: Sequence[ResampleComparison], undecided: float = 0.02) -> Agreement:
    """Over all comparisons; z-scores count where the mean of the two sides lies in (undecided, 1 - undecided).

    Closer to 0 or 1 a share of a few resamples is far from normal, and most z-scores are 0.
    """
    predicted, observed, z = (
        np.concatenate([part.ravel() for part in parts])
        for parts in zip(*((c.predicted, c.observed, c.z) for c in comparisons), strict=True)
    )
    mean = (predicted + observed) / 2
    z = z[(mean > undecided) & (mean < 1 - undecided) & np.isfinite(z)]
    constant = predicted.std() == 0 or observed.std() == 0
    return Agreement(
        compared=len(z),
        correlation=float("nan") if constant else float(np.corrcoef(predicted, observed)[0, 1]),
        spread=float(np.sqrt((z**2).mean())) if len(z) else float("nan"),
        beyond_2=float((abs(z) > 2).mean()) if len(z) else float("nan"),
    )
