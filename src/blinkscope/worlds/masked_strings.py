"""Two strings under random masking ([LKC25], Example 3).

X is one of two strings that differ in h places; each symbol is masked independently with probability t in [0, 1].
Y_t tells them apart as soon as one of the h places is visible:

    TV(p_t^1, p_t^2) = 1 - t^h
    T_after  = eps^{2/h}
    T_before = (1 - eps / w_2)^{1/h}, or 0 if eps >= w_2;  (1 - 2 eps)^{1/h} for equal weights

since TV(p_t^1, p_t) = w_2 TV(p_t^1, p_t^2). Only h matters, not the length, and the window's width is O(1/h).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.processes import MASKING
from blinkscope.worlds.world import PaperWindow, two_label_factor


@dataclass(frozen=True)
class MaskedStrings:
    """Two strings under random masking.

    hamming: number h of places in which they differ, at least 1.
    weight: weight of the first string, in (0, 1).
    """

    hamming: int = 10
    weight: float = 0.5

    name: ClassVar = "masked-strings"
    labels: ClassVar = ("first", "second")
    index: ClassVar = MASKING
    after: ClassVar = ("first",)
    before: ClassVar = ("first", "second")

    def __post_init__(self) -> None:
        if operator.index(self.hamming) < 1:
            raise UserError(f"hamming is {self.hamming}; the strings must differ in at least 1 place.")
        if not 0 < self.weight < 1:
            raise UserError(f"weight is {self.weight}; it must lie strictly between 0 and 1.")

    @property
    def weights(self) -> Float[np.ndarray, " labels"]:
        return np.array([self.weight, 1 - self.weight])

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, " n"]:
        """What the visible symbols say: 1 the first string, 2 the second, 0 nothing (all h places are masked)."""
        seen = rng.random(n) >= self.hidden(t)
        return np.where(seen, 1 + self.labels.index(label), 0)

    def posterior(self, y: Int[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n labels"]:
        self.index.check(t)
        return np.array([self.weights, [1.0, 0.0], [0.0, 1.0]])[y]

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """The three things that can be seen, with their probabilities."""
        hidden = self.hidden(t)
        mass = np.array([[hidden, *((1 - hidden) * self.weights)]])
        pi = self.posterior(np.arange(3), t)[None]
        return Posterior(np.array([t]), self.labels, pi, weights=self.weights, mass=mass, complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        return Estimate(two_label_factor(self, a, b) * (1 - self.hidden(t)))

    def paper(self, eps: float) -> PaperWindow:
        """As printed in Example 3, for equal weights; its T_before bounds the distance between the two strings."""
        return PaperWindow(
            t_after=eps ** (2 / self.hamming),
            t_before=(1 - eps) ** (1 / self.hamming),
            certifies=(
                "t_after: TV >= 1 - eps^2, exactly. t_before: TV between the two strings <= eps, which is sufficient "
                "for TV to their mixture <= eps but later than needed."
            ),
        )

    def hidden(self, t: float) -> float:
        """t^h: the probability that all places that differ are masked."""
        return float(self.index.check(t) ** self.hamming)
