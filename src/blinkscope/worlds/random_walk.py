"""Problem solving as a random walk ([LKC25], Example 5).

A solver takes T steps of +-1. The strong mode has P(+1) = 1/2 + D, the weak one 1/2 - D; weights 1/2 each. Removing t
steps leaves n = T - t, and their sum S is sufficient: the likelihood ratio is r^S with r = (1/2 + D) / (1/2 - D).

    TV_n = TV(Bin(n, 1/2 + D), Bin(n, 1/2 - D)) = P(Bin(n, 1/2 + D) > n/2) - P(Bin(n, 1/2 - D) > n/2)
    TV_{2m} = TV_{2m-1}
    T_after  = T - min { n : TV_n >= 1 - eps^2 }
    T_before = T - max { n : TV_n / 2 <= eps }

**With absorption** the walk stops at +A (solved) or -A (failed). A stopped walk says no more about its mode than r^A
does, so 1 - TV falls only to 2 / (1 + r^A), and T_after can be empty for every T. The label may then also be where the
walk ends, solved, failed or undecided at T: a function of the output, whose components are conditional laws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import SMALLEST, PaperWindow, check_length, check_memory, two_label_factor

MODES = ("strong", "weak")
ENDINGS = ("solved", "failed", "undecided")


@dataclass(frozen=True)
class RandomWalk:
    """A strong and a weak random walk.

    length: T, steps in a walk. drift: D, below 1/2: how far the modes' P(+1) lies above and below 1/2.
    absorb: A, where a walk stops; None for one that never does.
    label: ``mode`` (strong or weak), or ``ending`` (solved, failed, undecided), which needs ``absorb`` <= length.
    """

    length: int = 2000
    drift: float = 0.1
    absorb: int | None = None
    label: str = "mode"

    name: ClassVar = "random-walk"

    def __post_init__(self) -> None:
        check_length(self.length, "length")
        if not SMALLEST <= self.drift < 0.5:
            raise UserError(f"drift is {self.drift}; it must be at least {SMALLEST:g} and below 1/2.")
        if self.absorb is not None and self.absorb < 1:
            raise UserError(f"absorb is {self.absorb}; the walk must be able to start, so it must be at least 1.")
        if self.label not in ("mode", "ending"):
            raise UserError(f"label is {self.label!r}; it is 'mode' or 'ending'.")
        if self.label == "ending" and not (self.absorb is not None and 2 <= self.absorb <= self.length):
            raise UserError(
                f"label 'ending' needs absorb between 2 and the length ({self.length}), so that every ending can "
                f"happen; got {self.absorb}."
            )
        if self.absorb is not None:
            arrays = 1 if self.label == "mode" else 4
            check_memory(16 * arrays * (self.length + 1) * (2 * self.absorb + 1), "the walk's law at every step")

    @property
    def labels(self) -> tuple[str, ...]:
        return MODES if self.label == "mode" else ENDINGS

    @property
    def after(self) -> tuple[str, ...]:
        return self.labels[:1]

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "tokens", 0, self.length, range(self.length + 1))

    @cached_property
    def weights(self) -> Float[np.ndarray, " labels"]:
        if self.label == "mode":
            return np.array([0.5, 0.5])
        ending = self._forward[-1].sum(axis=0) / 2
        weights = np.array([ending[-1], ending[0], ending[1:-1].sum()])
        return np.asarray(weights / weights.sum())

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, " n"]:
        """Where the walk stands after T - t steps."""
        if self.absorb is None:
            steps = self.length - int(self.index.check(t))
            return np.asarray(2 * rng.binomial(steps, 0.5 + self.drift * (1 if label == "strong" else -1), n) - steps)
        law = self.law(t)
        assert law.mass is not None
        given = law.mass[0] * law.mean[0, :, self.labels.index(label)]
        return np.asarray(rng.choice(self._places(t), size=n, p=given / given.sum()))

    def posterior(self, y: Int[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n labels"]:
        modes = self._modes(y)
        if self.label == "mode":
            self.index.check(t)
            return modes
        assert self.absorb is not None
        ending = self._endings[int(self.index.check(t))][:, np.asarray(y) + self.absorb]
        return np.asarray(np.einsum("nm,mne->ne", modes, ending))

    def next_token(self, y: Int[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n tokens"]:
        """Token 0 is a step back, 1 a step forward; a walk that has stopped takes none."""
        self.index.check(t - 1)
        forward = self._modes(y) @ np.array([0.5 + self.drift, 0.5 - self.drift])
        moving = np.ones(len(y), dtype=bool) if self.absorb is None else np.abs(y) < self.absorb
        return np.where(moving[:, None], np.stack([1 - forward, forward], axis=-1), 0.0)

    def extend(self, y: Int[np.ndarray, " n"], t: float, token: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        self.index.check(t - 1)
        return y + 2 * token - 1

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Every place the walk can have reached, with its probability under the whole mixture."""
        places = self._places(t)
        if self.absorb is None:
            from scipy.stats import binom

            n = self.length - int(t)
            up = (places + n) // 2
            mass = (binom.pmf(up, n, 0.5 + self.drift) + binom.pmf(up, n, 0.5 - self.drift)) / 2
        else:
            mass = self._forward[self.length - int(t)].sum(axis=0) / 2
        pi = self.posterior(places, t)[None]
        return Posterior(np.array([t]), self.labels, pi, weights=self.weights, mass=mass[None], complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        if self.absorb is not None:
            return mixture_total_variation(self.law(t), a, b)[0]
        return Estimate(two_label_factor(self, a, b) * self.separation(self.length - int(self.index.check(t))))

    def paper(self, eps: float) -> PaperWindow | None:
        """As printed in Example 5, for the walk that never stops.

        (!) Its T_before exceeds T whenever D > eps / sqrt 2; otherwise both are conservative.
        """
        if self.absorb is not None:
            return None
        return PaperWindow(
            t_after=self.length - math.log(2 / eps**2) / (2 * self.drift**2),
            t_before=self.length - eps**2 / self.drift**2 + 2,
            certifies=(
                "Definition 4's criteria, conservatively, for drift <= eps / sqrt 2; beyond that t_before "
                "exceeds the length."
            ),
        )

    def separation(self, n: int) -> float:
        """TV_n between the strong and the weak walk of n steps that never stop."""
        from scipy.stats import binom

        return float(binom.sf(n // 2, n, 0.5 + self.drift) - binom.sf(n // 2, n, 0.5 - self.drift))

    def _modes(self, y: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n modes"]:
        """P(mode | place): a walk's likelihood ratio is r to the power of where it stands, stopped or not."""
        from scipy.special import expit

        log_ratio = y * math.log((0.5 + self.drift) / (0.5 - self.drift))
        return np.stack([expit(log_ratio), expit(-log_ratio)], axis=-1)

    def _places(self, t: float) -> Int[np.ndarray, " places"]:
        n = self.length - int(self.index.check(t))
        return np.arange(-n, n + 1, 2) if self.absorb is None else np.arange(-self.absorb, self.absorb + 1)

    @cached_property
    def _forward(self) -> Float[np.ndarray, "steps modes places"]:
        """Law of the stopped walk's place after each number of steps, given its mode."""
        assert self.absorb is not None
        law = np.zeros((self.length + 1, 2, 2 * self.absorb + 1))
        law[0, :, self.absorb] = 1.0
        up = np.array([[0.5 + self.drift], [0.5 - self.drift]])
        for n in range(self.length):
            moving = law[n, :, 1:-1]
            law[n + 1, :, [0, -1]] = law[n, :, [0, -1]]
            law[n + 1, :, 2:] += up * moving
            law[n + 1, :, :-2] += (1 - up) * moving
        return law

    @cached_property
    def _endings(self) -> Float[np.ndarray, "steps modes places endings"]:
        """Law of the ending given mode and place, with each number of steps still to go."""
        assert self.absorb is not None
        law = np.zeros((self.length + 1, 2, 2 * self.absorb + 1, 3))
        law[:, :, -1, 0] = law[:, :, 0, 1] = 1.0
        law[0, :, 1:-1, 2] = 1.0
        up = np.array([0.5 + self.drift, 0.5 - self.drift])[:, None, None]
        for t in range(self.length):
            law[t + 1, :, 1:-1] = up * law[t, :, 2:] + (1 - up) * law[t, :, :-2]
        return law
