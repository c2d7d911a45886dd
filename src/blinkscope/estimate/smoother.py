"""Joint draws of the whole curve from few continuations per position: a particle smoother.

Most steps decide nothing, so gamma_s is near pi_{s+1}; a few steps decide a lot. The prior of gamma_s given pi_{s+1}
says both: it is a mixture of Dirichlet laws (``KINDS``), a narrow one about the next row and a wide one that leans on
the average law along the path. The total mass of each is the same for any number of labels, and the average keeps a
label that was seen anywhere possible everywhere.

Together with pi_s = p_s pi_{s+1} + q_s gamma_s, which is exact, and with the labels counted at each position this is a
hidden Markov model whose state is the row, run from the last row, which is known, to the first. Particles go that way:
each is weighted by how well the row after predicts the counts (a Dirichlet-multinomial probability), and takes gamma_s
from its posterior, which is conjugate. Where their weights become uneven, particles that explain nothing are dropped
and good ones doubled (systematic resampling; Doucet and Johansen, "A tutorial on particle filtering and smoothing",
2009). The ancestral lines of the last particles are joint draws of the curve given *all* counts, so data are shared
between neighbouring positions in both directions. One pass takes time linear in steps x particles x labels.

The rows move together as they should, labels that cannot occur keep probability exactly 0, and the last row is certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate.recursion import Recursion


@dataclass(frozen=True)
class Kind:
    """One component of the prior of gamma_s.

    probability: how often a position is of this kind.
    mass: total mass of its Dirichlet law.
    shared: part of its mean that is the path's average law; the rest is the next row.
    """

    probability: float
    mass: float
    shared: float


KINDS = (Kind(0.7, 30.0, 0.05), Kind(0.3, 1.5, 0.5))
PARTICLES_PER_LABEL = 1000
FEWEST, MOST = 1000, 4000


def joint_draws(
    recursion: Recursion,
    counts: Int[np.ndarray, "steps labels"],
    final: Float[np.ndarray, " labels"],
    rng: np.random.Generator,
    particles: int | None = None,
) -> Float[np.ndarray, "draws rows labels"]:
    """Curves drawn from their joint posterior given the labels counted at each position.

    Positions that cannot fork copy the row after them; positions without counts take gamma_s from the prior.
    """
    size = particles or int(np.clip(PARTICLES_PER_LABEL * (len(final) - 1), FEWEST, MOST))
    average = path_average(recursion, counts, final)
    rows = np.empty((recursion.steps + 1, size, len(final)))
    rows[-1] = final
    parents = np.tile(np.arange(size), (recursion.steps, 1))
    log_weight = np.zeros(size)
    for s in range(recursion.steps - 1, -1, -1):
        if recursion.off_path[s] == 0:
            rows[s] = rows[s + 1]
            continue
        fit = _fit(rows[s + 1], average, counts[s])
        log_weight = log_weight + np.logaddexp.reduce(fit, axis=0)
        weight = _normalised(log_weight)
        if 1 / (weight**2).sum() < size / 2:
            parents[s] = _systematic(weight, rng)
            log_weight = np.zeros(size)
        after = rows[s + 1][parents[s]]
        gamma = _gamma(after, average, counts[s], fit[:, parents[s]], rng)
        rows[s] = recursion.p[s] * after + recursion.off_path[s] * gamma
    line = _systematic(_normalised(log_weight), rng)
    out = np.empty((size, recursion.steps + 1, len(final)))
    for s in range(recursion.steps + 1):
        out[:, s] = rows[s][line]
        if s < recursion.steps:
            line = parents[s][line]
    return out


def spread(recursion: Recursion, draws: Float[np.ndarray, "draws rows labels"]) -> Float[np.ndarray, "steps labels"]:
    """Expected variance of one continuation at each position, E[gamma_s (1 - gamma_s)]; 0 where none can fork."""
    out = np.zeros((recursion.steps, draws.shape[2]))
    for s in np.flatnonzero(recursion.off_path > 0):
        gamma = (draws[:, s] - recursion.p[s] * draws[:, s + 1]) / recursion.off_path[s]
        gamma = np.clip(gamma, 0.0, 1.0)
        out[s] = (gamma * (1 - gamma)).mean(axis=0)
    return out


def path_average(
    recursion: Recursion, counts: Int[np.ndarray, "steps labels"], final: Float[np.ndarray, " labels"]
) -> Float[np.ndarray, " labels"]:
    """Average off-path law, positions with counts weighted by off-path probability; the end counts as one."""
    drawn = counts.sum(axis=1)
    share = counts / np.maximum(drawn, 1)[:, None]
    weight = recursion.off_path * (drawn > 0)
    return (weight @ share + final) / (weight.sum() + 1)


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


def _gamma(
    after: Float[np.ndarray, "particles labels"],
    average: Float[np.ndarray, " labels"],
    counts: Int[np.ndarray, " labels"],
    fit: Float[np.ndarray, "kinds particles"],
    rng: np.random.Generator,
) -> Float[np.ndarray, "particles labels"]:
    """gamma_s of each particle from its posterior: first the kind, then the Dirichlet law updated with the counts."""
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
