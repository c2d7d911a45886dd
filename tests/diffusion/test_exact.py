"""Exact denoisers: integration, the martingale, and the empirical law against counting."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from blinkscope.diffusion.exact import EmpiricalData
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, martingale_check
from blinkscope.worlds.gaussian_mixture import GaussianMixture

PICTURES = np.random.default_rng(3).standard_normal((7, 2, 2)) * 2
DATA = EmpiricalData(PICTURES, ("a", "a", "b", "b", "b", "c", "a"))


@pytest.mark.parametrize("covariances", [None, np.array([[[0.3]], [[2.0]], [[0.0]]])])
def test_the_mixtures_denoiser_against_integration(covariances: np.ndarray | None) -> None:
    """E[X | Y = y] by integrating over x, for unequal weights; a component may have no width."""
    means, prior, grid = np.array([[-4.0], [0.5], [5.0]]), np.array([0.2, 0.5, 0.3]), np.linspace(-15, 15, 30_001)
    world = GaussianMixture(means=means, covariances=covariances, prior=prior)
    spread = np.ones(3) if covariances is None else np.sqrt(np.maximum(covariances[:, 0, 0], 1e-4))
    density = prior @ norm.pdf(grid, means, spread[:, None])
    for t in (0.3, 1.0, 2.5):
        for y in (-2.0, 0.4, 1.5):
            given = density * norm.pdf(y, math.exp(-t) * grid, math.sqrt(1 - math.exp(-2 * t)))
            assert world.denoise(np.array([[y]]), t)[0, 0] == pytest.approx((given @ grid) / given.sum(), abs=1e-3)


def test_the_empirical_denoiser_against_bayes() -> None:
    y, t = np.random.default_rng(0).standard_normal((5, 2, 2)), 0.8
    likelihood = np.array(
        [[norm.pdf(row, math.exp(-t) * x, math.sqrt(1 - math.exp(-2 * t))).prod() for x in PICTURES] for row in y]
    )
    pi = likelihood / likelihood.sum(axis=1, keepdims=True)
    assert DATA.responsibilities(y, t) == pytest.approx(pi)
    assert DATA.denoise(y, t) == pytest.approx(np.einsum("ni,ijk->njk", pi, PICTURES))
    assert DATA.posterior(y, t) == pytest.approx(np.stack([pi[:, [0, 1, 6]].sum(1), pi[:, 2:5].sum(1), pi[:, 5]], 1))
    assert DATA.responsibilities(y, math.inf) == pytest.approx(np.full((5, 7), 1 / 7))


def test_sampling_the_empirical_law_gives_its_pictures_at_equal_rates() -> None:
    """Chi-square over 7 pictures, 1,400 samples; 41 is its quantile at 3e-7."""
    diffusion = GaussianDiffusion(DATA.denoise, cosine_times(60), (2, 2))
    drawn = diffusion.sample([np.random.default_rng([5, i]) for i in range(1400)])
    distance = np.abs(drawn[:, None] - PICTURES).max(axis=(2, 3))
    assert distance.min(axis=1).max() < 0.2
    counts = np.bincount(distance.argmin(axis=1), minlength=7)
    assert ((counts - 200) ** 2 / 200).sum() < 41


def test_label_posteriors_along_the_reverse_process_are_a_martingale() -> None:
    """500 trajectories; the check's p-value is uniform or larger where the steps are small enough."""
    world = GaussianMixture(means=np.array([[3.0, 0.0], [-3.0, 1.0], [0.0, 4.0]]), prior=np.array([0.2, 0.5, 0.3]))
    times = cosine_times(150)
    levels = np.arange(10, 150, 20)
    for eta, fits in ((1.0, True), (0.0, False)):
        diffusion = GaussianDiffusion(world.denoise, times, (2,), eta=eta)
        paths = diffusion.reverse_paths([np.random.default_rng([8, i]) for i in range(500)])
        mean = np.stack([world.posterior(paths[:, level], float(times[level])) for level in levels])
        check = martingale_check(Posterior(times[levels], world.labels, mean))
        assert (check.p_value > 1e-6) == fits


def test_bad_data_is_refused() -> None:
    with pytest.raises(UserError, match="7 pictures and 1 labels"):
        EmpiricalData(PICTURES, ("a",))
    with pytest.raises(UserError, match="NaN"):
        EmpiricalData(PICTURES * np.nan, DATA.labels)
    with pytest.raises(UserError, match="t > 0"):
        DATA.posterior(PICTURES, 0.0)
    with pytest.raises(UserError, match="do not fit"):
        DATA.denoise(np.zeros((1, 3)), 1.0)
