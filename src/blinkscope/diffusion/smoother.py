"""Joint draws of a curve over noise levels from few draws at each: a particle smoother.

Neighbouring levels say nearly the same, and now and then do not. So a row given the one after it (one level cleaner)
has a mixture of Dirichlet laws as its prior (``KINDS``): a narrow one about that row, and a wide one that leans on the
average over the levels. With the labels counted at each level this is a hidden Markov model, run from the finished
sample, which is known, to pure noise. Particles are weighted by how well the row after predicts the counts (a
Dirichlet-multinomial probability) and take their row from its posterior, which is conjugate; uneven ones are resampled
(systematic resampling; Doucet and Johansen, "A tutorial on particle filtering and smoothing", 2009). The ancestral
lines of the last particles are joint draws of the curve given all counts.

The smoother of texts (``estimate/smoother.py``) holds that most positions change nothing at all. Noise levels are the
other case: every level moves the law a little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Kind:
    """One component of the prior of gamma_s.

    probability: how often a level is of this kind.
    mass: total mass of its Dirichlet law.
    shared: part of its mean that is the average law of the levels; the rest is the row after.
    """

    probability: float
    mass: float
    shared: float


KINDS = (Kind(0.7, 30.0, 0.05), Kind(0.3, 1.5, 0.5))
PARTICLES_PER_LABEL = 1000
FEWEST, MOST = 1000, 4000


def joint_draws(
    counts: Int[np.ndarray, "levels labels"],
    final: Float[np.ndarray, " labels"],
    rng: np.random.Generator,
    particles: int | None = None,
) -> Float[np.ndarray, "draws rows labels"]:
    """Curves drawn from their joint posterior given the labels counted at each level; the last row is ``final``."""
    size = particles or int(np.clip(PARTICLES_PER_LABEL * (len(final) - 1), FEWEST, MOST))
    levels = len(counts)
    drawn = counts.sum(axis=1, keepdims=True)
    average = ((counts / np.maximum(drawn, 1)).sum(axis=0) + final) / ((drawn > 0).sum() + 1)
    rows = np.empty((levels + 1, size, len(final)))
    rows[-1] = final
    parents = np.tile(np.arange(size), (levels, 1))
    log_weight = np.zeros(size)
    for s in range(levels - 1, -1, -1):
        fit = _fit(rows[s + 1], average, counts[s])
        log_weight = log_weight + np.logaddexp.reduce(fit, axis=0)
        weight = _normalised(log_weight)
        if 1 / (weight**2).sum() < size / 2:
            parents[s] = _systematic(weight, rng)
            log_weight = np.zeros(size)
        rows[s] = _row(rows[s + 1][parents[s]], average, counts[s], fit[:, parents[s]], rng)
    line = _systematic(_normalised(log_weight), rng)
    out = np.empty((size, levels + 1, len(final)))
    for s in range(levels + 1):
        out[:, s] = rows[s][line]
        if s < levels:
            line = parents[s][line]
    return out


def _fit(
    after: Float[np.ndarray, "particles labels"],
    average: Float[np.ndarray, " labels"],
    counts: Int[np.ndarray, " labels"],
) -> Float[np.ndarray, "kinds particles"]:
    """log( probability of the kind x probability of these counts under it ), for each particle."""
    from scipy.special import gammaln

    seen = np.flatnonzero(counts)
    total = counts.sum()
    out = np.empty((len(KINDS), len(after)))
    for row, kind in zip(out, KINDS, strict=True):
        mass = kind.mass * ((1 - kind.shared) * after[:, seen] + kind.shared * average[seen])
        rising = (gammaln(mass + counts[seen]) - gammaln(mass)).sum(axis=1)
        row[:] = np.log(kind.probability) + rising - (gammaln(kind.mass + total) - gammaln(kind.mass))
    return out


def _row(
    after: Float[np.ndarray, "particles labels"],
    average: Float[np.ndarray, " labels"],
    counts: Int[np.ndarray, " labels"],
    fit: Float[np.ndarray, "kinds particles"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "particles labels"]:
    """The row of each particle from its posterior: first the kind, then the Dirichlet law updated with the counts."""
    probability = np.exp(fit - np.logaddexp.reduce(fit, axis=0))
    chosen = (rng.random(fit.shape[1]) > np.cumsum(probability, axis=0)[:-1]).sum(axis=0)
    mass = np.asarray([kind.mass for kind in KINDS])[chosen, None]
    shared = np.asarray([kind.shared for kind in KINDS])[chosen, None]
    gamma = rng.standard_gamma(mass * ((1 - shared) * after + shared * average) + counts)
    total = gamma.sum(axis=1, keepdims=True)
    # Concentrations far below one can underflow to nothing in every label; the prior's mean stands in then.
    return np.where(total > 0, gamma / np.where(total > 0, total, 1.0), after)


def _normalised(log_weight: Float[np.ndarray, " particles"]) -> Float[np.ndarray, " particles"]:
    weight = np.exp(log_weight - log_weight.max())
    return weight / weight.sum()


def _systematic(weight: Float[np.ndarray, " particles"], rng: np.random.Generator) -> Int[np.ndarray, " particles"]:
    size = len(weight)
    points = (np.arange(size) + rng.random()) / size
    return np.minimum(np.searchsorted(np.cumsum(weight), points), size - 1)
