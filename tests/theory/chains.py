"""Small random Markov chains in which everything can be enumerated: the ground truth of the theory's tests.

It is also what a user's own world looks like: a file with the members of ``World``.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import strategies as st

from blinkscope.divergence import Estimate
from blinkscope.posterior import Posterior, label_mask
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import PaperWindow


@dataclass(frozen=True, eq=False)
class Chain:
    """X ~ sum_k w_k p^k on a few states, then one stochastic matrix a step.

    weights: w, shape (K,). components: p^k, shape (K, states). kernels: P(Y_t | Y_{t-1}) for t = 1, 2, ...
    """

    weights: np.ndarray[Any, Any]
    components: np.ndarray[Any, Any]
    kernels: tuple[np.ndarray[Any, Any], ...]
    name: str = "chain"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple("abcdefgh"[: len(self.weights)])

    @property
    def after(self) -> tuple[str, ...]:
        return self.labels[:1]

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    @property
    def index(self) -> IndexSet:
        return IndexSet("step", "steps", 0, len(self.kernels), range(len(self.kernels) + 1))

    def noise(self, t: float) -> np.ndarray[Any, Any]:
        """P(Y_t | X), shape (states of X, states of Y_t)."""
        result = np.eye(self.components.shape[1])
        for kernel in self.kernels[: int(t)]:
            result = result @ kernel
        return result

    def at(self, t: float) -> np.ndarray[Any, Any]:
        """p_t^k, shape (K, states)."""
        return self.components @ self.noise(t)

    def mixture(self, chosen: Collection[str], t: float) -> np.ndarray[Any, Any]:
        """p_t^S."""
        mask = label_mask(self.labels, chosen)
        return (self.weights * mask) @ self.at(t) / self.weights[mask].sum()

    def forward_reverse(self, start: Collection[str], t: float) -> np.ndarray[Any, Any]:
        """p^{S,t} on the states of X: noise to Y_t, then a draw from P(X | Y_t) under the whole prior."""
        joint = self.mixture(self.labels, 0)[:, None] * self.noise(t)
        total = joint.sum(axis=0)
        back = np.divide(joint, total, out=np.zeros_like(joint), where=total > 0)
        return back @ self.mixture(start, t)

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> np.ndarray[Any, Any]:
        law = self.at(t)[self.labels.index(label)]
        return rng.choice(len(law), size=n, p=law / law.sum())

    def posterior(self, y: np.ndarray[Any, Any], t: float) -> np.ndarray[Any, Any]:
        joint = self.weights[:, None] * self.at(t)
        total = joint.sum(axis=0)
        prior = np.broadcast_to(self.weights[:, None], joint.shape).copy()
        return np.divide(joint, total, out=prior, where=total > 0).T[y]

    def law(self, t: float, between: Any = None) -> Posterior:
        mass = self.weights @ self.at(t)
        pi = self.posterior(np.arange(len(mass)), t)
        return Posterior(np.array([t]), self.labels, pi[None], weights=self.weights, mass=mass[None], complete=True)

    def total_variation(self, a: Collection[str], b: Collection[str], t: float) -> Estimate:
        return Estimate(0.5 * float(np.abs(self.mixture(a, t) - self.mixture(b, t)).sum()))

    def paper(self, eps: float) -> PaperWindow | None:
        return None


@st.composite
def chains(draw: st.DrawFn, labels: tuple[int, int] = (2, 4)) -> Chain:
    """Chains with asymmetric weights; small whole numbers keep failing examples readable."""
    count = draw(st.integers(*labels))
    sizes = [draw(st.integers(2, 5)) for _ in range(draw(st.integers(2, 4)))]

    def laws(rows: int, columns: int) -> np.ndarray[Any, Any]:
        entries = st.lists(st.integers(0, 9), min_size=columns, max_size=columns).filter(any)
        table = np.array([draw(entries) for _ in range(rows)], dtype=float)
        return table / table.sum(axis=1, keepdims=True)

    weights = np.array([draw(st.integers(1, 20)) for _ in range(count)], dtype=float)
    kernels = tuple(laws(a, b) for a, b in pairwise(sizes))
    return Chain(weights / weights.sum(), laws(count, sizes[0]), kernels)


@st.composite
def chains_with_sets(draw: st.DrawFn) -> tuple[Chain, tuple[str, ...], tuple[str, ...], int]:
    """A chain, S_init inside S_target (possibly all labels), and a time."""
    chain = draw(chains())
    target = draw(st.lists(st.sampled_from(chain.labels), min_size=1, unique=True))
    init = draw(st.lists(st.sampled_from(target), min_size=1, unique=True))
    return chain, tuple(init), tuple(target), draw(st.integers(0, len(chain.kernels)))


Case = tuple[Chain, tuple[str, ...], tuple[str, ...], int]
