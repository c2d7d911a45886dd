"""In-context learning: enumeration against simulation, closed forms, and where the paper's formulas differ.

Comparisons of averages with exact values allow 6 standard errors: false alarms have probability 2e-9 each.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from blinkscope.bounds import proof_steps
from blinkscope.critical import critical_window
from blinkscope.divergence import Estimate, bhattacharyya
from blinkscope.errors import UserError
from blinkscope.worlds import in_context
from blinkscope.worlds.in_context import InContext

FIRST, OTHERS = ("0",), ("1", "2")
LAWS = np.array([[0.6, 0.3, 0.1], [0.4, 0.3, 0.3], [0.5, 0.1, 0.4]])
PRIOR = np.array([0.2, 0.5, 0.3])


def wrong_mass(world: InContext, t: float) -> Estimate:
    """E_{theta*}[pi_t(Theta - theta*)]."""
    return proof_steps(world.law(t, (FIRST, world.labels[1:])), FIRST, FIRST)[0].leaving


@pytest.mark.parametrize(("candidates", "separation"), [(2, 0.1), (3, 0.7), (8, 0.1), (5, 2.0)])
def test_candidates_are_at_the_asked_separation(candidates: int, separation: float) -> None:
    laws = InContext(candidates=candidates, separation=separation).laws
    assert laws.sum(axis=1) == pytest.approx(1)
    gaps = ((np.sqrt(laws[:, None]) - np.sqrt(laws)) ** 2).sum(axis=2)
    assert gaps[~np.eye(candidates, dtype=bool)] == pytest.approx(separation)


@pytest.mark.parametrize("removed", [30, 25, 10, 0])
def test_enumerated_counts_agree_with_simulated_contexts(removed: int) -> None:
    """Second route: write whole contexts, multiply the probabilities of their answers one by one."""
    world = InContext(examples=30, answers=LAWS, prior=PRIOR)
    rng, n = np.random.default_rng(1), 20_000
    share = np.array([0.5, 0.5 * 0.5 / 0.8, 0.5 * 0.3 / 0.8])  # (p^A + p^B) / 2
    writer = rng.choice(3, size=n, p=share)
    likelihood = np.ones((n, 3))
    for _ in range(30 - removed):
        answer = (rng.random((n, 1)) > LAWS[writer].cumsum(axis=1)).sum(axis=1)
        likelihood *= LAWS[:, answer].T
    a, b = likelihood[:, 0], likelihood[:, 1:] @ PRIOR[1:] / 0.8
    terms = np.abs(a - b) / (a + b)
    exact = world.total_variation(FIRST, OTHERS, removed)
    assert exact.standard_error == 0
    assert abs(terms.mean() - exact.value) <= 6 * terms.std() / math.sqrt(n) + 1e-12
    assert world.law(removed).mass is not None
    assert (world.law(removed).mean[0].T @ world.law(removed).mass[0]) == pytest.approx(PRIOR)


@pytest.mark.parametrize("removed", [0, 150, 190])
def test_drawn_contexts_agree_with_enumerated_counts(removed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = InContext(candidates=3)
    exact = world.total_variation(FIRST, OTHERS, removed)
    monkeypatch.setattr(in_context, "ENTRIES", 0)
    drawn = world.total_variation(FIRST, OTHERS, removed)
    assert exact.standard_error == 0 < drawn.standard_error
    assert abs(drawn.value - exact.value) <= 6 * drawn.standard_error + 1e-12


def test_two_candidates_have_binomial_answers() -> None:
    world = InContext(examples=120, candidates=2, separation=0.1)
    p = world.laws[0, 0]
    apart = []
    for n in range(121):
        counts = np.arange(n + 1)
        apart.append(np.abs(binom.pmf(counts, n, p) - binom.pmf(counts, n, 1 - p)).sum() / 2)
        assert world.total_variation(("0",), ("1",), 120 - n).value == pytest.approx(apart[n], rel=1e-9)
        overlap = bhattacharyya(world.law(120 - n), ("0",), ("1",))[0].value
        assert overlap == pytest.approx(0.95**n, rel=1e-9), "against one alternative BC is a product"
    window = critical_window(world, 0.1, FIRST)
    assert window.t_after == max(120 - n for n in range(121) if apart[n] >= 0.99)
    assert window.t_before == min(120 - n for n in range(121) if apart[n] / 2 <= 0.1)


def test_against_several_alternatives_the_overlap_is_no_product() -> None:
    """(!) Alternatives {p* itself, q}: BC stays above sqrt(1/2) while the tensorised mixture separation goes to 0."""
    p, q, n = np.array([0.5, 0.5]), np.array([0.9, 0.1]), 400
    world = InContext(examples=n, answers=np.stack([p, p, q]))
    one_example = np.sqrt(p * (p + q) / 2).sum()  # BC between p* and the mixture of the alternatives
    assert one_example**n < 1e-3
    overlap = bhattacharyya(world.law(0), FIRST, OTHERS)[0].value
    assert overlap == pytest.approx(math.sqrt(0.5), abs=1e-3)
    assert overlap >= math.sqrt(0.5) - 1e-9
    assert world.separation == pytest.approx(0)
    assert world.overlap_bound(n) >= overlap
    assert world.sufficient_examples(0.1) is None
    assert critical_window(world, 0.1, FIRST).outcome == "no-after"


def test_overlap_bound_holds_for_any_laws() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        world = InContext(examples=12, answers=rng.dirichlet(np.ones(3), 4), prior=rng.dirichlet(np.ones(4)))
        for removed in (0, 4, 11, 12):
            overlap = bhattacharyya(world.law(removed), FIRST, world.labels[1:])[0].value
            assert overlap <= world.overlap_bound(12 - removed) + 1e-12


@pytest.mark.parametrize("eps", [0.05, 0.1, 0.2])
def test_printed_condition_is_too_weak_and_the_corrected_one_suffices(eps: float) -> None:
    """(!) n >= ln((1 - delta/2)/eps) should read ln(eps)/ln(1 - delta/2), with the weights of several alternatives."""
    for world in (InContext(candidates=3), InContext(examples=12, answers=LAWS, prior=PRIOR), InContext()):
        enough = world.sufficient_examples(eps)
        printed = world.paper(eps).t_after
        assert enough is not None
        assert printed is not None
        at_printed = wrong_mass(world, math.floor(printed))
        assert at_printed.value - 6 * at_printed.standard_error > eps
        if enough <= world.examples:
            at_enough = wrong_mass(world, world.examples - enough)
            assert at_enough.value + 6 * at_enough.standard_error <= eps


def test_sufficient_examples_is_the_formula() -> None:
    assert InContext().sufficient_examples(0.1) == 70  # ln(7 / 0.2) / -ln(0.95) = 69.3
    uneven = InContext(answers=LAWS, prior=PRIOR).sufficient_examples(0.01)
    overlap = max(np.sqrt(LAWS[0] * LAWS[1]).sum(), np.sqrt(LAWS[0] * LAWS[2]).sum())
    assert uneven == math.ceil(math.log((math.sqrt(2.5) + math.sqrt(1.5)) / 0.02) / -math.log(overlap))
    assert InContext(separation=2.0).sufficient_examples(0.1) == 1


def test_the_length_of_the_context_does_not_matter() -> None:
    short, long = InContext(examples=20, answers=LAWS), InContext(examples=50, answers=LAWS)
    for seen in (1, 7, 20):
        assert wrong_mass(short, 20 - seen) == wrong_mass(long, 50 - seen)


def test_interweaving_leaves_the_posterior_as_it_was_where_the_model_does_not_read_the_questions() -> None:
    """Corollary 3: rows behind questions and delimiters equal the row before; rows behind answers are the world's."""
    world, rng = InContext(examples=9, answers=LAWS, prior=PRIOR), np.random.default_rng(3)
    answers, questions = rng.integers(3, size=9), rng.integers(2, size=9)
    rows = world.read(questions, answers)
    assert rows.shape == (28, 3)
    assert rows[0] == pytest.approx(PRIOR)
    for i in range(9):
        assert (rows[3 * i + 1] == rows[3 * i]).all()
        assert (rows[3 * i + 3] == rows[3 * i + 2]).all()
        counts = np.bincount(answers[: i + 1], minlength=3)
        assert rows[3 * i + 2] == pytest.approx(world.posterior(counts[None], 9 - (i + 1))[0])


def test_questions_from_one_kernel_for_all_still_move_a_model_that_reads_them() -> None:
    """The other kernel being the same for every theta is not enough: the model takes inserted questions for its own."""
    world, rng = InContext(examples=40, answers=LAWS), np.random.default_rng(4)
    own = np.array([[0.5, 0.5], [0.8, 0.2], [0.5, 0.5]])
    questions = rng.integers(2, size=40)  # fair whatever theta is
    rows = world.read(questions, rng.choice(3, size=40, p=LAWS[1]), own)
    moved = np.abs(rows[1::3] - rows[:-1:3]).max(axis=1)
    assert (moved > 0).all()
    assert rows[-1, 1] < 0.5 < world.read(questions, rng.choice(3, size=40, p=LAWS[1]))[-1, 1]


def test_window_is_the_definition_scanned_over_every_time() -> None:
    world = InContext(examples=100, candidates=3, separation=0.15)
    window = critical_window(world, 0.15, FIRST)
    after = [t for t in range(101) if world.total_variation(FIRST, OTHERS, t).value >= 1 - 0.15**2]
    before = [t for t in range(101) if world.total_variation(FIRST, world.labels, t).value <= 0.15]
    assert (window.t_after, window.t_before, window.outcome) == (max(after), min(before), "window")


def test_default_window_is_estimated_with_an_interval() -> None:
    window = critical_window(InContext(), 0.1, FIRST)
    assert window.outcome == "window"
    assert window.t_before == 200
    assert window.t_after_interval is not None
    low, high = window.t_after_interval
    assert low is not None
    assert high is not None
    assert low <= window.t_after <= high  # type: ignore[operator]
    assert 110 < low <= high < 135


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"examples": 0}, "0 examples"),
        ({"candidates": 1}, "1 candidates"),
        ({"separation": 0.0}, "separation is 0.0"),
        ({"separation": math.nan}, "separation is nan"),
        ({"examples": 10**6}, "GiB"),
        ({"answers": np.array([[0.5, 0.6], [0.5, 0.5]])}, "each must sum to 1"),
        ({"answers": np.array([0.5, 0.5])}, "shape"),
        ({"prior": np.array([0.5, 0.5])}, "8 labels"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        InContext(**parameters)  # type: ignore[arg-type]


def test_bad_times_and_impossible_answers_are_refused() -> None:
    world = InContext(examples=5, separation=2.0)
    with pytest.raises(UserError, match="outside the index set"):
        world.law(6)
    with pytest.raises(UserError, match="impossible under every candidate"):
        world.posterior(np.array([[2, 3, 0, 0, 0, 0, 0, 0]]), 0)
