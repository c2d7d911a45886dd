"""The stated errors are true: benchmarks/calibration.py in small, and the sampler against sums written out."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import beta

from blinkscope.estimate import smoother
from blinkscope.estimate.lookahead import pooled_counts
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.trace import Estimator


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    """The benchmark's script as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("estimator", ["unbiased", "pooled"])
@pytest.mark.parametrize("name", ["maze-2-sparse", "null-2"])
def test_bands_errors_windows_and_skipped_weight_hold_on_known_models(
    calibration: ModuleType, name: str, estimator: Estimator
) -> None:
    """8 runs each at error 0.1.

    The bounds on the skipped weight are exact. Coverage of a run has a standard deviation below 0.2 on these models, so
    the mean of 8 has one below 0.071, and 0.55 is more than 5 of them below 0.93: by chance it fails with probability
    under 1e-6, and so does the ratio of the errors, whose logarithm has a standard deviation below 0.15. At this error
    a false window, of change 0.38 at most where 0.5 is asked for, would have to be off by 1.2 standard deviations at
    the worst row of all; half of the runs would have to list one.
    """
    case = replace(calibration.CASES[name], error=0.1)
    runs = [calibration.run(case, estimator, number) for number in range(8)]
    found = calibration.summary(name, estimator, runs)
    assert found["bands"]["0.95"]["share"] > 0.55
    assert 0.45 < found["made_over_stated"] < 2.2
    assert found["meets"]["skipped"]
    assert found["meets"]["touches_certainty"]
    assert sum(run["false_alarm"] for run in runs) < 5


def test_a_share_over_runs_has_an_interval_in_which_a_run_counts_once(calibration: ModuleType) -> None:
    together = calibration.share([10, 0, 10, 0], [10, 10, 10, 10])
    apart = calibration.share([5, 5, 5, 5], [10, 10, 10, 10])
    assert together["share"] == apart["share"] == 0.5
    assert together["low"] == pytest.approx(0.5 - 1.96 * 0.25)
    assert apart["low"] == apart["high"] == 0.5


def exact_rows(recursion: Recursion, counts: np.ndarray, average: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior mean and standard deviation of the first label at each of two rows, by sums over shares and laws."""
    points = (np.arange(400) + 0.5) / 400
    law = beta.ppf(points, *(smoother.MASS * average))  # equal weights under the prior
    later, earlier = law[:, None], law[None, :]
    total, first, second = 0.0, np.zeros(2), np.zeros(2)
    shares = range(len(smoother.SHARES))
    for k, j in itertools.product(shares, shares):
        used = np.bincount([k, j], minlength=len(smoother.SHARES)) + smoother.OCCURRENCE
        prior = np.exp((gammaln(used) - gammaln(smoother.OCCURRENCE)).sum())
        gamma_1 = 1 + smoother.SHARES[k] * (later - 1)
        row_1 = recursion.p[1] + recursion.off_path[1] * gamma_1
        gamma_0 = row_1 + smoother.SHARES[j] * (earlier - row_1)
        row_0 = recursion.p[0] * row_1 + recursion.off_path[0] * gamma_0
        with np.errstate(divide="ignore"):
            weight = prior * gamma_0 ** counts[0, 0] * (1 - gamma_0) ** counts[0, 1]
            weight = weight * gamma_1 ** counts[1, 0] * (1 - gamma_1) ** counts[1, 1]
        for i, row in enumerate((row_0, row_1)):
            first[i] += (weight * row).sum()
            second[i] += (weight * row**2).sum()
        total += (weight * np.ones_like(earlier)).sum()
    mean = first / total
    return mean, np.sqrt(second / total - mean**2)


@pytest.mark.parametrize("seed", range(4))
def test_the_sampler_draws_from_the_posterior_that_it_says(seed: int) -> None:
    """Two open positions, where the posterior can be summed up.

    2,000 chains after 25 sweeps; as four may share a proposal they count as 500. The bound is 5.5 standard errors and
    what rounding probabilities of no consequence to 0 can do: 8 comparisons fail by chance with probability under 1e-6.
    """
    rng = np.random.default_rng(seed)
    q = rng.uniform(0.3, 0.9, 2)
    recursion = Recursion(1 - q, q)
    counts = np.asarray([rng.multinomial(12, rng.dirichlet([2, 1])), rng.multinomial(8, [0.7, 0.3])])
    counts[1] = np.maximum(counts[1], 1)  # a differing label at the last position, so that no chain is settled
    final = np.asarray([1.0, 0.0])
    draws = smoother.joint_draws(recursion, counts, final, rng, chains=2000, sweeps=25, kept=1)
    mean, sd = exact_rows(recursion, counts, smoother.path_average(recursion, counts, final))
    rounding = smoother.UNSEEN / counts.sum()
    error = 5.5 * sd / np.sqrt(500) + rounding
    assert (np.abs(draws[:, :2, 0].mean(axis=0) - mean) < error).all()
    assert (np.abs(draws[:, :2, 0].std(axis=0) - sd) < error).all()


def test_a_stretch_on_which_all_labels_agree_may_be_certain_and_need_not_be() -> None:
    q = np.full(12, 0.4)
    counts = np.tile([3, 0], (12, 1))
    counts[2] = [1, 2]
    draws = smoother.joint_draws(Recursion(1 - q, q), counts, np.asarray([1.0, 0.0]), np.random.default_rng(0))
    low, high = np.quantile(draws[:, :, 0], [0.025, 0.975], axis=0)
    assert (high[3:] == 1).all()
    assert low[4] < 1
    assert high[1] < 1
    np.testing.assert_allclose(draws.sum(axis=2), 1)
    assert (draws[:, -1, 0] == 1).all()


def test_the_lookahead_draws_where_the_largest_variance_comes_from_and_keeps_its_budget() -> None:
    """One position's law is unknown and the others' are known; a dearer copy of it is not worth its price."""
    rng = np.random.default_rng(1)
    q = np.asarray([0.5, 0.5, 0.5])
    recursion = Recursion(1 - q, q)
    first = rng.beta(2, 2, 500)
    gamma = np.stack([np.full(500, 0.5), first, np.full(500, 0.3)], axis=1)[:, :, None] * [1, -1] + [0, 1]
    draws = np.moveaxis(recursion.curve(np.moveaxis(gamma, 0, 1), np.tile([1.0, 0.0], (500, 1))), 1, 0)
    numbers = pooled_counts(recursion, draws, np.asarray([3.0, 2.0, 1.0]), 40.0, np.full(3, np.inf))
    assert numbers.tolist() == [0, 20, 0]
    numbers = pooled_counts(recursion, draws, np.asarray([3.0, 2.0, 1.0]), 40.0, np.asarray([9.0, 7.0, 9.0]))
    assert numbers.tolist() == [0, 7, 0]
