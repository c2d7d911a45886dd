"""From a model's logits to the law of the next token, and to draws from it.

Sorting a whole vocabulary takes as long as half a forward pass of a small model. The few hundred largest logits and
the logarithm of the normaliser nearly always settle the law (``language/sampling.py`` says where they do not); only
the rows that they do not settle are sorted in full.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from blinkscope.errors import EngineError
from blinkscope.language.engine import Alternatives
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf, next_token_law

SHORTLIST = 256
_CACHED = 2**18  # numbers
UNLISTED = 1e-6  # probability that may be left out where the sampler can say any token of the vocabulary


@dataclass(frozen=True, eq=False)
class ListedLaw:
    """The law of the next token over the most probable tokens of each row, in descending order of their logits."""

    ids: Int[np.ndarray, "rows k"]
    law: NextTokenLaw


def law_of_most_probable(logits: torch.Tensor, sampling: Sampling) -> ListedLaw:
    """The law over a shortlist that is long enough for nearly every row; ``logits`` have shape (rows, vocabulary)."""
    vocabulary = logits.shape[1]
    wanted = 1 if sampling.temperature == 0 else max(SHORTLIST, sampling.top_k + 1)
    logits = logits.float()
    values, ids = torch.topk(logits, min(wanted, vocabulary), dim=1)
    if not bool(torch.isfinite(values[:, 0]).all()):
        raise EngineError("the model returned logits that are not finite; try --dtype float32.")
    normalizer = None
    if sampling.temperature > 0:
        normalizer = _log_normalizer(logits, sampling.temperature).double().cpu().numpy()
    law = next_token_law(values.double().cpu().numpy(), sampling, vocabulary=vocabulary, log_normalizer=normalizer)
    return ListedLaw(ids.cpu().numpy(), law)


def _log_normalizer(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """logsumexp(logits / temperature) of each row."""
    # A few rows at a time on a CPU: what is in between then stays in its cache, and no large memory is asked for.
    rows = max(1, _CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return torch.cat([torch.logsumexp(block / temperature, dim=1) for block in logits.split(rows)])


def law_of_all(logits: torch.Tensor, sampling: Sampling) -> ListedLaw:
    """The law over the whole vocabulary."""
    values, ids = torch.sort(logits.float(), dim=1, descending=True, stable=True)
    law = next_token_law(values.double().cpu().numpy(), sampling, vocabulary=logits.shape[1])
    return ListedLaw(ids.cpu().numpy(), law)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn tokens and their probabilities."""

    ids: Int[np.ndarray, " rows"]
    p: Float[np.ndarray, " rows"]


def draw(logits: torch.Tensor, sampling: Sampling, u: Float[np.ndarray, " rows"]) -> Drawn:
    """One token for each row of ``logits`` (rows, vocabulary), by inversion of its uniform."""
    short = law_of_most_probable(logits, sampling)
    columns = inverse_cdf(short.law, u)
    beyond = (short.law.listed == 0) | (columns >= short.ids.shape[1])
    columns[beyond] = 0
    row = np.arange(len(u))
    ids, p = short.ids[row, columns], short.law.p[row, columns]
    unsettled = np.flatnonzero(beyond)
    if len(unsettled):
        whole = law_of_all(logits[torch.as_tensor(unsettled, device=logits.device)], sampling)
        columns = inverse_cdf(whole.law, u[unsettled])
        row = np.arange(len(unsettled))
        ids[unsettled], p[unsettled] = whole.ids[row, columns], whole.law.p[row, columns]
    return Drawn(ids, p)


@dataclass(frozen=True, eq=False)
class TokenScore:
    """One token of a path under the sampling distribution; the fields are those of ``Score``."""

    p: float
    off_path: float
    alternatives: Alternatives


def score_tokens(logits: torch.Tensor, sampling: Sampling, tokens: Int[np.ndarray, " rows"]) -> list[TokenScore]:
    """How probable each token was under its row of ``logits`` (rows, vocabulary), and what else could have stood."""
    short = law_of_most_probable(logits, sampling)
    settled = short.law.listed == 1
    if not sampling.truncates:
        named = (short.ids == tokens[:, None]).any(axis=1)
        settled |= (short.law.listed >= 1 - UNLISTED) & named
    scores = []
    for row, token in enumerate(tokens):
        # The whole law of one row at a time: without truncation it names a good part of the vocabulary.
        listed, at = (short, row) if settled[row] else (law_of_all(logits[row : row + 1], sampling), 0)
        scores.append(_token_score(listed.ids[at], listed.law.p[at], int(token), sampling))
    return scores


def _token_score(ids: Int[np.ndarray, " k"], p: Float[np.ndarray, " k"], token: int, sampling: Sampling) -> TokenScore:
    on_path = ids == token
    path_p = float(p[on_path].sum())
    others = (p > 0) & ~on_path
    if not sampling.truncates:
        others &= np.cumsum(p) - p < 1 - UNLISTED
    alternatives = Alternatives(ids[others], p[others])
    if path_p == 0:
        return TokenScore(0.0, 1.0, alternatives)
    # Where the filter leaves a finite list, the sum is exactly what is listed, and exactly 0 where nothing is.
    return TokenScore(path_p, float(p[others].sum()) if sampling.truncates else 1 - path_p, alternatives)
