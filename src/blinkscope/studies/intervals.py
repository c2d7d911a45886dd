"""Intervals of a study's numbers: exact ones for shares of draws, bootstrap ones where draws come in clusters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from blinkscope.posterior import Posterior

BOOTSTRAPS = 2000
JOINT_DRAWS = 1000
FEWEST_CLUSTERS = 5
"""With fewer clusters a bootstrap says next to nothing."""


def share_interval(seen: int, total: int, level: float) -> tuple[float, float]:
    """Clopper-Pearson limits of a share; they cover with probability of at least ``level``."""
    from scipy.stats import binomtest

    limits = binomtest(seen, total).proportion_ci(level, "exact")
    return float(limits.low), float(limits.high)


Limits = tuple[float, float]


def clustered_interval(
    clusters: Sequence[object],
    statistic: Callable[[Int[np.ndarray, " chosen"]], float | None],
    level: float,
    seed: int = 0,
) -> Limits | None:
    """Limits of one statistic; see ``clustered_intervals``."""
    limits = clustered_intervals(clusters, lambda chosen: {"": statistic(chosen)}, ("",), level, seed)[""]
    return None if limits == NO_LIMITS else limits  # type: ignore[return-value]


NO_LIMITS = (None, None)


def clustered_intervals(
    clusters: Sequence[object],
    statistics: Callable[[Int[np.ndarray, " chosen"]], Mapping[str, float | None]],
    names: Sequence[str],
    level: float,
    seed: int = 0,
) -> dict[str, Limits | tuple[None, None]]:
    """Percentile bootstrap of statistics whose observations come in clusters: whole clusters are drawn again.

    Parameters
    ----------
    clusters : of each observation, for instance its question.
    statistics : by name, from the numbers of the observations chosen, some of them repeatedly; None where one is not
        defined.
    names : of the statistics that get limits.

    Returns
    -------
    limits : by name. None and None with fewer than ``FEWEST_CLUSTERS`` clusters, or where the statistic is undefined
        for more than a tenth of the choices, or the same for all of them (a bootstrap cannot see what its sample does
        not hold).
    """
    members: dict[object, list[int]] = {}
    for i, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(i)
    groups = [np.array(group) for group in members.values()]
    if len(groups) < FEWEST_CLUSTERS:
        return dict.fromkeys(names, NO_LIMITS)
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    found: list[Mapping[str, float | None]] = []
    for _ in range(BOOTSTRAPS):
        chosen = np.concatenate([groups[k] for k in rng.integers(len(groups), size=len(groups))])
        found.append(statistics(chosen))
    return {name: _limits([values.get(name) for values in found], level) for name in names}


def _limits(values: Sequence[float | None], level: float) -> Limits | tuple[None, None]:
    known = [value for value in values if value is not None]
    if len(known) < 0.9 * BOOTSTRAPS or min(known) == max(known):
        return NO_LIMITS
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def posterior_of_counts(
    labels: tuple[str, ...], counts: Int[np.ndarray, "rows labels"], index: Sequence[float], seed: int = 0
) -> Posterior:
    """Shares of independent draws at every row, with joint draws of the unknown laws (Jeffreys' Dirichlet prior)."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    shape: Float[np.ndarray, "rows labels"] = counts + 0.5
    gammas = rng.standard_gamma(shape, size=(JOINT_DRAWS, *shape.shape))
    return Posterior(
        index=np.asarray(index, dtype=float),
        labels=labels,
        mean=counts / counts.sum(axis=1, keepdims=True),
        draws=gammas / gammas.sum(axis=-1, keepdims=True),
    )
