"""What a few labels at each position say about its off-path law, and how far their proportions may be off.

The proportions alone say too little: where the two labels drawn at a position agree, their variance looks like 0. So
every position's law has a mixture of Dirichlet laws as its prior, whose parts say what a position may be:

- *settled*: from here to the end of the path every continuation has the final label;
- *same*: other words, and the outcome is as open as it was; the law is that of the next row;
- *near*: a law about the next row's;
- *own*: a law about the path's average, with a total mass that is the same for any number of labels; and once more
  with a small mass, for what is as good as certain.

How often each part occurs is learned from the path (expectation-maximisation: Dempster, Laird and Rubin 1977), and so
is the next row, from the labels at the positions after it: given the parts' probabilities it is a linear recursion. All
is a handful of operations on arrays over the positions. The laws of different positions are independent given the next
rows, which are taken as known; ``smoother.py`` has the joint posterior, at fifty times the price.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.estimate.recursion import Recursion, backward

MASSES = np.asarray([50.0, 200.0, 4.0, 1.5, 0.2])  # total mass of the prior of each part
PULL = 0.15  # how much of the path's average there is in what a near law is about
OCCURRENCE = np.asarray([1.0, 0.5, 0.4, 0.2])  # of the parts after the first: parameters of a Dirichlet law
SETTLED = 0.2  # prior probability that what follows the last differing label is settled
LEAK = (1.0, 1.0)  # else, Beta prior of the share of continuations that have another label
ROUNDS = 5  # of expectation-maximisation
FLOOR = 1e-9  # keeps logarithms finite where a label cannot occur


@dataclass(frozen=True, eq=False)
class OffPathLaws:
    """Posterior of each position's off-path law gamma_s: a mixture of Dirichlet laws.

    part: probability of each part. shape: parameters of the part's Dirichlet law.
    """

    part: Float[np.ndarray, "steps parts"]
    shape: Float[np.ndarray, "steps parts labels"]

    @property
    def spread(self) -> Float[np.ndarray, "steps labels"]:
        """E gamma_s (1 - gamma_s): expected variance of one continuation."""
        mass = self.shape.sum(axis=2, keepdims=True)
        return np.einsum("sk,skl->sl", self.part, self.shape * (mass - self.shape) / (mass * (mass + 1)))

    def deviations(
        self, inverse: Float[np.ndarray, " steps"], size: int, rng: np.random.Generator
    ) -> Float[np.ndarray, "draws steps labels"]:
        """How far an unbiased estimate may be off whose variance is ``inverse`` times that of one continuation.

        A law drawn from a part of the posterior, a Dirichlet law of total mass A, has 1/A times the variance of a
        continuation. Its deviation from the part's mean, stretched by (A inverse)^1/2, has the right variance, and the
        skewness of what is known.
        """
        edge = np.cumsum(self.part, axis=1)[:, :-1]
        part = (rng.random((size, len(edge), 1)) > edge).sum(axis=2)
        shape = self.shape[np.arange(len(edge)), part]
        gamma, mass = rng.standard_gamma(shape), shape.sum(axis=2, keepdims=True)
        gamma = gamma / gamma.sum(axis=2, keepdims=True) - shape / mass
        return np.asarray(gamma * np.sqrt(mass * inverse[:, None]))


def off_path_laws(
    recursion: Recursion, counts: Int[np.ndarray, "steps labels"], final: Float[np.ndarray, " labels"]
) -> OffPathLaws:
    """The posterior of every position's law given the labels counted there and along the path."""
    drawn = counts.sum(axis=1)
    seen = (drawn > 0) & (recursion.off_path > 0)
    average = _average(recursion, counts, seen, final)
    differing = np.flatnonzero(seen & (counts[:, final == 0].sum(axis=1) > 0))
    tail = seen & (np.arange(recursion.steps) > (differing[-1] if len(differing) else -1))
    settled, leaking = _tail(np.cumsum(np.where(tail, drawn, 0)), average, final)
    p, q = np.where(seen, recursion.p, 1.0), np.where(seen, recursion.off_path, 0.0)
    occurrence = OCCURRENCE / OCCURRENCE.sum()
    rows = _rows(p, q, 4 / (drawn + 4), counts / (drawn + 4)[:, None], final)  # a start: laws near the next row's
    for _ in range(ROUNDS):
        after = rows[1:]
        same = np.where(tail[:, None], leaking, after)
        about = np.stack(
            np.broadcast_arrays(final, same, (1 - PULL) * after + PULL * average, average, average), axis=1
        )
        prior = MASSES[:, None] * about + FLOOR
        shape = prior + counts[:, None]
        fit = _log_evidence(prior[:, 1:], shape[:, 1:]) + np.log(occurrence)
        free = np.exp(fit - np.logaddexp.reduce(fit, axis=1)[:, None])
        occurrence = OCCURRENCE + free[seen & ~tail].sum(axis=0)
        occurrence = occurrence / occurrence.sum()
        part = np.concatenate([np.zeros((len(free), 1)), free], axis=1)
        part[tail] = np.stack([settled, 1 - settled, *(0 * settled,) * 3], axis=1)[tail]
        share = part / shape.sum(axis=2)
        weight = share * MASSES
        kept = np.where(tail, 0.0, weight[:, 1]) + weight[:, 2] * (1 - PULL)
        fixed = (
            share.sum(axis=1)[:, None] * counts
            + weight[:, :1] * final
            + weight[:, 1:2] * np.where(tail[:, None], leaking, 0)
        )
        fixed = fixed + (weight[:, 2] * PULL + weight[:, 3:].sum(axis=1))[:, None] * average
        rows = _rows(p, q, kept, fixed, final)
    return OffPathLaws(part, shape)


def _tail(
    labels: Int[np.ndarray, " steps"], average: Float[np.ndarray, " labels"], final: Float[np.ndarray, " labels"]
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, "steps labels"]]:
    """After the last label that differs from the final one, with so many that do not: is all settled, and if not?

    ``labels`` counts those from there up to each position. What is settled there stays settled, so labels say much of
    the positions after them, and nothing of those before. Gives the probability that all is settled, and else the law
    of a continuation: a share of them, with a Beta law as its prior, has other labels.
    """
    from scipy.special import betaln

    a, b = LEAK
    unseen = np.exp(betaln(a, b + labels) - betaln(a, b))  # probability of not seeing that share in so many labels
    share = (a / (a + b + labels))[:, None]
    others = np.where(final > 0, 0.0, average if (average[final == 0] > 0).any() else 1.0)
    return SETTLED / (SETTLED + (1 - SETTLED) * unseen), (1 - share) * final + share * others / others.sum()


def _log_evidence(
    prior: Float[np.ndarray, "steps parts labels"], shape: Float[np.ndarray, "steps parts labels"]
) -> Float[np.ndarray, "steps parts"]:
    """log probability of labels, in their order, under Dirichlet laws; ``shape`` are the parameters they lead to."""
    from scipy.special import gammaln

    whole = gammaln(prior.sum(axis=2)) - gammaln(shape.sum(axis=2))
    return np.asarray(whole + (gammaln(shape) - gammaln(prior)).sum(axis=2))


def _rows(
    p: Float[np.ndarray, " steps"],
    q: Float[np.ndarray, " steps"],
    kept: Float[np.ndarray, " steps"],
    fixed: Float[np.ndarray, "steps labels"],
    final: Float[np.ndarray, " labels"],
) -> Float[np.ndarray, "rows labels"]:
    """The curve whose off-path laws are gamma_s = kept_s pi_{s+1} + fixed_s."""
    out = np.zeros((len(p) + 1, len(final)))
    out[:-1], out[-1] = q[:, None] * fixed, final
    return backward(p + q * kept, out)


def _average(
    recursion: Recursion,
    counts: Int[np.ndarray, "steps labels"],
    seen: Bool[np.ndarray, " steps"],
    final: Float[np.ndarray, " labels"],
) -> Float[np.ndarray, " labels"]:
    """Average off-path law, positions weighted by off-path probability; the end counts as one."""
    weight = np.where(seen, recursion.off_path, 0.0)
    share = counts / np.maximum(counts.sum(axis=1), 1)[:, None]
    return np.asarray((weight @ share + final) / (weight.sum() + 1))
