"""Predicted costs against closed forms, and against what the loop spends."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from blinkscope.estimate.decomposition import SMALLEST_ROUND
from blinkscope.estimate.loop import run
from blinkscope.estimate.predict import TYPICAL_SPREAD, planned_costs, predict
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Stratum
from blinkscope.estimate.trace import ESTIMATORS, Estimator, Target
from tests.estimate.known import random_case


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_position_costs_its_typical_variance_over_the_squared_error(estimator: Estimator) -> None:
    recursion = Recursion(np.array([0.4]), np.array([0.6]))
    found = predict(recursion, (Stratum(0, 10.0),), 0.02, estimator)
    draws = 0.6**2 * TYPICAL_SPREAD[estimator] / 0.02**2
    assert found.continuations == round(draws)
    assert found.generated_tokens == round(10 * draws)


def test_nothing_open_costs_nothing_and_the_pilot_is_the_least() -> None:
    recursion = Recursion(np.array([1.0, 0.9]), np.array([0.0, 0.1]))
    assert predict(recursion, (), 0.05).generated_tokens == 0
    assert predict(recursion, (Stratum(1, 10.0),), 0.5).continuations == SMALLEST_ROUND


def test_predictions_are_within_a_factor_of_2_in_median() -> None:
    """Eight paths whose laws differ from the assumed ones; the paths and all draws are fixed by their seeds."""
    factors = []
    for seed in range(8):
        case = random_case(seed, open_=0.3)
        for error in (0.1, 0.05):
            outcome = run(case.source(seed), case.method(seed), Target(error=error))
            ratio = predict(case.recursion, case.strata, error).generated_tokens / sum(d.cost for d in outcome.draws)
            factors.append(max(ratio, 1 / ratio))
    assert statistics.median(factors) < 2


def test_the_peers_of_a_path_of_four_tokens() -> None:
    recursion = Recursion(np.array([1.0, 0.5, 1.0, 0.5]), np.array([0.0, 0.5, 0.0, 0.5]))
    costs = planned_costs(recursion, (Stratum(1, 2.0), Stratum(3, 1.0)), (0, 2, 0, 1))
    tokens = {(cost.method, cost.error): cost.expected.generated_tokens for cost in costs}
    assert tokens["resampling every token 100 times", None] == 100 * (4 + 3 + 2 + 1)
    assert tokens["resampling every token", 0.1] == 17 * 10  # ceil(1/6 / 0.1^2) = 17 at every row
    assert tokens["forking paths, 30 of each alternative", None] == 30 * 2 * 2
    assert tokens["bisection, 50 each, at worst", None] == 500
    assert tokens["bisection, 50 each, one decisive token", None] == 50 * (4 + 2 * 2)
