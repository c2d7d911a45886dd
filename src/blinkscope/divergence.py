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
observations are draws. Where the posteriors are themselves estimated, from counts, the plug-in is biased, and the
functions whose names begin with ``estimated_`` give brackets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, label_mask

PRIOR = 0.5  # draws of the prior that stand beside the counts where a tangent is laid; without any it could be vertical
ROUNDING = 1e-9

Numbers = Float[np.ndarray, "*size"]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, which is zero where the number is exact."""

    value: float
    standard_error: float = 0.0

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Normal limits, value -+ z standard errors; the value itself twice where it is exact."""
        from scipy.special import ndtri

        _check_level(level)
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
        assert posterior.weights is not None
        products = different_pairs(posterior, inside) / posterior.weights[inside].sum()
    columns = [average(posterior, products[..., k], _largest(posterior, start)) for k in range(len(posterior.labels))]
    mean = np.array([[e.value for e in column] for column in columns]).T
    return LabelLaw(posterior.labels, mean, np.array([[e.standard_error for e in column] for column in columns]).T)


def different_pairs(
    posterior: Posterior, inside: Bool[np.ndarray, " labels"]
) -> Float[np.ndarray, "rows samples labels"]:
    """pi_t(S) pi_t(b) at every observation, unbiased: the share of pairs of different draws with labels in S and b."""
    assert posterior.counts is not None
    counts, total = posterior.counts, _draws(posterior.counts)
    pairs = (counts @ inside)[..., None] * counts - np.where(inside, counts, 0)
    return np.asarray(pairs / (total * (total - 1))[..., None])


@dataclass(frozen=True)
class Bracket:
    """A divergence from posteriors that are themselves estimated from counts.

    plug_in: taken at the observed shares; biased upward, since every divergence here is convex in the posterior.
    split: biased downward: the tangent at the shares of all draws but one, read at that one, averaged over which one is
        left out. A tangent lies below a convex function wherever it touches it.
    value: their midpoint, so that its bias is at most half their expected distance; to first order in 1 / draws the two
        biases are opposite and cancel. Where ``plug_in`` is infinite, ``split``.
    low, high: limits that cover the truth with probability at least the level asked for (normal approximation over the
        observations): the expectations of ``split`` and ``plug_in`` bracket it however few the draws behind each
        posterior.
    """

    value: float
    low: float
    high: float
    plug_in: float
    split: float


def estimated_total_variation(
    posterior: Posterior, a: Collection[str], b: Collection[str], level: float = 0.95
) -> tuple[Bracket, ...]:
    """TV(p_t^A, p_t^B) where each pi_t is estimated from counts, one bracket a row; in [0, 1].

    There is a second bound from above, by Cauchy and Schwarz: (1/2) E |r| <= (1/2) sqrt(E r^2) with r the difference of
    the two densities. It is a close one where many observations differ a little, which is where few draws of each
    leave the plug-in far too high. ``value`` and ``high`` go by whichever is lower.

    Parameters
    ----------
    posterior : with ``counts`` of at least 2 draws an observation, and ``weights``, taken as known.
    """

    def slopes(ratio: Numbers) -> tuple[Numbers, Numbers]:
        sign = np.where(np.abs(ratio - 1) < ROUNDING, 0.0, np.sign(ratio - 1))  # rounding must not choose a sign
        return sign / 2, -sign / 2

    def bracketed(level: float) -> tuple[Bracket, ...]:
        return _bracketed(posterior, a, b, level, lambda p, q: np.abs(p - q) / 2, slopes, 1.0)

    halved = (1 + level) / 2  # there are two limits from above, each of which may fail
    squares = _squared_differences(posterior, a, b, level)
    return tuple(
        replace(
            bracket,
            value=min(1.0, max(0.0, (min(bracket.plug_in, _half_root(square.value)) + bracket.split) / 2)),
            high=min(stricter.high, _half_root(square.interval(halved)[1])),
        )
        for bracket, stricter, square in zip(bracketed(level), bracketed(halved), squares, strict=True)
    )


def _squared_differences(
    posterior: Posterior, a: Collection[str], b: Collection[str], level: float
) -> tuple[Estimate, ...]:
    """E (pi_t(A)/w_A - pi_t(B)/w_B)^2, unbiased: the mean product of what two different draws say."""
    counts, weights, total = _counted(posterior, level)
    sets = [label_mask(posterior.labels, chosen) for chosen in (a, b)]
    x = sets[0] / weights[sets[0]].sum() - sets[1] / weights[sets[1]].sum()
    products = ((counts @ x) ** 2 - counts @ x**2) / (total * (total - 1))
    return average(posterior, products, float(np.abs(x).max()) ** 2)


def _half_root(square: float) -> float:
    return math.sqrt(max(0.0, square)) / 2


def estimated_squared_hellinger(
    posterior: Posterior, a: Collection[str], b: Collection[str], level: float = 0.95
) -> tuple[Bracket, ...]:
    """H^2(p_t^A, p_t^B) where each pi_t is estimated from counts, one bracket a row; in [0, 2].

    BC = 1 - H^2/2 has the limits 1 - high/2 and 1 - low/2. ``posterior`` is as in ``estimated_total_variation``.
    """
    return _bracketed(
        posterior,
        a,
        b,
        level,
        lambda p, q: (np.sqrt(p) - np.sqrt(q)) ** 2,
        lambda ratio: (1 - 1 / np.sqrt(ratio), 1 - np.sqrt(ratio)),
        2.0,
    )


def estimated_kullback_leibler(
    posterior: Posterior, a: Collection[str], b: Collection[str], level: float = 0.95
) -> tuple[Bracket, ...]:
    """KL(p_t^A || p_t^B) in nats where each pi_t is estimated from counts, one bracket a row.

    ``high`` is infinite unless A is inside B: no number of draws rules out observations that p_t^B cannot make.
    ``split`` is Nguyen, Wainwright and Jordan's variational bound, E_A[log r] - E_B[r] + 1 with r the ratio of the
    other draws. ``posterior`` is as in ``estimated_total_variation``.
    """

    def plug_in(p: Numbers, q: Numbers) -> Numbers:
        # Its mean is the divergence, as both densities have mean 1; as it stands it is never negative.
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(p > 0, p * np.log(p / q), 0.0) - p + q

    found = _bracketed(posterior, a, b, level, plug_in, lambda ratio: (np.log(ratio), 1 - ratio), np.inf)
    return found if set(a) <= set(b) else tuple(replace(bracket, high=np.inf) for bracket in found)


def estimated_mutual_information(posterior: Posterior, level: float = 0.95) -> tuple[Bracket, ...]:
    """I(theta; Y_t) in nats where each pi_t is estimated from counts, one bracket a row; in [0, H(w)].

    ``split`` is what a code for the next label saves that knows the other draws, E log(r(theta) / w(theta)): never
    above the information, by Gibbs' inequality. ``posterior`` is as in ``estimated_total_variation``.
    """
    counts, weights, total = _counted(posterior, level)
    others = (counts - 1 + PRIOR * weights) / (total[..., None] - 1 + PRIOR)
    with np.errstate(divide="ignore", invalid="ignore"):
        gains = np.where(counts > 0, counts / total[..., None] * np.log(others / weights), 0.0)
        plain = np.where(counts > 0, counts / total[..., None] * np.log(counts / total[..., None] / weights), 0.0)
    largest = float(-np.log(weights.min()))
    above = average(posterior, plain.sum(axis=-1), largest)
    below = average(posterior, gains.sum(axis=-1), 2 * largest)
    entropy = float(-(weights * np.log(weights)).sum())
    return tuple(_bracket(high, low, level, entropy) for high, low in zip(above, below, strict=True))


def _bracketed(
    posterior: Posterior,
    a: Collection[str],
    b: Collection[str],
    level: float,
    divergence: Callable[[Numbers, Numbers], Numbers],
    slopes: Callable[[Numbers], tuple[Numbers, Numbers]],
    most: float,
) -> tuple[Bracket, ...]:
    """E phi(pi_t(A)/w_A, pi_t(B)/w_B) for a convex phi with phi(s x, s y) = s phi(x, y), between its two estimates.

    Such a phi has tangents through the origin, alpha x + beta y, whose slopes depend on the ratio x / y where they
    touch. With one draw left out that ratio comes from the others and from PRIOR draws of the prior; the draw then
    adds alpha / w_A if its label is in A and beta / w_B if it is in B.

    divergence: phi. slopes: alpha and beta at a ratio. most: the largest value that the result can have.
    """
    counts, weights, total = _counted(posterior, level)
    sets = [label_mask(posterior.labels, chosen) for chosen in (a, b)]
    share = [float(weights[chosen].sum()) for chosen in sets]
    inside = [counts @ chosen for chosen in sets]
    above_terms = divergence(*(count / total / w for count, w in zip(inside, share, strict=True)))
    below_terms = np.zeros(total.shape)
    for left in ((True, True), (True, False), (False, True)):  # whether the draw left out is in A, in B
        which = (sets[0] == left[0]) & (sets[1] == left[1])
        others = [np.maximum(n - out, 0) / w + PRIOR for n, out, w in zip(inside, left, share, strict=True)]
        parts = [out * slope / w for out, slope, w in zip(left, slopes(others[0] / others[1]), share, strict=True)]
        below_terms += counts @ which / total * (parts[0] + parts[1])
    corners = divergence(*(chosen / w for chosen, w in zip(sets, share, strict=True)))  # where a label is certain
    largest = float(corners[np.isfinite(corners)].max())
    with np.errstate(invalid="ignore"):
        above = average(posterior, above_terms, largest)
    below = average(posterior, below_terms, 2 * largest)
    return tuple(_bracket(high, low, level, most) for high, low in zip(above, below, strict=True))


def _bracket(above: Estimate, below: Estimate, level: float, most: float) -> Bracket:
    middle = (above.value + below.value) / 2 if np.isfinite(above.value) else below.value
    return Bracket(
        value=min(most, max(0.0, middle)),
        low=max(0.0, below.interval(level)[0]),
        high=min(most, above.interval(level)[1]),
        plug_in=above.value,
        split=below.value,
    )


def _counted(
    posterior: Posterior, level: float
) -> tuple[Int[np.ndarray, "rows samples labels"], Float[np.ndarray, " labels"], Int[np.ndarray, "rows samples"]]:
    """Counts, label weights, and how many draws each observation has."""
    if posterior.counts is None or posterior.weights is None:
        raise UserError("a bias-corrected divergence needs the counts behind the posteriors and label weights.")
    _check_level(level)
    return posterior.counts, posterior.weights, _draws(posterior.counts)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")


def _draws(counts: Int[np.ndarray, "rows samples labels"]) -> Int[np.ndarray, "rows samples"]:
    total = counts.sum(axis=-1)
    if total.min() < 2:
        raise UserError(f"an observation has {total.min()} draws behind its posterior; at least 2 are needed.")
    return np.asarray(total)
