"""Sparse regression: the sum over supports against other routes, and the all-or-nothing curve sharpening around N*.

Comparisons of averages allow 6 standard errors: false alarms have probability 2e-9 each.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
from scipy.special import expit, logsumexp
from scipy.stats import norm

from blinkscope.critical import critical_window
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.worlds.report import world_json
from blinkscope.worlds.sparse_regression import SparseRegression

SIGNAL, NULL = ("signal",), ("null",)
PUBLISHED_NOISE = math.sqrt(0.1)


def curve(world: SparseRegression, ratio: float) -> Estimate:
    """TV(signal, null) at ``ratio`` N* observations, on a straight line between whole numbers of them."""
    n = ratio * world.threshold
    low, high = (world.total_variation(SIGNAL, NULL, world.observations - m) for m in (math.floor(n), math.ceil(n)))
    part = n - math.floor(n)
    # The two share their draws, so their errors may add up.
    return Estimate(
        (1 - part) * low.value + part * high.value, (1 - part) * low.standard_error + part * high.standard_error
    )


@pytest.mark.parametrize("noise", [0.4, 0.005])
@pytest.mark.parametrize(("dim", "sparsity"), [(5, 1), (5, 2), (6, 3), (6, 4), (8, 6)])
@pytest.mark.parametrize("label", ["signal", "null"])
def test_posterior_is_bayes_rule_over_all_supports(dim: int, sparsity: int, label: str, noise: float) -> None:
    """With little noise terms differ by factors beyond e^1000, and products of matrices would lose them."""
    world = SparseRegression(dim, sparsity, noise, observations=7)
    for t in (0, 3, 7):
        contexts = world.sample(np.random.default_rng(t), label, t, 20)
        assert contexts.shape == (20, 7 - t, dim + 1)
        for context, pi in zip(contexts, world.posterior(contexts, t), strict=True):
            x, y = context[:, :-1], context[:, -1]
            supports = list(combinations(range(dim), sparsity))
            given = [norm.logpdf(y, x[:, support].sum(axis=1), noise).sum() for support in supports]
            null = norm.logpdf(y, 0, math.sqrt(sparsity + noise**2)).sum()
            signal = logsumexp(given) - math.log(len(supports))
            assert pi == pytest.approx([expit(signal - null), expit(null - signal)], rel=1e-9, abs=1e-12)


def test_total_variation_of_one_observation_agrees_with_quadrature() -> None:
    """y given x = (x1, x2) is (N(x1, s^2) + N(x2, s^2)) / 2 or N(0, 1 + s^2)."""
    sigma = 0.5
    world = SparseRegression(2, 1, sigma, observations=3)
    nodes, rule = np.polynomial.hermite_e.hermegauss(60)
    rule /= rule.sum()
    y = np.linspace(-16, 16, 4001)[:, None]
    null = norm.pdf(y, 0, math.sqrt(1 + sigma**2))
    density = norm.pdf(y, nodes, sigma)
    exact = (
        sum(w * (rule * np.abs((density[:, [i]] + density) / 2 - null).sum(axis=0)).sum() for i, w in enumerate(rule))
        * (32 / 4000)
        / 2
    )
    drawn = world.total_variation(SIGNAL, NULL, 2)
    assert abs(drawn.value - exact) <= 6 * drawn.standard_error


@pytest.fixture(scope="module")
def worlds() -> list[SparseRegression]:
    return [SparseRegression(dim, 2, PUBLISHED_NOISE, observations=14) for dim in (20, 60, 200)]


def test_detection_at_dim_200_is_as_stated(worlds: list[SparseRegression]) -> None:
    """The stated figures are themselves Monte Carlo, rounded to two digits: 0.02 for that."""
    for ratio, stated in zip((0.5, 1, 1.5, 2), (0.10, 0.43, 0.86, 0.98), strict=True):
        found = curve(worlds[-1], ratio)
        assert abs(found.value - stated) <= 0.02 + 6 * found.standard_error
        assert found.standard_error < 0.006


@pytest.mark.parametrize(("ratio", "direction"), [(0.5, -1), (1.5, 1), (2, 1)])
def test_detection_sharpens_monotonically_around_the_threshold(
    worlds: list[SparseRegression], ratio: float, direction: int
) -> None:
    """At small size all-or-nothing is a tendency, not a step: below N* detection falls with dim, above it rises."""
    found = [curve(world, ratio) for world in worlds]
    for small, large in pairwise(found):
        error = math.hypot(small.standard_error, large.standard_error)
        # True gaps are at least 8.4 errors, so that this fails wrongly with probability 4e-8.
        assert direction * (large.value - small.value) > 3 * error
    assert all(0.35 < curve(world, 1).value < 0.5 for world in worlds), "the crossover sits at N*"


def test_a_million_supports_agree_with_residuals_of_every_one() -> None:
    """Second route: all residuals y - <theta, x> themselves, without inner products."""
    world = SparseRegression(183, 3, 0.3, observations=12)
    assert world.supports > 10**6
    context = world.sample(np.random.default_rng(5), "signal", 0, 1)
    members = np.array(list(combinations(range(183), 3))).T
    squares = np.zeros(world.supports)
    for row in context[0]:
        squares += (row[-1] - row[:-1][members].sum(axis=0)) ** 2
    signal = logsumexp(-squares / (2 * 0.3**2)) - math.log(world.supports) - 12 * math.log(0.3)
    y, variance = context[0, :, -1], 3 + 0.3**2
    null = -(y @ y) / (2 * variance) - 6 * math.log(variance)
    assert world._log_ratio(context)[0] == pytest.approx(signal - null, rel=1e-9)


def test_default_window_and_the_paper_s_threshold() -> None:
    world = SparseRegression()
    window, paper = critical_window(world, 0.1, SIGNAL), world.paper(0.1)
    assert world.threshold == pytest.approx(4 * math.log(30) / math.log(1 + 2 / 0.09))
    assert paper.t_after == paper.t_before == pytest.approx(40 - world.threshold)
    assert window.outcome == "window"
    assert window.t_after is not None
    assert window.t_before is not None
    assert window.t_after < 40 - world.threshold < window.t_before
    assert window.t_after_interval is not None
    values = [world.total_variation(SIGNAL, world.labels, t) for t in range(30, 41)]
    assert window.t_before == next(t for t, v in zip(range(30, 41), values, strict=True) if v.value <= 0.1)


def test_a_law_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window's report asks for the same one again and again, and each is seconds of work at large size."""
    drawn: list[float] = []
    draw = SparseRegression._draw
    monkeypatch.setattr(SparseRegression, "_draw", lambda self, t, between: drawn.append(t) or draw(self, t, between))
    world = SparseRegression(12, 2, 0.3, observations=12)
    world_json(world, 0.1)
    world_json(world, 0.1)
    assert 5 < len(drawn) <= 13 + 3  # the index has 13 times, and three questions have a law between two label sets


def test_common_random_numbers_only_cut_contexts_shorter() -> None:
    world = SparseRegression(10, 2, 0.3, observations=6)
    long, short = (world.sample(np.random.default_rng(3), "signal", t, 4) for t in (0, 4))
    assert (long[:, :2] == short).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"sparsity": 0}, "sparsity is 0"),
        ({"dim": 2}, "sparsity < dim"),
        ({"noise": 0.0}, "noise is 0.0"),
        ({"noise": math.inf}, "noise is inf"),
        ({"observations": 0}, "observations is 0"),
        ({"dim": 1000, "sparsity": 4}, r"4\.14e\+10 supports would take about 1\.3e\+11 multiplications"),
        ({"dim": 2000}, r"2e\+06 supports would take about 2\.9e\+08 multiplications, more than the 2\.7e\+08 allowed"),
        ({"dim": 20_000, "sparsity": 1}, "one context .* GiB"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SparseRegression(**parameters)  # type: ignore[arg-type]


def test_a_time_outside_is_refused() -> None:
    with pytest.raises(UserError, match="outside the index set"):
        SparseRegression().law(41)
