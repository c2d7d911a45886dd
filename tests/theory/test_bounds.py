"""Theorem 2, its lemmas and the sharper bounds, against enumeration of random chains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from blinkscope.bounds import estimated_certificate, proof_steps, theorem2
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.worlds.two_gaussians import TwoGaussians
from tests.theory.chains import Case, Chain, chains_with_sets

SLACK = 1e-10


def truth(chain: Chain, init: tuple[str, ...], target: tuple[str, ...], t: float) -> float:
    """TV(p^{S_init, t}, p^{S_target}) on whole samples, by enumeration."""
    return float(np.abs(chain.forward_reverse(init, t) - chain.mixture(target, 0)).sum() / 2)


@given(chains_with_sets())
def test_every_step_of_the_proof_is_above_the_one_before(case: Case) -> None:
    chain, init, target, t = case
    steps = proof_steps(chain.law(t), init, target)[0]
    rest = tuple(label for label in chain.labels if label not in target)
    second = truth(chain, target, target, t)  # (II): S_init = S_target leaves nothing else
    assert steps.mixing.value == pytest.approx(chain.total_variation(init, target, t).value, abs=1e-12)
    assert truth(chain, init, target, t) <= steps.certificate.value + SLACK
    assert second <= steps.leaving.value + SLACK, "Lemma 3"
    assert steps.leaving.value <= steps.lemma4 + SLACK, "Lemma 4"
    assert steps.lemma4 <= steps.lemma7 + SLACK, "Lemma 7"
    assert steps.lemma7 <= steps.lemma1 + SLACK, "Lemma 1"
    assert steps.leaving.value <= steps.sharper + SLACK, "by the inequality of the means"
    assert steps.sharper <= steps.lemma7 + SLACK
    if rest:
        p, q = chain.mixture(target, t), chain.mixture(rest, t)
        seen = p + q > 0
        assert steps.leaving.value == pytest.approx(
            p @ chain.posterior(np.arange(len(p)), t)[:, [label in rest for label in chain.labels]].sum(axis=1)
        )
        harmonic = (p[seen] * q[seen] / (p[seen] + q[seen])).sum()
        assert harmonic <= math.sqrt(max(0.0, 1 - (np.abs(p - q).sum() / 2) ** 2)) / 2 + SLACK, "Lemma 1 alone"
        assert harmonic <= np.sqrt(p * q).sum() / 2 + SLACK, "Lemma 7 alone"
        assert steps.separation == pytest.approx(np.abs(p - q).sum() / 2, abs=1e-12)
    else:
        assert second <= SLACK
        assert steps.leaving.value == steps.sharper == 0


@given(chains_with_sets(), st.floats(0.01, 0.99))
def test_truth_below_certificate_below_sharper_below_published(case: Case, eps: float) -> None:
    chain, init, target, t = case
    steps, bound = proof_steps(chain.law(t), init, target)[0], theorem2(chain, target, eps)
    assert bound.sharper <= bound.published + SLACK
    if steps.applies(eps):
        assert truth(chain, init, target, t) <= steps.certificate.value + SLACK
        assert steps.certificate.value <= bound.sharper + SLACK


def test_certificate_is_exact_for_disjoint_components() -> None:
    """THEORY: the bound on (II) is an equality where S_target and its complement are disjoint."""
    rng = np.random.default_rng(2)
    chain = Chain(np.array([0.7, 0.3]), np.eye(2), (rng.dirichlet(np.ones(3), 2), rng.dirichlet(np.ones(3), 3)))
    for t in range(3):
        steps = proof_steps(chain.law(t), ("a",), ("a",))[0]
        assert steps.certificate.value == pytest.approx(truth(chain, ("a",), ("a",), t), abs=1e-12)
        assert steps.leaving.value > 0 or t == 0


@pytest.mark.parametrize(("weight", "published", "sharper"), [(1 / 101, 70.7, 7.07), (100 / 101, 0.707, 0.0707)])
def test_constants_quoted_for_light_and_heavy_targets(weight: float, published: float, sharper: float) -> None:
    """W = 100: 70.7 against 7.07; W = 0.01: 0.707 against 0.071."""
    chain = Chain(np.array([weight, 1 - weight]), np.eye(2), ())
    bound = theorem2(chain, ("a",), 0.1)
    assert bound.published / 0.1 - 1 == pytest.approx(published, rel=1e-3)
    assert bound.sharper / 0.1 - 1 == pytest.approx(sharper, rel=1e-3)


def test_a_target_of_all_labels() -> None:
    world = TwoGaussians(5.0)
    bound = theorem2(world, world.labels, 0.2)
    assert (bound.weight_ratio, bound.sharper) == (0, 0.2)
    steps = proof_steps(world.law(3.0), ("+",), world.labels)[0]
    assert steps.certificate.value == pytest.approx(world.total_variation(("+",), world.labels, 3.0).value)
    assert not steps.applies(0.05)
    assert steps.applies(0.2)


@pytest.mark.parametrize("draws", [2, 10])
def test_an_estimated_certificate_covers_the_exact_one(draws: int) -> None:
    """400 repetitions at level 0.9, 80 observations each; a true coverage of 0.88 would fail with probability 1e-6."""
    chain = Chain(
        np.array([0.5, 0.3, 0.2]), np.array([[0.6, 0.3, 0.1, 0], [0.3, 0.6, 0.05, 0.05], [0, 0.1, 0.2, 0.7]]), ()
    )
    law, rng = chain.law(0), np.random.default_rng(23)
    assert law.mass is not None
    for init, target in ((("a",), ("a", "b")), (("b",), ("b",)), (("a",), chain.labels)):
        exact = proof_steps(law, init, target)[0].certificate.value
        pi = law.mean[0, rng.choice(4, size=(400, 80), p=law.mass[0])]
        counts = rng.multinomial(draws, pi)
        posterior = Posterior(np.zeros(400), chain.labels, counts / draws, weights=chain.weights, counts=counts)
        brackets = estimated_certificate(posterior, init, target, level=0.9)
        covered = sum(bracket.low <= exact <= bracket.high for bracket in brackets)
        assert covered >= binom.ppf(1e-6, 400, 0.88)
        assert np.mean([bracket.split for bracket in brackets]) <= exact + 0.02
        assert np.mean([bracket.plug_in for bracket in brackets]) >= exact - 0.02
        with pytest.raises(UserError, match="use estimated_certificate"):
            proof_steps(posterior, init, target)


def test_bad_input() -> None:
    world = TwoGaussians(5.0)
    with pytest.raises(UserError, match="not in the larger one"):
        proof_steps(world.law(1.0), world.labels, ("+",))
    with pytest.raises(UserError, match="a label set is empty"):
        proof_steps(world.law(1.0), (), ("+",))
    with pytest.raises(UserError, match="eps is 2"):
        theorem2(world, ("+",), 2)
    with pytest.raises(UserError, match="needs the weights"):
        proof_steps(Posterior(np.zeros(1), ("a",), np.ones((1, 1, 1))), ("a",), ("a",))
