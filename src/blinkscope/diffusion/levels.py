"""A method of the loop for noise levels: coarse first, then finer where the posterior moves.

The first round looks at a few levels, at equal distances in steps. Levels get draws until no standard deviation is
above the error asked for. Then a level is added in the middle between two neighbours whose probability of some label
differs by ``CHANGE`` or more, and so on until no two such neighbours have a level between them.

Neighbouring levels say nearly the same, so they share their data (``smoother.py``). With ten labels and a few draws a
level, proportions by themselves would differ by half in total variation where nothing happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.smoother import joint_draws
from blinkscope.estimate import streams
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.posterior import Posterior

PILOT = 4  # draws of each half of a level in its first round
COARSE = 8  # levels of the first round
CHANGE = 0.2  # neighbours that differ by this much in a label's probability get a level between them
STEERING_PARTICLES = 400  # enough to decide where to draw next
LEAST, MOST = 0.25, 0.5  # by what share of its draws a level grows in a round


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """Adaptive in time, until the asked-for error is reached everywhere.

    strata: one for every number of reverse steps taken 0 .. N - 1, which is its key; row N is the finished sample.
    error: largest standard deviation that a row may keep.
    positions: the only rows to look at, besides the last; None looks coarsely first and refines.
    """

    strata: tuple[Stratum, ...]
    final_label: str
    limit: int
    seed: int
    error: float
    generation: int = 0
    positions: tuple[int, ...] | None = None

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        if round_ == 0:
            return _pilot(self._coarse())
        posterior = self._posterior(draws, STEERING_PARTICLES)
        if (posterior.sd <= self.error).all():
            posterior = self.estimate(draws)  # the few particles may have been lucky
        sd = posterior.sd[:-1].max(axis=1)
        if (sd <= self.error).all():
            return _pilot(between(posterior) if self.positions is None else ())
        rows, _, counts = self._counts(draws)
        wanted = []
        for i in np.flatnonzero(sd > self.error):
            for half in (0, 1):
                have = int(counts[i, half].sum())
                more = float(np.clip((sd[i] / self.error) ** 2 - 1, LEAST, MOST)) * max(have, PILOT)
                wanted.append(Order(rows[i], half, have, int(np.ceil(more))))
        return sorted(wanted, key=lambda order: (-order.count, order.stratum, order.half))

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        """The curve at each level that was drawn from, and the certain last row."""
        return self._posterior(draws)

    def reached(self, draws: Sequence[Draw]) -> None:
        """It stops by itself."""

    def _posterior(self, draws: Sequence[Draw], particles: int | None = None) -> Posterior:
        rows, labels, counts = self._counts(draws)
        final = np.asarray([label == self.final_label for label in labels], dtype=float)
        rng = streams.stream(self.seed, streams.BANDS, self.generation)
        joint = joint_draws(counts.sum(axis=1), final, rng, particles)
        return Posterior(np.asarray([*rows, len(self.strata)], dtype=float), labels, joint.mean(axis=0), joint)

    def _coarse(self) -> tuple[int, ...]:
        if self.positions is not None:
            return self.positions
        return evenly(len(self.strata), COARSE)

    def _counts(
        self, draws: Sequence[Draw]
    ) -> tuple[tuple[int, ...], tuple[str, ...], Int[np.ndarray, "rows halves labels"]]:
        first = 2 * PILOT * len(self._coarse())
        labels = kept_labels(self.final_label, draws[:first], draws[first:], self.limit)
        rows = tuple(sorted({draw.stratum for draw in draws}))
        return rows, labels, count(draws, labels, rows)


def evenly(steps: int, count: int) -> tuple[int, ...]:
    """Numbers of reverse steps taken, from none (pure noise) at equal distances; the finished sample is not one.

    Fewer than ``count`` where there are not so many steps.
    """
    return tuple(sorted({min(round(steps * i / count), steps - 1) for i in range(count)}))


def between(posterior: Posterior) -> tuple[int, ...]:
    """The middles between neighbouring rows that differ by ``CHANGE`` or more and have a row between them."""
    rows = posterior.index.astype(int)
    moved: Float[np.ndarray, " gaps"] = np.abs(np.diff(posterior.mean, axis=0)).max(axis=1)
    split = (moved >= CHANGE) & (np.diff(rows) > 1)
    return tuple(int(row) for row in ((rows[:-1] + rows[1:]) // 2)[split])


def _pilot(rows: Sequence[int]) -> list[Order]:
    return [Order(row, half, 0, PILOT) for half in (0, 1) for row in rows]
