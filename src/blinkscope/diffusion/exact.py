"""A denoiser whose posteriors are known: the empirical law of a data set.

With X uniform over the pictures x_1 .. x_n of a set, a = e^{-t} and s^2 = 1 - a^2,

    P(X = x_i | Y_t = y) = softmax_i( (a <y, x_i> - a^2 |x_i|^2 / 2) / s^2 )

so E[X | Y_t], label posteriors and draws from P(X | Y_t) are sums over the set. It is what a network with no error on
its training set would do: it draws nothing but pictures of the set. Gaussian mixtures, the other exact case, are a
world: ``worlds.gaussian_mixture.GaussianMixture.denoise`` is a denoiser as it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from blinkscope.diffusion.denoisers import Pictures
from blinkscope.errors import UserError

BLOCK = 2**23  # numbers in a block of posteriors


@dataclass(frozen=True, eq=False)
class EmpiricalData:
    """A finite set of labelled pictures as a model.

    pictures: shape (n, ...). labels: one a picture.
    """

    pictures: Pictures
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.pictures) or len(self.pictures) != len(self.labels):
            raise UserError(f"there are {len(self.pictures)} pictures and {len(self.labels)} labels; give one each.")
        if not np.isfinite(self.pictures).all():
            raise UserError("a picture holds NaN or infinite numbers.")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The labels that occur, sorted; the columns of ``posterior``."""
        return tuple(sorted(set(self.labels)))

    def denoise(self, y: Pictures, t: float) -> Pictures:
        """E[X | Y_t = y]."""
        flat = self.responsibilities(y, t) @ self._flat
        return np.asarray(flat.reshape(len(y), *self.pictures.shape[1:]))

    def posterior(self, y: Pictures, t: float) -> Float[np.ndarray, "n labels"]:
        """P(label | Y_t = y), columns in the order of ``names``."""
        member = np.array([[label == name for name in self.names] for label in self.labels], dtype=float)
        return np.asarray(self.responsibilities(y, t) @ member)

    def responsibilities(self, y: Pictures, t: float) -> Float[np.ndarray, "n pictures"]:
        """P(X = x_i | Y_t = y) of every picture of the set."""
        from scipy.special import softmax

        if not t > 0:
            raise UserError(f"t is {t:g}; the posterior over a finite set of pictures needs t > 0.")
        signal, flat = math.exp(-t), self._flat
        given = np.asarray(y, dtype=float).reshape(len(y), -1)
        if given.shape[1] != flat.shape[1]:
            raise UserError(f"observations of shape {np.shape(y)} do not fit pictures of shape {self.pictures.shape}.")
        size = max(1, BLOCK // len(flat))
        out = np.empty((len(given), len(flat)))
        for i in range(0, len(given), size):
            scores = signal * (given[i : i + size] @ flat.T) - signal**2 * self._half_squares
            out[i : i + size] = softmax(scores / (1 - signal**2), axis=1)
        return out

    @cached_property
    def _flat(self) -> Float[np.ndarray, "pictures pixels"]:
        return np.asarray(self.pictures, dtype=float).reshape(len(self.pictures), -1)

    @cached_property
    def _half_squares(self) -> Float[np.ndarray, " pictures"]:
        return np.asarray((self._flat**2).sum(axis=1) / 2)
