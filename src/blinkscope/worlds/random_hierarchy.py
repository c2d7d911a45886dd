"""The random hierarchy model: a grammar of depth L (not in [LKC25], which names it as future work).

The root carries one of v symbols, its class, which is the label; weights are equal. A symbol of level l = L .. 1
becomes a word of b = ``branching`` symbols of level l - 1, one of its m productions, each with probability 1/m. Every
level has productions of its own, and no word belongs to two of them, so that the b^L leaves determine the class. They
are observed through

    truncation   the first b^L - t leaves
    masking      each leaf hidden with probability t
    uniform      each leaf replaced at rate 1 by a symbol drawn uniformly (possibly itself), for a time t

**Belief propagation**: with mu_i(x) = P(observed leaves below node i | its symbol is x), up to a factor free of x,

    leaf      mu_i(x) = 1[y_i = x], or 1 where it is hidden; e^{-t} 1[y_i = x] + (1 - e^{-t})/v under uniform noise
    above     mu_i(x) = (1/m) sum_{productions x -> x_1 .. x_b} prod_j mu_{child j}(x_j)
    root      pi_t(x) = mu_root(x) / sum_x' mu_root(x')

which is exact on a tree and linear in the number of leaves. Under truncation every subtree is known or unseen, but for
those along one path from the root to a leaf: what differs to the root can then be listed where it is little, and total
variations are exact. Otherwise they are averages over draws with exact posteriors, and carry a standard error.

Reference: Cagnetta, Petrini, Tomasini, Favero, Wyart, "How deep neural networks learn compositional data: the random
hierarchy model", Physical Review X 14, 031001, 2024.
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
from blinkscope.processes import MASKING
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import PaperWindow, check_memory, check_seed, drawn_law

PROCESSES = ("masking", "truncation", "uniform")
HIDDEN = -1  # stands for a leaf that is not seen
DRAWS = 4096  # texts in an average
ENTRIES = 2**23  # fewer, but not below 64, where draws times leaves would exceed this
BLOCK = 2**16  # numbers in an array of messages that are multiplied at a time
MANY = 18 * math.log(10)  # logarithm of a number that is too large for any purpose
LISTED = 2**16  # observations under truncation are listed up to this many


@dataclass(frozen=True)
class RandomHierarchy:
    """Classes of a random hierarchy; labels "0" to str(v - 1).

    depth: L, levels below the root. branching: b, symbols in a word, at least 2. symbols: v, at each level.
    rules: m, productions of a symbol, at most v^(b - 1).
    process: ``masking``, ``truncation`` or ``uniform``. seed: of the grammar.
    """

    depth: int = 4
    branching: int = 2
    symbols: int = 8
    rules: int = 4
    process: str = "masking"
    seed: int = 0

    name: ClassVar = "random-hierarchy"
    after: ClassVar = ("0",)

    def __post_init__(self) -> None:
        if self.depth < 1 or self.branching < 2 or self.symbols < 2:
            raise UserError(
                f"depth is {self.depth}, branching {self.branching} and symbols {self.symbols}; it takes a depth of at "
                "least 1, and at least 2 of the others."
            )
        if self.process not in PROCESSES:
            raise UserError(f"process is {self.process!r}; it is one of {', '.join(PROCESSES)}.")
        # In logarithms: the numbers themselves may have more digits than there is memory.
        leaves = math.exp(min(self.depth * math.log(self.branching), MANY))
        words = math.exp(min(self.branching * math.log(self.symbols), MANY))
        draws = max(64.0, min(DRAWS, ENTRIES / leaves))
        check_memory(16 * draws * leaves, f"{draws:.0f} texts of {leaves:.3g} leaves")
        check_memory(16 * leaves * self.symbols, f"the messages of a text of {leaves:.3g} leaves")
        check_memory(8 * words * self.depth, f"lists of all words of {self.branching} symbols")
        if not 1 <= self.rules <= self.symbols ** (self.branching - 1):
            raise UserError(
                f"rules is {self.rules}; with words of {self.branching} out of {self.symbols} symbols there are from 1 "
                f"to {self.symbols ** (self.branching - 1)} productions a symbol."
            )
        check_seed(self.seed)

    @property
    def leaves(self) -> int:
        """b^L."""
        return self.branching**self.depth

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(str(x) for x in range(self.symbols))

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    @property
    def weights(self) -> Float[np.ndarray, " labels"]:
        return np.full(self.symbols, 1 / self.symbols)

    @property
    def index(self) -> IndexSet:
        if self.process == "truncation":
            return IndexSet("removed", "tokens", 0, self.leaves, range(self.leaves + 1))
        return MASKING if self.process == "masking" else IndexSet("time", "chain time")

    @cached_property
    def productions(self) -> Int[np.ndarray, "depth symbols rules branching"]:
        """The words of each symbol; ``productions[0]`` are those of the root's level."""
        rng, v, b = np.random.default_rng(self.seed), self.symbols, self.branching
        words = np.stack([rng.choice(v**b, v * self.rules, replace=False) for _ in range(self.depth)])
        spelled = np.stack(np.unravel_index(words, (v,) * b), axis=-1)
        return spelled.reshape(self.depth, v, self.rules, b)

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, "n leaves"]:
        """n draws of Y_t, -1 for leaves not seen. The same random numbers give the same text and noise at every t."""
        self.index.check(t)
        text = np.full((n, 1), self.labels.index(label))
        for production in self.productions:
            rule = rng.integers(self.rules, size=text.shape)
            text = production[text, rule].reshape(n, -1)
        if self.process == "truncation":
            text[:, self.leaves - int(t) :] = HIDDEN
        elif self.process == "masking":
            text[rng.random(text.shape) < t] = HIDDEN
        else:
            hit = rng.random(text.shape) < -math.expm1(-t)
            text = np.where(hit, rng.integers(self.symbols, size=text.shape), text)
        return text

    def posterior(self, y: Int[np.ndarray, "n leaves"], t: float) -> Float[np.ndarray, "n labels"]:
        self.index.check(t)
        if y.shape[1:] != (self.leaves,):
            raise UserError(f"observations of shape {y.shape} do not fit texts of {self.leaves} leaves.")
        size, evidence = max(1, BLOCK // (self.leaves * self.symbols)), self._evidence(t)
        blocks = [self._up(evidence[y[i : i + size]]) for i in range(0, len(y), size)]
        return np.concatenate([np.empty((0, self.symbols)), *blocks])

    def next_token(self, y: Int[np.ndarray, "n leaves"], t: float) -> Float[np.ndarray, "n symbols"]:
        """The law of the next leaf under truncation, by one pass up and one pass down.

        Up: the subtrees that are seen whole are read, and what is left of each level are the known children of the
        node on the path from the root to the next leaf. Down that path: P(node = x, what is known to its left), from
        the root's weights on, by summing over the productions that begin with the known children.
        """
        if self.process != "truncation":
            raise UserError(f"the leaves come one by one under truncation only; the process is {self.process}.")
        known, symbols = [], y[:, : self.leaves - 1 - int(self.index.check(t - 1))]
        for owner in reversed(self._owners):
            whole = symbols.shape[1] - symbols.shape[1] % self.branching
            known.append(symbols[:, whole:])
            symbols = owner[self._word_numbers(symbols[:, :whole].reshape(len(y), -1, self.branching))]
        joint = np.tile(self.weights, (len(y), 1))
        for production, left in zip(self.productions, reversed(known), strict=True):
            place = left.shape[1]
            fits = (production[..., :place] == left[:, None, None]).all(axis=-1)
            joint = np.einsum(
                "nx,nxr,xrc->nc", joint, fits, np.eye(self.symbols)[production[..., place]], optimize=True
            )
            joint /= joint.sum(axis=1, keepdims=True)
        return joint

    def extend(
        self, y: Int[np.ndarray, "n leaves"], t: float, token: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "n leaves"]:
        after = y.copy()
        after[:, self.leaves - 1 - int(self.index.check(t - 1))] = token
        return after

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Every observation that differs to the root, under truncation and where these are few; else draws."""
        joint = self._prefixes(self.leaves - int(self.index.check(t))) if self.process == "truncation" else None
        if joint is None:
            return drawn_law(self, t, between, min(DRAWS, max(64, ENTRIES // self.leaves)), seed=0)
        mass = joint.sum(axis=1)
        pi = joint / mass[:, None]
        return Posterior(np.array([t]), self.labels, pi[None], weights=self.weights, mass=mass[None], complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        return mixture_total_variation(self.law(t, (a, b)), a, b)[0]

    def paper(self, eps: float) -> PaperWindow | None:
        """None: the paper has no formula for hierarchies of this kind."""
        return None

    @cached_property
    def _owners(self) -> Int[np.ndarray, "depth words"]:
        """At each level the symbol that a word stands for, -1 where it stands for none."""
        owners = np.full((self.depth, self.symbols**self.branching), HIDDEN)
        for owner, production in zip(owners, self.productions, strict=True):
            owner[self._word_numbers(production)] = np.arange(self.symbols)[:, None]
        return owners

    def _word_numbers(self, words: Int[np.ndarray, "*words branching"]) -> Int[np.ndarray, "*words"]:
        """Each word as one number, its symbols for digits."""
        return np.asarray(words @ self.symbols ** np.arange(self.branching))

    def _evidence(self, t: float) -> Float[np.ndarray, "seen symbols"]:
        """mu of a leaf for each thing that can be seen there; the last row, which -1 picks, is for a hidden leaf."""
        seen = np.eye(self.symbols)
        if self.process == "uniform":
            seen = math.exp(-t) * seen - math.expm1(-t) / self.symbols
        return np.vstack([seen, np.ones(self.symbols)])

    def _up(self, message: Float[np.ndarray, "n leaves symbols"]) -> Float[np.ndarray, "n symbols"]:
        """Messages from the leaves to the root, level by level."""
        count = len(message)
        for production in self.productions[::-1]:
            message = _combine(message.reshape(-1, self.branching, self.symbols), production)
            total = message.sum(axis=1, keepdims=True)
            if not total.all():
                raise UserError("an observation is impossible in this grammar, so there is no posterior given it.")
            message /= total
        return message.reshape(count, self.symbols)

    def _prefixes(self, shown: int) -> Float[np.ndarray, "observations labels"] | None:
        """P(class, observation) of what the first ``shown`` leaves say about the root; None where that is too much.

        Subtrees that are seen whole are known by the symbol at their top. On the way up from the first leaf not seen,
        each level adds the symbols of the whole subtrees to the left, and sums over what is unseen to the right.
        """
        if shown == self.leaves:
            return np.diag(self.weights)
        message = np.ones((1, self.symbols))
        for production in self.productions[::-1]:
            shown, known = divmod(shown, self.branching)
            if len(message) * self.symbols**known > LISTED:
                return None
            # Number the words by the symbols of their known part, which must match.
            part = production[..., :known] @ self.symbols ** np.arange(known)
            match = part == np.arange(self.symbols**known)[:, None, None]
            upward = np.einsum("nxr,kxr->nkx", message[:, production[..., known]], match) / self.rules
            message = upward.reshape(-1, self.symbols)
            message = message[message.any(axis=1)]
        return message * self.weights


def _combine(
    children: Float[np.ndarray, "nodes branching symbols"], production: Int[np.ndarray, "symbols rules branching"]
) -> Float[np.ndarray, "nodes symbols"]:
    """sum over productions x -> x_1 .. x_b of prod_j mu_{child j}(x_j), at each node; a few nodes at a time."""
    upward = np.empty((len(children), len(production)))
    size = max(1, BLOCK // production[..., 0].size)
    for i in range(0, len(children), size):
        product = children[i : i + size, 0][:, production[..., 0]]
        for j in range(1, children.shape[1]):
            product *= children[i : i + size, j][:, production[..., j]]
        upward[i : i + size] = product.sum(axis=-1)
    return upward
