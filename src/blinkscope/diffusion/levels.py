"""A method of the loop for noise levels: coarse first, then finer where the posterior moves.

The first rounds look at a few levels, at equal distances in steps. A level gets draws until its largest standard
deviation is at most the error asked for. When all levels are known that well, a level is added in the middle between
two neighbours whose probability of some label differs by ``change`` or more, and so on until no two such neighbours
have a level between them. A level's draws come in two halves, the size of one decided by the labels of the other, so
that proportions stay unbiased although sizes adapt (``estimate/decomposition.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate import streams
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.decomposition import proportions
from blinkscope.estimate.resampling import JOINT_DRAWS, row_draws
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.posterior import Posterior

PILOT = 4  # draws of each half of a level in its first round
COARSE = 8  # levels of the first round
CHANGE = 0.2  # neighbours that differ by this much in a label's probability get a level between them
GROWTH = 0.25  # a level that is not known well enough grows by this share at least, and at most by all it has


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """Adaptive in time, until the asked-for error is reached everywhere.

    strata: one for every number of reverse steps taken 0 .. N - 1, which is its key; row N is the finished sample.
    error: largest standard deviation that a row may keep.
    """

    strata: tuple[Stratum, ...]
    final_label: str
    limit: int
    seed: int
    error: float
    generation: int = 0
    adaptive: bool = field(default=False, init=False)  # it stops by itself, when no level is wanted any more

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        if round_ == 0:
            return _pilot(self._coarse())
        rows, _, counts = self._counts(draws)
        posterior = self.estimate(draws)
        wide = posterior.sd[:-1].max(axis=1) > self.error
        if not wide.any():
            return _pilot(between(posterior))
        wanted = [
            Order(rows[i], half, int(counts[i, half].sum()), self._more(counts[i, half], counts[i, 1 - half]))
            for i in np.flatnonzero(wide)
            for half in (0, 1)
        ]
        return sorted(wanted, key=lambda order: (-order.count, order.stratum, order.half))

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        """The proportions at each level that was drawn from, with the certain last row appended."""
        rows, labels, counts = self._counts(draws)
        final = np.asarray([[label == self.final_label for label in labels]], dtype=float)
        share = proportions(counts)
        drawn = counts.sum(axis=2)
        # The mean of two halves' proportions is known as well as one proportion of their harmonic mean's size.
        inverse = np.divide(1.0, drawn, out=np.zeros(drawn.shape), where=drawn > 0).sum(axis=1)
        size = np.where((drawn > 0).all(axis=1), 4.0, 1.0) / inverse
        rng = streams.stream(self.seed, streams.BANDS, self.generation)
        certain = np.broadcast_to(final, (JOINT_DRAWS, *final.shape))
        joint = np.concatenate([row_draws(size[:, None] * share, share, rng), certain], axis=1)
        index = np.asarray([*rows, len(self.strata)], dtype=float)
        return Posterior(index, labels, np.concatenate([share, final]), joint)

    def _coarse(self) -> tuple[int, ...]:
        steps = len(self.strata)
        return tuple(sorted({round(steps * i / COARSE) for i in range(COARSE)}))

    def _counts(
        self, draws: Sequence[Draw]
    ) -> tuple[tuple[int, ...], tuple[str, ...], Int[np.ndarray, "rows halves labels"]]:
        first = 2 * PILOT * len(self._coarse())
        labels = kept_labels(self.final_label, draws[:first], draws[first:], self.limit)
        rows = tuple(sorted({draw.stratum for draw in draws}))
        return rows, labels, count(draws, labels, rows)

    def _more(self, own: Int[np.ndarray, " labels"], other: Int[np.ndarray, " labels"]) -> int:
        """How many draws a half gets: what the other half says it lacks, within the limits of growth."""
        share = (other + 1 / len(other)) / (other.sum() + 1)
        have = max(int(own.sum()), PILOT)
        lacking = float((share * (1 - share)).max()) / (2 * self.error**2) - have
        return int(np.ceil(np.clip(lacking, GROWTH * have, have)))


def between(posterior: Posterior) -> tuple[int, ...]:
    """The middles between neighbouring rows that differ by ``CHANGE`` or more and have a row between them."""
    rows = posterior.index.astype(int)
    moved: Float[np.ndarray, " gaps"] = np.abs(np.diff(posterior.mean, axis=0)).max(axis=1)
    split = (moved >= CHANGE) & (np.diff(rows) > 1)
    return tuple(int(row) for row in ((rows[:-1] + rows[1:]) // 2)[split])


def _pilot(rows: Sequence[int]) -> list[Order]:
    return [Order(row, half, 0, PILOT) for half in (0, 1) for row in rows]
