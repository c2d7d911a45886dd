"""Windows from sampled posteriors: coverage of their intervals, order, and both directions of the index."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from blinkscope.critical import critical_window, end_time, start_time
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampled import SampledMixture, sampled_window
from blinkscope.sampler import IndexSet
from blinkscope.worlds.random_walk import RandomWalk

WORLD = RandomWalk(length=120, drift=0.2)
KEPT = IndexSet("kept", "tokens", 0, 120, range(121), direction=-1)
REMOVED = np.array([0, 40, 60, 75, 85, 92, 100, 106, 110, 114, 117, 118, 119, 120])
EPS = 0.25


def sampled(rng: np.random.Generator, n: int, draws: int | None) -> Posterior:
    """Posteriors of n walks, at each time new ones, estimated from ``draws`` continuations or exact; tokens kept."""
    rows = []
    for t in REMOVED:
        law = WORLD.law(int(t))
        assert law.mass is not None
        rows.append(law.mean[0][rng.choice(law.mean.shape[1], size=n, p=law.mass[0] / law.mass[0].sum())])
    pi = np.array(rows)
    counts = None if draws is None else rng.multinomial(draws, pi / pi.sum(axis=-1, keepdims=True))
    mean = pi if counts is None else counts / draws
    return Posterior(120.0 - REMOVED, WORLD.labels, mean, weights=WORLD.weights, counts=counts)


def exact() -> tuple[float | None, float | None]:
    """T_after and T_before over the sampled times."""
    times = IndexSet("removed", "tokens", 0, 120, tuple(int(t) for t in REMOVED))

    class Coarse:
        labels, weights, index = WORLD.labels, WORLD.weights, times
        total_variation = staticmethod(WORLD.total_variation)

    window = critical_window(Coarse(), EPS, ("strong",))
    return window.t_after, window.t_before


@pytest.mark.parametrize("draws", [None, 4])
def test_intervals_of_critical_times_cover(draws: int | None) -> None:
    """200 repetitions at level 0.9; a true coverage of 0.88 would fail with probability 1e-6 each."""
    rng, (t_after, t_before) = np.random.default_rng(17), exact()
    assert t_after is not None
    assert t_before is not None
    covered = np.zeros(2)
    for _ in range(200):
        window = sampled_window(sampled(rng, 100, draws), KEPT, EPS, ("strong",), level=0.9)
        assert window.t_after_interval is not None
        assert window.t_before_interval is not None
        for i, (truth, (low, high)) in enumerate(
            [(t_after, window.t_after_interval), (t_before, window.t_before_interval)]
        ):
            covered[i] += (-1 if low is None else low) <= truth <= (np.inf if high is None else high)
    assert (covered >= binom.ppf(1e-6, 200, 0.88)).all()


def test_many_samples_find_the_exact_window() -> None:
    """Each of the two curves is at least 8 standard errors away from its level at every sampled time."""
    window = sampled_window(sampled(np.random.default_rng(1), 200_000, None), KEPT, EPS, ("strong",))
    assert (window.t_after, window.t_before) == exact()
    assert window.t_after_interval == (window.t_after, window.t_after)
    assert window.t_before_interval == (window.t_before, window.t_before)


def test_curves_are_monotone_and_between_their_limits() -> None:
    rng = np.random.default_rng(3)
    for draws in (None, 3):
        posterior = sampled(rng, 30, draws)
        value, low, high = (
            [mixture.total_variation(("strong",), ("weak",), float(t)).value for t in REMOVED]
            for mixture in (SampledMixture(posterior, KEPT, 0.9, reading) for reading in ("value", "low", "high"))
        )
        for curve in (value, low, high):
            assert (np.diff(curve) <= 1e-12).all()
        assert (np.array(low) <= np.array(value) + 1e-12).all()
        assert (np.array(value) <= np.array(high) + 1e-12).all()


def test_the_index_set_is_the_sampled_times_in_the_theorys_direction() -> None:
    mixture = SampledMixture(sampled(np.random.default_rng(0), 50, None), KEPT)
    assert mixture.index.points == tuple(float(t) for t in REMOVED)
    for time in (start_time(mixture, ("strong",), EPS).time, end_time(mixture, ("strong",), WORLD.labels, EPS).time):
        assert time in REMOVED
    with pytest.raises(UserError, match="outside the index set"):
        mixture.total_variation(("strong",), ("weak",), 50)
    elsewhere = IndexSet("kept", "tokens", 0, 90, range(91), direction=-1)
    with pytest.raises(UserError, match="t = 120 is outside the index set"):
        sampled_window(sampled(np.random.default_rng(0), 50, None), elsewhere, EPS, ("strong",))
    with pytest.raises(UserError, match="label weights"):
        SampledMixture(Posterior(np.zeros(1), ("a",), np.ones((1, 1, 1))), KEPT)
