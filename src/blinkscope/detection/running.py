"""The likelihood ratio of two models along a text, step by step.

With P the aligned model and Q the unaligned one, both at temperature 1 and unfiltered, the running log-likelihood ratio
after n steps is

    Lambda_n = sum_{i <= n} log Q(x_i | before) - log P(x_i | before).

Where the text is drawn from P itself, exp(Lambda_n) is a martingale of mean 1, so by Ville's inequality
P(sup_n Lambda_n >= log(1/alpha)) <= alpha: a monitor that stops at ``alarm_level(alpha)`` raises a false alarm on at
most a share alpha of such texts, whenever it looks. Text that was drawn with filters or at another temperature is not
drawn from P, and the bound does not cover it.

A step is a token. Where the two models cut the text differently, it is the smallest piece at whose ends both have a
boundary.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import numpy as np
from jaxtyping import Float

from blinkscope.detection.reading import Part, Side, logarithm
from blinkscope.errors import UserError
from blinkscope.language.engine import Path
from blinkscope.language.reading import RAW, Conversation, Reader


@dataclass(frozen=True, eq=False)
class Running:
    """Log-probabilities of the steps of a text under both models; minus infinity where a model cannot say a step.

    pieces: the text of each step.
    """

    pieces: tuple[str, ...]
    aligned: Float[np.ndarray, " steps"]
    unaligned: Float[np.ndarray, " steps"]

    @property
    def log_ratio(self) -> Float[np.ndarray, " steps"]:
        """Lambda_n after each step.

        Plus infinity from where only the aligned model could not have said the text, minus infinity where only the
        other could not, NaN from where neither could: then no ratio exists.
        """
        with np.errstate(invalid="ignore"):
            return np.cumsum(self.unaligned) - np.cumsum(self.aligned)

    def alarm(self, level: float) -> int | None:
        """Number of steps read when the log ratio first reaches ``level``; None where it never does."""
        reached = np.flatnonzero(self.log_ratio >= level)
        return int(reached[0]) + 1 if len(reached) else None


def alarm_level(alpha: float) -> float:
    """The log ratio that a text drawn from the aligned model ever reaches with probability of at most alpha."""
    if not 0 < alpha < 1:
        raise UserError(f"alpha is {alpha}; it must lie between 0 and 1.")
    return -math.log(alpha)


def running(aligned: Part, unaligned: Part) -> Running:
    """The steps that both models have read of the same text. A step without a probability under either is left out.

    The first token of a text has none, unless something stands before it.

    Raises
    ------
    UserError : both have read the whole text, and their tokens share no boundary.
    """
    read = min(len(aligned.log_p), len(unaligned.log_p))
    if aligned.pieces[:read] == unaligned.pieces[:read]:
        pieces, a, u = aligned.pieces[:read], aligned.log_p[:read], unaligned.log_p[:read]
    else:
        pieces, a, u = _in_step(aligned, unaligned)
    known = ~(np.isnan(a) | np.isnan(u))
    return Running(tuple(piece for piece, kept in zip(pieces, known, strict=True) if kept), a[known], u[known])


def _in_step(
    aligned: Part, unaligned: Part
) -> tuple[tuple[str, ...], Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Both parts cut at the places of the text where each of them has a boundary."""
    ends = [np.cumsum([len(piece) for piece in part.pieces[: len(part.log_p)]]) for part in (aligned, unaligned)]
    common = np.intersect1d(ends[0], ends[1])
    common = common[common > 0]
    if not len(common):
        if all(part.pieces and len(part.log_p) == len(part.pieces) for part in (aligned, unaligned)):
            raise UserError(
                "the tokens of the two models end nowhere at the same place of this text, so there is no step whose "
                "probabilities can be compared; take two models that read it as the same text."
            )
        return (), np.empty(0), np.empty(0)
    text = "".join(aligned.pieces)
    pieces = tuple(text[start:end] for start, end in zip([0, *common[:-1]], common, strict=True))
    sums = []
    for part, end in zip((aligned, unaligned), ends, strict=True):
        # The first token that ends at a boundary closes the step: bytes of a later character may follow it unseen.
        last = np.searchsorted(end, common, side="left")
        sums.append(np.add.reduceat(part.log_p[: last[-1] + 1], np.concatenate([[0], last[:-1] + 1])))
    return pieces, sums[0], sums[1]


@dataclass(frozen=True)
class Step:
    """One token of a reply as it was said, and where the ratio stands after it.

    position: tokens read. log_ratio: Lambda after them; mean_ratio: the same for each token.
    """

    position: int
    token: str
    aligned: float
    unaligned: float
    log_ratio: float

    @property
    def mean_ratio(self) -> float:
        return self.log_ratio / self.position


def watch(aligned: Side, unaligned: Side, conversation: Conversation, tokens: Iterable[int]) -> Iterator[Step]:
    """Follow a reply while it is being written: a step for every token, as soon as the token is there.

    Both models must have the same tokens. Each takes one step for each token; stop reading the steps and no more work
    is done. An engine that cannot go on from where it was (one that is no ``Reader``) reads the reply from its start
    again at every token.

    Parameters
    ----------
    tokens : ids of the reply, for instance from a generator that yields them as they are sampled.
    """
    here, there = tee(tokens)
    said: list[int] = []
    sums = [0.0, 0.0]
    first, second = _follow(aligned, conversation, here), _follow(unaligned, conversation, there)
    for (token, a), (_, u) in zip(first, second, strict=True):
        said.append(token)
        spelled = [side.engine.pieces(said[-1:])[0] for side in (aligned, unaligned)]
        if spelled[0] != spelled[1]:
            raise UserError(
                f"token {token} is {spelled[0]!r} to one model and {spelled[1]!r} to the other; a running ratio needs "
                "two models with the same tokens."
            )
        sums[0] += a
        sums[1] += u
        yield Step(len(said), spelled[0], a, u, sums[1] - sums[0])


def _follow(side: Side, conversation: Conversation, tokens: Iterable[int]) -> Iterator[tuple[int, float]]:
    """Each token with its log-probability."""
    engine = side.engine
    if isinstance(engine, Reader):
        here, there = tee(tokens)
        ids = engine.transcript(side.conversation(conversation), "").ids
        yield from zip(here, engine.follow(ids, there), strict=True)
        return
    asked = side.conversation(conversation)
    context, said = engine.encode(asked.prompt, prefill=asked.prefill), []
    for token in tokens:
        said.append(token)
        yield token, float(logarithm(engine.score(Path(context, tuple(said)), RAW).p[-1:])[0])
