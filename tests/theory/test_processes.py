"""Forward kernels: their laws, that they compose as Markov chains, and their time changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.errors import UserError
from blinkscope.processes import (
    AbsorbingMasking,
    FlowMatching,
    MarkovNoise,
    PermutedMasking,
    TokenTruncation,
    VarianceExploding,
    VariancePreserving,
    flow_time_from_sigma,
    ou_time_from_sigma,
    sigma_from_flow_time,
    sigma_from_ou_time,
)


def test_token_truncation_pads_to_the_cap_and_keeps_a_prefix() -> None:
    process, rng = TokenTruncation(5, padding=0), np.random.default_rng(0)
    assert process.noise(rng, (7, 8, 9), 0) == (7, 8, 9, 0, 0)
    assert process.noise(rng, (7, 8, 9), 1) == (7, 8, 9, 0)
    assert process.noise(rng, (7, 8, 9), 3) == (7, 8)
    assert process.noise(rng, (7, 8, 9), 5) == ()
    with pytest.raises(UserError, match="6 tokens is longer than the cap of 5"):
        process.noise(rng, (1,) * 6, 0)
    with pytest.raises(UserError, match="outside the index set"):
        process.noise(rng, (1,), 6)


def test_permuted_masking_hides_the_last_of_the_order() -> None:
    process, rng, x = PermutedMasking((2, 0, 1)), np.random.default_rng(0), np.array([5, 6, 7])
    assert [process.noise(rng, x, t).tolist() for t in range(4)] == [[5, 6, 7], [5, -1, 7], [-1, -1, 7], [-1, -1, -1]]
    assert x.tolist() == [5, 6, 7]
    with pytest.raises(UserError, match="not a permutation"):
        PermutedMasking((0, 2))
    with pytest.raises(UserError, match="x has 2 coordinates and the order 3"):
        process.noise(rng, x[:2], 1)


def test_absorbing_masking_hides_each_coordinate_with_probability_t() -> None:
    """5 standard errors: false alarm below 1e-6."""
    y = AbsorbingMasking().noise(np.random.default_rng(1), np.arange(100_000), 0.3)
    assert (y == -1).mean() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 1e5))
    assert ((y == -1) | (y == np.arange(100_000))).all()
    assert (AbsorbingMasking().noise(np.random.default_rng(1), np.arange(9), 1.0) == -1).all()


@given(st.integers(0, 10_000), st.floats(0, 3), st.floats(0, 3))
def test_markov_noise_is_a_semigroup(seed: int, s: float, t: float) -> None:
    rates = np.random.default_rng(seed).random((4, 4))
    np.fill_diagonal(rates, 0)
    chain = MarkovNoise(rates - np.diag(rates.sum(axis=1)))
    assert chain.transition(s) @ chain.transition(t) == pytest.approx(chain.transition(s + t), abs=1e-9)
    assert chain.transition(0.0) == pytest.approx(np.eye(4))


def test_markov_noise_draws_from_its_transition() -> None:
    """An asymmetric chain; 5 standard errors for 3 shares: false alarm below 1e-5 is avoided at 6."""
    chain = MarkovNoise(np.array([[-1.0, 0.9, 0.1], [0.2, -0.2, 0.0], [0.5, 0.5, -1.0]]))
    y = chain.noise(np.random.default_rng(2), np.zeros(100_000, dtype=int), 0.7)
    law = chain.transition(0.7)[0]
    assert np.bincount(y, minlength=3) / 1e5 == pytest.approx(law, abs=6 * 0.5 / math.sqrt(1e5))
    uniform = MarkovNoise.uniform(4).transition(0.5)
    assert uniform == pytest.approx(math.exp(-0.5) * np.eye(4) + (1 - math.exp(-0.5)) / 4)


@pytest.mark.misuse
@pytest.mark.parametrize("bad", [[[-1.0, 1.0]], [[1.0, -1.0], [0.0, 0.0]], [[-1.0, 0.5], [0.0, 0.0]]])
def test_what_is_no_rate_matrix_is_refused(bad: list[list[float]]) -> None:
    with pytest.raises(UserError, match="a rate matrix"):
        MarkovNoise(np.array(bad))


@given(st.floats(1e-3, 20))
def test_time_changes_keep_the_signal_to_noise_ratio(sigma: float) -> None:
    t, u = ou_time_from_sigma(sigma), flow_time_from_sigma(sigma)
    assert math.sqrt(1 - math.exp(-2 * t)) / math.exp(-t) == pytest.approx(sigma)
    assert u / (1 - u) == pytest.approx(sigma)
    assert sigma_from_ou_time(t) == pytest.approx(sigma)
    assert sigma_from_flow_time(u) == pytest.approx(sigma)
    assert t == pytest.approx(math.log(1 + sigma**2) / 2)


def test_gaussian_kernels_have_matching_laws() -> None:
    """At matching times Y / E[Y] has mean 1 and deviation sigma / x in all three; 6 standard errors."""
    rng, x, sigma, n = np.random.default_rng(3), np.full(200_000, 2.0), 0.8, 200_000
    draws = [
        VarianceExploding().noise(rng, x, sigma),
        VariancePreserving().noise(rng, x, ou_time_from_sigma(sigma)) * math.exp(ou_time_from_sigma(sigma)),
        FlowMatching().noise(rng, x, flow_time_from_sigma(sigma)) / (1 - flow_time_from_sigma(sigma)),
    ]
    for y in draws:
        assert y.mean() == pytest.approx(2.0, abs=6 * sigma / math.sqrt(n))
        assert y.std() == pytest.approx(sigma, rel=6 / math.sqrt(2 * n))
    assert sigma_from_flow_time(1.0) == math.inf
    assert flow_time_from_sigma(math.inf) == 1.0
