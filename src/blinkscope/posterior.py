"""The label posterior along the index: pi_t(theta) = P(theta | Y_t).

Everything in this project is computed from this one object ([LKC25], section 2). A world fills it with exact values;
for a real model it is estimated, and then carries joint draws from the distribution of the unknown curve, so that any
function of several rows (a total variation, a window) gets an interval that knows how the rows move together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError

TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Posterior:
    """Label posteriors along an index.

    index: positions (tokens kept) or times, shape (rows,).
    labels: names of the outcomes, K of them.
    mean: the posterior, exact or estimated; shape (rows, K) for one observed path,
        (rows, samples, K) for several observations at each index.
    draws: joint draws of an estimated curve, shape (draws, rows, K); None where ``mean`` is exact.
    """

    index: Float[np.ndarray, " rows"]
    labels: tuple[str, ...]
    mean: Float[np.ndarray, "rows *samples labels"]
    draws: Float[np.ndarray, "draws rows labels"] | None = None

    def __post_init__(self) -> None:
        if self.mean.shape[0] != len(self.index) or self.mean.shape[-1] != len(self.labels):
            raise UserError(
                f"a posterior of shape {self.mean.shape} does not fit {len(self.index)} rows and "
                f"{len(self.labels)} labels; its first axis is the index, its last the labels."
            )
        if not np.isfinite(self.mean).all():
            raise UserError("a posterior holds NaN or infinite entries; every entry must be a probability.")

    @property
    def sd(self) -> Float[np.ndarray, "rows labels"]:
        """Standard deviation of every entry, from the joint draws; zeros where the posterior is exact."""
        return np.zeros_like(self.mean) if self.draws is None else np.asarray(self.draws.std(axis=0))

    def band(self, level: float = 0.95) -> tuple[Float[np.ndarray, "rows labels"], Float[np.ndarray, "rows labels"]]:
        """Pointwise lower and upper limits that hold ``level`` of the joint draws, equally many left out on each side."""
        if not 0 < level < 1:
            raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")
        if self.draws is None:
            return self.mean, self.mean
        low, high = np.quantile(self.draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
        # The mean is unbiased, the draws are not: where they disagree at an edge the band reaches to the mean.
        return np.minimum(low, self.mean), np.maximum(high, self.mean)
