"""The branch of one sample: against its definition, and on a mixture whose hierarchy is known."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.branch import branch
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.worlds.gaussian_mixture import GaussianMixture

LABELS = "abcd"


def posterior_of(rows: list[list[float]]) -> Posterior:
    mean = np.array([*rows, [1.0, 0.0, 0.0, 0.0]])
    return Posterior(np.arange(len(mean), dtype=float), tuple(LABELS), mean / mean.sum(axis=1, keepdims=True))


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), max_size=6), st.floats(0.01, 0.6))
def test_sets_are_nested_sufficient_and_no_larger_than_they_must_be(rows: list[list[float]], eps: float) -> None:
    posterior = posterior_of(rows)
    stages = branch(posterior, "a", eps)
    assert stages[0].row == 0
    assert stages[-1].labels == ("a",)
    for outer, inner in pairwise(stages):
        assert outer.row < inner.row
        assert outer.labels[: len(inner.labels)] == inner.labels
    ends = [*(stage.row for stage in stages[1:]), len(posterior.mean)]
    for i, (stage, end) in enumerate(zip(stages, ends, strict=True)):
        law = dict(zip(LABELS, posterior.mean[stage.row], strict=True))
        assert stage.inside == pytest.approx(sum(law[label] for label in stage.labels))
        for row in posterior.mean[stage.row : end]:
            assert sum(row[LABELS.index(label)] for label in stage.labels) >= 1 - eps - 1e-9
        if i + 1 == len(stages):
            continue
        # Where the next smaller set begins to suffice, and no earlier, one label less would leave out too much.
        inner, row = stages[i + 1].labels, posterior.mean[end - 1]
        more = len(stage.labels) - len(inner) - 1
        for added in combinations(set(LABELS) - set(inner), more):
            assert sum(row[LABELS.index(label)] for label in (*inner, *added)) < 1 - eps


def test_near_classes_part_last() -> None:
    """Two pairs of Gaussians, 20 apart, 3 apart within: the branch of one passes its pair."""
    world = GaussianMixture(means=np.array([[10.0, 1.5], [10, -1.5], [-10, 1.5], [-10, -1.5]]))
    times = np.array([6.0, 3.0, 1.5, 0.6, 0.15, 0.01])
    rng = np.random.default_rng(0)
    picture = np.array([10.0, 1.5])
    mean = []
    for t in times:
        noise = rng.standard_normal((4000, 2))
        mean.append(world.posterior(np.exp(-t) * picture + np.sqrt(1 - np.exp(-2 * t)) * noise, float(t)).mean(axis=0))
    stages = branch(Posterior(-times, world.labels, np.array(mean)), "0", 0.1)
    assert [set(stage.labels) for stage in stages] == [{"0", "1", "2", "3"}, {"0", "1"}, {"0"}]
    assert [stage.row for stage in stages] == [0, 2, 4]


def test_intervals_come_from_joint_draws() -> None:
    mean = np.array([[0.6, 0.3, 0.1], [0.95, 0.04, 0.01], [1.0, 0.0, 0.0]])
    first = np.array([0.5, 0.55, 0.6, 0.65, 0.7])
    draws = np.repeat(mean[None], 5, axis=0)
    draws[:, 0, 0], draws[:, 0, 2] = first, 0.7 - first
    stages = branch(Posterior(np.arange(3.0), ("a", "b", "c"), mean, draws), "a", 0.1, level=0.5)
    assert [stage.labels for stage in stages] == [("a", "b"), ("a",)]
    assert (stages[0].inside, stages[0].low, stages[0].high) == pytest.approx((0.9, 0.85, 0.95))


def test_bad_input_is_refused() -> None:
    posterior = posterior_of([[1, 1, 1, 1]])
    with pytest.raises(UserError, match="'z' must be among"):
        branch(posterior, "z", 0.1)
    with pytest.raises(UserError, match="eps"):
        branch(posterior, "a", 1.5)
