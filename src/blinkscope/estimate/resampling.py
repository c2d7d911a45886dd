"""Methods that resample freely: the paper's grid of fractions, and bisection down to single tokens.

Both estimate pi_t from continuations that start at row t itself and may stay on the path. They are here for comparison
and for reproducing published figures: [LKC25] resamples at a grid of truncation fractions, the Phi-4 report (Abdin et
al. 2024, arXiv:2412.08905) bisects for "pivotal tokens".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.divergence import total_variation
from blinkscope.errors import UserError
from blinkscope.estimate import streams
from blinkscope.estimate.counts import count, kept_labels
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.posterior import Posterior

JOINT_DRAWS = 600
STRENGTH = 1.0  # prior observations per row


@dataclass(frozen=True, eq=False)
class Grid:
    """Resample ``resamples`` times at each of the given rows.

    strata: one for every row 0 .. N - 1; key is the number of kept tokens.
    rows: the rows to look at; N itself is known and needs no draws.
    """

    strata: tuple[Stratum, ...]
    rows: tuple[int, ...]
    resamples: int
    final_label: str
    limit: int
    seed: int
    generation: int = 0

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        return _split(self.rows, self.resamples) if round_ == 0 else []

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        return _rows(draws, self)

    def reached(self, draws: Sequence[Draw]) -> None:
        """It stops by itself."""


@dataclass(frozen=True, eq=False)
class Bisection:
    """Resample at the ends of an interval and split it while its ends differ by ``threshold`` in total variation."""

    strata: tuple[Stratum, ...]
    resamples: int
    final_label: str
    limit: int
    seed: int
    threshold: float = 0.2
    generation: int = 0

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        if round_ == 0:
            return _split((0,), self.resamples)
        posterior = _rows(draws, self)
        rows = posterior.index.astype(int)
        apart = total_variation(posterior.mean[:-1], posterior.mean[1:]) >= self.threshold
        split = apart & (np.diff(rows) > 1)
        middles = (rows[:-1] + rows[1:]) // 2
        return _split(tuple(int(row) for row in middles[split]), self.resamples)

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        return _rows(draws, self)

    def reached(self, draws: Sequence[Draw]) -> None:
        """It stops by itself."""


def fraction_rows(steps: int, fractions: Sequence[float]) -> tuple[int, ...]:
    """Rows 0 <= t < N nearest to the given fractions of a generation of N steps; the last row is known."""
    bad = [f for f in fractions if not 0 <= f <= 1]
    if bad or not fractions:
        raise UserError(f"fractions of a generation lie between 0 and 1; got {bad[0] if bad else 'none'}.")
    if min(fractions) == 1:
        raise UserError("the only fraction is 1, the whole text, whose outcome is known; give one below 1.")
    return tuple(sorted({round(f * steps) for f in fractions} - {steps}))


def _split(rows: tuple[int, ...], resamples: int) -> list[Order]:
    sizes = ((resamples + 1) // 2, resamples // 2)
    return [Order(row, half, 0, size) for row in rows for half, size in enumerate(sizes) if size]


def _rows(draws: Sequence[Draw], method: Grid | Bisection) -> Posterior:
    """The proportions at each row that was drawn from, with the certain last row appended."""
    steps = len(method.strata)
    labels = kept_labels(method.final_label, draws, (), method.limit)
    rows = sorted({draw.stratum for draw in draws})
    counts = count(draws, labels, rows).sum(axis=1)
    final = np.asarray([[label == method.final_label for label in labels]], dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    # Independent rows, each under a Dirichlet prior whose mean is the average over the rows.
    alpha = counts + (STRENGTH * share.mean(axis=0) if len(share) else share)
    rng = streams.stream(method.seed, streams.BANDS, method.generation)
    certain = np.broadcast_to(final, (JOINT_DRAWS, *final.shape))
    return Posterior(
        np.asarray([*rows, steps], dtype=float),
        labels,
        np.concatenate([share, final]),
        np.concatenate([_dirichlet(alpha, rng), certain], axis=1),
        deviation=np.concatenate([_dirichlet_sd(alpha), np.zeros_like(final)]),
    )


def _dirichlet(
    alpha: Float[np.ndarray, "rows labels"], rng: np.random.Generator
) -> Float[np.ndarray, "draws rows labels"]:
    """Joint draws, independent from row to row."""
    gamma = rng.standard_gamma(np.broadcast_to(alpha, (JOINT_DRAWS, *alpha.shape)))
    return np.asarray(gamma / gamma.sum(axis=2, keepdims=True))


def _dirichlet_sd(alpha: Float[np.ndarray, "rows labels"]) -> Float[np.ndarray, "rows labels"]:
    """Standard deviations of the same laws: the same draws have one error, whatever stream the joint draws are of."""
    total = alpha.sum(axis=1, keepdims=True)
    return np.asarray(np.sqrt(alpha * (total - alpha) / (total**2 * (total + 1))))
