"""Masked diffusion over tokens: hide each token with probability t, fill the hidden ones in.

The forward process hides token j as soon as the level passes a clock of its own, U_j uniform on [0, 1], so that level t
hides each token with probability t ([LKC25], section 2, absorbing diffusion). A model is its **conditional marginals**:
the law of each hidden token given those that are seen, as LLaDA (Nie and others 2025) and Dream return for masked
positions. Filling in hidden tokens one at a time, each from its marginal given all that are seen by then, is the chain
rule, so with exact marginals the result is a draw from P(X | Y_t), in *whatever* order:

    random        in the order of the clocks; a trajectory's state at level t is then its own Y_t
    confidence    the token whose law has the largest probability first; the choice depends on what is seen only, so
                  the chain rule holds all the same. Trajectories have no clock for it and stay in random order.

Models in use fill several tokens at a time from their marginals, as if these were independent given what is seen. That
is faster, and no draw from P(X | Y_t) of anything: ``at_once`` > 1 is marked as outside the theory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.errors import EngineError, UserError
from blinkscope.processes import MASKING
from blinkscope.sampler import IndexSet
from blinkscope.symbols import HIDDEN

BATCH = 512  # texts that are filled in at a time
TOLERANCE = 1e-3  # of the sum of a token's law, as far as float32 softmaxes go

Tokens: TypeAlias = Int[np.ndarray, "n length"]
Marginals: TypeAlias = Callable[[Tokens], Float[np.ndarray, "n length symbols"]]
"""P(X_j = x | the tokens that are seen) for every position j; rows of positions that are seen are not read."""

Order = Literal["random", "confidence"]
Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True, eq=False)
class MaskedDiffusion:
    """Conditional marginals with their noise levels.

    marginals: see ``Marginals``; hidden tokens are -1 (``with_mask_token`` gives a model its own).
    times: masking probabilities of the levels, rising from 0 to 1.
    length: tokens of a text.
    order: of filling in. at_once: tokens filled in for each evaluation.
    """

    marginals: Marginals
    times: Float[np.ndarray, " levels"]
    length: int
    order: Order = "random"
    at_once: int = 1

    index: ClassVar[IndexSet] = MASKING

    def __post_init__(self) -> None:
        times = np.asarray(self.times, dtype=float)
        ends = times.ndim == 1 and len(times) > 1 and times[0] == 0 and times[-1] == 1
        if not ends or not (np.diff(times) > 0).all():
            raise UserError("masking probabilities rise from 0 to 1, at least two of them.")
        if self.order not in ("random", "confidence"):
            raise UserError(f"there is no order {self.order!r}; tokens are filled in by random or confidence.")
        if self.length < 1 or self.at_once < 1:
            raise UserError(f"length is {self.length} and at_once {self.at_once}; both must be at least 1.")
        object.__setattr__(self, "times", times)

    @property
    def steps(self) -> int:
        """Number of levels above 0."""
        return len(self.times) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)

    @property
    def outside_theory(self) -> str | None:
        """Why texts are no draws from P(X | Y_t); None where they are."""
        if self.at_once == 1:
            return None
        return f"{self.at_once} tokens at a time are filled in as if they were independent: no draws from P(X | Y_t)"

    def cost(self, level: int) -> float:
        """Expected evaluations of filling in a text of a level."""
        return max(1.0, float(self.times[level]) * self.length / self.at_once)

    def noise(self, rng: np.random.Generator, sample: Int[np.ndarray, " length"], level: int) -> Tokens:
        """One draw of Y at a level given X."""
        return self._masked(sample, rng.random(self.length), level)

    def forward_path(self, rng: np.random.Generator, sample: Int[np.ndarray, " length"]) -> Tokens:
        """One trajectory of the forward process, row i at level i."""
        clocks = rng.random(self.length)
        return np.stack([self._masked(sample, clocks, level) for level in range(self.steps + 1)])

    def reverse_paths(self, rngs: Rngs) -> Int[np.ndarray, "n levels length"]:
        """Trajectories of the sampler: texts filled in from nothing in the order of their clocks, level i in [:, i]."""
        clocks = np.stack([rng.random(self.length) for rng in rngs])
        texts = np.full(clocks.shape, HIDDEN)
        # The last to be hidden on the way up is the first to be filled in.
        self._fill(texts, np.argsort(-clocks, axis=1), rngs)
        return np.stack([self._masked(texts, clocks, level) for level in range(self.steps + 1)], axis=1)

    def reverse_batches(
        self, noisy: Tokens, levels: Int[np.ndarray, " n"], rngs: Rngs
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Tokens]]:
        """Fill in each text, those with most to fill in first: numbers of the rows, and what they became."""
        hidden = (np.asarray(noisy) == HIDDEN).sum(axis=1)
        ranked = np.argsort(-hidden, kind="stable")
        for start in range(0, len(ranked), BATCH):
            rows = ranked[start : start + BATCH]
            texts, own = np.array(noisy[rows]), [rngs[row] for row in rows]
            order = None if self.order == "confidence" else np.stack([rng.permutation(self.length) for rng in own])
            self._fill(texts, order, own)
            yield rows, texts

    def _fill(self, texts: Tokens, order: Int[np.ndarray, "n length"] | None, rngs: Rngs) -> None:
        """Fill in all hidden tokens in place; by confidence where no order is given."""
        # Rank of each position; what is seen counts as behind everything.
        rank = None if order is None else np.argsort(order, axis=1).astype(float)
        while (active := np.flatnonzero((texts == HIDDEN).any(axis=1))).size:
            law = self._law(texts[active])
            hidden = texts[active] == HIDDEN
            wish = -law.max(axis=2) if rank is None else rank[active]
            first = np.argsort(np.where(hidden, wish, np.inf), axis=1, kind="stable")[:, : self.at_once]
            for row, (text, places) in enumerate(zip(active, first, strict=True)):
                for place in places[hidden[row, places]]:
                    total = np.cumsum(law[row, place])
                    texts[text, place] = (total <= rngs[int(text)].random() * total[-1]).sum()

    def _law(self, texts: Tokens) -> Float[np.ndarray, "n length symbols"]:
        law = np.asarray(self.marginals(texts), dtype=float)
        hidden: Bool[np.ndarray, "n length"] = texts == HIDDEN
        if law.ndim != 3 or law.shape[:2] != texts.shape:
            raise EngineError(f"the marginals have shape {law.shape} for texts of shape {texts.shape}.")
        read = law[hidden]
        if not np.isfinite(read).all() or (read < 0).any() or (np.abs(read.sum(axis=1) - 1) > TOLERANCE).any():
            raise EngineError("the law of a hidden token has negative or infinite entries, or does not sum to 1.")
        return law

    def _masked(self, texts: Tokens, clocks: Float[np.ndarray, "*n length"], level: int) -> Tokens:
        if not 0 <= level <= self.steps:
            raise UserError(f"there is no noise level {level}; levels run from 0 (the text) to {self.steps}.")
        return np.where(clocks < self.times[level], HIDDEN, texts)


def with_mask_token(logits: Callable[[Tokens], Float[np.ndarray, "n length symbols"]], mask: int) -> Marginals:
    """Marginals from a model that returns logits and has a token ``mask`` for what is hidden, which it never fills in.

    LLaDA's is 126336.
    """

    def marginals(texts: Tokens) -> Float[np.ndarray, "n length symbols"]:
        from scipy.special import softmax

        scores = np.array(logits(np.where(texts == HIDDEN, mask, texts)), dtype=float)
        if mask < scores.shape[-1]:
            scores[..., mask] = -np.inf
        return np.asarray(softmax(scores, axis=-1))

    return marginals


@dataclass(frozen=True, eq=False)
class FiniteTexts:
    """Exact marginals and posteriors of a finite set of labelled texts with weights.

    texts: shape (texts, length), symbols from 0. labels: one a text. weights: of the texts, summing to 1.
    """

    texts: Int[np.ndarray, "texts length"]
    labels: tuple[str, ...]
    weights: Float[np.ndarray, " texts"]

    def __post_init__(self) -> None:
        if self.texts.ndim != 2 or not len(self.texts) == len(self.labels) == len(self.weights):
            raise UserError("each text needs a label and a weight, and all texts have one length.")
        if (self.texts < 0).any() or (self.weights <= 0).any() or abs(self.weights.sum() - 1) > 1e-6:
            raise UserError("symbols are whole numbers from 0, and weights are positive and sum to 1.")

    def marginals(self, seen: Tokens) -> Float[np.ndarray, "n length symbols"]:
        """P(X_j = x | what is seen), exactly."""
        one_hot = np.eye(int(self.texts.max()) + 1)[self.texts]
        return np.asarray(np.einsum("nk,kjx->njx", self.responsibilities(seen), one_hot))

    def posterior(self, seen: Tokens, labels: Sequence[str]) -> Float[np.ndarray, "n labels"]:
        """P(label | what is seen), exactly."""
        member = np.array([[own == label for label in labels] for own in self.labels], dtype=float)
        return np.asarray(self.responsibilities(seen) @ member)

    def responsibilities(self, seen: Tokens) -> Float[np.ndarray, "n texts"]:
        """P(X is text k | what is seen)."""
        fits = ((seen[:, None] == self.texts) | (seen[:, None] == HIDDEN)).all(axis=2) * self.weights
        total = fits.sum(axis=1, keepdims=True)
        if not total.all():
            raise UserError("a text fits none of the set, so there is no posterior given it.")
        return np.asarray(fits / total)
