"""The divergence decomposition, against sums over all positions written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blinkscope.errors import UserError
from blinkscope.estimate.allocation import best_counts, fill, whole
from blinkscope.estimate.recursion import Recursion

probabilities = st.floats(0, 1).map(lambda x: 0.0 if x < 0.05 else x)
paths = st.integers(1, 12).flatmap(lambda n: arrays(float, n, elements=probabilities))


def weights(recursion: Recursion) -> np.ndarray:
    """W_ts, written out."""
    n = recursion.steps
    w = np.zeros((n + 1, n))
    for t in range(n):
        for s in range(t, n):
            w[t, s] = np.prod(recursion.p[t:s]) * recursion.off_path[s]
    return w


@given(paths, st.integers(0, 2**32 - 1))
def test_the_recursion_is_the_weighted_sum_and_its_variance_the_weighted_square(q: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    recursion = Recursion(1 - q, q)
    gamma, final = rng.dirichlet(np.ones(3), len(q)), rng.dirichlet(np.ones(3))
    w = weights(recursion)
    stay = 1 - w.sum(axis=1)
    np.testing.assert_allclose(recursion.curve(gamma, final), w @ gamma + stay[:, None] * final, atol=1e-12)
    v = rng.random((len(q), 3))
    np.testing.assert_allclose(recursion.variance(v), w**2 @ v, atol=1e-12)
    row_weight = rng.random((len(q) + 1, 3))
    np.testing.assert_allclose(recursion.sensitivity(row_weight), (w**2).T @ row_weight, atol=1e-12)
    np.testing.assert_allclose(recursion.weight_of(np.ones(len(q))), w.sum(axis=1), atol=1e-12)


@given(paths, st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_left_out_positions_move_no_row_by_more_than_their_weight(q: np.ndarray, seed: int, limit: float) -> None:
    rng = np.random.default_rng(seed)
    recursion = Recursion(1 - q, q)
    gamma, final = rng.dirichlet(np.full(3, 0.3), len(q)), np.eye(3)[rng.integers(3)]
    skipped = recursion.negligible(limit)
    bound = recursion.weight_of(skipped.astype(float))
    assert bound.max() <= limit + 1e-12
    filled = recursion.curve(np.where(skipped[:, None], np.nan, gamma), final)
    moved = 0.5 * np.abs(filled - recursion.curve(gamma, final)).sum(axis=1)
    assert (moved <= bound + 1e-12).all()


def test_positions_are_left_out_from_the_least_likely_fork_on() -> None:
    q = np.asarray([0.004, 0.5, 0.003, 0.3])
    assert Recursion(1 - q, q).negligible(0.01).tolist() == [True, False, True, False]
    assert not Recursion(1 - q, q).negligible(0.001).any()


@pytest.mark.misuse
@pytest.mark.parametrize(("p", "q"), [([0.5], [0.4]), ([np.nan], [0.5]), ([-0.1], [1.1]), ([0.5, 0.5], [0.5])])
def test_probabilities_that_make_no_path_are_refused(p: list[float], q: list[float]) -> None:
    with pytest.raises(UserError):
        Recursion(np.asarray(p), np.asarray(q))


@given(st.integers(1, 10), st.integers(0, 2**32 - 1), st.floats(0.1, 1000))
def test_filling_up_spends_the_budget_and_takes_nothing_back(n: int, seed: int, budget: float) -> None:
    rng = np.random.default_rng(seed)
    shape, have, cost = rng.random(n) * (rng.random(n) < 0.8), rng.integers(0, 9, n).astype(float), rng.uniform(1, 9, n)
    counts = fill(shape, have, cost, budget)
    assert (counts >= have).all()
    if shape.any():
        assert ((counts - have) * cost).sum() == pytest.approx(budget)
        raised = counts > have + 1e-9
        assert (
            np.ptp((counts / np.where(shape > 0, shape, 1))[raised & (shape > 0)])
            < 1e-6 * counts.max() / shape[shape > 0].min()
        )


def test_whole_numbers_cost_about_the_budget() -> None:
    extra, cost = np.asarray([2.6, 0.2, 3.4, 0.0]), np.asarray([1.0, 1.0, 1.0, 1.0])
    assert whole(extra, cost, 6.2).tolist() == [3, 0, 3, 0]


def test_the_allocation_comes_near_the_best_one_found_by_a_general_solver() -> None:
    """Minimise the largest variance for a fixed cost; the reference minimises the same maximum with SLSQP."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(3)
    for _ in range(5):
        q = rng.uniform(0.05, 0.6, 8)
        recursion, cost = Recursion(1 - q, q), rng.uniform(1, 8, 8)
        spread = rng.uniform(0.01, 0.25, (8, 2))

        def worst(counts: np.ndarray, recursion: Recursion = recursion, spread: np.ndarray = spread) -> float:
            return float(recursion.variance(spread / np.maximum(counts, 1e-6)[:, None]).max())

        ours = best_counts(recursion, spread, np.zeros(8), cost, 400.0)
        assert (ours * cost).sum() == pytest.approx(400.0)
        best = min(
            minimize(
                lambda x, worst=worst, cost=cost: np.log(worst(np.exp(x) * 400 / (np.exp(x) * cost).sum())),
                np.log(ours + 0.1) + rng.normal(0, 0.3, 8) * (start > 0),
                method="Nelder-Mead",
                options={"maxiter": 6000, "maxfev": 6000},
            ).fun
            for start in range(3)
        )
        assert worst(ours) <= 1.1 * np.exp(best)
