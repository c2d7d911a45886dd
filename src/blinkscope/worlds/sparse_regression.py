"""Sparse linear regression: all or nothing ([LKC25], Theorem 6).

N observations (x_i, y_i) stand in the context, x_i ~ N(0, I_s). Under the signal theta is uniform among the 0/1 vectors
with k ones and y_i = <theta, x_i> + N(0, sigma^2); under the null y_i ~ N(0, k + sigma^2) is independent of x_i. Both
have weight 1/2. t observations are removed; from the n = N - t left the likelihood ratio of the signal is

    L = (1 + k/sigma^2)^{n/2} exp( -(|y|^2/2) (1/sigma^2 - 1/(k + sigma^2)) )
        mean_S exp( ( sum_{j in S} (2 <x^j, y> - |x^j|^2) - 2 sum_{j < l in S} <x^j, x^l> ) / (2 sigma^2) )

where S runs over all C(s, k) supports and x^j is the column of the n values of coordinate j. pi_t(signal) = L / (1 + L)
is exact; total variations are averages over draws of it, with a standard error.

Threshold: N* = 2 k ln(s/k) / ln(1 + k/sigma^2). The paper's window is [(1 - delta) N*, (1 + delta) N*] in observations
seen, for every delta > 0, as s grows with sigma^2 << k <= s^0.499. It is asymptotic: at small size the crossover sits
at about N* and sharpens slowly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, combinations
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

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

DRAWS = 4096  # contexts in an average
ENTRIES = 2**27  # fewer, but not below 256, where draws times supports would exceed this
BLOCK = 2**18  # numbers in the contexts, or in their inner products, that are worked on at a time
LOWEST = -700.0  # e^LOWEST is nothing beside 1; below it exp becomes denormal and ten times as slow


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
        # Indices of members and pairs, and working space for one context.
        each = 8 * (self.sparsity * (self.sparsity + 1) // 2 + 4)
        check_memory(min(each * self.supports, 1e18), f"a sum over {self.supports:.3g} supports")
        check_memory(16 * self.dim * (self.dim + self.observations), "one context and its inner products")

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "observations", 0, self.observations, range(self.observations + 1))

    @property
    def supports(self) -> int:
        """C(s, k)."""
        return math.comb(self.dim, self.sparsity)

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
        """Draws of the observations left, the same but for those removed at every t."""
        draws = min(DRAWS, max(256, ENTRIES // self.supports))
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
    def _separations(self) -> dict[float, Estimate]:
        """TV(signal, null) at the times asked for so far: one costs seconds where supports are many."""
        return {}

    @cached_property
    def _members(self) -> Int[np.ndarray, "sparsity supports"]:
        """The coordinates in each support."""
        listed = chain.from_iterable(combinations(range(self.dim), self.sparsity))
        flat = np.fromiter(listed, dtype=np.intp, count=self.supports * self.sparsity)
        return np.ascontiguousarray(flat.reshape(-1, self.sparsity).T)

    @cached_property
    def _pairs(self) -> list[Int[np.ndarray, " supports"]]:
        """Where the inner products of two coordinates of each support stand in the flattened Gram matrix."""
        return [a * self.dim + b for a, b in combinations(self._members, 2)]

    def _log_ratio(self, y: Float[np.ndarray, "n shown values"]) -> Float[np.ndarray, " n"]:
        """ln L."""
        x, answer = y[..., :-1], y[..., -1]
        precision = self.noise**-2
        gram = precision * (x.swapaxes(1, 2) @ x)
        single = precision * (answer[:, None] @ x)[:, 0] - np.diagonal(gram, axis1=1, axis2=2) / 2
        work = np.empty((2, self.supports))
        mean = np.array([self._log_mean(one, two.ravel(), work) for one, two in zip(single, gram, strict=True)])
        gain = precision - 1 / (self.sparsity + self.noise**2)
        return mean + y.shape[1] / 2 * math.log1p(self.sparsity * precision) - gain / 2 * (answer**2).sum(axis=1)

    def _log_mean(
        self,
        single: Float[np.ndarray, " dim"],
        double: Float[np.ndarray, " products"],
        work: Float[np.ndarray, "2 supports"],
    ) -> float:
        """ln of the mean over supports, one context at a time and in place: memory is what costs time here."""
        score, part = work
        np.take(single, self._members[0], out=score, mode="clip")
        for member in self._members[1:]:
            score += np.take(single, member, out=part, mode="clip")
        for pair in self._pairs:
            score -= np.take(double, pair, out=part, mode="clip")
        top = float(score.max())
        score -= top
        np.exp(np.maximum(score, LOWEST, out=score), out=score)
        return top + math.log(score.mean())
