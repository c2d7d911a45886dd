"""Topic drift: the reduction to one number against whole discourses, quadrature, and the paper's one-word formula.

Comparisons of averages allow 6 standard errors: false alarms have probability 2e-9 each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from blinkscope.critical import critical_window
from blinkscope.divergence import bhattacharyya, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.worlds.topic_drift import TopicDrift

U, V = ("u",), ("v",)


def phi(x: float, c: float) -> float:
    return (2 + x) / ((2 + x * (1 + c) / 2) * (2 + x * (1 - c) / 2))


def discourse_covariance(world: TopicDrift, theta: np.ndarray, t: int) -> np.ndarray:
    """Covariance of the words kept, in the plane of u and v: OU steps from N(0, I + alpha theta theta^T)."""
    now = np.eye(2) + world.alpha * np.outer(theta, theta)
    kept = range(t, world.length)
    steps = [now]
    for _ in range(1, world.length):
        steps.append(math.exp(-2) * steps[-1] + (1 - math.exp(-2)) * np.eye(2))
    covariance = np.block([[math.exp(-abs(r - s)) * steps[min(r, s)] for s in kept] for r in kept])
    return covariance + np.eye(2 * len(kept))


@pytest.mark.parametrize(("alpha", "cosine", "length", "t"), [(20, 0.3, 6, 0), (20, -0.7, 6, 2), (300, 0.0, 3, 1)])
def test_total_variation_agrees_with_whole_discourses(alpha: float, cosine: float, length: int, t: int) -> None:
    """Second route: draw all words jointly, with the full likelihood of both topics."""
    world = TopicDrift(alpha, cosine, length)
    angle = math.acos(cosine)
    u, v = np.array([1.0, 0.0]), np.array([math.cos(angle), math.sin(angle)])
    laws = [multivariate_normal(cov=discourse_covariance(world, theta, t)) for theta in (u, v)]
    rng, n = np.random.default_rng(0), 20_000
    words = np.concatenate([law.rvs(n, rng) for law in laws])
    log_ratio = laws[0].logpdf(words) - laws[1].logpdf(words)
    terms = np.abs(np.tanh(log_ratio / 2))  # |p - q| / (p + q) under (p + q) / 2
    exact = world.total_variation(U, V, t).value
    assert abs(terms.mean() - exact) <= 6 * terms.std() / math.sqrt(2 * n)
    overlap = 1 / np.cosh(log_ratio / 2)  # sqrt(p q) / ((p + q) / 2)
    found = bhattacharyya(world.law(t), U, V)[0].value
    assert abs(overlap.mean() - found) <= 6 * overlap.std() / math.sqrt(2 * n)


@pytest.mark.parametrize("alpha", [1e-3, 20.0, 1e9])
@pytest.mark.parametrize("cosine", [-0.99, 0.3, 0.999])
def test_quadrature_agrees_with_closed_forms(alpha: float, cosine: float) -> None:
    world = TopicDrift(alpha, cosine, length=12)
    for t in (0, 5, 12):
        law = world.law(t)
        assert law.mass is not None
        assert law.mass.sum() == pytest.approx(1, abs=1e-12)
        separation = world.total_variation(U, V, t).value
        assert mixture_total_variation(law, U, V)[0].value == pytest.approx(separation, abs=1e-11)
        assert bhattacharyya(law, U, V)[0].value == pytest.approx(math.cos(math.pi / 2 * separation), abs=1e-11)


@pytest.mark.parametrize("t", [0, 2, 11])
def test_samples_follow_the_quadrature(t: int) -> None:
    world, rng, n = TopicDrift(), np.random.default_rng(1), 40_000
    law = world.law(t)
    assert law.mass is not None
    pi = world.posterior(world.sample(rng, "u", t, n), t)[:, 0]
    expected = 2 * law.mass[0] @ law.mean[0, :, 0] ** 2  # E_u[pi(u)]
    assert abs(pi.mean() - expected) <= 6 * pi.std() / math.sqrt(n) + 1e-12


def test_one_word_is_the_paper_s_overlap() -> None:
    assert phi(0, 0.3) == 0.5
    for alpha, c in ((0.5, 0.0), (20.0, 0.3), (1e4, -0.8)):
        for length in (1, 2, 5):
            world = TopicDrift(alpha, c, length)
            last = length - 1  # at this time the only word kept is the one emitted at OU time ``last``
            assert world.information(last) == pytest.approx(alpha * math.exp(-2 * last) / 2)
            overlap = bhattacharyya(world.law(last), U, V)[0].value
            assert overlap == pytest.approx(math.sqrt(2 * phi(alpha * math.exp(-2 * last), c)), rel=1e-9)


def test_each_word_tells_more() -> None:
    world = TopicDrift(300.0, -0.2, 20)
    information = [world.information(t) for t in range(21)]
    assert information[-1] == 0
    assert (np.diff(information) < 0).all()


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.3])
def test_the_paper_s_t_after_certifies_less_than_definition_4(eps: float) -> None:
    """(!) At phi(x) = eps^2 one word has BC = sqrt(2) eps: 1 - TV is at most that, and above eps^2."""
    c = 0.3
    t_after = TopicDrift(1.0, c).paper(eps).t_after
    assert t_after is not None
    x = math.exp(-2 * t_after)  # alpha = 1
    assert phi(x, c) == pytest.approx(eps**2)
    assert x == pytest.approx(4 / (eps**2 * (1 - c**2)), rel=0.5 if eps > 0.2 else 0.1)
    one_word = TopicDrift(x, c, length=1)
    assert one_word.paper(eps).t_after == pytest.approx(0, abs=1e-9)
    assert bhattacharyya(one_word.law(0), U, V)[0].value == pytest.approx(math.sqrt(2) * eps)
    assert eps**2 < 1 - one_word.total_variation(U, V, 0).value < math.sqrt(2) * eps
    assert critical_window(one_word, eps, U).outcome == "no-after"


def test_the_paper_s_window_at_the_edges() -> None:
    assert TopicDrift().paper(0.1).t_after == pytest.approx(-1.537, abs=1e-3)  # before the data: alpha is too small
    assert TopicDrift().paper(0.1).t_before == pytest.approx(0.5 * math.log(20 * math.sqrt(401 * 0.91) / 0.1))
    assert TopicDrift().paper(math.sqrt(0.5)).t_after is None  # phi(0) = 1/2


@pytest.mark.parametrize(("alpha", "length"), [(20.0, 1), (20.0, 3), (1e4, 4), (0.3, 2)])
def test_start_error_bounds_what_the_paper_s_start_costs(alpha: float, length: int) -> None:
    """TV(N(0, 1 + x), N(0, 1)) in the one direction in which the two starts differ."""
    x = alpha * math.exp(-2 * length)
    edge = math.sqrt((1 + x) / x * math.log1p(x))  # where the densities cross
    distance = 2 * (norm.cdf(edge) - norm.cdf(edge / math.sqrt(1 + x)))
    assert 0 < distance <= TopicDrift(alpha, 0.3, length).start_error


def test_window_is_the_definition_scanned_over_every_time() -> None:
    world = TopicDrift(1e8, 0.3, 40)
    window = critical_window(world, 0.1, U)
    after = [t for t in range(41) if world.total_variation(U, V, t).value >= 0.99]
    before = [t for t in range(41) if world.total_variation(U, world.labels, t).value <= 0.1]
    assert (window.t_after, window.t_before, window.outcome) == (max(after), min(before), "window")
    assert critical_window(TopicDrift(), 0.1, U).outcome == "no-after"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": math.nan}, "alpha is nan"),
        ({"cosine": 1.0}, "cosine is 1.0"),
        ({"cosine": math.nan}, "cosine is nan"),
        ({"length": 0}, "length is 0"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TopicDrift(**parameters)  # type: ignore[arg-type]


def test_a_time_outside_is_refused() -> None:
    with pytest.raises(UserError, match="outside the index set"):
        TopicDrift().total_variation(U, V, 12.5)
