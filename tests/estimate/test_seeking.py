"""What is undecided about windows: closed forms on drawn curves, and runs on sources with a known law."""

from __future__ import annotations

import numpy as np
import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.loop import run
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.seeking import SLACK, UNDECIDED_AT_MOST, Sought, Undecided
from blinkscope.estimate.source import Draw
from blinkscope.estimate.trace import Target
from blinkscope.posterior import Posterior
from blinkscope.window import token_windows
from tests.estimate.known import Case, random_case

STEPS = 60
SEEKING = Target().changed(until="windows")


def jumping(share: float, jump: float, *, at: int = 3, rows: int = 8, size: int = 100) -> np.ndarray:
    """Curves of two labels that are flat, but for a share of them that jump at one step."""
    draws = np.full((size, rows, 2), 0.5)
    high = np.arange(rows) > at
    draws[: round(share * size), high, 0] += jump / 2
    draws[: round(share * size), ~high, 0] -= jump / 2
    draws[:, :, 1] = 1 - draws[:, :, 0]
    return draws


def undecided(draws: np.ndarray, delta: float = 0.5, max_width: int = 3) -> Undecided:
    posterior = Posterior(np.arange(draws.shape[1]), ("a", "b"), draws.mean(axis=0), draws)
    return Sought(delta, max_width).undecided(posterior)


def test_a_window_that_is_not_listed_is_missed_as_often_as_draws_have_it() -> None:
    assert undecided(jumping(0.3, 0.7)) == Undecided(pytest.approx(0.3), (3, 4))


def test_a_listed_window_is_none_as_often_as_draws_lack_it() -> None:
    assert undecided(jumping(0.8, 0.7)) == Undecided(pytest.approx(0.2), (3, 4))
    assert undecided(jumping(1.0, 0.7)).probability == 0
    draws = jumping(1.0, 0.7)
    draws[:30] = jumping(1.0, 0.5 - SLACK - 0.01)[:30]
    assert undecided(draws) == Undecided(pytest.approx(0.3), (3, 4))
    draws[:30] = jumping(1.0, 0.5 - SLACK + 0.01)[:30]
    assert undecided(draws).probability == 0


def test_a_change_within_the_slack_is_no_missed_window_and_one_beyond_it_is() -> None:
    assert undecided(jumping(0.3, 0.5 + SLACK - 0.01)).probability == 0
    assert undecided(jumping(0.3, 0.5 + SLACK + 0.01)).probability == pytest.approx(0.3)
    assert undecided(jumping(0.3, 0.96), delta=0.9).probability == pytest.approx(0.3)  # half of the way to 1


def test_the_likelier_of_two_doubts_is_looked_at_and_doubts_add_up() -> None:
    draws = jumping(0.0, 0.0)
    draws[:20], draws[20:50] = jumping(1.0, 0.7, at=1)[:20], jumping(1.0, 0.7, at=6)[:30]
    assert undecided(draws) == Undecided(pytest.approx(0.5), (6, 7))
    # A listed window that 20 draws lack, and one elsewhere that 15 others have.
    draws = jumping(1.0, 0.7, at=1)
    draws[:20] = 0.5
    draws[20:35, 7] = 1 - draws[20:35, 7]
    assert undecided(draws) == Undecided(pytest.approx(0.35), (1, 2))


def test_a_window_wider_than_asked_for_is_none() -> None:
    draws = jumping(0.3, 0.0)
    draws[:30, :, 0] = np.linspace(0.1, 0.9, 8)
    draws[:, :, 1] = 1 - draws[:, :, 0]
    assert undecided(draws, max_width=5).probability == 0
    assert undecided(draws, max_width=6).probability == pytest.approx(0.3)


def decided(seed: int) -> Case:
    """A path that goes the less likely way at one of its steps, if the seed is even; else nothing is decided."""
    rng = np.random.default_rng(seed)
    q = np.where(rng.random(STEPS) < 0.4, rng.beta(0.7, 2.0, STEPS), 0.0)
    gamma, row = np.empty((STEPS, 2)), np.array([1.0, 0.0])
    rows, decision = [row], int(rng.integers(10, 50)) if seed % 2 == 0 else -1
    for s in reversed(range(STEPS)):
        gamma[s] = 0.9 * row + 0.1 * rng.dirichlet([0.5, 0.5])
        if s == decision:
            q[s], gamma[s] = rng.uniform(0.75, 0.95), (0.0, 1.0)
        row = (1 - q[s]) * row + q[s] * gamma[s]
        rows.append(row)
    return Case(Recursion(1 - q, q), gamma, ("a", "b"), 0, np.asarray(rows[::-1]))


def method(case: Case, seed: int) -> Decomposition:
    return Decomposition(case.recursion, case.strata, case.names[case.final], 12, seed, "pooled", sought=Sought(0.5, 6))


def test_runs_find_the_large_windows_for_fewer_tokens_than_the_curve_costs() -> None:
    """Half of the paths have one; paths and draws are fixed by their seeds."""
    true, found, spent, whole = 0, 0, [], []
    for seed in range(24):
        case = decided(seed)
        outcome = run(case.source(seed), method(case, seed), SEEKING)
        assert (outcome.status, outcome.error <= UNDECIDED_AT_MOST) == ("complete", True)
        exact = Posterior(np.arange(STEPS + 1), case.names, case.truth)
        large = [w for w in token_windows(exact, case.names[case.final], max_width=6) if w.change >= 0.5 + SLACK]
        listed = token_windows(outcome.posterior, case.names[case.final], max_width=6)
        true += len(large)
        found += sum(any(w.start < x.end and x.start < w.end for x in listed) for w in large)
        spent.append(sum(draw.cost for draw in outcome.draws))
        fine = run(case.source(seed), case.method(seed, "pooled"), Target(error=0.05, estimator="pooled"))
        whole.append(sum(draw.cost for draw in fine.draws))
    assert true >= 10
    assert found >= true - 1
    assert np.sum(spent) < np.sum(whole) / 3


def test_a_run_until_windows_goes_on_to_an_error_and_back() -> None:
    case = random_case(3)
    outcome = run(case.source(1), method(case, 1), SEEKING)
    known = {(draw.stratum, draw.replicate): draw for draw in outcome.draws}
    fresh: list[Draw] = []
    target = Target(error=0.08, estimator="pooled")
    fine = run(case.source(1), case.method(1, "pooled"), target, known=known, record=fresh.append)
    assert len(fresh) < len(fine.draws)
    assert fine.draws == run(case.source(1), case.method(1, "pooled"), target).draws
    assert run(None, method(case, 1), SEEKING, known=known).draws == outcome.draws


def test_what_makes_no_sense_together_is_refused() -> None:
    assert (SEEKING.estimator, SEEKING.asked) == ("pooled", UNDECIDED_AT_MOST)
    with pytest.raises(UserError, match="pooled"):
        Target(until="windows")
    with pytest.raises(UserError, match="give error or until"):
        Target().changed(until="windows", error=0.1)
    with pytest.raises(UserError, match="choose one of error, windows"):
        Target(until="dawn")  # type: ignore[arg-type]
