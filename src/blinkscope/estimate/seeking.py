"""What is still undecided about the windows of a path, judged by joint draws of its curve.

No number of draws tells a change of just ``delta`` from one a little off. So there is an indifference zone about it, as
in selecting the best of several means (Bechhofer 1954): windows count as known when it is likely that no change of
delta + ``SLACK`` lies outside the listed ones, and that each listed one has delta - ``SLACK`` at least.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blinkscope.divergence import total_variation
from blinkscope.posterior import Posterior
from blinkscope.window import token_windows

SLACK = 0.1  # half of the indifference zone, where there is room for it between 0 and 1
UNDECIDED_AT_MOST = 0.1  # probability below which windows are taken to be known


@dataclass(frozen=True)
class Undecided:
    """probability: that a clear window is not listed, or that one is listed which is too small.

    rows: of the curve, between which a change should be looked at more closely; None where there is no doubt at all.
    """

    probability: float
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Sought:
    """Windows of one generation: changes of at least ``delta`` in total variation over at most ``max_width`` steps."""

    delta: float
    max_width: int

    @property
    def least(self) -> float:
        """The change that a listed window must be likely to have."""
        return self.delta - min(SLACK, self.delta / 2)

    @property
    def clear(self) -> float:
        """The change from which on a window is clear: it must not be missed."""
        return self.delta + min(SLACK, (1 - self.delta) / 2)

    def undecided(self, posterior: Posterior) -> Undecided:
        """How far the windows are from being known.

        Parameters
        ----------
        posterior : the curve with its joint draws given everything seen, a row for each number of kept tokens.
        """
        draws = posterior.draws
        assert draws is not None
        size, rows, _ = draws.shape
        any_label = posterior.labels[0]  # directions are not looked at
        listed = token_windows(posterior, any_label, delta=self.delta, max_width=self.max_width)
        wrong = np.zeros(size, dtype=bool)
        worst = Undecided(0.0)
        for width in range(1, min(self.max_width, rows - 1) + 1):
            start = np.arange(rows - width)
            elsewhere = np.ones(rows - width, dtype=bool)
            for window in listed:
                elsewhere &= (start >= window.end) | (start + width <= window.start)
            missed = (total_variation(draws[:, width:], draws[:, :-width]) >= self.clear) & elsewhere
            wrong |= missed.any(axis=1)
            share = missed.mean(axis=0)
            first = int(np.argmax(share))
            worst = max(worst, Undecided(float(share[first]), (first, first + width)), key=_probability)
        for window in listed:
            small = total_variation(draws[:, window.start], draws[:, window.end]) < self.least
            wrong |= small
            worst = max(worst, Undecided(float(small.mean()), (window.start, window.end)), key=_probability)
        return Undecided(float(wrong.mean()), worst.rows)


def _probability(doubt: Undecided) -> float:
    return doubt.probability
