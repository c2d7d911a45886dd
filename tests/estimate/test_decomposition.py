"""The joint draws that bands and windows are read from."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.evidence import WIDER, widened
from blinkscope.estimate.pilot import FIRST_LEFT, SPARSE_PILOT, pilot
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Draw, Stratum
from blinkscope.posterior import Posterior
from blinkscope.window import rise_windows, token_windows

STEPS = 12


@st.composite
def draws_of_paths(draw: st.DrawFn) -> tuple[Recursion, list[Draw]]:
    q = np.asarray(draw(st.lists(st.floats(0.01, 0.9), min_size=STEPS, max_size=STEPS)))
    labels = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=2, max_size=6)
    drawn = [
        Draw(stratum=s, replicate=i, label=label, cost=1.0)
        for s in range(STEPS)
        for i, label in enumerate(draw(labels))
    ]
    return Recursion(1 - q, q), drawn


@given(draws_of_paths(), st.sampled_from(["unbiased", "pooled"]))
def test_joint_draws_are_laws(case, estimator) -> None:
    recursion, drawn = case
    strata = tuple(Stratum(s, 1.0) for s in range(STEPS))
    posterior = Decomposition(recursion, strata, "a", limit=12, seed=3, estimator=estimator).estimate(drawn)
    for joint in (posterior.draws, posterior.believed):
        if joint is not None:
            assert (joint >= 0).all()
            np.testing.assert_allclose(joint.sum(axis=2), 1.0, atol=1e-9)
    low, high = posterior.band()
    assert (low >= 0).all()
    assert (high <= 1 + 1e-9).all()
    for window in token_windows(posterior, "a", delta=0.3):
        assert window.low <= window.change <= window.high <= 1 + 1e-9


def test_the_pooled_pilot_looks_where_a_fresh_generation_would_leave_the_path_first() -> None:
    """Each position is left with probability 1/2: half of the generations leave at the first, a quarter at the next."""
    half = np.full(64, 0.5)
    counts = pilot(Recursion(half, half), tuple(Stratum(s, 1.0) for s in range(64)), "pooled").sum(axis=1)
    along = np.log(2)  # expected departures at each position; together more than SPARSE_PILOT
    assert 64 * along > SPARSE_PILOT
    assert abs(counts[:2].sum() - (2 * along + 0.75 * FIRST_LEFT)) <= 1
    assert abs(counts.sum() - (64 * along + FIRST_LEFT)) <= 1
    assert counts[8:].max() == 1


def test_pooled_bands_are_wider_than_the_stated_error() -> None:
    recursion = Recursion(np.full(STEPS, 0.7), np.full(STEPS, 0.3))
    strata = tuple(Stratum(s, 1.0) for s in range(STEPS))
    drawn = [Draw(s, i, "ab"[(s + i) % 2], 1.0) for s in range(STEPS) for i in range(12)]
    posterior = Decomposition(recursion, strata, "a", limit=12, seed=3, estimator="pooled").estimate(drawn)
    assert posterior.draws is not None
    inside = (posterior.mean > 0.3) & (posterior.mean < 0.7)  # where no draw is cut at 0
    assert inside.any()
    np.testing.assert_allclose(posterior.draws.std(axis=0)[inside], WIDER * posterior.sd[inside], rtol=1e-6)
    certain = np.broadcast_to(np.array([1.0, 0.0]), (5, 3, 2))
    np.testing.assert_allclose(widened(certain), certain)


def test_windows_are_judged_by_what_is_believed_not_by_draws_about_a_noisy_mean() -> None:
    mean = np.asarray([[0.5, 0.5], [0.9, 0.1], [0.9, 0.1]])
    flat = np.full((100, 3, 2), 0.5)
    about = np.repeat(mean[None], 100, axis=0)
    index = np.arange(3.0)
    assert token_windows(Posterior(index, ("a", "b"), mean, about), "a", delta=0.4)
    assert not token_windows(Posterior(index, ("a", "b"), mean, about, believed=flat), "a", delta=0.4)


def test_a_window_that_few_draws_confirm_hides_none_that_overlaps_it() -> None:
    mean = np.asarray([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    joint = np.repeat(mean[None], 100, axis=0)
    joint[:80, 1] = [0.8, 0.2]  # the second step alone moves less than 0.4 in most draws, the first one more
    windows = token_windows(Posterior(np.arange(3.0), ("a", "b"), mean, joint), "a", delta=0.4)
    assert [(window.start, window.end) for window in windows] == [(0, 1)]
    both = Posterior(np.arange(3.0), ("a", "b"), mean, np.repeat(mean[None], 100, axis=0))
    assert [(window.start, window.end) for window in token_windows(both, "a", delta=0.4)] == [(0, 1), (1, 2)]


def test_a_rise_is_as_probable_as_the_final_label_rises() -> None:
    mean = np.asarray([[0.2, 0.4, 0.4], [0.8, 0.1, 0.1]])
    joint = np.repeat(mean[None], 100, axis=0)
    joint[:70, 0] = [0.6, 0.4, 0.0]  # far apart in total variation too, but "a" rises by 0.2 only
    posterior = Posterior(np.arange(2.0), ("a", "b", "c"), mean, joint)
    assert rise_windows(posterior, "a", rise=0.5) == ()
    joint[30:70, 0] = mean[0]
    (window,) = rise_windows(posterior, "a", rise=0.5)
    assert window.probability == 0.7
