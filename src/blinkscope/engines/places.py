"""A path's score from what was said of each of its places: how much has to be listed, and what stays unknown."""

from __future__ import annotations

from collections.abc import Sequence

from blinkscope.engines.returned import Returned, ReturnedLaw, law_of
from blinkscope.engines.token_score import score_of, token_score
from blinkscope.language.engine import Score
from blinkscope.language.sampling import Sampling

LISTED = (48, 1024, 4096)  # log-probabilities asked for at a place, one number after the other
UNLISTED = 1e-4  # probability that may stay unlisted at a place where the sampler can say any token


def to_list(level: int, sampling: Sampling, limit: int, *, whole: bool = False) -> int:
    """How many log-probabilities are asked for at a place at first, second ... try.

    One more than top-k, so that it is seen where top-k ends. ``limit``: the most that can be listed; ``whole``: so many
    at last.
    """
    if level < len(LISTED):
        return min(max(LISTED[level], sampling.top_k + 1), limit)
    return limit if whole else min(LISTED[-1], limit)


def is_settled(place: Returned, token: int, sampling: Sampling, vocabulary: int | None) -> bool:
    """Whether what is listed of a place is enough to score the path's token there."""
    law = law_of(place, sampling, vocabulary)
    if sampling.truncates or place.whole:
        return law.error == 0 and law.unlisted == 0
    return token in law.ids and law.unlisted <= UNLISTED and law.error <= UNLISTED


def score_path(
    places: Sequence[Returned], tokens: Sequence[int], sampling: Sampling, vocabulary: int | None, notes: Sequence[str]
) -> Score:
    """The score of a path's tokens. ``notes`` are put after those on what is only bounded."""
    laws = [law_of(place, sampling, vocabulary) for place in places]
    scores = [
        token_score(law.ids, law.p, token, sampling, unlisted=law.unlisted)
        for law, token in zip(laws, tokens, strict=True)
    ]
    return score_of(scores, (*_bounded(laws, tokens), *notes))


def _bounded(laws: Sequence[ReturnedLaw], tokens: Sequence[int]) -> tuple[str, ...]:
    """What is not exact about a score. A path's token that is not listed has some of the unlisted probability."""
    bounds = [
        law.error if token in law.ids else max(law.error, law.unlisted) for law, token in zip(laws, tokens, strict=True)
    ]
    bounded = [bound for bound in bounds if bound > 1e-6]
    if not bounded:
        return ()
    return (
        f"too few alternatives are listed to settle the law of {len(bounded)} of {len(laws)} tokens; there it is "
        f"known within a total variation of {max(bounded):.2g} (their sum, {sum(bounded):.2g}, bounds what it does to "
        "the curve).",
    )
