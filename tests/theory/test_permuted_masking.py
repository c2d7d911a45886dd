"""Permuted masking: sums over classes of strings against Bayes' rule, and Example 7's 0-mixture tree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkscope.critical import critical_window
from blinkscope.divergence import label_law, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.tree import check_tree, window_sequence
from blinkscope.worlds.experiment import measure
from blinkscope.worlds.permuted_masking import ProductAlphabet

EPS = 1e-6  # stands for 0, which the definitions exclude


def uneven(coordinates: int, alphabet: int, order: str, seed: int = 0) -> ProductAlphabet:
    """A world with random weights, so that no symmetry can hide a mistake."""
    prior = np.random.default_rng(seed).dirichlet(np.ones(alphabet**coordinates))
    return ProductAlphabet(coordinates, alphabet, order, prior)


@pytest.mark.parametrize("removed", [0, 1, 2, 3])
def test_posterior_is_bayes_rule_on_noised_strings(removed: int) -> None:
    world, rng = uneven(3, 2, "2,0,1"), np.random.default_rng(0)
    noised = np.stack([world.process.noise(rng, string, removed) for string in world.strings])
    for label, y in zip(world.labels, noised, strict=True):
        assert (world.sample(rng, label, removed, 2) == y).all()
        joint = world.weights * (noised == y).all(axis=1)
        assert world.posterior(y[None], removed)[0] == pytest.approx(joint / joint.sum())
    law = world.law(removed)
    assert law.mass is not None
    assert law.mean[0].T @ law.mass[0] == pytest.approx(world.weights)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_total_variation_of_any_two_sets_is_that_of_the_posteriors(data: st.DataObject) -> None:
    world = uneven(3, 2, data.draw(st.permutations("012").map(",".join)), data.draw(st.integers(0, 5)))
    a, b = (data.draw(st.sets(st.sampled_from(world.labels), min_size=1)) for _ in range(2))
    values = []
    for t in range(4):
        values.append(world.total_variation(a, b, t).value)
        assert values[t] == pytest.approx(mixture_total_variation(world.law(t), a, b)[0].value, abs=1e-12)
    assert (np.diff(values) <= 1e-12).all(), "data processing"


@pytest.mark.parametrize("order", ["0,1,2", "2,0,1"])
def test_classes_are_a_0_mixture_tree_whose_depth_is_the_length(order: str) -> None:
    world = uneven(3, 3, order)
    tree = world.tree(EPS)
    assert check_tree(world, tree.root, EPS) == ()
    for label in world.labels:
        path = window_sequence(world, tree, label)
        assert [step.node.noise_amount for step in path] == [0, 1, 2, 3]
        for t, step in enumerate(path):
            shown = [int(i) for i in order.split(",")][: 3 - t]
            alike = {other for other in world.labels if all(other[i] == label[i] for i in shown)}
            assert set(step.node.subset) == alike


def test_the_tree_of_another_order_is_refused() -> None:
    assert check_tree(uneven(3, 2, "2,0,1"), uneven(3, 2, "0,1,2").tree(EPS).root, EPS)


def test_every_step_of_the_path_has_a_window_of_one_coordinate() -> None:
    world = ProductAlphabet(4, 2, "3,1,0,2")
    path = window_sequence(world, world.tree(EPS), "0110")
    for t in range(4):
        window = critical_window(world, 0.1, path[t].node.subset, path[t + 1].node.subset)
        assert (window.t_after, window.t_before, window.outcome) == (t, t + 1, "window")


def test_default_window_is_the_first_coordinate() -> None:
    world = ProductAlphabet(order="4,0,1,2,3,5")
    window = critical_window(world, 0.1, world.after)
    assert all(label[4] == "0" for label in world.after)
    assert (window.t_after, window.t_before) == (5, 6) == (world.paper(0.1).t_after, world.paper(0.1).t_before)


def test_the_measured_distance_is_that_of_the_same_sets_time_and_order() -> None:
    """40 measurements at each t from the strings with 0 at the coordinate filled third, among 81 labels.

    Their mean is at most the exact label laws' distance, and near it. The stated standard error covers their scatter:
    the sum of squares over sigma^2, chi-square with 39 degrees of freedom, exceeds 100 with probability 3e-7. The mean
    is allowed 5.5 of its standard errors above and, since labels that are favoured by little are missed, 0.01 more
    below.
    """
    world = uneven(4, 3, "2,0,3,1")
    init = tuple(label for label in world.labels if label[3] == "0")
    for t, apart in ((0, True), (1, True), (2, False), (4, False)):
        exact = float(abs(label_law(world.law(t), init).mean[0] - world.weights).sum() / 2)
        assert exact <= world.total_variation(init, world.labels, t).value + 1e-12
        assert (exact > 0.5) == apart
        found = [measure(world, init, world.labels, t, seed) for seed in range(40)]
        values, stated = np.array([f.value for f in found]), np.array([f.standard_error for f in found])
        if not apart:  # else nearly every run counts, and what scatter there is comes from labels that are missed
            assert ((values - values.mean()) ** 2).sum() <= 100 * (stated**2).mean()
        room = 5.5 * float(np.sqrt((stated**2).mean() / 40)) + 1e-9
        assert exact - 0.01 - room <= values.mean() <= exact + room


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"coordinates": 0}, "at least 1 coordinate"),
        ({"alphabet": 1}, "alphabet 1"),
        ({"alphabet": 37}, "2 to 36"),
        ({"order": "0,1,2"}, "names 3 of 6"),
        ({"coordinates": 3, "order": "0,1,1"}, "not a permutation"),
        ({"order": "first"}, "write the coordinates"),
        ({"coordinates": 40}, "GiB"),
        ({"coordinates": 2, "prior": np.full(9, 0.1)}, "sum to 0.9"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ProductAlphabet(**parameters)  # type: ignore[arg-type]


def test_too_many_posteriors_are_refused_but_windows_are_not() -> None:
    world = ProductAlphabet(10, 3)
    with pytest.raises(UserError, match=r"26\.0 GiB"):
        world.law(0)
    assert critical_window(world, 0.1, world.after).t_before == 10
    with pytest.raises(UserError, match="outside the index set"):
        world.total_variation(world.after, world.labels, 11)
