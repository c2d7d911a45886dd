"""The page to read first: forward-reverse, label counts, index sets, and maps that are not samplers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, norm

from blinkscope.divergence import label_law
from blinkscope.errors import UserError
from blinkscope.processes import OU_TIME, VariancePreserving
from blinkscope.sampler import DeterministicReverse, IndexSet, LabelCounts, LocalizationSampler, forward_reverse
from blinkscope.worlds.experiment import LabelItself, forward_reverse_labels, measure, world_sampler
from blinkscope.worlds.masked_strings import MaskedStrings
from blinkscope.worlds.two_gaussians import TwoGaussians


class Posterior1D:
    """Draws from P(X | Y_t) for X = +-6 + Z, one dimension: a label, then a Gaussian given the label."""

    def sample(self, rng: np.random.Generator, y: float, t: float, n: int) -> np.ndarray:
        world, decay = TwoGaussians(6.0), math.exp(-t)
        label = np.where(rng.random(n) < world.posterior(np.array([y]), t)[0, 0], 1, -1)
        return 6 * label + decay * (y - 6 * decay * label) + math.sqrt(1 - decay**2) * rng.standard_normal(n)


class Sign:
    name = "sign"

    def label(self, sample: float) -> str:
        return "+" if sample > 0 else "-"


@pytest.mark.parametrize(
    ("separation", "by_posterior", "by_ode"), [(0.5, 0.602, 0.691), (1, 0.775, 0.841), (2, 0.966, 0.977)]
)
def test_a_posterior_draw_and_an_ode_have_different_label_laws(
    separation: float, by_posterior: float, by_ode: float
) -> None:
    """The table of THEORY section 1. Sampling: false alarm below 1e-6 (5 standard errors of 4,000 draws)."""
    world, t = TwoGaussians(6.0), math.log(6 / separation)
    exact = label_law(world.law(t), ("+",)).mean[0, 0]
    assert exact == pytest.approx(by_posterior, abs=5e-4)
    # The probability-flow map is increasing and odd, so it keeps the sign of Y_t.
    assert norm.cdf(separation) == pytest.approx(by_ode, abs=5e-4)
    rng = np.random.default_rng(4)
    start = 6 + rng.standard_normal(1000)
    counts = forward_reverse(
        LocalizationSampler(VariancePreserving(), Posterior1D()), Sign(), [np.asarray(x) for x in start], [t], 4, rng
    )
    assert counts.counts[0, counts.labels.index("+")] / 4000 == pytest.approx(exact, abs=5 * math.sqrt(0.25 / 4000))


def test_a_deterministic_reverse_map_is_refused() -> None:
    ode = LocalizationSampler(VariancePreserving(), DeterministicReverse(lambda y, t: y))
    with pytest.raises(UserError, match=r"deterministic reverse map .* DDIM with eta = 1"):
        forward_reverse(ode, Sign(), [1.0], [0.5], 10, np.random.default_rng(0))


def test_label_counts_follow_the_label_law_at_every_time() -> None:
    """False alarm below 1e-6: Clopper-Pearson limits at level 1 - 1e-8 for 6 shares."""
    world, rng = MaskedStrings(3, 0.3), np.random.default_rng(6)
    counts = forward_reverse(world_sampler(world), LabelItself(), ["first"], [0.2, 0.8, 1.0], 3000, rng)
    assert counts.counts.sum(axis=1).tolist() == [3000] * 3
    low, high = counts.interval(1 - 1e-8)
    for i, t in enumerate(counts.times):
        exact = label_law(world.law(float(t)), ("first",)).mean[0]
        for k, label in enumerate(world.labels):
            j = counts.labels.index(label)
            assert low[i, j] <= exact[k] <= high[i, j]
            at_once = forward_reverse_labels(world, ("first",), float(t), 3000, rng)[k]
            assert binom.sf(at_once, 3000, exact[k]) > 1e-8
            assert binom.cdf(at_once, 3000, exact[k]) > 1e-8


def test_measured_distance_is_below_what_theorem_2_allows() -> None:
    world = TwoGaussians(5.0)
    law = label_law(world.law(2.0), ("+",)).mean[0]
    measured = measure(world, ("+",), world.labels, 2.0)
    # Within 5 standard errors of the exact label law's distance, and below (I).
    assert abs(measured.value - abs(law[0] - 0.5)) < 5 * measured.standard_error
    assert measured.value < world.total_variation(("+",), world.labels, 2.0).value


def test_clopper_pearson_limits() -> None:
    counts = LabelCounts(np.array([0.0, 1.0]), ("a", "b"), np.array([[0, 20], [7, 13]]))
    low, high = counts.interval(0.95)
    assert low[0].tolist() == [0.0, pytest.approx(0.025 ** (1 / 20))]
    assert high[0].tolist() == [pytest.approx(1 - 0.025 ** (1 / 20)), 1.0]
    assert binom.sf(6, 20, low[1, 0]) == pytest.approx(0.025)
    assert binom.cdf(7, 20, high[1, 0]) == pytest.approx(0.025)
    with pytest.raises(UserError, match="level is 95"):
        counts.interval(95)


def test_index_sets() -> None:
    kept = IndexSet("kept", "tokens", 0, 10, range(11), direction=-1)
    assert kept.time(np.array([10.0, 4.0, 0.0])).tolist() == [0, 6, 10]
    assert OU_TIME.time(np.array([1.0])).tolist() == [1]
    assert kept.check(3) == 3
    for index, t in [(kept, 3.5), (kept, 11), (OU_TIME, -1.0), (OU_TIME, math.nan)]:
        with pytest.raises(UserError, match=r"t = .* is outside the index set"):
            index.check(t)


def test_bad_experiments_are_refused() -> None:
    sampler, rng = world_sampler(TwoGaussians()), np.random.default_rng(0)
    with pytest.raises(UserError, match="0 starting samples"):
        forward_reverse(sampler, LabelItself(), [], [1.0], 1, rng)
    with pytest.raises(UserError, match="n = 0"):
        forward_reverse(sampler, LabelItself(), ["+"], [1.0], 0, rng)
    with pytest.raises(UserError, match="outside the index set"):
        forward_reverse(sampler, LabelItself(), ["+"], [-1.0], 1, rng)
