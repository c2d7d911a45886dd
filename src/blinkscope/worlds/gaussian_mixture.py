"""A mixture of K Gaussians ([LKC25], Example 2 and its general form).

X ~ sum_k w_k N(mu_k, Sigma_k), noised by the Ornstein-Uhlenbeck process, so that

    Y_t | k ~ N(e^{-t} mu_k, Sigma_{k,t}),   Sigma_{k,t} = e^{-2t} Sigma_k + (1 - e^{-2t}) I
    log pi_t(k) = log w_k - (1/2) |Sigma_{k,t}^{-1/2} (y - e^{-t} mu_k)|^2 - (1/2) log det Sigma_{k,t} + const

In the paper's example mu_k ~ N(0, I_d) and Sigma_k = I. Then only y's inner products with the means matter, so all work
is done in their span, of at most K dimensions, and the window's width does not grow with d. Total variations are exact
between two components (2 Phi(|mu_i - mu_j| e^{-t} / 2) - 1); between mixtures they are averages over draws of Y_t with
exact posteriors, and carry a standard error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, check_weights, label_mask
from blinkscope.processes import OU_TIME
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import (
    PaperWindow,
    check_memory,
    check_seed,
    draw_labels,
    drawn_law,
    importance_law,
    two_label_factor,
)

# Observations in an average, half of them from each of the two label sets: within limits, as many as keep draws times
# components (times dim, given covariances) below ENTRIES.
FEWEST, MOST, ENTRIES = 2**11, 2**15, 2**18


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A Gaussian mixture under the OU process; labels "0" to str(K - 1).

    components: K, at least 2. dim: d, at least 1.
    seed: of the paper's random means, ``numpy.random.default_rng(seed).standard_normal((K, d))``.
    means: given means instead, shape (K, d); ``components`` and ``dim`` are then read from it.
    covariances: shape (K, d, d), symmetric and positive semidefinite; identities by default.
    prior: weights of the components, shape (K,); equal by default.
    """

    components: int = 5
    dim: int = 100
    seed: int = 0
    means: Float[np.ndarray, "components dim"] | None = None
    covariances: Float[np.ndarray, "components dim dim"] | None = None
    prior: Float[np.ndarray, " components"] | None = None

    name: ClassVar = "gaussian-mixture"
    index: ClassVar[IndexSet] = OU_TIME

    def __post_init__(self) -> None:
        if self.means is not None:
            if self.means.ndim != 2 or not np.isfinite(self.means).all():
                raise UserError(f"means must be finite, of shape (components, dim); got shape {self.means.shape}.")
            object.__setattr__(self, "components", self.means.shape[0])
            object.__setattr__(self, "dim", self.means.shape[1])
        k, d = self.components, self.dim
        if k < 2 or d < 1:
            raise UserError(
                f"there are {k} components in {d} dimensions; it takes at least 2 components and 1 dimension."
            )
        check_seed(self.seed)
        check_memory(8 * k * max(d, k, FEWEST), "the means and the draws")
        if self.covariances is not None:
            check_memory(16 * k * d * d, "the covariances and their axes")
            if self.covariances.shape != (k, d, d):
                raise UserError(
                    f"covariances have shape {self.covariances.shape}; {k} means in {d} dimensions need {(k, d, d)}."
                )
            if not np.allclose(self.covariances, np.swapaxes(self.covariances, 1, 2)) or self._axes[0].min() < -1e-9:
                raise UserError("a covariance matrix is not symmetric and positive semidefinite.")
        if self.prior is not None:
            check_weights(self.prior, self.labels)

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(self.components))

    @cached_property
    def weights(self) -> Float[np.ndarray, " labels"]:
        return np.full(self.components, 1 / self.components) if self.prior is None else self.prior

    @property
    def after(self) -> tuple[str, ...]:
        return ("0",)

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Float[np.ndarray, "n span"]:
        """n draws of Y_t: its coordinates in the span of the means, or all of them where covariances are given."""
        k, z = self.labels.index(label), rng.standard_normal((n, self._coordinates.shape[1]))
        decay = math.exp(-self.index.check(t))
        if self.covariances is not None:
            values, axes = self._axes
            z = (z * np.sqrt(_evolve(values[k], decay))) @ axes[k].T
        return np.asarray(decay * self._coordinates[k] + z)

    def posterior(self, y: Float[np.ndarray, "n span"], t: float) -> Float[np.ndarray, "n labels"]:
        from scipy.special import softmax

        decay, means = math.exp(-self.index.check(t)), self._coordinates
        if y.shape[1:] != means.shape[1:]:
            raise UserError(f"observations of shape {y.shape} do not fit means with {means.shape[1]} coordinates.")
        if self.covariances is None:
            scores = decay * (y @ means.T) - decay**2 * (means**2).sum(axis=1) / 2
        else:
            scores = np.empty((len(y), self.components))
            for k, (values, axes) in enumerate(zip(*self._axes, strict=True)):
                variances = _evolve(values, decay)
                scores[:, k] = -(((y - decay * means[k]) @ axes) ** 2 / variances + np.log(variances)).sum(axis=1) / 2
        return np.asarray(softmax(np.log(self.weights) + scores, axis=1))

    def denoise(self, y: Float[np.ndarray, "n span"], t: float) -> Float[np.ndarray, "n span"]:
        """E[X | Y_t = y], the sum over k of pi_t(k) (mu_k + e^{-t} Sigma_k Sigma_{k,t}^{-1} (y - e^{-t} mu_k))."""
        decay, means, pi = math.exp(-self.index.check(t)), self._coordinates, self.posterior(y, t)
        if self.covariances is None:
            return np.asarray((1 - decay**2) * (pi @ means) + decay * y)
        out = pi @ means
        for k, (values, axes) in enumerate(zip(*self._axes, strict=True)):
            gain = decay * values / _evolve(values, decay)
            out += pi[:, k, None] * (((y - decay * means[k]) @ axes * gain) @ axes.T)
        return np.asarray(out)

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Draws of Y_t with the same random numbers at every t."""
        if self.covariances is not None:
            return drawn_law(self, t, between, self._draws, self.seed)
        decay = math.exp(-self.index.check(t))
        # As sample and posterior do it, but the products of noise and means, the costly part, are kept.
        origin = draw_labels(self, between, self._draws, np.random.default_rng(self.seed))
        clean = decay**2 * (self._gram - np.diag(self._gram) / 2) + np.log(self.weights)
        scores = clean[origin]
        scores += decay * self._noise_products
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return importance_law(self, t, between, scores)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """Exact where only two components are concerned and both have unit covariance."""
        pair = np.flatnonzero(label_mask(self.labels, a) | label_mask(self.labels, b))
        if self.covariances is not None or len(pair) > 2:
            return mixture_total_variation(self.law(t, (a, b)), a, b)[0]
        from scipy.special import erf

        distance = np.linalg.norm(self._coordinates[pair[0]] - self._coordinates[pair[-1]])
        half = distance * math.exp(-self.index.check(t)) / 2
        return Estimate(two_label_factor(self, a, b) * float(erf(half / math.sqrt(2))))

    def paper(self, eps: float) -> PaperWindow | None:
        """As printed in Example 2, from all labels to "0", for unit covariances.

        (!) Its T_after makes the Bhattacharyya coefficient of each pair eps/K and so bounds the error term (II) by eps
        for near-equal weights: (II) <= (1/2) sum_j sqrt(w_j / w_i) BC_j.
        """
        if self.covariances is not None:
            return None
        gaps = np.log(np.linalg.norm(self._coordinates[1:] - self._coordinates[0], axis=1))
        return PaperWindow(
            t_after=float(gaps.min() - math.log(8 * math.log(self.components / eps)) / 2),
            t_before=float(gaps.max() + math.log(1 / eps)),
            certifies=(
                "t_before: TV <= eps. t_after: the error term (II) <= eps for near-equal weights, not TV >= 1 - eps^2."
            ),
        )

    @cached_property
    def _coordinates(self) -> Float[np.ndarray, "components span"]:
        """The means in an orthonormal basis of their span, or as they are where that saves nothing."""
        means = self.means
        if means is None:
            means = np.random.default_rng(self.seed).standard_normal((self.components, self.dim))
        if self.covariances is not None or self.dim <= self.components:
            return means
        # Any square root of the Gram matrix will do: only inner products matter.
        values, axes = np.linalg.eigh(means @ means.T)
        return np.asarray(axes * np.sqrt(np.maximum(values, 0.0)))

    @property
    def _draws(self) -> int:
        row = self.components * (1 if self.covariances is None else self.dim)
        return min(MOST, max(FEWEST, ENTRIES // row))

    @cached_property
    def _gram(self) -> Float[np.ndarray, "components components"]:
        return np.asarray(self._coordinates @ self._coordinates.T)

    @cached_property
    def _noise_products(self) -> Float[np.ndarray, "draws components"]:
        z = np.random.default_rng([self.seed, 1]).standard_normal((self._draws, self._coordinates.shape[1]))
        return np.asarray(z @ self._coordinates.T)

    @cached_property
    def _axes(self) -> tuple[Float[np.ndarray, "components dim"], Float[np.ndarray, "components dim dim"]]:
        """Eigenvalues and eigenvectors of the covariances; the OU process keeps the eigenvectors."""
        assert self.covariances is not None
        values, axes = np.linalg.eigh(self.covariances)
        return values, axes


def _evolve(eigenvalues: Float[np.ndarray, " dim"], decay: float) -> Float[np.ndarray, " dim"]:
    """Eigenvalues of e^{-2t} Sigma + (1 - e^{-2t}) I, with decay = e^{-t}."""
    return decay**2 * eigenvalues + (1 - decay**2)
