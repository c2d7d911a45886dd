"""Predicted costs against closed forms, and against what the loop spends."""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
import pytest

from blinkscope.estimate.decomposition import FORESEEN, Decomposition
from blinkscope.estimate.loop import run
from blinkscope.estimate.pilot import SMALLEST_ROUND
from blinkscope.estimate.predict import TYPICAL_SPREAD, planned_costs, predict
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Draw, Stratum
from blinkscope.estimate.trace import ESTIMATORS, Estimator, Target
from tests.estimate.known import random_case


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_position_costs_its_typical_variance_over_the_squared_error(estimator: Estimator) -> None:
    recursion = Recursion(np.array([0.4]), np.array([0.6]))
    found = predict(recursion, (Stratum(0, 10.0),), Target(error=0.02, estimator=estimator))
    draws = 0.6**2 * TYPICAL_SPREAD[estimator] / 0.02**2
    assert found.continuations == round(draws)
    assert found.generated_tokens == round(10 * draws)


def test_nothing_open_costs_nothing_and_the_pilot_is_the_least() -> None:
    recursion = Recursion(np.array([1.0, 0.9]), np.array([0.0, 0.1]))
    assert predict(recursion, (), Target(error=0.05)).generated_tokens == 0
    assert predict(recursion, (Stratum(1, 10.0),), Target(error=0.5)).continuations == SMALLEST_ROUND


@pytest.mark.parametrize(("estimator", "factor"), [("unbiased", 2.0), ("pooled", 3.0)])
def test_predictions_before_and_after_the_first_look_are_not_far_off_in_median(
    estimator: Estimator, factor: float
) -> None:
    """Eight paths whose laws differ from the assumed ones; the paths and all draws are fixed by their seeds.

    What pooling saves depends on how alike neighbours are, which is not the same here as in the benchmark's cases.
    """
    before, after = [], []
    for seed in range(8):
        case = random_case(seed, open_=0.3)
        for error in (0.1, 0.05):
            target = Target(error=error, estimator=estimator)
            outcome = run(case.source(seed), case.method(seed, estimator), target)
            spent = sum(draw.cost for draw in outcome.draws)
            before.append(predict(case.recursion, case.strata, target).generated_tokens / spent)
            if outcome.foreseen is not None:
                after.append(outcome.foreseen / spent)
    assert len(after) >= 8
    for ratios in (before, after):
        assert statistics.median(max(ratio, 1 / ratio) for ratio in ratios) < factor


def test_nothing_is_foreseen_where_the_first_look_is_enough() -> None:
    case = random_case(0, open_=0.3)
    outcome = run(case.source(0), case.method(0), Target(error=0.5))
    assert outcome.status == "complete"
    assert outcome.foreseen is None


def test_of_a_fork_that_half_the_first_look_took_the_other_way_the_rest_is_foreseen() -> None:
    """One position, q = 0.6: after n labels the variance of one is near 1/4, and so many draws must be paid for."""
    recursion = Recursion(np.array([0.4]), np.array([0.6]))
    method = Decomposition(recursion, (Stratum(0, 10.0),), "a", limit=2, seed=0)
    draws = [Draw(0, i, "ab"[(i // 2) % 2], 10.0) for i in range(400)]
    expected = FORESEEN["unbiased"] * 10.0 * 0.6**2 * 0.25 / 0.01**2
    assert method.foreseen(draws, 0.01) == pytest.approx(expected, rel=0.05)
    assert method.foreseen(draws, 0.5) == pytest.approx(4000.0)  # what is spent is spent


def test_the_peers_of_a_path_of_four_tokens() -> None:
    recursion = Recursion(np.array([1.0, 0.5, 1.0, 0.5]), np.array([0.0, 0.5, 0.0, 0.5]))
    costs = planned_costs(4, partial(predict, recursion, (Stratum(1, 2.0), Stratum(3, 1.0))), (0, 2, 0, 1))
    tokens = {(cost.method, cost.error): cost.expected.generated_tokens for cost in costs}
    assert tokens["resampling every token 100 times", None] == 100 * (4 + 3 + 2 + 1)
    assert tokens["resampling every token", 0.1] == 17 * 10  # ceil(1/6 / 0.1^2) = 17 at every row
    assert tokens["forking paths, 30 of each alternative", None] == 30 * 2 * 2
    assert tokens["bisection, 50 each, at worst", None] == 500
    assert tokens["bisection, 50 each, one decisive token", None] == 50 * (4 + 2 * 2)
