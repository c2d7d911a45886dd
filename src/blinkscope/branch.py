"""The branch of one sample in the hierarchy of its labels: what it could still become, place by place.

An eps-mixture tree (``tree.py``) belongs to everything that a model draws: from NoiseAmount(u) a sample comes back as
one of Subset(u), up to a small probability (Corollary 1). For one sample the same sets can be read off its own
posterior. Subset(s) is the smallest set of labels, the sample's own among them, that holds all but eps of the posterior
at row s, and holds the set of every later row, so that the sets are nested as those of a tree are. The probability that
a fresh completion of row s leaves it is at most eps: the certificate of Lemma 3 with this one sample in place of
S_init.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blinkscope.critical import check_eps
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior


@dataclass(frozen=True)
class Stage:
    """A node of the branch.

    labels: Subset(u), the labels that leave last first; the sample's own label is the first.
    row: the earliest row from which on no other label is open.
    inside: probability of the set at that row. low, high: its interval from joint draws.
    """

    labels: tuple[str, ...]
    row: int
    inside: float
    low: float
    high: float


def branch(posterior: Posterior, final_label: str, eps: float, level: float = 0.95) -> tuple[Stage, ...]:
    """The nested label sets of one sample, the largest first; the last one is its own label alone.

    Parameters
    ----------
    posterior : of one path or of the mean over fresh noise, shape (rows, labels); its last row is the finished sample.
    eps : what a set may leave out, in (0, 1).
    level : of the intervals.

    Raises
    ------
    UserError : eps outside (0, 1), a label that is not among the labels, or posteriors of several samples.
    """
    check_eps(eps)
    if final_label not in posterior.labels or posterior.mean.ndim != 2:
        raise UserError(f"{final_label!r} must be among the labels of the posterior of one sample.")
    order = [posterior.labels.index(final_label)]
    reached = {1: len(posterior.mean) - 1}
    for row in range(len(posterior.mean) - 1, -1, -1):
        law = posterior.mean[row]
        open_ = np.argsort(-law, kind="stable")
        while law[order].sum() < 1 - eps - 1e-12 and len(order) < len(law):
            order.append(next(int(k) for k in open_ if k not in order))
        reached[len(order)] = row
    stages = []
    for size, row in sorted(reached.items(), reverse=True):
        inside = float(posterior.mean[row][order[:size]].sum())
        low = high = inside
        if posterior.draws is not None:
            drawn = posterior.draws[:, row, order[:size]].sum(axis=1)
            low, high = (float(q) for q in np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]))
        labels = tuple(posterior.labels[k] for k in order[:size])
        stages.append(Stage(labels, row, inside, min(low, inside), max(high, inside)))
    return tuple(stages)
