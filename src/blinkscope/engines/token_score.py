"""One token of a path under the sampling distribution, from the listed law of the place where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.language.engine import Alternatives, Score
from blinkscope.language.sampling import Sampling

UNLISTED = 1e-6  # probability that may be left out where the sampler can say any token of the vocabulary


@dataclass(frozen=True, eq=False)
class TokenScore:
    """One token of a path under the sampling distribution; the fields are those of ``Score``."""

    p: float
    off_path: float
    alternatives: Alternatives


def token_score(
    ids: Int[np.ndarray, " k"],
    p: Float[np.ndarray, " k"],
    token: int,
    sampling: Sampling,
    *,
    unlisted: float = 0.0,
) -> TokenScore:
    """How probable ``token`` was, and what else could have stood there.

    ids, p: the law as far as it is listed, most probable first.
    unlisted: where the sampler truncates, the probability that it leaves to tokens that are not listed.
    """
    on_path = ids == token
    path_p = float(p[on_path].sum())
    others = (p > 0) & ~on_path
    if not sampling.truncates:
        others &= np.cumsum(p) - p < 1 - UNLISTED
    alternatives = Alternatives(ids[others], p[others])
    if path_p == 0:
        return TokenScore(0.0, 1.0, alternatives)
    # Where the filter leaves a finite list, the sum is exactly what is listed, and exactly 0 where nothing is.
    off_path = float(p[others].sum()) + unlisted if sampling.truncates else 1 - path_p
    return TokenScore(path_p, off_path, alternatives)


def score_of(scores: Sequence[TokenScore], notes: tuple[str, ...] = ()) -> Score:
    """The score of a path from those of its tokens."""
    return Score(
        np.array([score.p for score in scores]),
        np.array([score.off_path for score in scores]),
        tuple(score.alternatives for score in scores),
        notes,
    )
