"""In-context learning ([LKC25], Examples 6 and 11, Corollary 3).

A context x1 y1 o x2 y2 o ... shows questions x, answers y and delimiters o. One of K candidates theta writes every
answer, independently, from its law p^theta; questions and delimiters come from another kernel. theta* = "0" is the
candidate of the window shown by default. t examples are removed; the counts c_y of the n = N - t answers left suffice:

    pi_t(theta) = w_theta prod_y p^theta(y)^{c_y} / sum_{theta'} w_{theta'} prod_y p^{theta'}(y)^{c_y}

By default answers are one of K symbols and p^theta(y) = a if y = theta, else b, so that every two candidates are at the
same squared Hellinger distance H^2 = 2 (sqrt a - sqrt b)^2 = ``separation``.

**Against one alternative** BC is a product over the examples, (1 - H^2/2)^n. (!) Against several it is not: a mixture
of products is no product of mixtures, and the paper's tensorisation with the mixture's separation is wrong beyond two
candidates. With the alternatives {p^{theta*} itself, q}, BC stays above sqrt(1/2) while that formula goes to 0.
What holds, with delta_theta = H^2(p^{theta*}, p^theta), delta = min delta_theta and sums over theta != theta*, is

    BC(p_t^{theta*}, p_t^{Theta - theta*}) <= sum_theta sqrt(w_theta / (1 - w_{theta*})) (1 - delta_theta/2)^n
    E_{theta*}[pi_t(Theta - theta*)] <= eps   where   n >= ln(c / eps) / -ln(1 - delta/2),
                                              c = (1/2) sum_theta sqrt(w_theta / w_{theta*})

whatever the length of the context. (!) The printed condition n >= ln((1 - delta/2)/eps) should read
n >= ln eps / ln(1 - delta/2).

**Interweaving** (Corollary 3): tokens from another kernel leave pi_t as it was, and Theorem 2 holds as it stands, if
the *model's own* kernel does not depend on theta at any point that the other kernel can produce. It is not enough that
the other kernel is the same for every theta: the model reads inserted tokens as its own. ``read`` shows both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import TOLERANCE, Posterior, check_weights
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import PaperWindow, check_memory, drawn_law

ENTRIES = 2**20  # all answer counts are listed where counts times candidates stay below this
DRAWS = 4096  # contexts drawn otherwise


@dataclass(frozen=True, eq=False)
class InContext:
    """Which of K candidates wrote the answers; labels "0" to str(K - 1), of which "0" is theta*.

    examples: N, question-answer pairs in the whole context.
    separation: H^2 between any two candidates, in (0, 2].
    candidates: K, at least 2.
    answers: given laws p^theta instead, shape (K, symbols); ``candidates`` and ``separation``, the least H^2 from "0"
        to another candidate, are then read from it.
    prior: weights of the candidates, shape (K,); equal by default.
    """

    examples: int = 200
    separation: float = 0.1
    candidates: int = 8
    answers: Float[np.ndarray, "candidates symbols"] | None = None
    prior: Float[np.ndarray, " candidates"] | None = None

    name: ClassVar = "in-context"
    after: ClassVar = ("0",)

    def __post_init__(self) -> None:
        if self.answers is not None:
            _check_laws(self.answers)
            object.__setattr__(self, "candidates", len(self.answers))
        if self.examples < 1 or self.candidates < 2:
            raise UserError(
                f"there are {self.examples} examples and {self.candidates} candidates; it takes at least 1 example and "
                "2 candidates."
            )
        if self.answers is not None:
            object.__setattr__(self, "separation", float(2 * (1 - self.overlaps.max())))
        elif not 0 < self.separation <= 2:
            raise UserError(f"separation is {self.separation}; a squared Hellinger distance lies in (0, 2].")
        if self.prior is not None:
            check_weights(self.prior, self.labels)
        check_memory(16 * DRAWS * (self.examples + self.candidates), "the contexts drawn")

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(self.candidates))

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    @cached_property
    def weights(self) -> Float[np.ndarray, " labels"]:
        return np.full(self.candidates, 1 / self.candidates) if self.prior is None else self.prior

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "examples", 0, self.examples, range(self.examples + 1))

    @cached_property
    def laws(self) -> Float[np.ndarray, "candidates symbols"]:
        """The law of an answer under each candidate."""
        if self.answers is not None:
            return self.answers
        k, gap = self.candidates, math.sqrt(self.separation / 2)  # gap = sqrt a - sqrt b, and a + (k - 1) b = 1
        b = ((math.sqrt(gap**2 + k * (1 - gap**2)) - gap) / k) ** 2
        return b + (1 - k * b) * np.eye(k)

    @cached_property
    def overlaps(self) -> Float[np.ndarray, " alternatives"]:
        """BC between the answer laws of "0" and of every other candidate: 1 - delta_theta / 2."""
        return np.sqrt(self.laws[1:] * self.laws[0]).sum(axis=1)

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, "n symbols"]:
        """n draws of the answers' counts. The same random numbers give the same context at every t, cut shorter."""
        shown = self.examples - int(self.index.check(t))
        law = self.laws[self.labels.index(label)]
        answers = np.searchsorted(np.cumsum(law)[:-1], rng.random((n, self.examples))[:, :shown], side="right")
        cells = answers + len(law) * np.arange(n)[:, None]
        return np.bincount(cells.ravel(), minlength=n * len(law)).reshape(n, len(law))

    def posterior(self, y: Int[np.ndarray, "n symbols"], t: float) -> Float[np.ndarray, "n labels"]:
        self.index.check(t)
        return _normalised(self._log_joint(y))

    def next_token(self, y: Int[np.ndarray, "n symbols"], t: float) -> Float[np.ndarray, "n symbols"]:
        """The law of the next example's answer: the candidates' laws, mixed by what the answers so far say."""
        self.index.check(t - 1)
        return self.posterior(y, t) @ self.laws

    def extend(
        self, y: Int[np.ndarray, "n symbols"], t: float, token: Int[np.ndarray, " n"]
    ) -> Int[np.ndarray, "n symbols"]:
        self.index.check(t - 1)
        return y + np.eye(y.shape[1], dtype=y.dtype)[token]

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Every possible count of the answers with its probability where these are few, else draws."""
        from scipy.special import gammaln, logsumexp

        shown, symbols = self.examples - int(self.index.check(t)), self.laws.shape[1]
        if math.comb(shown + symbols - 1, symbols - 1) * self.candidates > ENTRIES:
            return drawn_law(self, t, between, DRAWS, seed=0)
        counts = _all_counts(shown, symbols)
        joint = self._log_joint(counts)
        total = logsumexp(joint, axis=1)
        possible = total > -math.inf
        mass = np.exp(gammaln(shown + 1) - gammaln(counts + 1).sum(axis=1) + total)[None, possible]
        pi = _normalised(joint[possible])[None]
        return Posterior(np.array([t]), self.labels, pi, weights=self.weights, mass=mass, complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        return mixture_total_variation(self.law(t, (a, b)), a, b)[0]

    def paper(self, eps: float) -> PaperWindow:
        """The condition on the number of examples as printed; (!) see the module's docstring."""
        return PaperWindow(
            t_after=self.examples - math.log((1 - self.separation / 2) / eps) if self.separation < 2 else None,
            t_before=None,
            certifies=(
                "nothing: the printed n >= ln((1 - delta/2)/eps) should read ln(eps) / ln(1 - delta/2), which is for "
                "one alternative; sufficient_examples gives the number that makes E[pi(Theta - theta*)] <= eps."
            ),
        )

    def overlap_bound(self, n: int) -> float:
        """The bound on BC(p^{theta*}, p^{Theta - theta*}) after n examples; it can exceed 1."""
        share = np.sqrt(self.weights[1:] / (1 - self.weights[0]))
        return float(share @ self.overlaps**n)

    def sufficient_examples(self, eps: float) -> int | None:
        """Examples from which E_{theta*}[pi_t(Theta - theta*)] <= eps; None where a candidate has the law of theta*."""
        wanted = math.log(np.sqrt(self.weights[1:] / self.weights[0]).sum() / 2 / eps)
        overlap = float(self.overlaps.max())
        if wanted <= 0:
            return 0
        if overlap > 1 - 1e-12:
            return None
        return 1 if overlap == 0 else math.ceil(wanted / -math.log(overlap))

    def read(
        self,
        questions: Int[np.ndarray, " n"],
        answers: Int[np.ndarray, " n"],
        question_laws: Float[np.ndarray, "candidates questions"] | None = None,
    ) -> Float[np.ndarray, "rows labels"]:
        """The model's posterior after each token of x1 y1 o x2 y2 o ..., from before the first to after the last.

        Parameters
        ----------
        questions, answers : symbols, one of each an example; who wrote the questions does not matter.
        question_laws : the *model's own* law of a question under each candidate. None where that does not depend on the
            candidate, as Corollary 3 asks; the posterior then moves at answers only.
        """
        steps = np.zeros((len(answers), 3, self.candidates))
        with np.errstate(divide="ignore"):
            if question_laws is not None:
                steps[:, 0] = np.log(question_laws[:, questions]).T
            steps[:, 1] = np.log(self.laws[:, answers]).T
        start = np.zeros((1, self.candidates))
        steps = np.concatenate([start, steps.reshape(-1, self.candidates)])
        return _normalised(np.log(self.weights) + steps.cumsum(axis=0))

    def _log_joint(self, counts: Int[np.ndarray, "n symbols"]) -> Float[np.ndarray, "n labels"]:
        """log of w_theta prod_y p^theta(y)^{c_y}, with 0^0 = 1."""
        possible = counts @ (self.laws == 0).T == 0
        scores = counts @ np.log(np.where(self.laws > 0, self.laws, 1.0)).T + np.log(self.weights)
        return np.where(possible, scores, -math.inf)


def _normalised(log_joint: Float[np.ndarray, "n labels"]) -> Float[np.ndarray, "n labels"]:
    if (log_joint.max(axis=1) == -math.inf).any():
        raise UserError("these answers are impossible under every candidate, so there is no posterior given them.")
    from scipy.special import softmax

    return np.asarray(softmax(log_joint, axis=1))


def _all_counts(total: int, symbols: int) -> Int[np.ndarray, "n symbols"]:
    """Every way to split ``total`` answers among the symbols (stars and bars)."""
    bars = np.array(list(combinations(range(total + symbols - 1), symbols - 1)), dtype=int)
    bars = bars.reshape(-1, symbols - 1)
    return np.diff(bars, prepend=-1, append=total + symbols - 1, axis=1) - 1


def _check_laws(answers: Float[np.ndarray, "candidates symbols"]) -> None:
    if answers.ndim != 2 or not (np.isfinite(answers).all() and (answers >= 0).all()):
        raise UserError(f"answers must be laws of shape (candidates, symbols); got shape {answers.shape}.")
    if np.abs(answers.sum(axis=1) - 1).max() > TOLERANCE:
        raise UserError(f"the laws in answers sum to {answers.sum(axis=1).tolist()}; each must sum to 1.")
