"""From a model's logits to the law of the next token, and to draws from it.

Sorting a whole vocabulary takes as long as half a forward pass of a small model. The few hundred largest logits and
the logarithm of the normaliser nearly always settle the law (``language/sampling.py`` says where they do not). Rows
that they do not settle are looked at again with more logits, and at last with all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float, Int

from blinkscope.engines.token_score import UNLISTED, TokenScore, token_score
from blinkscope.errors import EngineError
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf, next_token_law

LENGTHS = (256, 4096)  # numbers of logits to look at before all of them


class Logits(Protocol):
    """A model's raw logits of several rows, wherever they are kept.

    shape: (rows, vocabulary).
    """

    @property
    def shape(self) -> tuple[int, int]: ...

    def of(self, rows: Int[np.ndarray, " picked"]) -> Logits:
        """Those of some rows."""
        ...

    def largest(self, length: int) -> Largest:
        """The ``length`` largest of each row, in descending order. Where the first is not finite, so is its value."""
        ...

    def log_normalizer(self, largest: Float[np.ndarray, " rows"], temperature: float) -> Float[np.ndarray, " rows"]:
        """logsumexp(logits / temperature) of each row, given its largest logit, in double precision."""
        ...


@dataclass(frozen=True, eq=False)
class Largest:
    """The largest logits of each row, in descending order."""

    ids: Int[np.ndarray, "rows k"]
    values: Float[np.ndarray, "rows k"]


@dataclass(frozen=True, eq=False)
class ListedLaw:
    """The law of the next token over the most probable tokens of each row, in descending order of their logits."""

    ids: Int[np.ndarray, "rows k"]
    law: NextTokenLaw


def lengths(vocabulary: int, sampling: Sampling) -> tuple[int, ...]:
    """How many logits of each row to look at, one number after the other; the last one is all."""
    first = (1,) if sampling.temperature == 0 else tuple(max(length, sampling.top_k + 1) for length in LENGTHS)
    return (*(length for length in first if length < vocabulary), vocabulary)


def listed_law(logits: Logits, sampling: Sampling, length: int) -> ListedLaw:
    """The law as far as the ``length`` largest logits of each row tell it."""
    vocabulary = logits.shape[1]
    largest = logits.largest(length)
    if not np.isfinite(largest.values[:, 0]).all():
        raise EngineError("the model returned logits that are not finite; try --dtype float32.")
    normalizer = None
    if length < vocabulary and sampling.temperature > 0:
        normalizer = logits.log_normalizer(largest.values[:, 0], sampling.temperature)
    law = next_token_law(largest.values, sampling, vocabulary=vocabulary, log_normalizer=normalizer)
    return ListedLaw(largest.ids, law)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn tokens and their probabilities."""

    ids: Int[np.ndarray, " rows"]
    p: Float[np.ndarray, " rows"]


def draw(logits: Logits, sampling: Sampling, u: Float[np.ndarray, " rows"]) -> Drawn:
    """One token for each row of ``logits``, by inversion of its uniform."""
    drawn = Drawn(np.zeros(len(u), dtype=np.int64), np.zeros(len(u)))
    rest = np.arange(len(u))
    for length in lengths(logits.shape[1], sampling):
        some = logits if len(rest) == len(u) else logits.of(rest)
        listed = listed_law(some, sampling, length)
        columns = inverse_cdf(listed.law, u[rest])
        settled = np.flatnonzero((listed.law.listed > 0) & (columns < length))
        drawn.ids[rest[settled]] = listed.ids[settled, columns[settled]]
        drawn.p[rest[settled]] = listed.law.p[settled, columns[settled]]
        rest = np.delete(rest, settled)
        if not len(rest):
            break
    return drawn


def score_tokens(logits: Logits, sampling: Sampling, tokens: Int[np.ndarray, " rows"]) -> list[TokenScore]:
    """How probable each token was under its row of ``logits``, and what else could have stood."""
    first, *more = lengths(logits.shape[1], sampling)
    listed = listed_law(logits, sampling, first)
    scores = []
    for row, token in enumerate(tokens):
        at, law = row, listed
        for length in more:
            if _settles(law, at, int(token), sampling):
                break
            # One row at a time: without truncation its law names a good part of the vocabulary.
            at, law = 0, listed_law(logits.of(np.array([row])), sampling, length)
        scores.append(token_score(law.ids[at], law.law.p[at], int(token), sampling))
    return scores


def _settles(listed: ListedLaw, row: int, token: int, sampling: Sampling) -> bool:
    """Whether what is listed is enough to score a token."""
    covered = listed.law.listed[row]
    if sampling.truncates:
        return bool(covered == 1)
    # No token is impossible, so the path's own has to be among those listed.
    return bool(covered >= 1 - UNLISTED) and token in listed.ids[row]
