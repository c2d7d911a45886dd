"""AUROC, recall at a false positive rate and their intervals, against counting by hand and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.detection.metrics import (
    BOOTSTRAPS,
    FALSE_POSITIVE_RATE,
    Resamples,
    allowed_false_positives,
    quality,
    rate_above,
)

SCORE = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0, math.inf, math.nan])


def resamples(positive: np.ndarray, negative: np.ndarray, seed: int = 0) -> Resamples:
    return Resamples.of(len(positive), len(negative), np.random.default_rng(seed))


def by_hand(positive: list[float], negative: list[float]) -> tuple[float, float]:
    """AUROC pair by pair; recall above the lowest threshold that few enough negatives exceed."""
    p, n = ([-math.inf if math.isnan(x) else x for x in scores] for scores in (positive, negative))
    auroc = sum((x > y) + 0.5 * (x == y) for x in p for y in n) / (len(p) * len(n))
    thresholds = [t for t in n if sum(y > t for y in n) <= FALSE_POSITIVE_RATE * len(n)]
    return auroc, sum(x > min(thresholds) for x in p) / len(p)


@given(st.lists(SCORE, min_size=1, max_size=8), st.lists(SCORE, min_size=1, max_size=110))
def test_both_are_what_counting_gives(positive: list[float], negative: list[float]) -> None:
    p, n = np.array(positive), np.array(negative)
    found = quality(p, n, Resamples(np.ones((1, len(p)), int), np.ones((1, len(n)), int)))
    auroc, recall = by_hand(positive, negative)
    assert found.auroc == pytest.approx(auroc)
    assert found.recall == pytest.approx(recall)
    assert found.false_positives <= FALSE_POSITIVE_RATE


@pytest.mark.parametrize("seed", range(8))
def test_every_bootstrap_is_the_measure_of_its_own_draw(seed: int) -> None:
    """At level 1 the limits of two bootstraps are the smaller and the larger of the two."""
    rng = np.random.default_rng(seed)
    positive, negative = rng.normal(1, 2, 9).round(1), rng.normal(0, 1, 130).round(1)
    drawn = resamples(positive, negative, seed)
    two = Resamples(drawn.positive[:2], drawn.negative[:2])
    found = quality(positive, negative, two, level=1.0)
    each = [
        by_hand(np.repeat(positive, p).tolist(), np.repeat(negative, n).tolist())
        for p, n in zip(two.positive, two.negative, strict=True)
    ]
    for limits, values in zip((found.auroc_limits, found.recall_limits), zip(*each, strict=True), strict=True):
        assert (min(values), max(values)) == (pytest.approx(limits) if limits else (values[0], values[0]))


def test_a_missing_score_is_never_flagged_in_either_direction() -> None:
    positive, negative = np.array([np.nan] * 5), np.array([0.0] * 200)
    for sign in (1, -1):
        found = quality(sign * positive, sign * negative, resamples(positive, negative))
        assert (found.auroc, found.recall) == (0.0, 0.0)
    separated = quality(np.full(8, 1.0), np.full(8, np.nan), resamples(np.ones(8), np.ones(8)))
    assert (separated.auroc, separated.recall, separated.auroc_limits) == (1.0, 1.0, None)


def test_the_rate_above_the_threshold_is_the_law_of_an_order_statistic() -> None:
    """Above the largest of n scores: P(rate > x) = (1 - x)^n, which 299 texts bring to 5 % at x = 0.01."""
    for n in (5, 60, 99):
        assert allowed_false_positives(n) == 0
        assert rate_above(n, 0.95) == pytest.approx(1 - 0.05 ** (1 / n))
    assert allowed_false_positives(100) == 1
    assert 1 - 0.05 ** (1 / 299) < 0.01 < 1 - 0.05 ** (1 / 298)
    assert allowed_false_positives(1000) == 10
    assert 0.01 < rate_above(1000, 0.95) < 0.02


def test_intervals_cover_a_known_auroc() -> None:
    """Two normals a standard deviation apart: AUROC = Phi(1 / sqrt 2) = 0.760. Bin(80, 0.93) < 59 has p < 1e-7."""
    rng = np.random.default_rng(5)
    truth = 0.5 * (1 + math.erf(0.5))
    covered = 0
    for seed in range(80):
        positive, negative = rng.normal(1, 1, 50), rng.normal(0, 1, 50)
        limits = quality(positive, negative, resamples(positive, negative, seed)).auroc_limits
        assert limits is not None
        covered += limits[0] <= truth <= limits[1]
    assert covered >= 59


def test_few_texts_and_certain_numbers_get_no_interval() -> None:
    positive, negative = np.arange(4.0), np.arange(50.0)
    few = quality(positive, negative, resamples(positive, negative))
    assert few.auroc_limits is None
    assert few.recall_limits is None
    apart = quality(np.arange(100.0, 120.0), negative, resamples(np.arange(20.0), negative))
    assert (apart.auroc, apart.auroc_limits) == (1.0, None)
    assert resamples(positive, negative).positive.shape == (BOOTSTRAPS, 4)
