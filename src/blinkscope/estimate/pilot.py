"""The first round of the divergence method: where to look before anything is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Stratum
from blinkscope.estimate.trace import Estimator

PILOT = 1  # draws of each half of each open position, for the unbiased estimator
SMALLEST_ROUND = 32  # draws, so that an engine's batch stays full
SPARSE_PILOT = 16  # least draws that are spread along the path, for the pooled estimator
FIRST_LEFT = 8  # its draws where a fresh generation would leave the path first
FIRST_LEFT_SEEKING = 4  # and those where windows alone are sought
TINY = 1e-300


def pilot(
    recursion: Recursion, strata: Sequence[Stratum], estimator: Estimator, *, seeking: bool = False
) -> Int[np.ndarray, "steps halves"]:
    """Draws of the first round.

    Unbiased: the same everywhere, and at least ``SMALLEST_ROUND``, so that a run does not end because two or four draws
    happened to agree: that would bias the mean, whatever the later rounds do. Pooled: one for each time that a
    generation is expected to leave the path, at most one at a position but at least ``SPARSE_PILOT`` altogether.
    Between positions that seldom fork the row hardly changes, and data are shared. ``FIRST_LEFT`` more stand where a
    fresh generation would leave the path first: only these tell whether anything is open at the beginning, and a run
    must not end because two or three of them agree and all that follows is settled. Where windows alone are sought, the
    least of these is enough: what was not looked at stays undecided.
    """
    counts = np.zeros((recursion.steps, 2), dtype=np.int64)
    if not strata:
        return counts
    keys = [stratum.key for stratum in strata]
    room = np.asarray([[stratum.room(half) for half in (0, 1)] for stratum in strata])
    if estimator == "unbiased":
        wanted = np.full((len(strata), 2), max(PILOT, math.ceil(SMALLEST_ROUND / (2 * len(strata)))))
    else:
        expected = -np.log(np.maximum(recursion.p[keys], np.exp(-1)))
        sparse = SPARSE_PILOT / max(float(expected.sum()), TINY)
        expected *= sparse if seeking else max(1.0, sparse)
        first = (np.cumprod(np.append(1.0, recursion.p))[:-1] * recursion.off_path)[keys]
        expected += (FIRST_LEFT_SEEKING if seeking else FIRST_LEFT) * first / max(float(first.sum()), TINY)
        each = np.diff(np.floor(np.cumsum(expected) + 0.5), prepend=0)
        wanted = np.stack([np.ceil(each / 2), np.floor(each / 2)], axis=1)
    counts[keys] = np.minimum(wanted, room)
    return counts
