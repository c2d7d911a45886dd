"""The cheapest counts against closed forms and against the bound that comes with them."""

from __future__ import annotations

import numpy as np
import pytest

from blinkscope.estimate.allocation import best_counts, cheapest_counts, counts_for
from blinkscope.estimate.recursion import Recursion
from tests.estimate.known import random_case


def test_one_position_needs_its_variance_over_the_squared_error() -> None:
    best = cheapest_counts(Recursion(np.array([0.3]), np.array([0.7])), np.array([[0.2]]), np.array([5.0]), 0.05)
    assert best.counts[0] == pytest.approx(0.7**2 * 0.2 / 0.05**2)
    assert best.cost == pytest.approx(5 * best.counts[0])
    assert best.least == pytest.approx(best.cost)


def test_two_positions_when_the_first_row_alone_binds() -> None:
    """Minimise c0 n0 + c1 n1 with a0 / n0 + a1 / n1 <= E^2: n_s = sqrt(a_s / c_s) sum_r sqrt(a_r c_r) / E^2."""
    p, q = np.array([0.5, 0.6]), np.array([0.5, 0.4])
    spread, cost, error = np.array([[0.25], [0.1]]), np.array([2.0, 1.0]), 0.1
    a = np.array([0.5**2 * 0.25, (0.5 * 0.4) ** 2 * 0.1])
    exact = np.sqrt(a / cost) * np.sqrt(a * cost).sum() / error**2
    assert 0.4**2 * 0.1 / exact[1] < error**2  # the second row is left alone
    best = cheapest_counts(Recursion(p, q), spread, cost, error)
    assert best.cost == pytest.approx(float((exact * cost).sum()), rel=0.005)
    assert best.counts == pytest.approx(exact, rel=0.05)


def test_two_positions_when_both_rows_bind() -> None:
    """A first position that hardly ever forks: row 1 asks for n1 = q1^2 v1 / E^2, and row 0 for what is then left."""
    p, q = np.array([0.98, 0.4]), np.array([0.02, 0.6])
    spread, cost, error = np.array([[0.25], [0.2]]), np.array([1.0, 1.0]), 0.05
    n1 = 0.6**2 * 0.2 / error**2
    n0 = 0.02**2 * 0.25 / (error**2 * (1 - 0.98**2))
    best = cheapest_counts(Recursion(p, q), spread, cost, error)
    assert best.cost == pytest.approx(n0 + n1, rel=0.005)


@pytest.mark.parametrize("labels", [2, 4])
def test_the_bound_holds_on_a_whole_path_and_the_loops_allocation_comes_near_it(labels: int) -> None:
    case = random_case(3, labels=labels)
    open_ = case.recursion.off_path[:, None] > 0
    spread, cost = np.where(open_, case.gamma * (1 - case.gamma), 0.0), np.arange(60.0, 0.0, -1.0)
    best = cheapest_counts(case.recursion, spread, cost, 0.05)
    assert best.least <= best.cost <= 1.005 * best.least
    each = np.divide(spread, best.counts[:, None], out=np.zeros_like(spread), where=best.counts[:, None] > 0)
    assert case.recursion.variance(each).max() == pytest.approx(0.05**2)
    counts = best_counts(case.recursion, spread, np.zeros(60), cost, best.least)
    each = np.divide(spread, counts[:, None], out=np.zeros_like(spread), where=counts[:, None] > 0)
    assert 1 - 1e-9 <= case.recursion.variance(each).max() / 0.05**2 <= 1.03


@pytest.mark.parametrize("looked", [1, 3])
def test_positions_without_a_draw_do_not_keep_the_allocation_from_the_best(looked: int) -> None:
    """The first ``looked`` open positions have a draw already, the others none: as in a sparse first look."""
    case = random_case(3)
    open_ = case.recursion.off_path > 0
    spread = np.where(open_[:, None], 0.2, 0.0)
    have, cost = np.zeros(case.recursion.steps), np.ones(case.recursion.steps)
    have[np.flatnonzero(open_)[:looked]] = 1.0
    best = cheapest_counts(case.recursion, spread, cost, 0.05)
    counts = counts_for(case.recursion, spread, have, cost, 0.05)
    assert counts.sum() == pytest.approx(best.cost, rel=0.05)
    assert (counts >= have).all()


def test_nothing_to_decide_costs_nothing() -> None:
    best = cheapest_counts(Recursion(np.array([0.3]), np.array([0.7])), np.zeros((1, 2)), np.array([5.0]), 0.05)
    assert (best.cost, best.least, best.counts[0]) == (0.0, 0.0, 0.0)
