"""What is still undecided about the windows of a path, judged by joint draws of its curve.

No number of draws tells a change of just ``delta`` from one a little off. So there is an indifference zone about it, as
in selecting the best of several means (Bechhofer 1954): windows count as known when no change of delta + ``SLACK`` is
likely to lie outside the listed ones, and each listed one is likely to have delta - ``SLACK``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.divergence import total_variation
from blinkscope.posterior import Posterior
from blinkscope.window import token_windows

SLACK = 0.1
UNDECIDED_AT_MOST = 0.05  # probability below which windows are taken to be known


@dataclass(frozen=True)
class Undecided:
    """probability: that a window was missed, or that one which is listed is none, whichever is larger.

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
        """The change that must not be missed."""
        return self.delta + min(SLACK, (1 - self.delta) / 2)

    def undecided(
        self, draws: Float[np.ndarray, "draws rows labels"], posterior: Posterior, final_label: str
    ) -> Undecided:
        """How far the windows are from being known.

        Parameters
        ----------
        draws : joint draws of the curve given everything seen, a row for each number of kept tokens.
        posterior : the curve that windows are listed of.
        """
        size, rows, _ = draws.shape
        listed = token_windows(posterior, final_label, delta=self.delta, max_width=self.max_width)
        missed = np.zeros(size, dtype=bool)
        likeliest = Undecided(0.0)
        for width in range(1, min(self.max_width, rows - 1) + 1):
            start = np.arange(rows - width)
            elsewhere = np.ones(rows - width, dtype=bool)
            for window in listed:
                elsewhere &= (start >= window.end) | (start + width <= window.start)
            clear = (total_variation(draws[:, width:], draws[:, :-width]) >= self.clear) & elsewhere
            missed |= clear.any(axis=1)
            share = clear.mean(axis=0)
            first = int(np.argmax(share))
            likeliest = max(likeliest, Undecided(float(share[first]), (first, first + width)), key=_probability)
        # Where a window may have been missed, the likeliest place is looked at.
        doubts = [Undecided(float(missed.mean()), likeliest.rows)]
        for window in listed:
            change = total_variation(draws[:, window.start], draws[:, window.end])
            doubts.append(Undecided(float((change < self.least).mean()), (window.start, window.end)))
        return max(doubts, key=_probability)


def _probability(doubt: Undecided) -> float:
    return doubt.probability
