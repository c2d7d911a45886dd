"""Stochastic localization samplers: the page to read first.

Data X ~ p. An **observation process** (Y_t), t in I, degrades X as t grows: X -> Y_t1 -> Y_t2 -> ... is a Markov chain,
Y_0 = X, and at the far end of I nothing of X is left. The matching **reverse sampler** runs the chain backwards: what
it returns is a draw from P(X | Y_t). Autoregressive language models, masked and Gaussian diffusion and flow matching
are all such pairs ([LKC25], section 2); ``processes.py`` holds their forward kernels.

**Forward-reverse experiment** ([LKC25], section 3): start from X of one label, degrade it to Y_t, draw X' ~ P(. | Y_t),
read its label. Where the label survives it was decided before t, where it returns to chance it was not.

[LKC25]: Li, Karan, Chen, "Blink of an eye: a simple theory for feature localization in generative models", ICML 2025.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Num

from blinkscope.errors import UserError
from blinkscope.feature import UNPARSED, Feature


@dataclass(frozen=True)
class IndexSet:
    """The index set I of an observation process.

    name, unit: what t is and what it is counted in, for instance ``removed`` in ``tokens``.
    low, high: t runs from ``low`` (data) to ``high`` (noise); ``high`` may be infinite.
    points: the times of a finite index set in rising order, for instance ``range(0, T + 1)``; None for an interval.
    direction: 1 where a larger index means more noise, as everywhere in the theory; -1 where it means more information
        (tokens kept). ``time`` turns such an index into the theory's.
    """

    name: str
    unit: str
    low: float = 0.0
    high: float = math.inf
    points: Sequence[float] | None = None
    direction: int = 1

    def check(self, t: float) -> float:
        """t itself; a ``UserError`` where t is not in I."""
        if self.low <= t <= self.high and (self.points is None or t in self.points):
            return t
        what = "interval" if self.points is None else f"{len(self.points)} points"
        raise UserError(
            f"t = {t:g} is outside the index set: the {what} from {self.low:g} to {self.high:g} {self.unit}."
        )

    def time(self, index: Num[np.ndarray, " rows"]) -> Num[np.ndarray, " rows"]:
        """The index in the theory's direction: tokens kept become tokens removed, anything else stays."""
        return self.high - index if self.direction < 0 else index


@runtime_checkable
class ObservationProcess(Protocol):
    """A forward kernel P(Y_t | X), the marginal of a Markov chain in t."""

    @property
    def index(self) -> IndexSet: ...

    def noise(self, rng: np.random.Generator, x: Any, t: float) -> Any:
        """One draw of Y_t given X = x."""
        ...


@runtime_checkable
class ReverseSampler(Protocol):
    """Draws from the posterior P(X | Y_t = y) under the model's own p."""

    def sample(self, rng: np.random.Generator, y: Any, t: float, n: int) -> Sequence[Any]:
        """n independent draws."""
        ...


@dataclass(frozen=True)
class DeterministicReverse:
    """A reverse map without randomness: a probability-flow ODE, or DDIM with eta = 0.

    Its output is *not* a draw from P(X | Y_t), so label laws, Theorem 2 and windows do not describe it: for 1-D
    N(+-6, 1) at |mu| e^{-t} = 1 the label survives with probability .775 by posterior and .841 by the ODE. Being
    another type it cannot stand in for a ``ReverseSampler``, and ``forward_reverse`` refuses it.
    """

    map: Callable[[Any, float], Any]


@dataclass(frozen=True)
class LocalizationSampler:
    """An observation process with its reverse sampler."""

    process: ObservationProcess
    reverse: ReverseSampler | DeterministicReverse


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """Labels seen in forward-reverse experiments: ``counts[i, k]`` of label k at ``times[i]``."""

    times: Float[np.ndarray, " times"]
    labels: tuple[str, ...]
    counts: Int[np.ndarray, "times labels"]

    def interval(self, level: float = 0.95) -> Float[np.ndarray, "2 times labels"]:
        """Clopper-Pearson limits, lower then upper, of every label's share; each covers with probability >= level."""
        from scipy.stats import beta

        if not 0 < level < 1:
            raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")
        seen, rest = self.counts, self.counts.sum(axis=1, keepdims=True) - self.counts
        low = np.where(seen > 0, beta.ppf((1 - level) / 2, np.maximum(seen, 1), rest + 1), 0.0)
        return np.stack([low, np.where(rest > 0, beta.isf((1 - level) / 2, seen + 1, np.maximum(rest, 1)), 1.0)])


def forward_reverse(
    sampler: LocalizationSampler,
    feature: Feature[Any],
    start: Sequence[Any],
    times: Sequence[float],
    n: int,
    rng: np.random.Generator,
) -> LabelCounts:
    """Degrade every x in ``start`` n times to Y_t, draw one X' ~ P(. | Y_t) from each, and count the labels of X'.

    With ``start`` drawn from p^S the shares estimate the label law of p^{S,t}, which is E[pi_t(S) pi_t(b)] / w_S.
    """
    if not isinstance(sampler.reverse, ReverseSampler):
        raise UserError(
            "forward_reverse needs draws from P(X | Y_t); a deterministic reverse map (an ODE, DDIM with eta = 0) has "
            "another label law. Use an SDE, ancestral sampling or DDIM with eta = 1."
        )
    if n < 1 or not len(start):
        raise UserError(f"forward_reverse got {len(start)} starting samples and n = {n}; both must be at least 1.")
    seen: list[list[str]] = []
    for t in times:
        sampler.process.index.check(t)
        noised = (sampler.process.noise(rng, x, t) for x in start for _ in range(n))
        seen.append([feature.label(sampler.reverse.sample(rng, y, t, 1)[0]) or UNPARSED for y in noised])
    labels = tuple(sorted({label for row in seen for label in row}))
    counts = np.array([[row.count(label) for label in labels] for row in seen])
    return LabelCounts(np.asarray(times, dtype=float), labels, counts)
