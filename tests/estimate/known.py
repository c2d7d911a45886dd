"""A source with a known law: off-path label laws are a table, so the exact curve is at hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.estimate import streams
from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Estimator


@dataclass(frozen=True, eq=False)
class KnownSource:
    gamma: np.ndarray  # (steps, labels)
    names: tuple[str, ...]
    strata: tuple[Stratum, ...]
    seed: int

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        for order in orders:
            for replicate in order.replicates():
                if (order.stratum, replicate) in known:
                    continue
                rng = streams.stream(self.seed, streams.FOLLOW, 0, order.stratum, replicate)
                label = self.names[int(rng.choice(len(self.names), p=self.gamma[order.stratum]))]
                cost = next(s.cost for s in self.strata if s.key == order.stratum)
                yield Draw(order.stratum, replicate, label, cost)


@dataclass(frozen=True, eq=False)
class Case:
    """One path with everything known about it."""

    recursion: Recursion
    gamma: np.ndarray
    names: tuple[str, ...]
    final: int
    truth: np.ndarray

    def source(self, seed: int) -> KnownSource:
        return KnownSource(self.gamma, self.names, self.strata, seed)

    def method(self, seed: int, estimator: Estimator = "unbiased") -> Decomposition:
        return Decomposition(self.recursion, self.strata, self.names[self.final], 12, seed, estimator)

    @property
    def strata(self) -> tuple[Stratum, ...]:
        n = self.recursion.steps
        return tuple(Stratum(s, float(n - s)) for s in range(n) if self.recursion.off_path[s] > 0)


def random_case(seed: int, *, steps: int = 60, labels: int = 2, open_: float = 0.6, jumps: int = 2) -> Case:
    """A path whose off-path laws stay near the next row but for a few decisive steps."""
    rng = np.random.default_rng(seed)
    q = np.where(rng.random(steps) < open_, rng.beta(0.7, 2.0, steps), 0.0)
    decisive = rng.choice(steps, jumps, replace=False)
    q[decisive] = rng.uniform(0.3, 0.7, jumps)
    final = int(rng.integers(labels))
    row = np.eye(labels)[final]
    gamma = np.empty((steps, labels))
    rows = [row]
    for s in range(steps - 1, -1, -1):
        wobble = rng.dirichlet(np.full(labels, 0.5))
        near = 0.9 * row + 0.1 * wobble
        gamma[s] = rng.dirichlet(np.full(labels, 0.4)) if s in decisive else near
        row = (1 - q[s]) * row + q[s] * gamma[s]
        rows.append(row)
    names = tuple("abcdefgh"[:labels])
    return Case(Recursion(1 - q, q), gamma, names, final, np.asarray(rows[::-1]))
