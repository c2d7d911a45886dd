"""The forward-reverse experiment in a world, where a finished sample is known by its label alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.posterior import label_mask
from blinkscope.sampler import IndexSet, LocalizationSampler
from blinkscope.worlds.world import World

RUNS = 20_000  # forward-reverse experiments behind a measured distance


@dataclass(frozen=True)
class WorldProcess:
    """An observation process that starts from a label: Y_t given X ~ p^label."""

    world: World

    @property
    def index(self) -> IndexSet:
        return self.world.index

    def noise(self, rng: np.random.Generator, x: str, t: float) -> Any:
        return self.world.sample(rng, x, t, 1)[0]


@dataclass(frozen=True)
class WorldReverse:
    """The label of a draw from P(X | Y_t): a draw from the world's posterior."""

    world: World

    def sample(self, rng: np.random.Generator, y: Any, t: float, n: int) -> Sequence[str]:
        posterior = self.world.posterior(np.asarray(y)[None], t)[0]
        return [str(label) for label in rng.choice(self.world.labels, size=n, p=posterior)]


@dataclass(frozen=True)
class LabelItself:
    """The feature of samples that are labels."""

    name: str = "label"

    def label(self, sample: str) -> str:
        return sample


def world_sampler(world: World) -> LocalizationSampler:
    """The world as a pair for ``forward_reverse``, with labels for samples; read them with ``LabelItself``."""
    return LocalizationSampler(WorldProcess(world), WorldReverse(world))


def forward_reverse_labels(
    world: World, start: Labels, t: float, n: int, rng: np.random.Generator
) -> Int[np.ndarray, " labels"]:
    """Labels of n experiments from p^S at t, all at once: Y_t given a label of S, then a label from pi_t(Y_t)."""
    share = np.where(label_mask(world.labels, start), world.weights, 0.0)
    origin = rng.multinomial(n, share / share.sum())
    y = np.concatenate([world.sample(rng, world.labels[k], t, int(c)) for k, c in enumerate(origin) if c])
    return np.asarray(rng.multinomial(1, world.posterior(y, t)).sum(axis=0))


def measure(world: World, init: Labels, target: Labels, t: float, seed: int = 0) -> Estimate:
    """TV between the label law of ``RUNS`` experiments from S_init at t and that of p^{S_target}, never overstated.

    TV is the excess P(label in B) - w_B / w_target over the set B of labels that the experiment favours. One half of
    the runs chooses B and the other measures its excess, both ways round: the expectation is at most the label laws'
    TV, itself at most TV(p^{S_init, t}, p^{S_target}). (The plain distance to a law on many labels is large by noise.)
    The two excesses come from the same runs and are correlated, so their standard errors are averaged as they are,
    which is right for any correlation; adding variances would say too little, by a factor of up to sqrt 2.
    """
    rng = np.random.default_rng(seed)
    runs = RUNS // 2
    halves = [forward_reverse_labels(world, init, t, runs, rng) for _ in range(2)]
    inside = np.where(label_mask(world.labels, target), world.weights, 0.0)
    law = inside / inside.sum()
    favoured = [half > runs * law for half in reversed(halves)]
    shares = [int(half[chosen].sum()) / runs for half, chosen in zip(halves, favoured, strict=True)]
    excess = [share - float(law[chosen].sum()) for share, chosen in zip(shares, favoured, strict=True)]
    errors = [math.sqrt(share * (1 - share) / runs) for share in shares]
    return Estimate(sum(excess) / 2, sum(errors) / 2)
