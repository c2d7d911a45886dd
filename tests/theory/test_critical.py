"""Critical times: the definitions word by word on finite index sets, closed forms on intervals, the four outcomes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from blinkscope.critical import critical_window, end_time, first_time, last_time, start_time
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.sampler import IndexSet
from blinkscope.worlds.gaussian_mixture import GaussianMixture
from blinkscope.worlds.masked_strings import MaskedStrings
from blinkscope.worlds.two_gaussians import TwoGaussians
from tests.theory.chains import Case, Chain, chains_with_sets

levels = st.floats(0.01, 0.99)


@given(chains_with_sets())
def test_total_variations_do_not_rise_with_noise(case: Case) -> None:
    """Data processing, for the distances of both sets of definitions."""
    chain, init, target, _ = case
    rest = tuple(label for label in chain.labels if label not in target)
    times = range(len(chain.kernels) + 1)
    mixing = [chain.total_variation(init, target, t).value for t in times]
    assert (np.diff(mixing) <= 1e-12).all()
    if rest:
        assert (np.diff([chain.total_variation(target, rest, t).value for t in times]) <= 1e-12).all()


@given(chains_with_sets(), levels)
def test_times_are_the_max_and_min_of_their_sets(case: Case, eps: float) -> None:
    chain, init, target, _ = case
    rest = tuple(label for label in chain.labels if label not in target)
    times = range(len(chain.kernels) + 1)

    def apart(t: int) -> bool:
        return not rest or chain.total_variation(target, rest, t).value >= 1 - eps**2 - 1e-12

    def mixed(t: int) -> bool:
        return chain.total_variation(init, target, t).value <= eps + 1e-12

    assert start_time(chain, target, eps).time == max(filter(apart, times), default=None)
    assert end_time(chain, init, target, eps).time == min(filter(mixed, times), default=None)
    if set(init) != set(target):
        window = critical_window(chain, eps, init, target)
        both = [t for t in times if apart(t) and mixed(t)]
        assert window.t_before == min(both, default=None)
        outside = tuple(label for label in chain.labels if label not in init)
        inside = [t for t in times if chain.total_variation(init, outside, t).value >= 1 - eps**2 - 1e-12]
        assert window.t_after == max(inside, default=None)
        assert window.t_after_interval is window.t_before_interval is None


@given(st.floats(0.01, 0.49), st.floats(0.5, 50))
def test_two_gaussians_against_the_closed_form(eps: float, norm_of_mean: float) -> None:
    window = critical_window(TwoGaussians(norm_of_mean), eps, ("+",))
    before = math.log(norm_of_mean) - math.log(norm.ppf(0.5 + eps))
    after = math.log(norm_of_mean) - math.log(norm.ppf(1 - eps**2 / 2))
    assert window.t_before == pytest.approx(max(before, 0.0), rel=1e-6, abs=1e-9)
    assert window.t_after == (None if after < 0 else pytest.approx(after, rel=1e-6, abs=1e-9))


def test_the_four_outcomes() -> None:
    assert critical_window(TwoGaussians(5.0), 0.1, ("+",)).outcome == "window"
    assert critical_window(TwoGaussians(0.5), 0.1, ("+",)).outcome == "no-after"
    # Two equal components invert from eps = sqrt 2 - 1 on.
    assert critical_window(TwoGaussians(5.0), math.sqrt(2) - 1.001, ("+",)).outcome == "window"
    assert critical_window(TwoGaussians(5.0), math.sqrt(2) - 0.999, ("+",)).outcome == "inverted"
    # {0, 1} mixes only long after it has met 2.
    close = GaussianMixture(means=np.array([[0.0], [10.0], [20.0]]))
    assert critical_window(close, 0.1, ("0",), ("0", "1")).outcome == "no-before"


def test_a_heavy_after_set_inverts_and_the_sufficient_condition_rules_it_out() -> None:
    """(w_{B-A} / w_B) (1 - eps^2 w_{Theta-A} / w_{B-A}) > eps rules inversion out (here B = Theta)."""
    for weight in np.linspace(0.05, 0.95, 19):
        for eps in (0.05, 0.1, 0.3, 0.45):
            outcome = critical_window(MaskedStrings(10, float(weight)), eps, ("first",)).outcome
            if (1 - weight) * (1 - eps**2) > eps:
                assert outcome == "window"
    assert critical_window(MaskedStrings(10, 0.95), 0.1, ("first",)).outcome == "inverted"


@dataclass(frozen=True)
class Given:
    """A mixture of two labels whose only curve is given."""

    curve: Any
    index: IndexSet
    labels: tuple[str, ...] = ("a", "b")

    @property
    def weights(self) -> Any:
        return np.array([0.5, 0.5])

    def total_variation(self, a: Any, b: Any, t: float) -> Estimate:
        return Estimate(*np.atleast_1d(self.curve(t)))


def test_ends_of_the_index_set() -> None:
    unit, ray = IndexSet("t", "1", 0.0, 1.0), IndexSet("t", "1")
    assert last_time(lambda t: 1.0, 0.5, unit) == 1.0
    assert last_time(lambda t: 1.0, 0.5, ray) == math.inf
    assert last_time(lambda t: 0.2, 0.5, unit) is None
    assert first_time(lambda t: 0.2, 0.5, ray) == 0.0
    assert first_time(lambda t: 0.6, 0.5, unit) is None
    assert first_time(lambda t: 0.6, 0.5, ray) is None
    assert first_time(lambda t: math.exp(-t), 1e-9, ray) == pytest.approx(9 * math.log(10), rel=1e-9)
    points = IndexSet("t", "1", 0, 3, (0, 1, 3))
    assert last_time(lambda t: 1 - t / 4, 0.75, points) == 1
    assert first_time(lambda t: 1 - t / 4, 0.74, points) == 3
    # A curve may jump: the level is crossed there.
    assert last_time(lambda t: float(t < 0.25), 0.5, unit) == pytest.approx(0.25)


def test_an_estimated_curve_gives_intervals() -> None:
    """value e^{-t}, standard error 0.01: the limits cross where e^{-t} -+ 1.96 * 0.01 does."""
    mixture = Given(lambda t: (math.exp(-t), 0.01), IndexSet("t", "1"))
    time, interval = end_time(mixture, ("a",), ("a", "b"), 0.1)
    assert interval is not None
    close = 0.02 * 0.01 / 0.08  # times are found to 0.02 standard errors of the curve, whose slope is at least 0.08
    assert time == pytest.approx(-math.log(0.1), abs=close)
    assert interval == pytest.approx((-math.log(0.1 + 0.0196), -math.log(0.1 - 0.0196)), abs=close)
    # Where a limit never crosses there is no end.
    wide = Given(lambda t: (math.exp(-t), 0.2), IndexSet("t", "1"))
    assert end_time(wide, ("a",), ("a", "b"), 0.1).interval == (pytest.approx(-math.log(0.492), abs=0.01), None)


@pytest.mark.parametrize("eps", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_eps_outside_the_unit_interval_is_refused(eps: float) -> None:
    with pytest.raises(UserError, match=r"eps is .*; it must lie strictly between 0 and 1"):
        critical_window(TwoGaussians(5.0), eps, ("+",))


def test_label_sets_that_do_not_nest_are_refused() -> None:
    chain = Chain(np.array([0.2, 0.3, 0.5]), np.eye(3), ())
    with pytest.raises(UserError, match="'c' is in the smaller set but not in the larger"):
        critical_window(chain, 0.1, ("a", "c"), ("a", "b"))
    with pytest.raises(UserError, match="S_after must be smaller than S_before"):
        critical_window(chain, 0.1, ("a", "b"), ("b", "a"))
    with pytest.raises(UserError, match="a label set is empty"):
        critical_window(chain, 0.1, ())
