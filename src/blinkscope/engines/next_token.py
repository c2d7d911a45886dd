"""From a model's logits to the law of the next token, and to draws from it.

Sorting a whole vocabulary takes as long as half a forward pass of a small model. The few hundred largest logits and
the logarithm of the normaliser nearly always settle the law (``language/sampling.py`` says where they do not). Rows
that they do not settle are looked at again with more logits, and at last with all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from blinkscope.engines.token_score import UNLISTED, TokenScore, token_score
from blinkscope.errors import EngineError
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf, next_token_law

LENGTHS = (256, 4096)  # numbers of logits to look at before all of them
_CACHED = 2**18  # numbers that stay in a processor's cache


@dataclass(frozen=True, eq=False)
class ListedLaw:
    """The law of the next token over the most probable tokens of each row, in descending order of their logits."""

    ids: Int[np.ndarray, "rows k"]
    law: NextTokenLaw


def lengths(logits: torch.Tensor, sampling: Sampling) -> tuple[int, ...]:
    """How many logits of each row to look at, one number after the other; the last one is all."""
    vocabulary = logits.shape[1]
    first = (1,) if sampling.temperature == 0 else tuple(max(length, sampling.top_k + 1) for length in LENGTHS)
    return (*(length for length in first if length < vocabulary), vocabulary)


def listed_law(logits: torch.Tensor, sampling: Sampling, length: int) -> ListedLaw:
    """The law as far as the ``length`` largest logits of each row tell it; ``logits`` have shape (rows, vocabulary)."""
    logits = logits.float()
    vocabulary = logits.shape[1]
    if length < vocabulary:
        values, ids = torch.topk(logits, length, dim=1)
    else:
        values, ids = torch.sort(logits, dim=1, descending=True)
    if not bool(torch.isfinite(values[:, 0]).all()):
        raise EngineError("the model returned logits that are not finite; try --dtype float32.")
    normalizer = None
    if length < vocabulary and sampling.temperature > 0:
        normalizer = _log_normalizer(logits, values[:, :1], sampling.temperature).cpu().numpy()
    law = next_token_law(values.double().cpu().numpy(), sampling, vocabulary=vocabulary, log_normalizer=normalizer)
    return ListedLaw(ids.cpu().numpy(), law)


def _log_normalizer(logits: torch.Tensor, largest: torch.Tensor, temperature: float) -> torch.Tensor:
    """logsumexp(logits / temperature) of each row, given its largest logit, in double precision."""
    # A few rows at a time on a CPU: what is in between then stays in its cache, and no large memory is asked for.
    rows = max(1, _CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    # Relative to the largest, so that the logarithm is small and single precision is enough for it.
    above = [
        torch.logsumexp((block - top) / temperature, dim=1)
        for block, top in zip(logits.split(rows), largest.split(rows), strict=True)
    ]
    return largest[:, 0].double() / temperature + torch.cat(above).double()


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn tokens and their probabilities."""

    ids: Int[np.ndarray, " rows"]
    p: Float[np.ndarray, " rows"]


def draw(logits: torch.Tensor, sampling: Sampling, u: Float[np.ndarray, " rows"]) -> Drawn:
    """One token for each row of ``logits`` (rows, vocabulary), by inversion of its uniform."""
    drawn = Drawn(np.zeros(len(u), dtype=np.int64), np.zeros(len(u)))
    rest = np.arange(len(u))
    for length in lengths(logits, sampling):
        some = logits if len(rest) == len(u) else logits[torch.as_tensor(rest, device=logits.device)]
        listed = listed_law(some, sampling, length)
        columns = inverse_cdf(listed.law, u[rest])
        settled = np.flatnonzero((listed.law.listed > 0) & (columns < length))
        drawn.ids[rest[settled]] = listed.ids[settled, columns[settled]]
        drawn.p[rest[settled]] = listed.law.p[settled, columns[settled]]
        rest = np.delete(rest, settled)
        if not len(rest):
            break
    return drawn


def score_tokens(logits: torch.Tensor, sampling: Sampling, tokens: Int[np.ndarray, " rows"]) -> list[TokenScore]:
    """How probable each token was under its row of ``logits`` (rows, vocabulary), and what else could have stood."""
    first, *more = lengths(logits, sampling)
    listed = listed_law(logits, sampling, first)
    scores = []
    for row, token in enumerate(tokens):
        at, law = row, listed
        for length in more:
            if _settles(law, at, int(token), sampling):
                break
            # One row at a time: without truncation its law names a good part of the vocabulary.
            at, law = 0, listed_law(logits[row : row + 1], sampling, length)
        scores.append(token_score(law.ids[at], law.law.p[at], int(token), sampling))
    return scores


def _settles(listed: ListedLaw, row: int, token: int, sampling: Sampling) -> bool:
    """Whether what is listed is enough to score a token."""
    covered = listed.law.listed[row]
    if sampling.truncates:
        return bool(covered == 1)
    # No token is impossible, so the path's own has to be among those listed.
    return bool(covered >= 1 - UNLISTED) and token in listed.ids[row]
