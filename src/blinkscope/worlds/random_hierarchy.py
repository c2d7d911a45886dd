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

which is exact on a tree and linear in the number of leaves. Near the leaves few different words can be seen, so each is
worked out once and looked up. Under truncation every subtree is known or unseen, but for
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
from blinkscope.worlds.world import PaperWindow, check_memory, check_seed, draw_labels, importance_law

PROCESSES = ("masking", "truncation", "uniform")
HIDDEN = -1  # stands for a leaf that is not seen
DRAWS = 4096  # texts in an average
ENTRIES = 2**22  # fewer, but not below 64, where draws times leaves would exceed this
TEXTS = 2**20  # leaves whose texts are read at a time
BLOCK = 2**11  # nodes whose messages are multiplied at a time: they should stay in the processor's cache
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
        return self._observe(self._texts(rng, np.full(n, self.labels.index(label))), t)

    def posterior(self, y: Int[np.ndarray, "n leaves"], t: float) -> Float[np.ndarray, "n labels"]:
        self.index.check(t)
        if y.shape[1:] != (self.leaves,):
            raise UserError(f"observations of shape {y.shape} do not fit texts of {self.leaves} leaves.")
        size, evidence = max(1, TEXTS // self.leaves), self._evidence(t)
        blocks = [self._up(y[i : i + size], evidence) for i in range(0, len(y), size)]
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
            return importance_law(self, t, between, self.posterior(self._observe(self._drawn(between), t), t))
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

    def _texts(self, rng: np.random.Generator, origin: Int[np.ndarray, " n"]) -> _Texts:
        """Texts of the given classes, and the noise that will come over them."""
        text, kind = origin[:, None], np.min_scalar_type(-self.symbols)
        for production in self.productions:
            rule = rng.integers(self.rules, size=text.shape)
            text = production.reshape(-1, self.branching)[text * self.rules + rule].reshape(len(origin), -1)
        text = text.astype(kind)
        if self.process == "truncation":
            return _Texts(text)
        when = rng.random(text.shape, dtype=np.float32)
        if self.process == "masking":
            return _Texts(text, when)
        return _Texts(text, when, rng.integers(self.symbols, size=text.shape, dtype=kind))

    def _observe(self, drawn: _Texts, t: float) -> Int[np.ndarray, "n leaves"]:
        """Y_t."""
        if drawn.when is None:
            return np.where(np.arange(self.leaves) < self.leaves - int(t), drawn.text, HIDDEN)
        hit = drawn.when < (t if drawn.other is None else -math.expm1(-t))
        return np.where(hit, HIDDEN if drawn.other is None else drawn.other, drawn.text)

    def _drawn(self, between: tuple[Labels, Labels] | None) -> _Texts:
        """The texts of an average, which serve at every t; the last ones are kept."""
        asked = None if between is None else tuple(frozenset(labels) for labels in between)
        if asked not in self._kept:
            self._kept.clear()
            rng = np.random.default_rng(0)
            origin = draw_labels(self, between, min(DRAWS, max(64, ENTRIES // self.leaves)), rng)
            self._kept[asked] = self._texts(rng, origin)
        return self._kept[asked]

    @cached_property
    def _kept(self) -> dict[tuple[frozenset[str], ...] | None, _Texts]:
        return {}

    def _up(
        self, seen: Int[np.ndarray, "n leaves"], evidence: Float[np.ndarray, "kinds symbols"]
    ) -> Float[np.ndarray, "n symbols"]:
        """Messages from the leaves to the root, level by level: ``table[:, kind]`` for the kinds of node there are.

        While fewer words can be told apart than there are nodes, a node's kind is the number of its word; from then on
        every node is a kind of its own.
        """
        table, kind, base = evidence.T, np.where(seen < 0, self.symbols, seen).ravel().astype(np.intp), self.branching
        for production in self.productions[::-1]:
            kinds, children = table.shape[1], [kind[j::base] for j in range(base)]
            if kinds**base <= len(children[0]):
                kind = sum((child * kinds**j for j, child in enumerate(children)), np.zeros_like(children[0]))
                children = list(np.indices((kinds,) * base)[::-1].reshape(base, -1))
            else:
                kind = np.arange(len(children[0]))
            table = _combine(table, children, production)
        possible = np.asarray(table.any(axis=0))
        if not possible[kind].all():
            raise UserError("an observation is impossible in this grammar, so there is no posterior given it.")
        return np.asarray(table[:, kind].T)

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


@dataclass(frozen=True, eq=False)
class _Texts:
    """Texts and their noise: a leaf is hidden, or replaced by ``other``, once t has passed its ``when`` in [0, 1)."""

    text: Int[np.ndarray, "n leaves"]
    when: Float[np.ndarray, "n leaves"] | None = None
    other: Int[np.ndarray, "n leaves"] | None = None


def _combine(
    table: Float[np.ndarray, "symbols kinds"],
    children: list[Int[np.ndarray, " nodes"]],
    production: Int[np.ndarray, "symbols rules branching"],
) -> Float[np.ndarray, "symbols nodes"]:
    """sum over productions x -> x_1 .. x_b of prod_j mu_{child j}(x_j) at each node, normalised; 0 where impossible.

    children: for each j the kinds of the nodes' j-th children.
    """
    upward = np.zeros((len(production), len(children[0])))
    work = np.empty(BLOCK)
    for i in range(0, upward.shape[1], BLOCK):
        below, above = [table[:, child[i : i + BLOCK]] for child in children], upward[:, i : i + BLOCK]
        product = work[: above.shape[1]]
        for x, words in enumerate(production):
            for word in words:
                np.multiply(below[0][word[0]], below[1][word[1]], out=product)
                for message, symbol in zip(below[2:], word[2:], strict=True):
                    product *= message[symbol]
                above[x] += product
        total = above.sum(axis=0)
        np.divide(above, total, out=above, where=total > 0)
    return upward
