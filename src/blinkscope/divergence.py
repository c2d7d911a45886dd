"""Distances between label laws and between sub-mixtures, from posteriors alone.

For label sets A, B with weights w_A = sum_{theta in A} w_theta, the density of p_t^A against the whole mixture p_t is
a = pi_t(A) / w_A, and likewise b for B. Every distance between p_t^A and p_t^B is therefore an average over Y_t ~ p_t
([LKC25], section 2):

    TV(p_t^A, p_t^B)     = (1/2) E |a - b|
    H^2(p_t^A, p_t^B)    = E (sqrt a - sqrt b)^2      in [0, 2]
    BC(p_t^A, p_t^B)     = E sqrt(a b)                = 1 - H^2 / 2
    KL(p_t^A || p_t^B)   = E a log(a / b)

The functions below take a ``Posterior`` of shape (rows, samples, labels) with ``weights`` and return one ``Estimate``
a row: exact where the posterior lists every observation with its mass, an average with its standard error where the
observations are draws. Posteriors that are themselves estimated from counts are in ``estimated_total_variation``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, label_mask


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, which is zero where the number is exact."""

    value: float
    standard_error: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal limits, value -+ z standard errors; the value itself twice where it is exact."""
        from scipy.special import ndtri

        z = float(ndtri((1 + level) / 2))
        return self.value - z * self.standard_error, self.value + z * self.standard_error


def total_variation(
    p: Float[np.ndarray, "*#batch labels"], q: Float[np.ndarray, "*#batch labels"]
) -> Float[np.ndarray, "*batch"]:
    """TV(p, q) = (1/2) sum_theta |p(theta) - q(theta)| between label laws; in [0, 1]."""
    return np.asarray(0.5 * np.abs(np.asarray(p) - np.asarray(q)).sum(axis=-1))


def mixture_total_variation(posterior: Posterior, a: Collection[str], b: Collection[str]) -> tuple[Estimate, ...]:
    """TV(p_t^A, p_t^B) = (1/2) E |pi_t(A)/w_A - pi_t(B)/w_B|, one estimate a row; in [0, 1]."""
    p, q = density(posterior, a), density(posterior, b)
    return average(posterior, 0.5 * np.abs(p - q), 0.5 * _largest(posterior, a, b))


def squared_hellinger(posterior: Posterior, a: Collection[str], b: Collection[str]) -> tuple[Estimate, ...]:
    """H^2(p_t^A, p_t^B) = E (sqrt(pi_t(A)/w_A) - sqrt(pi_t(B)/w_B))^2, one estimate a row; in [0, 2]."""
    p, q = density(posterior, a), density(posterior, b)
    return average(posterior, (np.sqrt(p) - np.sqrt(q)) ** 2, _largest(posterior, a, b))


def bhattacharyya(posterior: Posterior, a: Collection[str], b: Collection[str]) -> tuple[Estimate, ...]:
    """BC(p_t^A, p_t^B) = E sqrt(pi_t(A) pi_t(B) / (w_A w_B)) = 1 - H^2/2, one estimate a row; in [0, 1]."""
    return average(posterior, np.sqrt(density(posterior, a) * density(posterior, b)), _largest(posterior, a, b))


def kullback_leibler(posterior: Posterior, a: Collection[str], b: Collection[str]) -> tuple[Estimate, ...]:
    """KL(p_t^A || p_t^B) = E (pi_t(A)/w_A) log( (pi_t(A)/w_A) / (pi_t(B)/w_B) ) in nats.

    Infinite where p_t^B misses mass of p_t^A. Its terms are unbounded, so its standard error makes no allowance for
    rare observations.
    """
    p, q = density(posterior, a), density(posterior, b)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return average(posterior, terms, 0.0)


def density(posterior: Posterior, chosen: Collection[str]) -> Float[np.ndarray, "rows samples"]:
    """pi_t(S) / w_S at every observation: the density of p_t^S against p_t."""
    if posterior.weights is None or posterior.mean.ndim != 3:
        raise UserError("comparing sub-mixtures needs posteriors of shape (rows, samples, labels) with label weights.")
    mask = label_mask(posterior.labels, chosen)
    return np.asarray(posterior.mean @ (mask / posterior.weights[mask].sum()))


def average(posterior: Posterior, terms: Float[np.ndarray, "rows samples"], largest: float) -> tuple[Estimate, ...]:
    """E over Y_t ~ p_t of a quantity given at every observation, one estimate a row.

    largest: the range that the terms can have. Observations too rare to be among n draws leave no trace in the
        sample's variance (all terms equal: variance zero), so 2 ``largest`` / n is added to the standard error in
        quadrature; for proportions this gives about the exact binomial limits where nothing was seen. Draws with an
        importance mass are placed so that their terms stay of order 1; their range is read off the sample.
    """
    samples = terms.shape[1]
    if posterior.mass is not None:
        # Where the density is zero the importance mass may be anything; 0 * inf is 0 here.
        with np.errstate(invalid="ignore"):
            terms = np.where(posterior.mass > 0, terms * posterior.mass * samples, 0.0)
        largest = max(1.0, float(np.abs(terms).max(initial=0.0)))
    if posterior.complete:
        return tuple(Estimate(float(m)) for m in terms.mean(axis=1))
    if samples < 2:
        raise UserError(f"there is {samples} observation a row; a standard error needs at least 2.")
    error = np.hypot(terms.std(axis=1, ddof=1) / np.sqrt(samples), 2 * largest / samples)
    return tuple(Estimate(float(m), float(s)) for m, s in zip(terms.mean(axis=1), error, strict=True))


def _largest(posterior: Posterior, *sets: Collection[str]) -> float:
    """The largest density 1 / w_S that one of the sets can have against p_t."""
    assert posterior.weights is not None
    return max(1 / float(posterior.weights[label_mask(posterior.labels, chosen)].sum()) for chosen in sets)


def mutual_information(posterior: Posterior) -> tuple[Estimate, ...]:
    """I(theta; Y_t) = H(w) - E H(pi_t) = E KL(pi_t || w) in nats, one estimate a row; in [0, H(w)]."""
    if posterior.weights is None or posterior.mean.ndim != 3:
        raise UserError("mutual information needs posteriors of shape (rows, samples, labels) with label weights.")
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(posterior.mean > 0, posterior.mean * np.log(posterior.mean / posterior.weights), 0.0)
    return average(posterior, terms.sum(axis=-1), float(np.log(1 / posterior.weights.min())))


@dataclass(frozen=True, eq=False)
class LabelLaw:
    """Label law of the forward-reverse experiment at each row, with standard errors; both of shape (rows, labels)."""

    labels: tuple[str, ...]
    mean: Float[np.ndarray, "rows labels"]
    standard_error: Float[np.ndarray, "rows labels"]


def label_law(posterior: Posterior, start: Collection[str]) -> LabelLaw:
    """P(label of X' = b) = E[pi_t(S) pi_t(b)] / w_S: the label law of p^{S,t} ([LKC25], section 3).

    Where the posteriors are estimated from counts, a product of two of them is biased (the same draw would count as
    both factors); the average then runs over pairs of different draws, a U-statistic, which needs 2 draws an
    observation.
    """
    inside = label_mask(posterior.labels, start)
    first = density(posterior, start)
    if posterior.counts is None:
        products = first[..., None] * posterior.mean
    else:
        counts = posterior.counts
        total = _draws(counts)
        assert posterior.weights is not None
        pairs = (counts @ inside)[..., None] * counts - np.where(inside, counts, 0)
        products = pairs / (total * (total - 1))[..., None] / posterior.weights[inside].sum()
    columns = [average(posterior, products[..., k], _largest(posterior, start)) for k in range(len(posterior.labels))]
    mean = np.array([[e.value for e in column] for column in columns]).T
    return LabelLaw(posterior.labels, mean, np.array([[e.standard_error for e in column] for column in columns]).T)


@dataclass(frozen=True)
class TotalVariationBracket:
    """TV(p_t^A, p_t^B) from posteriors that are themselves estimated.

    plug_in: biased upward, since |.| is convex. split: biased downward; the sign comes from all draws but one, the size
        from that one, averaged over which one is left out.
    value: their midpoint, so that its bias is at most half their expected distance.
    low, high: limits that cover the true total variation with probability at least the level asked for (normal
        approximation over the observations): the expectations of ``split`` and ``plug_in`` bracket it however few the
        draws behind each posterior.
    """

    value: float
    low: float
    high: float
    plug_in: float
    split: float


def estimated_total_variation(
    posterior: Posterior, a: Collection[str], b: Collection[str], level: float = 0.95
) -> tuple[TotalVariationBracket, ...]:
    """TV(p_t^A, p_t^B) where each pi_t is estimated from counts, one bracket a row.

    With x(theta) = 1_A(theta)/w_A - 1_B(theta)/w_B and D the sum of x over the m draws of one observation, 2 TV is
    E |E[x | Y_t]|; the plug-in takes |D| / m for the inner value.

    Parameters
    ----------
    posterior : with ``counts`` of at least 2 draws an observation, and ``weights``, taken as known.
    """
    if posterior.counts is None or posterior.weights is None:
        raise UserError("a bias-corrected total variation needs the counts behind the posteriors and label weights.")
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")
    mask_a, mask_b = label_mask(posterior.labels, a), label_mask(posterior.labels, b)
    x = mask_a / posterior.weights[mask_a].sum() - mask_b / posterior.weights[mask_b].sum()
    counts, total = posterior.counts, _draws(posterior.counts)
    signed = counts @ x
    without = signed[..., None] - x  # D without one draw of each label
    without[np.abs(without) < 1e-9 * np.abs(x).max()] = 0.0  # rounding must not choose a sign
    largest = 0.5 * float(np.abs(x).max())
    plug_in = average(posterior, np.abs(signed) / (2 * total), largest)
    split = average(posterior, (counts * x * np.sign(without)).sum(axis=-1) / (2 * total), 2 * largest)
    return tuple(
        TotalVariationBracket(
            value=min(1.0, max(0.0, (above.value + below.value) / 2)),
            low=max(0.0, below.interval(level)[0]),
            high=min(1.0, above.interval(level)[1]),
            plug_in=above.value,
            split=below.value,
        )
        for above, below in zip(plug_in, split, strict=True)
    )


def _draws(counts: Int[np.ndarray, "rows samples labels"]) -> Int[np.ndarray, "rows samples"]:
    total = counts.sum(axis=-1)
    if total.min() < 2:
        raise UserError(f"an observation has {total.min()} draws behind its posterior; at least 2 are needed.")
    return np.asarray(total)
