"""Sparse linear regression: all or nothing ([LKC25], Theorem 6).

N observations (x_i, y_i) stand in the context, x_i ~ N(0, I_s). Under the signal theta is uniform among the 0/1 vectors
with k ones and y_i = <theta, x_i> + N(0, sigma^2); under the null y_i ~ N(0, k + sigma^2) is independent of x_i. Both
have weight 1/2. t observations are removed; from the n = N - t left the likelihood ratio of the signal is

    L = (1 + k/sigma^2)^{n/2} exp( -(|y|^2/2) (1/sigma^2 - 1/(k + sigma^2)) )
        mean_S exp( ( sum_{j in S} (2 <x^j, y> - |x^j|^2) - 2 sum_{j < l in S} <x^j, x^l> ) / (2 sigma^2) )

where S runs over all C(s, k) supports and x^j is the column of the n values of coordinate j. pi_t(signal) = L / (1 + L)
is exact; total variations are averages over draws of it, with a standard error.

**The sum without the list**: with M_jl = exp((a_j + a_l)/2 - b_jl) off the diagonal, 0 on it, a triple's term is
M_jl M_li M_ij, so that the sum over the C(s, 3) triples is tr(M^3) / 6: one product of s x s matrices. Larger supports
are taken apart by their least members until triples are left.

Threshold: N* = 2 k ln(s/k) / ln(1 + k/sigma^2). The paper's window is [(1 - delta) N*, (1 + delta) N*] in observations
seen, for every delta > 0, as s grows with sigma^2 << k <= s^0.499. It is asymptotic: at small size the crossover sits
at about N* and sharpens slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import (
    PaperWindow,
    check_memory,
    check_scale,
    draw_labels,
    importance_law,
    two_label_factor,
)

DRAWS, FEWEST = 4096, 256  # contexts in an average: as many as keep it below WORK, within these limits
WORK = 2**33  # multiplications in an average
LARGEST = 2**28  # multiplications in one context: FEWEST of them make an average, and a window takes a dozen averages
LISTED = 64  # multiplications that a pair's own term is worth: it is looked up, and an exponential
BLOCK = 2**18  # numbers in the contexts, or in their inner products, that are worked on at a time
LOWEST = -700.0  # e^LOWEST is nothing beside 1; below it exp becomes denormal and ten times as slow
UNDERFLOW = 650.0  # terms that are e^{-UNDERFLOW} of the largest may be lost; further down, doubles lose digits


@dataclass(frozen=True)
class SparseRegression:
    """A planted sparse signal against pure noise; labels ``signal`` and ``null``, equal weights.

    dim: s, coordinates of theta. sparsity: k, the ones among them, from 1 to s - 1.
    noise: sigma, a standard deviation, positive. observations: N, in the whole context.
    """

    dim: int = 60
    sparsity: int = 2
    noise: float = 0.3
    observations: int = 40

    name: ClassVar = "sparse-regression"
    labels: ClassVar = ("signal", "null")
    weights: ClassVar = np.array([0.5, 0.5])
    after: ClassVar = ("signal",)
    before: ClassVar = ("signal", "null")

    def __post_init__(self) -> None:
        if not 1 <= self.sparsity < self.dim:
            raise UserError(f"sparsity is {self.sparsity} and dim {self.dim}; it takes 1 <= sparsity < dim.")
        check_scale(self.noise, "noise")
        if self.observations < 1:
            raise UserError(f"observations is {self.observations}; there must be at least 1.")
        check_memory(32 * self.dim * (self.dim + self.observations), "one context and its inner products")
        if self.cost > LARGEST:
            raise UserError(
                f"a sum over {self.supports:.3g} supports would take about {self.cost:.2g} multiplications, more than "
                f"the {LARGEST:.2g} allowed, since a window takes thousands of such sums; choose a smaller dim or "
                "sparsity."
            )

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "observations", 0, self.observations, range(self.observations + 1))

    @property
    def supports(self) -> int:
        """C(s, k)."""
        return math.comb(self.dim, self.sparsity)

    @property
    def cost(self) -> float:
        """Multiplications behind one posterior, about: a product of matrices for each choice of the least members."""
        s, k = self.dim, self.sparsity
        terms = LISTED * self.supports if k < 3 else math.comb(s, k - 3) * (s / (k - 2)) ** 3
        return float(s**2 * self.observations + terms)

    @property
    def threshold(self) -> float:
        """N*, in observations."""
        k = self.sparsity
        return 2 * k * math.log(self.dim / k) / math.log1p(k / self.noise**2)

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Float[np.ndarray, "n shown values"]:
        """n draws of the observations left, x followed by y. The same random numbers give the same ones at every t."""
        shown, k = self.observations - int(self.index.check(t)), self.sparsity
        support = np.argpartition(rng.random((n, self.dim)), k, axis=1)[:, :k]
        draws = rng.standard_normal((shown, n, self.dim + 1))
        if label == "signal":
            draws[..., -1] *= self.noise
            draws[..., -1] += np.take_along_axis(draws, support[None], axis=2).sum(axis=2)
        else:
            draws[..., -1] *= math.sqrt(k + self.noise**2)
        return np.ascontiguousarray(draws.swapaxes(0, 1))

    def posterior(self, y: Float[np.ndarray, "n shown values"], t: float) -> Float[np.ndarray, "n labels"]:
        from scipy.special import expit

        self.index.check(t)
        size = max(1, BLOCK // self.dim**2)
        blocks = [self._log_ratio(y[i : i + size]) for i in range(0, len(y), size)]
        log_ratio = np.concatenate([np.empty(0), *blocks])
        return np.stack([expit(log_ratio), expit(-log_ratio)], axis=-1)

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Draws of the observations left, the same but for those removed at every t; drawn once for each question."""
        asked = (t, between and (tuple(between[0]), tuple(between[1])))
        if asked not in self._laws:
            self._laws[asked] = self._draw(t, between)
        return self._laws[asked]

    def _draw(self, t: float, between: tuple[Labels, Labels] | None) -> Posterior:
        draws = min(DRAWS, max(FEWEST, int(WORK / self.cost)))
        size = max(2, BLOCK // (self.dim * self.observations))  # a few contexts at a time keep the memory small
        posteriors = []
        for block, first in enumerate(range(0, draws, size)):
            count = min(size, draws - first)
            origin = np.bincount(draw_labels(self, between, count, np.random.default_rng([0, block])))
            for k, c in enumerate(origin):
                contexts = self.sample(np.random.default_rng([0, block, k]), self.labels[k], t, int(c))
                posteriors.append(self.posterior(contexts, t))
        return importance_law(self, t, between, np.concatenate(posteriors))

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        if t not in self._separations:
            self._separations[t] = mixture_total_variation(self.law(t), ("signal",), ("null",))[0]
        apart, factor = self._separations[t], two_label_factor(self, a, b)
        return Estimate(factor * apart.value, factor * apart.standard_error)

    def paper(self, eps: float) -> PaperWindow:
        """The threshold of Theorem 6: both ends tend to N* observations."""
        return PaperWindow(
            t_after=self.observations - self.threshold,
            t_before=self.observations - self.threshold,
            certifies=(
                "the limit for large dim, with noise^2 << sparsity <= dim^0.499: the window lies within (1 +- delta) "
                "N* observations seen, for every delta > 0. At finite size neither criterion."
            ),
        )

    @cached_property
    def _laws(self) -> dict[tuple[float, tuple[Labels, Labels] | None], Posterior]:
        """The laws asked for so far: one costs seconds where supports are many."""
        return {}

    @cached_property
    def _separations(self) -> dict[float, Estimate]:
        """TV(signal, null) at the times asked for so far."""
        return {}

    def _log_ratio(self, y: Float[np.ndarray, "n shown values"]) -> Float[np.ndarray, " n"]:
        """ln L."""
        x, answer = y[..., :-1], y[..., -1]
        precision = self.noise**-2
        gram = (precision * x).swapaxes(1, 2) @ x  # of an array with itself, numpy would fill up the half by hand
        single = precision * (answer[:, None] @ x)[:, 0] - np.diagonal(gram, axis1=1, axis2=2) / 2
        mean = _log_sum(single, gram, self.sparsity) - math.log(self.supports)
        gain = precision - 1 / (self.sparsity + self.noise**2)
        return mean + y.shape[1] / 2 * math.log1p(self.sparsity * precision) - gain / 2 * (answer**2).sum(axis=1)


def _log_sum(
    single: Float[np.ndarray, "n dim"], double: Float[np.ndarray, "n dim dim"], size: int
) -> Float[np.ndarray, " n"]:
    """ln of the sum over all S of ``size`` members of exp( sum_{j in S} a_j - sum_{j < l in S} b_jl )."""
    from scipy.special import logsumexp

    if size == 1:
        return np.asarray(logsumexp(single, axis=1))
    if size == 2:
        first, second, place = _pairs(single.shape[1])
        scores = np.take(single, first, axis=1, mode="clip")
        scores += np.take(single, second, axis=1, mode="clip")
        scores -= np.take(double.reshape(len(double), -1), place, axis=1, mode="clip")
        top = scores.max(axis=1)
        scores -= top[:, None]
        np.exp(np.maximum(scores, LOWEST, out=scores), out=scores)
        return np.asarray(top + np.log(scores.sum(axis=1)))
    if size == 3:
        total, certain = _log_triples(single, double)
        if not certain.all():
            total[~certain] = _by_least_member(single[~certain], double[~certain], size)
        return total
    return _by_least_member(single, double, size)


def _by_least_member(
    single: Float[np.ndarray, "n dim"], double: Float[np.ndarray, "n dim dim"], size: int
) -> Float[np.ndarray, " n"]:
    """``_log_sum``, by each set's least member i and the size - 1 after it."""
    from scipy.special import logsumexp

    parts = [
        single[:, i] + _log_sum(single[:, i + 1 :] - double[:, i, i + 1 :], double[:, i + 1 :, i + 1 :], size - 1)
        for i in range(single.shape[1] - size + 1)
    ]
    return np.asarray(logsumexp(parts, axis=0))


def _log_triples(
    single: Float[np.ndarray, "n dim"], double: Float[np.ndarray, "n dim dim"]
) -> tuple[Float[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """ln of tr(M^3) / 6, and whether no digits were lost.

    Each row of M is scaled by its largest entry, e^r. In the inner sum of (M^2)_ij terms below e^{-UNDERFLOW} of
    e^{r_i + r_j} may vanish; all of these together, weighed by M_ij, must be nothing beside the result.
    """
    log_m = _off_diagonal((single[:, :, None] + single[:, None]) / 2 - double)
    row = log_m.max(axis=2)
    scaled = np.exp(log_m - row[:, :, None])
    log_m += row[:, :, None] + row[:, None]
    top = log_m.max(axis=(1, 2))
    weight = np.exp(np.subtract(log_m, top[:, None, None], out=log_m), out=log_m)
    lost = weight.sum(axis=(1, 2)) * single.shape[1] * math.exp(-UNDERFLOW)
    weight *= scaled @ scaled.swapaxes(1, 2)
    total = weight.sum(axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.log(total) + top - math.log(6), lost < np.finfo(float).eps * total


@lru_cache(maxsize=2)
def _pairs(dim: int) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
    """Every j < l, and where the pair stands in a flattened square."""
    first, second = np.triu_indices(dim, 1)
    return first, second, first * dim + second


def _off_diagonal(square: Float[np.ndarray, "n dim dim"]) -> Float[np.ndarray, "n dim dim"]:
    """The same array with -inf on the diagonals."""
    square[:, np.arange(square.shape[1]), np.arange(square.shape[1])] = -math.inf
    return square
