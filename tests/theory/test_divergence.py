"""Distances from posteriors against their definitions on laws, and the correction of estimated ones."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from scipy.stats import binom, norm

from blinkscope.divergence import (
    Bracket,
    Estimate,
    bhattacharyya,
    estimated_kullback_leibler,
    estimated_mutual_information,
    estimated_squared_hellinger,
    estimated_total_variation,
    kullback_leibler,
    label_law,
    mixture_total_variation,
    mutual_information,
    squared_hellinger,
)
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.worlds.gaussian_mixture import GaussianMixture
from blinkscope.worlds.two_gaussians import TwoGaussians
from tests.theory.chains import Case, Chain, chains, chains_with_sets

CLOSE = {"abs": 1e-12, "rel": 1e-9}


@given(chains_with_sets())
def test_distances_equal_their_definitions_on_laws(case: Case) -> None:
    chain, a, b, t = case
    p, q, law = chain.mixture(a, t), chain.mixture(b, t), chain.law(t)
    assert mixture_total_variation(law, a, b)[0].value == pytest.approx(np.abs(p - q).sum() / 2, **CLOSE)
    assert squared_hellinger(law, a, b)[0].value == pytest.approx(((p**0.5 - q**0.5) ** 2).sum(), **CLOSE)
    assert bhattacharyya(law, a, b)[0].value == pytest.approx((p * q) ** 0.5 @ np.ones(len(p)), **CLOSE)
    seen = p > 0
    assert (q[seen] > 0).all(), "A lies inside B"
    assert kullback_leibler(law, a, b)[0].value == pytest.approx(p[seen] @ np.log(p[seen] / q[seen]), **CLOSE)
    assert all(e.standard_error == 0 for e in mixture_total_variation(law, a, b))


def test_kullback_leibler_is_infinite_where_the_second_law_misses_mass() -> None:
    chain = Chain(np.array([0.3, 0.7]), np.array([[0.5, 0.5], [0.0, 1.0]]), ())
    assert math.isinf(kullback_leibler(chain.law(0), ("a",), ("b",))[0].value)
    assert kullback_leibler(chain.law(0), ("b",), ("a",))[0].value == pytest.approx(math.log(2))


@given(chains())
def test_mutual_information_equals_its_definition_and_falls(chain: Chain) -> None:
    values = []
    for t in range(len(chain.kernels) + 1):
        joint = chain.weights[:, None] * chain.at(t)
        product = chain.weights[:, None] * joint.sum(axis=0)
        seen = joint > 0
        values.append(mutual_information(chain.law(t))[0].value)
        assert values[-1] == pytest.approx((joint[seen] * np.log(joint[seen] / product[seen])).sum(), **CLOSE)
    assert (np.diff(values) <= 1e-12).all()


@given(chains_with_sets())
def test_label_law_of_forward_reverse(case: Case) -> None:
    """E[pi(S) pi(b)] / w_S is the label law of p^{S,t}: the experiment's X', its label drawn given X'."""
    chain, start, _, t = case
    label_given_x = chain.posterior(np.arange(chain.components.shape[1]), 0)
    expected = chain.forward_reverse(start, t) @ label_given_x
    assert label_law(chain.law(t), start).mean[0] == pytest.approx(expected, abs=1e-12)


def counted(rng: np.random.Generator, pi: np.ndarray, draws: int, weights: np.ndarray) -> Posterior:
    """Posteriors estimated from ``draws`` continuations each."""
    counts = rng.multinomial(draws, pi)
    labels = tuple("abcdefghij"[: pi.shape[-1]])
    return Posterior(np.zeros(len(pi)), labels, counts / draws, weights=weights, counts=counts)


def test_label_law_from_counts_is_unbiased_and_its_error_honest() -> None:
    """The plug-in is wrong by E[var pi(a)] / w_a = 0.1 here. False alarm below 1e-6 (|z| < 5.2 for 3 + 1 means)."""
    rng, weights = np.random.default_rng(5), np.array([0.5, 0.3, 0.2])
    pi = rng.dirichlet(4 * weights, size=40_000)
    exact = (pi[:, :1] * pi).mean(axis=0) / 0.5
    law = label_law(counted(rng, pi[None], 3, weights), ("a",))
    assert np.abs((law.mean[0] - exact) / law.standard_error[0]).max() < 5.2
    assert abs(law.mean[0].sum() - 1) < 5.2 * 0.005 / 2
    plain = counted(rng, pi[None], 3, weights)
    biased = (plain.mean[0, :, :1] * plain.mean[0]).mean(axis=0) / 0.5
    assert biased[0] - exact[0] > 20 * law.standard_error[0, 0]


FIGURES: dict[str, tuple[Callable[..., tuple[Bracket, ...]], Callable[..., tuple[Estimate, ...]], int]] = {
    "total variation": (estimated_total_variation, mixture_total_variation, 2),
    "squared Hellinger": (estimated_squared_hellinger, squared_hellinger, 2),
    "Kullback-Leibler": (estimated_kullback_leibler, kullback_leibler, 2),
    "mutual information": (estimated_mutual_information, mutual_information, 0),
}


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("draws", [2, 5, 20])
@pytest.mark.parametrize("t", [0.5, 1.5, 3.0, 8.0])
def test_split_and_plug_in_bracket_the_truth(figure: str, draws: int, t: float) -> None:
    """In expectation, over 200,000 observations; false alarm below 1e-6 a comparison (5 standard errors)."""
    world, rng, (estimated, exact, sets) = TwoGaussians(5.0), np.random.default_rng(7), FIGURES[figure]
    y = np.concatenate([world.sample(rng, label, t, 100_000) for label in world.labels])
    posterior = counted(rng, world.posterior(y, t)[None], draws, world.weights)
    estimate = estimated(posterior, *(("a",), ("a", "b"))[:sets])[0]
    truth = exact(world.law(t), *(("+",), ("+", "-"))[:sets])[0].value
    noise = 5 * 2 / math.sqrt(len(y))  # no term varies by more than 2
    assert estimate.split < truth + noise
    assert estimate.plug_in > truth - noise
    assert abs(estimate.value - truth) <= (estimate.plug_in - estimate.split) / 2 + noise
    assert estimate.low <= estimate.value <= estimate.high


@pytest.mark.parametrize("figure", FIGURES)
def test_the_middle_of_a_bracket_is_nearer_the_truth_than_the_plug_in(figure: str) -> None:
    """Where posteriors are undecided the two biases cancel to first order: a quarter is left of the plug-in's."""
    world, rng, (estimated, exact, sets), t = TwoGaussians(5.0), np.random.default_rng(8), FIGURES[figure], 2.0
    y = np.concatenate([world.sample(rng, label, t, 100_000) for label in world.labels])
    posterior = counted(rng, world.posterior(y, t)[None], 20, world.weights)
    estimate = estimated(posterior, *(("a",), ("a", "b"))[:sets])[0]
    truth = exact(world.law(t), *(("+",), ("+", "-"))[:sets])[0].value
    assert estimate.plug_in - truth > 0.005
    assert abs(estimate.value - truth) < (estimate.plug_in - truth) / 4


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("draws", [2, 10])
@pytest.mark.parametrize("t", [0.5, 1.6, 4.0])
def test_limits_of_an_estimated_figure_cover(figure: str, draws: int, t: float) -> None:
    """400 repetitions at level 0.9 with 60 observations; a true coverage of 0.88 would fail with probability 1e-6."""
    world, rng, (estimated, exact, sets) = TwoGaussians(5.0), np.random.default_rng(11), FIGURES[figure]
    truth = exact(world.law(t), *(("+",), ("+", "-"))[:sets])[0].value
    signs = np.where(rng.random((400, 60)) < 0.5, 1, -1)
    y = signs * world.separation(t) + rng.standard_normal(signs.shape)
    pi = world.posterior(y.ravel(), t).reshape(400, 60, 2)
    brackets = estimated(counted(rng, pi, draws, world.weights), *(("a",), ("a", "b"))[:sets], level=0.9)
    covered = sum(bracket.low <= truth <= bracket.high for bracket in brackets)
    assert covered >= binom.ppf(1e-6, 400, 0.88)


def test_lower_limits_are_informative_with_more_draws() -> None:
    """Three unequal labels, 4,000 observations: limits that are wide for nothing would be no intervals."""
    weights, rng = np.array([0.5, 0.3, 0.2]), np.random.default_rng(5)
    chain = Chain(weights, np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]]), ())
    law = chain.law(0)
    assert law.mass is not None
    pi = law.mean[:, rng.choice(3, size=4000, p=law.mass[0])]
    posterior = counted(rng, pi, 40, weights)
    for estimated, exact, sets in FIGURES.values():
        for a, b in ((("a",), ("a", "b")), (("a", "b"), ("a", "b", "c"))):
            truth, bracket = exact(law, *(a, b)[:sets])[0].value, estimated(posterior, *(a, b)[:sets])[0]
            assert bracket.low <= truth <= bracket.high
            assert bracket.high - bracket.low < 0.1


def test_no_sample_bounds_a_divergence_that_may_be_infinite() -> None:
    rng, weights = np.random.default_rng(3), np.array([0.5, 0.5])
    posterior = counted(rng, np.full((1, 50, 2), 0.5), 30, weights)
    bracket = estimated_kullback_leibler(posterior, ("a",), ("b",))[0]
    assert math.isfinite(bracket.plug_in)
    assert bracket.high == math.inf
    certain = counted(rng, np.array([[[1.0, 0.0], [0.0, 1.0]]]), 30, weights)
    bracket = estimated_kullback_leibler(certain, ("a",), ("b",))[0]
    assert bracket.plug_in == bracket.high == math.inf
    assert bracket.value == bracket.split > 2
    same = estimated_squared_hellinger(posterior, ("a", "b"), ("a", "b"))[0]
    assert (same.low, same.value, same.high) == (0, 0, 0)


@pytest.mark.parametrize("t", [1.0, 3.0])
def test_total_variation_has_a_bound_that_few_draws_do_not_lift(t: float) -> None:
    """One of ten labels against the others, 2,000 observations of 4 draws: the plug-in stays far above, the root mean
    square does not, and no limit misses in 20 repetitions (at level 1 - 1e-8: false alarm below 1e-6)."""
    world, rng = GaussianMixture(components=10, dim=6, seed=1), np.random.default_rng(11)
    truth = world.total_variation(("0",), world.labels[1:], t).value
    for _ in range(20):
        y = np.concatenate([world.sample(rng, label, t, 200) for label in world.labels])
        posterior = counted(rng, world.posterior(y, t)[None], 4, world.weights)
        (bracket,) = estimated_total_variation(posterior, ("a",), posterior.labels[1:], level=1 - 1e-8)
        assert bracket.low <= truth <= bracket.high
        (usual,) = estimated_total_variation(posterior, ("a",), posterior.labels[1:])
        assert usual.plug_in > truth + 0.25
        assert usual.high < usual.plug_in - 0.1
        assert abs(usual.value - truth) < 0.15


def test_interval_of_an_average_covers() -> None:
    """400 repetitions at level 0.9, 200 exact posteriors; a true coverage of 0.88 would fail with probability 1e-6."""
    world, rng, covered, t = TwoGaussians(5.0), np.random.default_rng(13), 0, 1.6
    truth = world.total_variation(("+",), ("-",), t).value
    for _ in range(400):
        signs = np.where(rng.random(200) < 0.5, 1, -1)
        pi = world.posterior(signs * world.separation(t) + rng.standard_normal(200), t)
        low, high = mixture_total_variation(
            Posterior(np.array([t]), world.labels, pi[None], weights=world.weights), ("+",), ("-",)
        )[0].interval(0.9)
        covered += low <= truth <= high
    assert covered >= binom.ppf(1e-6, 400, 0.88)
    assert mixture_total_variation(world.law(t), ("+",), ("-",))[0].interval() == pytest.approx((truth, truth))


def test_interval_uses_the_normal_quantile() -> None:
    with pytest.raises(UserError, match="level is 95"):
        Estimate(1.0, 0.5).interval(95)
    assert Estimate(1.0, 0.5).interval(0.9) == pytest.approx((1 - 0.5 * norm.ppf(0.95), 1 + 0.5 * norm.ppf(0.95)))


def test_what_cannot_be_compared_is_refused() -> None:
    path = Posterior(np.array([0.0]), ("a", "b"), np.array([[0.5, 0.5]]))
    with pytest.raises(UserError, match="label weights"):
        mixture_total_variation(path, ("a",), ("b",))
    with pytest.raises(UserError, match="label weights"):
        mutual_information(path)
    chain = Chain(np.array([0.5, 0.5]), np.eye(2), ())
    with pytest.raises(UserError, match="a label set is empty"):
        mixture_total_variation(chain.law(0), (), ("b",))
    with pytest.raises(UserError, match="no label 'z'"):
        mixture_total_variation(chain.law(0), ("z",), ("b",))
    with pytest.raises(UserError, match="not the string 'a'"):
        mixture_total_variation(chain.law(0), "a", ("b",))
    with pytest.raises(UserError, match="counts behind"):
        estimated_total_variation(chain.law(0), ("a",), ("b",))
    rng = np.random.default_rng(0)
    one = counted(rng, np.array([[[0.5, 0.5]]]), 1, np.array([0.5, 0.5]))
    with pytest.raises(UserError, match="at least 2"):
        estimated_total_variation(one, ("a",), ("b",))
    two = counted(rng, np.array([[[0.5, 0.5]]]), 2, np.array([0.5, 0.5]))
    with pytest.raises(UserError, match="level is 1"):
        estimated_total_variation(two, ("a",), ("b",), level=1)
