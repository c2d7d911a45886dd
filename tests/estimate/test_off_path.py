"""What few labels say about off-path laws, and the deviations that bands are made of."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from blinkscope.estimate import off_path
from blinkscope.estimate.decomposition import round_error_below
from blinkscope.estimate.evidence import inverse_counts, proportions
from blinkscope.estimate.off_path import off_path_laws
from blinkscope.estimate.recursion import Recursion
from tests.estimate.known import random_case

FINAL = np.asarray([1.0, 0.0])


def path(steps: int, q: float = 0.5) -> Recursion:
    return Recursion(np.full(steps, 1 - q), np.full(steps, q))


def test_deviations_have_the_variance_of_the_proportions_and_keep_the_sum() -> None:
    """20,000 draws; the variance of an entry has a relative standard error of at most 3.3 % (kurtosis below 22), so one
    of 36 entries is off by 20 % with probability under 1e-6."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(4, [0.5, 0.3, 0.2], 12)
    counts[9:] = [4, 0, 0]
    laws = off_path_laws(path(12), counts, np.asarray([1.0, 0.0, 0.0]))
    inverse = rng.uniform(0.1, 0.5, 12)
    moved = laws.deviations(inverse, 20_000, rng)
    np.testing.assert_allclose(moved.sum(axis=2), 0, atol=1e-9)
    expected = laws.spread * inverse[:, None]
    told = expected > 1e-3
    assert told.sum() > 20
    np.testing.assert_allclose(moved.var(axis=0)[told], expected[told], rtol=0.2)


def test_the_spread_is_the_mixtures() -> None:
    """E gamma (1 - gamma) of every part by quadrature over its Beta law."""
    counts = np.asarray([[3, 1], [0, 2], [2, 2], [4, 0]])
    laws = off_path_laws(path(4), counts, FINAL)
    points = (np.arange(20_000) + 0.5) / 20_000
    by_part = [[(g * (1 - g)).mean() for g in (beta.ppf(points, *shape) for shape in parts)] for parts in laws.shape]
    np.testing.assert_allclose((laws.part * by_part).sum(axis=1), laws.spread[:, 0], atol=1e-4)
    np.testing.assert_allclose(laws.part.sum(axis=1), 1)


def test_two_labels_that_agree_are_no_certainty_where_the_next_row_is_open() -> None:
    """Sixty labels at each of the positions around say that the outcome is open, and that words decide nothing."""
    counts = np.tile([36, 24], (40, 1))
    counts[4] = [2, 0]
    spread = off_path_laws(path(40), counts, FINAL).spread
    assert spread[4, 0] == pytest.approx(0.24, abs=0.04)


def test_what_is_settled_stays_settled_so_doubt_falls_along_the_path() -> None:
    counts = np.tile([2, 0], (12, 1))
    counts[2] = [1, 1]
    laws = off_path_laws(path(12), counts, FINAL)
    assert (np.diff(laws.spread[3:, 0]) < 0).all()
    # Two labels: settled with probability 0.2 / (0.2 + 0.8 / 3), else a share of other labels of mean 1/4.
    assert laws.part[3, 0] == pytest.approx(0.2 / (0.2 + 0.8 / 3))
    assert off_path.SETTLED == 0.2
    assert 0 < laws.spread[-1, 0] < 0.01


def test_one_outcome_alone_is_not_taken_for_the_only_one() -> None:
    counts = np.tile([1, 0], (30, 1))
    assert (off_path_laws(path(30), counts, FINAL).spread > 0).all()


def test_the_stated_variance_is_the_true_one_on_average() -> None:
    """60 paths with 4 labels at each position, all with other laws; fixed by their seeds."""
    stated, true = [], []
    for seed in range(60):
        case = random_case(seed, labels=3, open_=0.4)
        rng = np.random.default_rng(seed)
        open_ = case.recursion.off_path > 0
        counts = np.asarray([rng.multinomial(4 if o else 0, g) for o, g in zip(open_, case.gamma, strict=True)])
        final = np.eye(3)[case.final]
        spread = np.where(open_[:, None], off_path_laws(case.recursion, counts, final).spread, 0)
        exact = np.where(open_[:, None], case.gamma * (1 - case.gamma), 0)
        stated.append(case.recursion.variance(spread / 4).mean())
        true.append(case.recursion.variance(exact / 4).mean())
    assert 0.8 < np.sqrt(np.mean(stated) / np.mean(true)) < 1.25


def test_inverse_counts_are_the_variance_of_the_averaged_proportions() -> None:
    """40,000 draws of each count: variances have a relative standard error below 1 %, and the bound is 6 of them."""
    rng = np.random.default_rng(1)
    drawn = np.asarray([[3, 5], [1, 1], [0, 4], [7, 0]])
    for i, (a, b) in enumerate(drawn):
        first, second = rng.binomial(a, 0.3, 40_000), rng.binomial(b, 0.3, 40_000)
        counts = np.asarray([[[x, a - x], [y, b - y]] for x, y in zip(first, second, strict=True)])
        assert proportions(counts)[:, 0].var() == pytest.approx(0.21 * inverse_counts(drawn)[i], rel=0.06)


@pytest.mark.parametrize(("error", "below"), [(0.053, 0.05), (0.05, 0.04), (0.1, 0.09), (0.11, 0.1), (0.0201, 0.02)])
def test_a_round_aims_at_the_next_round_error(error: float, below: float) -> None:
    assert round_error_below(error) == pytest.approx(0.99 * below)
