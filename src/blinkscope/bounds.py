"""Theorem 2 of [LKC25], its steps as numbers, and two sharper bounds.

Start from S_init, noise to Y_t, and draw X' from the full posterior: the law p^{S_init, t}. With
W = w_{Theta - S_target} / w_{S_target}, p = p_t^{S_target} and q = p_t^{Theta - S_target}, its distance
TV(p^{S_init, t}, p^{S_target}) is at most (I) + (II):

    (I)   = TV(p_t^{S_init}, p_t^{S_target})
    (II) <= E_p[ pi_t(Theta - S_target) ]              Lemma 3
         <= max(1, W) E_p[ q / (p + q) ]               Lemma 4
         <= (1/2) max(1, W) BC(p, q)                   Lemma 7, BC = 1 - H^2/2
         <= (1/2) max(1, W) sqrt(1 - TV(p, q)^2)       Lemma 1

For t in [T_end(eps), T_start(eps)], (I) <= eps and TV(p, q) >= 1 - eps^2, hence

    Theorem 2 as published   eps (1 + max(1, W) / sqrt 2)
    with a sharper constant  eps (1 + sqrt(W / 2))

The second is not in the paper. E_p[pi_t(Theta - S_target)] = E_p[W q / (p + W q)], and p + W q >= 2 sqrt(W p q) by the
inequality of the means, so it is at most (1/2) sqrt(W) BC(p, q). Stopping at Lemma 3 gives the **certificate**
(I) + E_p[pi_t(Theta - S_target)]: it needs no eps, holds at every t, and is never above either bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from blinkscope.critical import Labels, Mixture, check_eps, check_nested, complement
from blinkscope.divergence import (
    Bracket,
    Estimate,
    average,
    bhattacharyya,
    density,
    different_pairs,
    estimated_total_variation,
    mixture_total_variation,
)
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, label_mask


@dataclass(frozen=True)
class Theorem2:
    """The two bounds of Theorem 2's form, valid for t in [T_end(eps), T_start(eps)].

    weight_ratio: W; published: eps (1 + max(1, W)/sqrt 2); sharper: eps (1 + sqrt(W/2)), never above ``published``.
    """

    eps: float
    weight_ratio: float
    published: float
    sharper: float


def theorem2(mixture: Mixture, target: Labels, eps: float) -> Theorem2:
    """Theorem 2's bound on TV(p^{S_init, t}, p^{S_target}), as published and with the sharper constant.

    With S_target = Theta the term (II) vanishes; ``published`` keeps its printed form, ``sharper`` is then eps.
    """
    check_eps(eps)
    mask = label_mask(mixture.labels, target)
    ratio = float(mixture.weights[~mask].sum() / mixture.weights[mask].sum())
    published = eps * (1 + max(1.0, ratio) / math.sqrt(2))
    return Theorem2(eps, ratio, published, eps * (1 + math.sqrt(ratio / 2)))


@dataclass(frozen=True)
class ProofSteps:
    """Each step of Theorem 2's proof at one time, as a number.

    mixing: (I). leaving: E_p[pi_t(Theta - S_target)], Lemma 3's bound on (II). lemma4, lemma7, lemma1: the published
        bounds on ``leaving``, each above the one before. sharper: (1/2) sqrt(W) BC(p, q), which also bounds it.
    separation: TV(p, q); overlap: BC(p, q).
    certificate: mixing + leaving, the bound on TV(p^{S_init, t}, p^{S_target}) that needs no eps.
    """

    t: float
    mixing: Estimate
    leaving: Estimate
    separation: float
    overlap: float
    lemma4: float
    lemma7: float
    lemma1: float
    sharper: float

    @property
    def certificate(self) -> Estimate:
        # The two errors come from the same draws, so they may add up.
        return Estimate(
            self.mixing.value + self.leaving.value, self.mixing.standard_error + self.leaving.standard_error
        )

    def applies(self, eps: float) -> bool:
        """Whether Theorem 2 speaks about this t: (I) <= eps and TV(p, q) >= 1 - eps^2."""
        check_eps(eps)
        return self.mixing.value <= eps and self.separation >= 1 - eps**2


def proof_steps(posterior: Posterior, init: Labels, target: Labels) -> tuple[ProofSteps, ...]:
    """The steps of Theorem 2's proof, one a row.

    Parameters
    ----------
    posterior : exact posteriors, shape (rows, samples, labels), with weights; observations from all of p_t.
    init, target : S_init inside S_target. With S_target = Theta, q is empty: (II) and its bounds are zero.
    """
    check_nested(posterior.labels, init, target)
    if posterior.weights is None:
        raise UserError("Theorem 2 needs the weights of the labels; give the posterior its weights.")
    if posterior.counts is not None:
        raise UserError(
            "the steps of the proof need exact posteriors, and these are estimated from counts; "
            "use estimated_certificate."
        )
    rest = complement(posterior.labels, target)
    zero = (Estimate(0.0),) * len(posterior.index)
    mixing = mixture_total_variation(posterior, init, target)
    if rest:
        p, q = density(posterior, target), density(posterior, rest)
        weight = float(posterior.weights @ label_mask(posterior.labels, target))
        ratio, largest = (1 - weight) / weight, 1 / weight
        leaving = average(posterior, p * (posterior.mean @ label_mask(posterior.labels, rest)), largest)
        harmonic = average(posterior, p * q / (p + q), largest)
        separation, overlap = mixture_total_variation(posterior, target, rest), bhattacharyya(posterior, target, rest)
    else:
        ratio, leaving, harmonic, separation, overlap = 0.0, zero, zero, (Estimate(1.0),) * len(zero), zero
    factor = max(1.0, ratio)
    return tuple(
        ProofSteps(
            t=float(posterior.index[i]),
            mixing=mixing[i],
            leaving=leaving[i],
            separation=separation[i].value,
            overlap=overlap[i].value,
            lemma4=factor * harmonic[i].value,
            lemma7=factor * overlap[i].value / 2,
            lemma1=factor * math.sqrt(max(0.0, 1 - separation[i].value ** 2)) / 2,
            sharper=math.sqrt(ratio) * overlap[i].value / 2,
        )
        for i in range(len(zero))
    )


def estimated_certificate(
    posterior: Posterior, init: Labels, target: Labels, level: float = 0.95
) -> tuple[Bracket, ...]:
    """The certificate (I) + E_p[pi_t(Theta - S_target)] where each pi_t is estimated from counts, one bracket a row.

    (I) comes from ``estimated_total_variation``; (II) is E[pi_t(S_target) pi_t(Theta - S_target)] / w_{S_target}, a
    mean of products of different draws, which is unbiased. ``high`` bounds TV(p^{S_init, t}, p^{S_target}) with
    probability ``level`` at least: the errors of the two come from the same observations and may add up.
    """
    check_nested(posterior.labels, init, target)
    mixing = estimated_total_variation(posterior, init, target, level)
    leaving: tuple[Estimate, ...] = (Estimate(0.0),) * len(mixing)
    if rest := complement(posterior.labels, target):
        assert posterior.weights is not None
        weight = float(posterior.weights @ label_mask(posterior.labels, target))
        stays, goes = label_mask(posterior.labels, target), label_mask(posterior.labels, rest)
        products = different_pairs(posterior, stays)[..., goes].sum(axis=-1)
        leaving = average(posterior, products / weight, 1 / weight)
    return tuple(
        Bracket(
            value=first.value + second.value,
            low=first.low + max(0.0, second.interval(level)[0]),
            high=first.high + second.interval(level)[1],
            plug_in=first.plug_in + second.value,
            split=first.split + second.value,
        )
        for first, second in zip(mixing, leaving, strict=True)
    )
