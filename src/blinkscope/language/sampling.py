"""The sampling distribution: one place where temperature, top-k, top-p and min-p act on logits.

The order is that of ``transformers``: temperature, top-k, top-p, min-p, each on what the one before left.
Every engine hands over raw logits and takes back probabilities, so that p_s, the off-path law and the law that
continuations are drawn from are the same numbers. A full sort of the vocabulary is avoided: the largest logits and
the logarithm of the whole normaliser are enough wherever the filter keeps only tokens among them, and
``next_token_law`` says where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError, expect, expect_fields


@dataclass(frozen=True)
class Sampling:
    """How a model's logits become draws.

    temperature: 0 is greedy decoding.
    top_k: 0 is off. top_p: 1 is off. min_p: 0 is off.
    max_new_tokens: cap counted from the start of the generation.
    stop: texts that end a generation where they first appear in it.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 256
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        expect_fields(self, ("temperature", "top_p", "min_p"), (int, float), "a number")
        expect_fields(self, ("top_k", "max_new_tokens"), int, "a whole number")
        expect("stop", self.stop, tuple, "a tuple of texts")
        if not (np.isfinite(self.temperature) and self.temperature >= 0):
            raise UserError(f"temperature is {self.temperature}; it must be 0 (greedy) or a positive number.")
        if self.top_k < 0:
            raise UserError(f"top-k is {self.top_k}; it must be 0 (off) or a positive whole number.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top-p is {self.top_p}; it must lie in (0, 1], where 1 is off.")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min-p is {self.min_p}; it must lie in [0, 1], where 0 is off.")
        if self.max_new_tokens < 1:
            raise UserError(f"max-new-tokens is {self.max_new_tokens}; it must be at least 1.")
        if any(not text for text in self.stop):
            raise UserError("a stop text is empty; give the characters that end a generation.")

    @property
    def truncates(self) -> bool:
        """Whether some tokens are given probability 0, so that the law may be a short list."""
        return self.temperature == 0 or self.top_k > 0 or self.top_p < 1 or self.min_p > 0


@dataclass(frozen=True, eq=False)
class NextTokenLaw:
    """Probabilities of the listed tokens, row by row, in the order in which their logits came.

    p: zero where the filter removed the token.
    listed: 1 where every token of the law is listed; between 0 and 1 where the listed probabilities are right but some
        of the law lies beyond them; 0 where not even the normaliser is known and more logits are needed.
    """

    p: Float[np.ndarray, "rows k"]
    listed: Float[np.ndarray, " rows"]


def next_token_law(
    logits: Float[np.ndarray, "rows k"],
    sampling: Sampling,
    *,
    vocabulary: int,
    log_normalizer: Float[np.ndarray, " rows"] | None = None,
) -> NextTokenLaw:
    """Law of the next token under the sampling distribution.

    Parameters
    ----------
    logits : the k largest raw logits of each row, in descending order; minus infinity marks impossible tokens.
    vocabulary : size of the whole vocabulary; with k equal to it everything is listed.
    log_normalizer : logsumexp(all logits / temperature) of each row; needed where k is smaller than the vocabulary
        and the temperature is not 0.
    """
    x = np.asarray(logits, dtype=np.float64)
    rows, k = x.shape
    whole = k >= vocabulary
    if sampling.temperature == 0:
        p = np.zeros_like(x)
        p[:, 0] = 1.0
        return NextTokenLaw(p, np.ones(rows))
    x = x / sampling.temperature
    if whole or log_normalizer is None:
        if not whole:
            raise ValueError("log_normalizer is needed where the logits do not cover the vocabulary")
        log_normalizer = _logsumexp(x)
    complete = np.full(rows, whole)

    if 0 < sampling.top_k < vocabulary:
        if sampling.top_k < k:  # equal is not enough: tokens tied with the last one are kept too
            floor = x[:, [sampling.top_k - 1]]
            x = np.where(x < floor, -np.inf, x)
            complete |= x[:, -1] < floor[:, 0]
        log_normalizer = np.where(complete, _logsumexp(x), np.inf)
    p = np.exp(x - log_normalizer[:, None])

    if sampling.top_p < 1:
        cumulative = np.cumsum(p, axis=1)
        complete |= cumulative[:, -1] >= sampling.top_p
        before = cumulative - p
        p = np.where(before < sampling.top_p, p, 0.0)
    if sampling.min_p > 0:
        keep = p >= sampling.min_p * p[:, :1]
        complete |= ~keep[:, -1]
        p = np.where(keep, p, 0.0)

    filtered = sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0
    mass = p.sum(axis=1)
    renormalised = p / np.where(complete, mass, 1.0)[:, None]
    if filtered:
        return NextTokenLaw(np.where(complete[:, None], renormalised, 0.0), np.where(complete, 1.0, 0.0))
    return NextTokenLaw(renormalised, np.where(complete, 1.0, np.minimum(mass, 1.0)))


def inverse_cdf(law: NextTokenLaw, u: Float[np.ndarray, " rows"]) -> np.ndarray:
    """Column drawn in each row by inversion of the uniform ``u``; k (one past the end) where that is not listed."""
    cumulative = np.cumsum(law.p, axis=1)
    complete = law.listed >= 1
    total = np.where(complete, cumulative[:, -1], 1.0)
    column = (cumulative <= (u * total)[:, None]).sum(axis=1)
    last = law.p.shape[1] - 1 - np.argmax(law.p[:, ::-1] > 0, axis=1)
    return np.where(complete, np.minimum(column, last), column)


def _logsumexp(x: Float[np.ndarray, "rows k"]) -> Float[np.ndarray, " rows"]:
    top = x.max(axis=1)
    return np.asarray(top + np.log(np.exp(x - top[:, None]).sum(axis=1)))
