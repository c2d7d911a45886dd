"""The label posterior along the index: pi_t(theta) = P(theta | Y_t).

Everything in this project is computed from this one object ([LKC25], section 2). A world fills it with exact values;
for a real model it is estimated, and then carries joint draws from the distribution of the unknown curve, so that any
function of several rows (a total variation, a window) gets an interval that knows how the rows move together.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from blinkscope.errors import UserError

TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Posterior:
    """Label posteriors along an index.

    index: positions (tokens kept) or times, shape (rows,).
    labels: names of the outcomes, K of them.
    mean: the posterior, exact or estimated; shape (rows, K) for one observed path,
        (rows, samples, K) for several observations at each index.
    draws: joint draws of an estimated curve about its mean, shape (draws, rows, K); None where ``mean`` is exact. Bands
        and standard deviations are theirs.
    believed: joint draws of the curve given everything seen, same shape, where ``draws`` are not these already. What is
        picked because it looks large, as windows are, is judged by them: about a noisy mean every difference would
        count its noise twice.
    deviation: standard deviation of an estimated ``mean``, same shape, where it is known better than from ``draws``,
        which are cut at 0 and 1.
    weights: the prior law w of the labels; needed wherever sub-mixtures p^S are compared.
    mass: probability (or importance weight) under p_t of each observation, shape (rows, samples). None where the
        observations are plain draws from p_t. Exact worlds list all observations, or quadrature nodes, with their mass.
    counts: labels of the continuations behind an estimated ``mean`` of shape (rows, samples, K); same shape.
    complete: True where the observations with their mass are all there are (or a quadrature rule for them), so that
        averages over them have no standard error.
    """

    index: Num[np.ndarray, " rows"]
    labels: tuple[str, ...]
    mean: Num[np.ndarray, "rows *samples labels"]
    draws: Float[np.ndarray, "draws rows labels"] | None = None
    believed: Float[np.ndarray, "draws rows labels"] | None = None
    deviation: Float[np.ndarray, "rows labels"] | None = None
    weights: Float[np.ndarray, " labels"] | None = None
    mass: Float[np.ndarray, "rows samples"] | None = None
    counts: Int[np.ndarray, "rows samples labels"] | None = None
    complete: bool = False

    def __post_init__(self) -> None:
        for name in ("index", "mean", "weights", "mass", "counts"):  # lists will do
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(value))
        if self.mean.shape[0] != len(self.index) or self.mean.shape[-1] != len(self.labels):
            raise UserError(
                f"a posterior of shape {self.mean.shape} does not fit {len(self.index)} rows and "
                f"{len(self.labels)} labels; its first axis is the index, its last the labels."
            )
        if not np.isfinite(self.mean).all():
            raise UserError("a posterior holds NaN or infinite entries; every entry must be a probability.")
        if self.mean.ndim == 3 and self.mean.size:
            total = self.mean.sum(axis=-1)
            if self.mean.min() < -TOLERANCE or np.abs(total - 1).max() > TOLERANCE:
                raise UserError(
                    f"a posterior has entries from {self.mean.min():.4g} and rows that sum to {total.min():.4g} to "
                    f"{total.max():.4g}; every row must be a law on the labels."
                )
        if self.weights is not None:
            check_weights(self.weights, self.labels)
        if self.mass is not None and self.mass.shape != self.mean.shape[:-1]:
            raise UserError(f"mass of shape {self.mass.shape} does not fit posteriors of shape {self.mean.shape}.")
        if self.counts is not None and self.counts.shape != self.mean.shape:
            raise UserError(f"counts of shape {self.counts.shape} do not fit posteriors of shape {self.mean.shape}.")
        if self.counts is not None and self.counts.size and self.counts.min() < 0:
            raise UserError(f"a count is {self.counts.min()}; counts must not be negative.")

    @property
    def sd(self) -> Float[np.ndarray, "rows labels"]:
        """Standard deviation of every entry; zeros where the posterior is exact."""
        if self.deviation is not None:
            return self.deviation
        return np.zeros_like(self.mean) if self.draws is None else np.asarray(self.draws.std(axis=0))

    def band(self, level: float = 0.95) -> tuple[Float[np.ndarray, "rows labels"], Float[np.ndarray, "rows labels"]]:
        """Pointwise limits that hold ``level`` of the joint draws, equally many left out on each side."""
        if not 0 < level < 1:
            raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")
        if self.draws is None:
            return self.mean, self.mean
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        # The mean is unbiased, the draws are not: where they disagree at an edge the band reaches to the mean.
        return np.minimum(low, self.mean), np.maximum(high, self.mean)


def check_weights(weights: Float[np.ndarray, " labels"], labels: tuple[str, ...]) -> None:
    """Refuse weights that are not a law on the labels with every label possible."""
    if weights.shape != (len(labels),):
        raise UserError(
            f"there are {len(labels)} labels and weights of shape {weights.shape}; give one weight a label."
        )
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise UserError(f"every weight must be a positive number; got {weights.tolist()}.")
    if abs(weights.sum() - 1) > TOLERANCE:
        raise UserError(f"the weights sum to {weights.sum():.9g}; they must sum to 1.")


def label_mask(labels: tuple[str, ...], chosen: Collection[str]) -> Bool[np.ndarray, " labels"]:
    """The label set S as a mask over ``labels``; refused where it is empty or names an unknown label."""
    if isinstance(chosen, str):
        raise UserError(f"a label set is a collection of labels, not the string {chosen!r}; write ({chosen!r},).")
    if not len(chosen):
        raise UserError("a label set is empty; name at least one label.")
    wanted = set(chosen)
    if unknown := sorted(wanted.difference(labels)):
        raise UserError(f"there is no label {unknown[0]!r}; the labels are {', '.join(labels[:20])}.")
    return np.array([label in wanted for label in labels])


def submixture(posterior: Posterior, chosen: Collection[str]) -> Posterior:
    """The posterior of the model p^S, at the same observations: pi_t(theta) / pi_t(S), with mass under p_t^S.

    Observations that p_t^S cannot make keep the prior and get mass 0.
    """
    mask = label_mask(posterior.labels, chosen)
    if posterior.weights is None or posterior.mean.ndim != 3:
        raise UserError("a sub-mixture needs posteriors of shape (rows, samples, labels) with label weights.")
    weights = posterior.weights[mask] / posterior.weights[mask].sum()
    inside = posterior.mean[..., mask]
    total = inside.sum(axis=-1, keepdims=True)
    mass = posterior.mass if posterior.mass is not None else np.full(total.shape[:-1], 1 / total.shape[1])
    return Posterior(
        index=posterior.index,
        labels=tuple(label for label, kept in zip(posterior.labels, mask, strict=True) if kept),
        mean=np.divide(inside, total, out=np.broadcast_to(weights, inside.shape).copy(), where=total > 0),
        weights=weights,
        mass=mass * total[..., 0] / posterior.weights[mask].sum(),
        complete=posterior.complete,
    )


@dataclass(frozen=True)
class MartingaleCheck:
    """Whether posteriors along trajectories look like a martingale.

    largest_z: the largest of ``comparisons`` standardised mean increments; p_value: the probability of one as large
    under a martingale, by Bonferroni and the normal approximation over trajectories.
    """

    largest_z: float
    comparisons: int
    p_value: float


def martingale_check(posterior: Posterior) -> MartingaleCheck:
    """Test E[pi_{t'} | Y_t] = pi_t for t' < t, along trajectories: sample j is the same trajectory in every row.

    For each pair of neighbouring rows and each label the increment of pi must have mean zero, also after multiplication
    with the posterior at the noisier end. ``index`` must rise with the noise.
    """
    if posterior.mean.ndim != 3 or posterior.complete or posterior.mass is not None or posterior.mean.shape[1] < 2:
        raise UserError("the martingale check needs at least 2 drawn trajectories, of shape (rows, samples, labels).")
    from scipy.special import ndtr

    order = np.argsort(posterior.index)
    noisier, cleaner = posterior.mean[order][1:], posterior.mean[order][:-1]
    steps = np.stack([cleaner - noisier, (cleaner - noisier) * noisier])
    error = steps.std(axis=2, ddof=1) / np.sqrt(steps.shape[2])
    mean = np.abs(steps.mean(axis=2))
    z = np.divide(mean, error, out=np.where(mean > TOLERANCE, np.inf, 0.0), where=error > 0)
    largest = float(z.max(initial=0.0))
    return MartingaleCheck(largest, z.size, min(1.0, 2 * z.size * float(ndtr(-largest))))
