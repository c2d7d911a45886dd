"""Critical token ([LKC25], Example 4): a branch in a text.

Two modes write a text of T tokens. They agree on the first n0 tokens and become nearly disjoint over the next k.
``leak`` is the share of the second mode's texts that still look like the first mode's after these k tokens; they show
their colours later, at a place uniform over the rest of the text. (Correction training does that: a model that has
begun like a harmful answer still turns back.) A jailbreak is n0 = 0: refusal or not, in the first tokens.

Example 4 leaves the law within the k tokens open. Here the second mode takes the other branch at the first of the k
tokens with probability (1 - leak)/2 and at the last with probability (1 - leak)/2 (all at once for k = 1). After
n = T - t tokens a share g(n) of the second mode's texts still look like the first mode's, and


    TV(p_t^1, p_t^2) = 1 - g(n)
    g(n) = 1                                       n <= n0
         = (1 + leak) / 2                          n0 < n < n0 + k
         = leak (T - n) / (T - n0 - k)             n >= n0 + k

so that, with equal weights, the window is exactly those k tokens for leak <= eps^2 and eps < (1 - leak)/4. (!) The
paper asks leak <= eps, but TV >= 1 - eps^2 needs leak <= eps^2; beyond that the window widens as the leak grows:
T_after = floor((T - n0 - k) eps^2 / leak).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import PaperWindow, check_length, two_label_factor


@dataclass(frozen=True)
class CriticalToken:
    """Two modes that part within a few tokens; labels ``first`` and ``second``, equal weights.

    length: T, tokens in a text. agree: n0. width: k, at least 1, with n0 + k <= T. leak: in [0, 1).
    """

    length: int = 100
    agree: int = 40
    width: int = 3
    leak: float = 0.01

    name: ClassVar = "critical-token"
    labels: ClassVar = ("first", "second")
    weights: ClassVar = np.array([0.5, 0.5])
    after: ClassVar = ("first",)
    before: ClassVar = ("first", "second")

    def __post_init__(self) -> None:
        check_length(self.length, "length")
        if not (self.agree >= 0 and self.width >= 1 and self.agree + self.width <= self.length):
            raise UserError(
                f"agree = {self.agree} and width = {self.width} do not fit into length = {self.length}; agree must be "
                "at least 0, width at least 1, and their sum at most the length."
            )
        if not 0 <= self.leak < 1:
            raise UserError(f"leak is {self.leak}; it is the share of a mode's texts, in [0, 1).")

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "tokens", 0, self.length, range(self.length + 1))

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, " n"]:
        """What the kept tokens show: 1 where they have taken the second mode's branch, else 0."""
        branched = rng.random(n) >= self.undecided(t)
        return np.where(branched & (label == "second"), 1, 0)

    def posterior(self, y: Int[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n labels"]:
        second = self.undecided(t) / (1 + self.undecided(t))
        return np.array([[1 - second, second], [0.0, 1.0]])[y]

    def next_token(self, y: Int[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n tokens"]:
        """Token 0 where the text goes on like the first mode's, 1 on the second mode's branch."""
        stays = (1 + self.undecided(t - 1)) / (1 + self.undecided(t))
        return np.array([[stays, 1 - stays], [0.0, 1.0]])[y]

    def extend(self, y: Int[np.ndarray, " n"], t: float, token: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        self.index.check(t - 1)
        return np.maximum(y, token)

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """The two things that can be seen, with their probabilities."""
        mass = np.array([[(1 + self.undecided(t)) / 2, (1 - self.undecided(t)) / 2]])
        pi = self.posterior(np.arange(2), t)[None]
        return Posterior(np.array([t]), self.labels, pi, weights=self.weights, mass=mass, complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        return Estimate(two_label_factor(self, a, b) * (1 - self.undecided(t)))

    def paper(self, eps: float) -> PaperWindow | None:
        """The k tokens of Example 4; None where the leak exceeds the paper's condition."""
        if self.leak > eps:
            return None
        return PaperWindow(
            t_after=self.length - self.agree - self.width,
            t_before=self.length - self.agree,
            certifies="the k tokens, given leak <= eps; TV >= 1 - eps^2 at t_after needs leak <= eps^2.",
        )

    def undecided(self, t: float) -> float:
        """g(T - t): the share of the second mode's texts whose kept tokens still look like the first mode's."""
        kept, parted = self.length - self.index.check(t), self.agree + self.width
        if kept <= self.agree:
            return 1.0
        if kept < parted:
            return (1 + self.leak) / 2
        return self.leak * ((self.length - kept) / (self.length - parted)) if parted < self.length else self.leak
