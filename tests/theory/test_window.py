"""Windows of one generation, against the definition written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.divergence import total_variation
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Step, boundaries
from blinkscope.posterior import Posterior
from blinkscope.window import default_max_width, rise_windows, token_windows


def exact(mean: np.ndarray) -> Posterior:
    return Posterior(np.arange(len(mean), dtype=float), tuple("abcdefgh"[: mean.shape[1]]), mean)


def two(*p: float) -> Posterior:
    return exact(np.asarray([[x, 1 - x] for x in p]))


def by_definition(mean: np.ndarray, delta: float, width: int) -> list[tuple[int, int]]:
    """Candidates: intervals that reach delta and contain no shorter one that does; then the stated order of choice."""
    reach = {
        (a, b): float(total_variation(mean[a], mean[b]))
        for a in range(len(mean))
        for b in range(a + 1, min(a + width, len(mean) - 1) + 1)
        if total_variation(mean[a], mean[b]) >= delta
    }
    minimal = [(a, b) for a, b in reach if not any((c, d) != (a, b) and a <= c and d <= b for c, d in reach)]
    taken: list[tuple[int, int]] = []
    for a, b in sorted(minimal, key=lambda ab: (ab[1] - ab[0], -reach[ab], ab[0])):
        if all(b <= c or a >= d for c, d in taken):
            taken.append((a, b))
    return sorted(taken)


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.9), st.integers(1, 8))
def test_windows_are_those_of_the_definition(seed: int, delta: float, width: int) -> None:
    rng = np.random.default_rng(seed)
    mean = rng.dirichlet(np.full(3, 0.4), 20)
    found = token_windows(exact(mean), "a", delta=delta, max_width=width)
    assert [(w.start, w.end) for w in found] == by_definition(mean, delta, width)
    for w in found:
        assert w.change == pytest.approx(float(total_variation(mean[w.start], mean[w.end])))
        assert w.probability == 1
        assert w.direction == np.sign(w.after["a"] - w.before["a"])


def test_neighbouring_windows_may_share_a_row_but_no_token() -> None:
    found = token_windows(two(0, 0.6, 0, 0), "a", delta=0.5)
    assert [(w.start, w.end, w.direction) for w in found] == [(0, 1, 1), (1, 2, -1)]


def test_without_a_largest_width_every_generation_would_have_one() -> None:
    slow = two(*np.linspace(0.4, 1, 41))
    assert default_max_width(40) == 4
    assert token_windows(slow, "a") == ()
    assert len(token_windows(slow, "a", max_width=40)) == 1


def test_probability_and_direction_come_from_joint_draws() -> None:
    mean = np.asarray([[0.2, 0.5, 0.3], [0.2, 0.0, 0.8]])
    draws = np.stack([mean] * 8 + [np.asarray([[0.2, 0.4, 0.4], [0.25, 0.05, 0.7]])] * 2)
    posterior = Posterior(np.arange(2.0), ("a", "b", "c"), mean, draws)
    (window,) = token_windows(posterior, "a", delta=0.5)
    assert window.probability == 0.8
    assert window.direction == 0  # mass moves between the other labels
    assert window.low <= 0.35 + 1e-9 < window.high == pytest.approx(0.5)
    assert not window.certain
    mostly = Posterior(posterior.index, posterior.labels, mean, draws[[0] * 2 + [9] * 3])
    assert token_windows(mostly, "a", delta=0.5) == ()


def test_an_unconfirmed_short_interval_hides_no_confirmed_longer_one() -> None:
    mean = np.asarray([[0.0, 1.0], [0.45, 0.55], [1.0, 0.0]])
    doubted = np.asarray([[0.0, 1.0], [0.6, 0.4], [1.0, 0.0]])
    posterior = Posterior(np.arange(3.0), ("a", "b"), mean, np.stack([mean, doubted, doubted]))
    (window,) = token_windows(posterior, "a", delta=0.5)  # of (1, 2), 0.55 in the mean, two draws of three say 0.4
    assert (window.start, window.end, window.probability) == (0, 2, 1)


def test_windows_can_be_read_at_the_ends_of_sentences() -> None:
    steps = tuple(Step(t, 1, 0) for t in ("It", " is.", " No", " it", " isn't.\"", " Yes", "\n", "Well", ".", "5"))
    assert boundaries(steps, "sentences").tolist() == [0, 2, 5, 7, 10]
    assert boundaries(steps, "steps").tolist() == [0, 7, 10]
    curve = two(0.1, 0.2, 0.2, 0.4, 0.5, 0.8, 0.8, 0.9, 0.9, 1, 1)
    (window,) = token_windows(curve, "a", delta=0.5, rows=boundaries(steps, "sentences"))
    assert (window.start, window.end) == (2, 5)


def test_the_papers_rule_counts_rises_of_the_final_label_only() -> None:
    coarse = two(0.1, 0.7, 0.1, 0.2, 1.0)
    assert [(w.start, w.end) for w in rise_windows(coarse, "a")] == [(0, 1), (3, 4)]
    assert [(w.start, w.end) for w in rise_windows(coarse, "b")] == [(1, 2)]


@pytest.mark.parametrize(("delta", "width"), [(0.0, None), (1.2, None), (float("nan"), None), (0.5, 0)])
def test_what_makes_no_window_is_refused(delta: float, width: int | None) -> None:
    with pytest.raises(UserError):
        token_windows(two(0, 1), "a", delta=delta, max_width=width)
