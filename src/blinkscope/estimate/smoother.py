"""Joint draws of the whole curve from few continuations per position: data are shared along the path.

Most steps decide nothing: another word was said, and the outcome is as open as before. Some move it a little, few
decide it. So the law gamma_s of a continuation that leaves the path at s is a mixture given pi_{s+1}: the same law, a
law near it, more or less, or any law (``share.py``). How often each occurs differs from text to text; ``SETTINGS`` are
tried side by side and weighted by how well they explain the counts.

With several labels one share follows the other: first the final label's among all, then the next label's among the
rest, and so on, each with settings of its own. A Dirichlet law is such a chain of independent Beta laws, and the rest
obeys the same recursion with other weights: if R_s is the probability of the rest at row s and r_s its part among the
off-path continuations at s,

    pi_s / R_s = (p_s R_{s+1} / R_s) pi_{s+1} / R_{s+1} + (q_s r_s / R_s) gamma_s / r_s.

These weights differ from draw to draw, while likelihoods are computed once, for their averages. The difference is made
good by weighting the draws: a particle filter guided by nearly the right likelihoods (Whiteley and Lee, "Twisted
particle filters", 2014). With two labels nothing has to be made good and the draws are independent.

Once an outcome is settled nothing undoes it, though no number of unanimous labels proves that it is. So, a priori, from
some row after the last label that differs from the final one nothing is decided, and the row is certain there; each of
these rows, the last included, is as likely.

The rows move together as they should, and the last row is certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.share import ANYTHING, COPY, KINDS, ONE, Share, at

SETTINGS = tuple(
    (anything, small)
    for anything in (0.05, 0.3)
    for small in ((0.0, 0.0, 0.0), (0.3, 0.3, 0.3), (0.45, 0.45, 0.0), (0.0, 0.9, 0.0), (0.0, 0.0, 0.9))
)
"""How often a step is of a kind: probability of a law that can be anything, and parts of the rest that are small moves
of each size; what is left decides nothing."""
SMOOTHING = 2.0  # positions at which all labels are taken to have been equally frequent
DRAWS = 300
UNSEEN = 0.5  # expected number of labels below which a probability is taken for 0
EDGE = 1e-6  # nearest that a share's average comes to 0 and 1


def joint_draws(
    recursion: Recursion,
    counts: Int[np.ndarray, "steps labels"],
    final: Float[np.ndarray, " labels"],
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Float[np.ndarray, "draws rows labels"]:
    """Curves drawn from their joint posterior given the labels counted at each position.

    Positions that cannot fork copy the row after them; positions without counts take gamma_s from the prior.
    """
    open_ = np.flatnonzero(recursion.off_path > 0)
    average = path_average(recursion, counts, final)
    order = sorted(range(len(final)), key=lambda label: (-final[label], -average[label]))
    path = _Path(recursion.p[open_], recursion.off_path[open_], counts[open_][:, order].astype(float), average[order])
    law = _laws(path, draws, rng)
    # What no number of labels such as this could tell from 0 is 0, so that bands touch it.
    law = np.where(law < UNSEEN / (counts.sum() + 1), 0.0, law)
    # A row before a position that cannot fork is the row after it.
    row = np.searchsorted(open_, np.arange(recursion.steps + 1))
    out = np.zeros((draws, recursion.steps + 1, len(final)))
    out[:, :, order] = (law / law.sum(axis=2, keepdims=True)).transpose(1, 0, 2)[:, row]
    return out


def path_average(
    recursion: Recursion, counts: Int[np.ndarray, "steps labels"], final: Float[np.ndarray, " labels"]
) -> Float[np.ndarray, " labels"]:
    """Average off-path law, positions with counts weighted by off-path probability.

    The end counts as one position, and all labels alike as ``SMOOTHING`` of them: a label that few draws have shown may
    be frequent elsewhere on the path.
    """
    drawn = counts.sum(axis=1)
    share = counts / np.maximum(drawn, 1)[:, None]
    weight = recursion.off_path * (drawn > 0)
    return (weight @ share + final + SMOOTHING / len(final)) / (weight.sum() + 1 + SMOOTHING)


@dataclass(frozen=True, eq=False)
class _Path:
    """The positions that can fork, with the labels that can occur, the final one first."""

    p: Float[np.ndarray, " steps"]
    off_path: Float[np.ndarray, " steps"]
    counts: Float[np.ndarray, "steps labels"]
    average: Float[np.ndarray, " labels"]

    def share(self, label: int) -> Share:
        """The share of one label among itself and those after it."""
        counts = np.stack([self.counts[:, label], self.counts[:, label + 1 :].sum(axis=1)], axis=1)
        average = self.average[label] / self.average[label:].sum()
        return Share(counts, float(np.clip(average, EDGE, 1 - EDGE)))


@dataclass(frozen=True, eq=False)
class _Draws:
    """Drawn paths, as far as they have been divided into labels.

    rows: laws of the labels that have their share. rest, rest_off_path: what is left of the rows and the off-path laws.
    """

    rows: tuple[Float[np.ndarray, "rows draws"], ...]
    rest: Float[np.ndarray, "rows draws"]
    rest_off_path: Float[np.ndarray, "steps draws"]

    def chosen(self, log_weight: Float[np.ndarray, " draws"], rng: np.random.Generator) -> _Draws:
        """As many draws, each as often as its weight says."""
        parents = systematic(np.exp(log_weight - log_weight.max()), len(log_weight), rng)
        return _Draws(
            tuple(row[:, parents] for row in self.rows), self.rest[:, parents], self.rest_off_path[:, parents]
        )


def _laws(path: _Path, draws: int, rng: np.random.Generator) -> Float[np.ndarray, "rows draws labels"]:
    labels = len(path.average)
    found = _first(path, draws, rng)
    for label in range(1, labels - 1):
        found = _next(path, label, found, rng)
    return np.stack([*found.rows, found.rest], axis=2)


def _first(path: _Path, draws: int, rng: np.random.Generator) -> _Draws:
    """The final label's share, with a setting for each draw."""
    share = path.share(0)
    steps, kinds = len(path.p), setting_weights()
    likelihoods = share.likelihoods(path.p, path.off_path, np.broadcast_to(kinds, (steps, *kinds.shape)))
    differing = np.flatnonzero(share.counts[:, 1])
    unanimous = int(differing[-1]) + 1 if len(differing) else 0
    # From which row on the outcome is settled, if at all: each row after the last differing label is as likely.
    fit = likelihoods[unanimous:, :, ONE]
    chosen = _settings(fit.ravel(), draws, rng)
    since, setting = unanimous + chosen // len(kinds), chosen % len(kinds)
    settled = np.arange(steps)[:, None] >= since
    weights = np.where(settled[:, :, None], np.eye(KINDS)[COPY], kinds[setting])
    p, q = (np.broadcast_to(each[:, None], (steps, draws)) for each in (path.p, path.off_path))
    drawn = share.draw(p, q, weights, likelihoods[:, setting], np.ones(draws), rng)
    return _Draws((drawn.rows,), 1 - drawn.rows, 1 - drawn.gamma)


def _next(path: _Path, label: int, found: _Draws, rng: np.random.Generator) -> _Draws:
    """The next label's share in what is left."""
    share = path.share(label)
    stay, leave = path.p[:, None] * found.rest[1:], path.off_path[:, None] * found.rest_off_path
    # Where nothing is left after a step there is nothing that its law could resemble.
    fresh = ((found.rest[1:] <= 0) & (leave > 0))[:, :, None]
    anything, kinds = np.eye(KINDS)[ANYTHING], setting_weights()
    typical = np.where(fresh.mean(axis=1, keepdims=True) > 0.5, anything, kinds)
    likelihoods = share.likelihoods(*_parts(stay.mean(axis=1), leave.mean(axis=1)), typical)
    last = np.full(found.rest.shape[1], share.average)
    setting = _settings(at(likelihoods[-1], np.full(len(kinds), share.average)), len(last), rng)
    drawn = share.draw(
        *_parts(stay, leave), np.where(fresh, anything, kinds[setting]), likelihoods[:, setting], last, rng
    )
    left = _Draws(
        (*found.rows, found.rest * drawn.rows), found.rest * (1 - drawn.rows), found.rest_off_path * (1 - drawn.gamma)
    )
    return left.chosen(drawn.log_weight, rng)


def _parts(
    stay: Float[np.ndarray, " steps *draws"], leave: Float[np.ndarray, " steps *draws"]
) -> tuple[Float[np.ndarray, " steps *draws"], Float[np.ndarray, " steps *draws"]]:
    """Both as parts of their sum; where there is nothing, nothing is left."""
    total = stay + leave
    p = np.divide(stay, total, out=np.ones_like(total), where=total > 0)
    return p, 1 - p


def _settings(fit: Float[np.ndarray, " options"], draws: int, rng: np.random.Generator) -> Int[np.ndarray, " draws"]:
    """An option for every draw, in random order, given the log of how well each explains the counts."""
    return rng.permutation(systematic(np.exp(fit - fit.max()), draws, rng))


def setting_weights() -> Float[np.ndarray, "settings kinds"]:
    """The probability of each kind of step in every setting."""
    return np.asarray(
        [
            [(1 - anything) * (1 - sum(small)), *((1 - anything) * part for part in small), anything]
            for anything, small in SETTINGS
        ]
    )


def systematic(weight: Float[np.ndarray, " options"], size: int, rng: np.random.Generator) -> Int[np.ndarray, " size"]:
    """``size`` options, each as often as its weight says, up to one."""
    points = (np.arange(size) + rng.random()) / size
    edges = np.cumsum(weight / weight.sum())
    return np.minimum(np.searchsorted(edges, points), len(weight) - 1)
