"""The first worlds: closed forms, second routes, and the numbers that the theory quotes."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from blinkscope.critical import critical_window
from blinkscope.divergence import bhattacharyya, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.worlds.critical_token import CriticalToken
from blinkscope.worlds.gaussian_mixture import GaussianMixture
from blinkscope.worlds.masked_strings import MaskedStrings
from blinkscope.worlds.random_hierarchy import RandomHierarchy
from blinkscope.worlds.random_walk import RandomWalk
from blinkscope.worlds.report import steps, world_json
from blinkscope.worlds.sparse_regression import SparseRegression
from blinkscope.worlds.topic_drift import TopicDrift
from blinkscope.worlds.two_gaussians import TwoGaussians
from blinkscope.worlds.world import drawn_law

# --- Example 1 --------------------------------------------------------------------------------------------------------


def test_two_gaussians_numbers_of_theory() -> None:
    """|mu| = 5, eps = 0.1: exact .663, printed .245, its own inequality .927."""
    world = TwoGaussians(5.0)
    paper = world.paper(0.1)
    assert critical_window(world, 0.1, ("+",)).t_after == pytest.approx(0.663, abs=5e-4)
    assert paper.t_after == pytest.approx(0.245, abs=5e-4)
    own = math.log(5) - 0.5 * math.log(math.log(1 / (2 * 0.1**2)))
    assert own == pytest.approx(0.927, abs=5e-4)
    # (!) That one certifies (II) <= eps / sqrt 2 through Lemma 7, and not TV >= 1 - eps^2.
    proof = steps(world, ("+",), ("+",), own)
    assert proof.lemma7 == pytest.approx(0.1 / math.sqrt(2), rel=1e-6)
    assert proof.separation < 1 - 0.1**2


@given(st.floats(0.02, 0.69), st.floats(5.0, 50.0))
def test_where_the_printed_window_of_two_gaussians_is_conservative(eps: float, norm_of_mean: float) -> None:
    """(!) Below eps = .429 against its own inequality, below .3056 against Definition 4."""
    world = TwoGaussians(norm_of_mean)
    exact, paper = critical_window(world, eps, ("+",)), world.paper(eps)
    assert paper.t_before is not None
    assert exact.t_before is not None
    assert paper.t_before >= exact.t_before
    assert paper.t_after is not None
    own = math.log(norm_of_mean) - 0.5 * math.log(math.log(1 / (2 * eps**2)))
    if abs(eps - 0.429) > 1e-3:
        assert (paper.t_after <= own) == (eps < 0.429)
    if exact.t_after is not None and abs(eps - 0.3056) > 1e-3:
        assert (paper.t_after <= exact.t_after) == (eps < 0.3056)


@given(st.floats(0.01, 30.0), st.floats(0.0, 8.0))
def test_quadrature_of_two_gaussians_against_the_closed_forms(norm_of_mean: float, t: float) -> None:
    world = TwoGaussians(norm_of_mean)
    law, half = world.law(t), norm_of_mean * math.exp(-t)
    assert law.mass is not None
    assert law.mass.sum() == pytest.approx(1, abs=1e-12)
    exact = 2 * norm.cdf(half) - 1
    assert mixture_total_variation(law, ("+",), ("-",))[0].value == pytest.approx(exact, rel=1e-9, abs=1e-13)
    assert bhattacharyya(law, ("+",), ("-",))[0].value == pytest.approx(math.exp(-(half**2) / 2), rel=1e-9, abs=1e-13)


# --- Example 2 --------------------------------------------------------------------------------------------------------


def test_gaussian_mixture_of_two_is_the_two_gaussians_world() -> None:
    means = np.array([[3.0, 0.0, 4.0], [-3.0, 0.0, -4.0]])
    window = critical_window(GaussianMixture(means=means), 0.1, ("0",))
    same = critical_window(TwoGaussians(5.0), 0.1, ("+",))
    assert (window.t_after, window.t_before) == pytest.approx((same.t_after, same.t_before), rel=1e-9)
    assert window.t_after_interval is None
    # Average over draws against the closed form, with other weights; 6 standard errors.
    tilted = GaussianMixture(means=means, prior=np.array([0.9, 0.1]))
    for t in (0.2, 1.0, 2.0, 3.0):
        drawn = mixture_total_variation(tilted.law(t, (("0",), ("0", "1"))), ("0",), ("0", "1"))[0]
        assert abs(drawn.value - tilted.total_variation(("0",), ("0", "1"), t).value) < 6 * drawn.standard_error


def test_gaussian_mixture_against_quadrature_in_one_dimension() -> None:
    """Three unequal components, by integrating densities on a grid; 6 standard errors."""
    means, prior, grid = np.array([[-4.0], [0.0], [5.0]]), np.array([0.2, 0.5, 0.3]), np.linspace(-20, 20, 40_001)
    variances = np.array([0.3, 2.0, 1.0])
    for covariances in (None, variances[:, None, None]):
        world = GaussianMixture(means=means, covariances=covariances, prior=prior)
        for t in (0.0, 0.7, 2.0):
            decay = math.exp(-t)
            var = np.ones(3) if covariances is None else decay**2 * variances + 1 - decay**2
            densities = norm.pdf(grid, decay * means, np.sqrt(var)[:, None])
            rest = (0.5 * densities[1] + 0.3 * densities[2]) / 0.8
            exact = np.abs(densities[0] - rest).sum() / 2 * (grid[1] - grid[0])
            got = world.total_variation(("0",), ("1", "2"), t)
            assert abs(got.value - exact) < 6 * got.standard_error + 1e-9
            posterior = world.posterior(np.array([[1.0]]), t)[0]
            at = norm.pdf(1.0, decay * means[:, 0], np.sqrt(var)) * prior
            assert posterior == pytest.approx(at / at.sum(), rel=1e-9)


def test_gaussian_mixture_in_the_span_equals_the_whole_space() -> None:
    """The fast path of ``law`` against ``sample`` and ``posterior``, and the Gram root against the means."""
    world = GaussianMixture(components=4, dim=50, seed=2)
    means = np.random.default_rng(2).standard_normal((4, 50))
    assert world.sample(np.random.default_rng(0), "0", 1.0, 2).shape == (2, 4)
    full = GaussianMixture(means=means, covariances=np.broadcast_to(np.eye(50), (4, 50, 50)))
    for t in (0.5, 1.5, 3.0):
        fast, slow = (w.total_variation(("0",), w.labels, t) for w in (world, full))
        assert abs(fast.value - slow.value) < 6 * math.hypot(fast.standard_error, slow.standard_error)
        drawn = mixture_total_variation(drawn_law(world, t, (("0",), world.labels), 8000, 9), ("0",), world.labels)[0]
        assert abs(fast.value - drawn.value) < 6 * math.hypot(fast.standard_error, drawn.standard_error)


def test_paper_window_of_the_mixture_certifies_the_error_term() -> None:
    """(!) At its T_after (II) <= eps, for equal weights; TV >= 1 - eps^2 may fail there, and it does for K = 2."""
    world = GaussianMixture()
    paper = world.paper(0.1)
    assert paper is not None
    assert paper.t_after is not None
    assert steps(world, ("0",), ("0",), paper.t_after).leaving.interval(0.999)[1] < 0.1
    pair = GaussianMixture(means=np.array([[20.0], [-20.0]]))
    printed = pair.paper(0.1)
    assert printed is not None
    assert printed.t_after is not None
    assert pair.total_variation(("0",), ("1",), printed.t_after).value < 0.99
    assert GaussianMixture(means=np.zeros((2, 1)), covariances=np.ones((2, 1, 1))).paper(0.1) is None


@pytest.mark.slow
def test_a_thousand_components_in_ten_thousand_dimensions() -> None:
    started = time.perf_counter()
    window = critical_window(GaussianMixture(components=1000, dim=10_000), 0.1, ("0",))
    assert time.perf_counter() - started < 60
    assert window.outcome == "window"
    assert window.t_after_interval is not None
    assert window.t_after_interval[0] is not None
    assert window.t_after_interval[1] is not None
    assert window.t_after_interval[0] < window.t_after < window.t_after_interval[1]  # type: ignore[operator]
    assert window.t_after_interval[1] - window.t_after_interval[0] < 0.15


# --- Example 3 --------------------------------------------------------------------------------------------------------


@given(st.integers(1, 200), st.floats(0.02, 0.98), st.floats(0.01, 0.99))
def test_masked_strings_against_the_closed_forms(hamming: int, weight: float, eps: float) -> None:
    world = MaskedStrings(hamming, weight)
    window = critical_window(world, eps, ("first",))
    other = 1 - weight
    assert window.t_after == pytest.approx(eps ** (2 / hamming), rel=1e-6)
    before = 0.0 if eps >= other else (1 - eps / other) ** (1 / hamming)
    assert window.t_before == pytest.approx(before, rel=1e-6, abs=1e-9)
    paper = world.paper(eps)
    assert paper.t_after == pytest.approx(window.t_after, rel=1e-6)
    assert paper.t_before is not None
    assert paper.t_before >= before - 1e-12, "sufficient, and later than needed"


def test_masked_strings_by_enumerating_masks() -> None:
    """Two strings of length 4 with h = 3, every mask by brute force."""
    from itertools import product

    t, differ = 0.4, (0, 1, 3)
    hidden = sum(
        math.prod(t if masked else 1 - t for masked in mask)
        for mask in product((0, 1), repeat=4)
        if all(mask[i] for i in differ)
    )
    assert MaskedStrings(3).total_variation(("first",), ("second",), t).value == pytest.approx(1 - hidden)


# --- Example 4 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agree", "width"), [(40, 3), (0, 1), (0, 5), (10, 20), (97, 3)])
@pytest.mark.parametrize("eps", [0.1, 0.15, 0.2, 0.24])
def test_critical_token_window_is_exactly_the_tokens(agree: int, width: int, eps: float) -> None:
    world = CriticalToken(100, agree, width, leak=0.01)
    window, paper = critical_window(world, eps, ("first",)), world.paper(eps)
    assert (window.t_after, window.t_before) == (100 - agree - width, 100 - agree)
    assert paper is not None
    assert (paper.t_after, paper.t_before) == (window.t_after, window.t_before)


def test_leak_between_eps_squared_and_eps_widens_the_window() -> None:
    """(!) The paper's condition leak <= eps is not enough for TV >= 1 - eps^2."""
    ends = []
    for leak in (0.0, 0.01, 0.02, 0.05, 0.1):
        window, paper = critical_window(CriticalToken(leak=leak), 0.1, ("first",)), CriticalToken(leak=leak).paper(0.1)
        assert paper is not None
        assert (paper.t_after, paper.t_before) == (57, 60)
        assert window.t_before == 60
        assert window.t_after == min(57, math.floor(57 * 0.01 / leak + 1e-9)) if leak else 57
        ends.append(window.t_after)
    assert ends == [57, 57, 28, 11, 5]
    assert CriticalToken(leak=0.2).paper(0.1) is None
    assert critical_window(CriticalToken(100, 97, 3, leak=0.2), 0.1, ("first",)).outcome == "no-after"


# --- Example 5 --------------------------------------------------------------------------------------------------------


def test_random_walk_numbers_of_theory() -> None:
    """D = .02, eps = .1: n_before 40 exact, 23 published; n_after 4,143 exact, 6,623 published; length 10^5."""
    world = RandomWalk(length=100_000, drift=0.02)
    window, paper = critical_window(world, 0.1, ("strong",)), world.paper(0.1)
    assert (window.t_before, window.t_after) == (100_000 - 40, 100_000 - 4143)
    assert paper is not None
    assert paper.t_before == pytest.approx(100_000 - 23)
    assert paper.t_after == pytest.approx(100_000 - 6623, abs=1)


@pytest.mark.parametrize(("drift", "eps"), [(0.1, 0.1), (0.05, 0.05), (0.2, 0.3), (0.45, 0.1), (0.03, 0.2)])
def test_random_walk_times_by_scanning_exact_sums(drift: float, eps: float) -> None:
    length = 3000
    world = RandomWalk(length, drift)
    tv = []
    for n in range(400):
        k = np.arange(n + 1)
        tv.append(np.abs(binom.pmf(k, n, 0.5 + drift) - binom.pmf(k, n, 0.5 - drift)).sum() / 2)
        assert world.separation(n) == pytest.approx(tv[n], abs=1e-12)
    assert tv[1:-1:2] == pytest.approx(tv[2::2], abs=1e-12), "TV_{2m} = TV_{2m-1}"
    before = max(n for n in range(400) if tv[n] / 2 <= eps + 1e-12)
    window = critical_window(world, eps, ("strong",))
    assert window.t_before == length - before
    if tv[-1] >= 1 - eps**2:
        assert window.t_after == length - min(n for n in range(400) if tv[n] >= 1 - eps**2)


def test_published_random_walk_window_is_conservative_or_beyond_the_length() -> None:
    """(!) Its T_before exceeds T whenever D > eps / sqrt 2."""
    for drift in (0.01, 0.03, 0.06, 0.08, 0.2):
        for eps in (0.05, 0.1, 0.3):
            world = RandomWalk(20_000, drift)
            exact, paper = critical_window(world, eps, ("strong",)), world.paper(eps)
            assert paper is not None
            assert paper.t_before is not None
            assert (paper.t_before > 20_000) == (drift > eps / math.sqrt(2))
            if drift <= eps / math.sqrt(2) and exact.t_after is not None:
                assert exact.t_before is not None
                assert paper.t_after is not None
                assert exact.t_before <= paper.t_before
                assert paper.t_after <= exact.t_after


def test_window_of_the_walk_is_free_of_its_length() -> None:
    windows = [critical_window(RandomWalk(length, 0.1), 0.1, ("strong",)) for length in (500, 5000, 50_000)]
    assert len({w.t_before - w.t_after for w in windows}) == 1  # type: ignore[operator]


@pytest.mark.parametrize("absorb", [2, 5, 12])
def test_absorbed_walk_limits_and_simulation(absorb: int) -> None:
    """1 - TV_inf = 2 / (1 + r^A); and 20,000 simulated walks, 6 standard errors."""
    drift, length = 0.1, 600
    world, ratio = RandomWalk(length, drift, absorb), 0.6 / 0.4
    limit = 2 / (1 + ratio**absorb)
    assert 1 - world.total_variation(("strong",), ("weak",), 0).value == pytest.approx(limit, rel=1e-4)
    reached = critical_window(world, 0.1, ("strong",)).t_after is not None
    assert reached == (limit < 0.01)
    rng, place = np.random.default_rng(absorb), np.zeros(20_000, dtype=int)
    for _ in range(40):
        place += np.where(np.abs(place) < absorb, np.where(rng.random(20_000) < 0.6, 1, -1), 0)
    law = world.law(length - 40)
    assert law.mass is not None
    strong = law.mass[0] * law.mean[0, :, 0] / 0.5
    seen = np.bincount(place + absorb, minlength=2 * absorb + 1) / 20_000
    assert np.abs(seen - strong).max() < 6 * 0.5 / math.sqrt(20_000)


def test_endings_of_the_walk_by_enumerating_all_paths() -> None:
    """Length 8, A = 3: every path of both modes."""
    from itertools import product

    world = RandomWalk(8, 0.2, 3, "ending")
    for t in (0, 3, 6, 8):
        joint: dict[int, np.ndarray[Any, Any]] = {}
        for path in product((1, -1), repeat=8):
            place, kept = 0, 0
            for n, step in enumerate(path):
                kept = place if n == 8 - t else kept
                place += step if abs(place) < 3 else 0
            kept = place if t == 0 else kept
            ups = path.count(1)
            chance = (0.7**ups * 0.3 ** (8 - ups) + 0.3**ups * 0.7 ** (8 - ups)) / 2
            joint.setdefault(kept, np.zeros(3))[0 if place == 3 else 1 if place == -3 else 2] += chance
        law = world.law(t)
        assert law.mass is not None
        for kept, chances in joint.items():
            assert law.mass[0, kept + 3] == pytest.approx(chances.sum())
            assert law.mean[0, kept + 3] == pytest.approx(chances / chances.sum())
        assert sum(joint.values()) == pytest.approx(world.weights)


def test_long_texts_take_no_longer() -> None:
    """10^9 steps: nothing may go through them one by one (10^9 of anything takes more than the limit)."""
    start = time.process_time()
    walk = world_json(RandomWalk(10**9), 0.1)
    assert walk["window"] == {"t_after": 10**9 - 163, "t_before": 10**9 - 2}
    assert world_json(CriticalToken(10**9, leak=0.0), 0.1)["window"] == {"t_after": 10**9 - 43, "t_before": 10**9 - 40}
    short, long = TopicDrift(length=80), TopicDrift(length=10**9)
    assert long.information(0) == pytest.approx(short.information(0), rel=1e-12)
    assert time.process_time() - start < 5


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoGaussians(0.0), "mean-norm is 0"),
        (lambda: TwoGaussians(math.nan), "mean-norm is nan"),
        (lambda: MaskedStrings(0), "hamming is 0"),
        (lambda: MaskedStrings(3, 1.0), "weight is 1"),
        (lambda: CriticalToken(10, 8, 3), "do not fit into length = 10"),
        (lambda: CriticalToken(leak=1.0), "leak is 1"),
        (lambda: RandomWalk(0), "length is 0"),
        (lambda: RandomWalk(10**26), r"length is 1.*at most 1e\+15"),
        (lambda: RandomWalk(drift=1e-308), "drift is 1e-308"),
        (lambda: CriticalToken(10**26), "length is 1"),
        (lambda: TopicDrift(length=10**26), "length is 1"),
        (lambda: TopicDrift(alpha=1e308), r"alpha is 1e\+308; it must be a positive number, from 1e-100 to 1e\+100"),
        (lambda: SparseRegression(noise=1e308), r"noise is 1e\+308"),
        (lambda: SparseRegression(noise=1e-308), "noise is 1e-308"),
        (lambda: RandomHierarchy(depth=10**26), r"1e\+18 leaves would need .* GiB"),
        (lambda: RandomHierarchy(branching=10**26), r"1e\+18 leaves would need .* GiB"),
        (lambda: RandomHierarchy(seed=-1), "seed is -1"),
        (lambda: GaussianMixture(seed=-1), "seed is -1"),
        (lambda: RandomWalk(drift=0.5), "drift is 0.5"),
        (lambda: RandomWalk(absorb=0), "absorb is 0"),
        (lambda: RandomWalk(label="colour"), "it is 'mode' or 'ending'"),
        (lambda: RandomWalk(label="ending"), "needs absorb between 2 and the length"),
        (lambda: RandomWalk(10**6, absorb=10**4), r"would need 298\.\d GiB of memory, more than the 2 GiB"),
        (lambda: GaussianMixture(components=1), "at least 2 components"),
        (lambda: GaussianMixture(components=10**5, dim=10**5), r"would need 74\.5 GiB"),
        (lambda: GaussianMixture(means=np.zeros(3)), "means must be finite, of shape"),
        (lambda: GaussianMixture(means=np.array([[np.nan], [0.0]])), "means must be finite"),
        (lambda: GaussianMixture(means=np.zeros((2, 3)), covariances=np.ones((2, 2, 2))), "covariances have shape"),
        (
            lambda: GaussianMixture(means=np.zeros((2, 1)), covariances=-np.ones((2, 1, 1))),
            "not symmetric and positive",
        ),
        (lambda: GaussianMixture(components=2, prior=np.array([0.5, 0.6])), "the weights sum to 1.1"),
    ],
)
def test_bad_parameters_are_refused_in_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
