"""The law of the next token from what a server says of it: its most probable tokens and their log-probabilities.

A server lists the k most probable tokens with their log-probabilities at temperature 1, before any filter. What it
does not list has mass r = 1 - sum_i p_i, and no such token is more probable than the last one listed, p_k. So with
w_i = p_i^(1/T) the unlisted tokens' share of the normaliser at temperature T lies between

    T <= 1:   0              and   r p_k^(1/T - 1)
    T >= 1:   r p_k^(1/T-1)  and   m^(1 - 1/T) r^(1/T),    m tokens unlisted (concavity)

and both are r at T = 1. A filter that keeps listed tokens only makes the normaliser cancel: wherever both bounds lead
to the same kept tokens the law is exact. Elsewhere it is bounded, and ``law_of`` says by how much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from blinkscope.language.sampling import Sampling, next_token_law

NEVER = -9000.0
"""No log-probability: servers write minus infinity, which JSON does not have, as -9999 or the like."""
LARGEST_VOCABULARY = 2**19
"""Stands for the size of a vocabulary that the server does not tell."""


@dataclass(frozen=True, eq=False)
class Returned:
    """What a server says of one place.

    ids, logprobs: tokens with their log-probabilities at temperature 1, in descending order.
    top: this many of them, from the first on, are the most probable ones of all; the rest is known beside them.
    whole: no other token is possible.
    within: the law is known within this total variation only, apart from what is not listed.
    """

    ids: Int[np.ndarray, " k"]
    logprobs: Float[np.ndarray, " k"]
    top: int
    whole: bool = False
    within: float = 0.0

    @classmethod
    def of(cls, listed: dict[int, float], top: int) -> Returned:
        """From log-probabilities by token id, of which the largest ``top`` are the most probable ones of all.

        Where some of them are impossible, or there are fewer, all others are impossible too.
        """
        finite = {id_: value for id_, value in listed.items() if value > NEVER}
        ids = np.fromiter(finite, dtype=np.int64, count=len(finite))
        logprobs = np.fromiter(finite.values(), dtype=np.float64, count=len(finite))
        order = np.argsort(-logprobs, kind="stable")
        return cls(ids[order], logprobs[order], min(top, len(finite)), len(finite) < max(top, len(listed)))

    def joined(self, other: Returned) -> Returned:
        """What two answers about the same place say together."""
        first, second = (self, other) if self.top >= other.top else (other, self)
        listed = dict(zip(first.ids.tolist(), first.logprobs.tolist(), strict=True))
        for id_, value in zip(second.ids.tolist(), second.logprobs.tolist(), strict=True):
            listed.setdefault(id_, value)
        return replace(Returned.of(listed, first.top), whole=first.whole or second.whole)


@dataclass(frozen=True, eq=False)
class ReturnedLaw:
    """The law of the next token under the sampling distribution, as far as a server tells it.

    p: of each token in ``ids``, in descending order; zero where the filter removed it.
    unlisted: probability of what is not listed.
    error: the listed probabilities are within this of the true ones, in total variation.
    """

    ids: Int[np.ndarray, " k"]
    p: Float[np.ndarray, " k"]
    unlisted: float
    error: float


def law_of(returned: Returned, sampling: Sampling, vocabulary: int | None) -> ReturnedLaw:
    """The law under the sampling distribution, with bounds where the server's list does not settle it.

    Parameters
    ----------
    vocabulary : number of tokens that there are; None where the server does not say.
    """
    law = _law_of(returned, sampling, vocabulary)
    return replace(law, error=max(law.error, returned.within)) if returned.within else law


def _law_of(returned: Returned, sampling: Sampling, vocabulary: int | None) -> ReturnedLaw:
    ids, x, top = returned.ids, returned.logprobs, returned.top
    size = vocabulary or LARGEST_VOCABULARY
    whole = returned.whole or len(ids) >= size
    if sampling.temperature == 0:
        return ReturnedLaw(ids, (np.arange(len(ids)) == 0).astype(float), 0.0, 0.0)
    weight = np.exp(x / sampling.temperature)
    low, high = (0.0, 0.0) if whole else _unlisted(returned, sampling, size)
    if sampling.truncates:
        known = float(weight.sum())
        at_most, at_least = (
            next_token_law(
                x[None, : len(x) if whole else top],
                sampling,
                vocabulary=len(x) if whole else max(size, top + 1),
                log_normalizer=np.log([known + unlisted]),
            )
            for unlisted in (high, low)
        )
        if at_most.listed[0] == 1:  # then the other one is complete too: its normaliser is smaller
            p = np.zeros(len(ids))
            p[: at_most.p.shape[1]] = at_most.p[0]
            same = bool(((at_most.p > 0) == (at_least.p > 0)).all())  # then the normaliser cancels
            return ReturnedLaw(ids, p, 0.0, 0.0 if same else float(np.abs(at_most.p - at_least.p).sum() / 2))
    return _bounded(returned, sampling, weight, low, high)


def _unlisted(returned: Returned, sampling: Sampling, size: int) -> tuple[float, float]:
    """Bounds on what the unlisted tokens add to the normaliser at the sampling temperature."""
    rest = max(0.0, 1 - float(np.exp(returned.logprobs).sum()))
    power = 1 / sampling.temperature
    at_edge = rest * float(np.exp(returned.logprobs[returned.top - 1])) ** (power - 1)
    if power >= 1:
        low, high = (rest if power == 1 else 0.0), at_edge
    else:
        spread = float(max(size - len(returned.ids), 1)) ** (1 - power) * rest**power
        low, high = at_edge, max(spread, at_edge)
    return (0.0 if sampling.top_k > 0 else low), high  # top-k may leave none of them


def _bounded(
    returned: Returned, sampling: Sampling, weight: Float[np.ndarray, " k"], low: float, high: float
) -> ReturnedLaw:
    """The law where tokens that are not listed belong to it, or where the filter's edge is not settled.

    Each probability is a weight over the mass N that the filter keeps, and N lies between ``least`` and ``most``.
    """
    known, edge = float(weight.sum()), float(weight[returned.top - 1])
    before = np.cumsum(weight) - weight
    between = np.where(np.arange(len(weight)) < returned.top, 0.0, high)  # unlisted ones may stand before a late one
    possible = weight >= sampling.min_p * weight[0]
    if sampling.top_k > 0:
        possible &= np.arange(len(weight)) < sampling.top_k
    sure = possible & (np.arange(len(weight)) < returned.top if sampling.top_k > 0 else True)
    least, most = (float(weight[sure].sum()) if sampling.min_p > 0 else known + low), known + high
    if sampling.top_p < 1:
        possible &= before < sampling.top_p * (known + high)
        sure &= before + between < sampling.top_p * (known + low)
        within = float(weight[sure].sum())
        least = within if sampling.min_p > 0 else max(within, sampling.top_p * (known + low))
        # A nucleus holds top-p of the mass and less than one token more.
        most = min(most, max(float(weight[possible].sum()), sampling.top_p * most + edge))
    middle = (least + most) / 2
    p = np.where(possible, weight, 0.0) / middle
    error = float(weight[sure].sum()) * (1 / least - 1 / most) + float(weight[possible & ~sure].sum()) / least
    return ReturnedLaw(returned.ids, p, max(0.0, 1 - float(p.sum())), min(1.0, error))
