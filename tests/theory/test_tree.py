"""eps-mixture trees: found ones satisfy Definition 8, broken ones are caught at the right node."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.sampler import IndexSet
from blinkscope.tree import (
    MixtureTree,
    Node,
    build_tree,
    check_tree,
    merge_times,
    transferred,
    tree_text,
    window_sequence,
)
from blinkscope.worlds.gaussian_mixture import GaussianMixture
from blinkscope.worlds.two_gaussians import TwoGaussians
from tests.theory.chains import Chain, chains

PAIRS = GaussianMixture(means=np.array([[0.0, 0.0], [5.0, 0.0], [300.0, 0.0], [308.0, 0.0]]))


def subsets(tree: MixtureTree) -> set[frozenset[str]]:
    return {frozenset(node.subset) for node in tree.root.walk()}


def test_two_levels_are_found() -> None:
    tree = build_tree(PAIRS, 0.1)
    assert subsets(tree) == {frozenset(s) for s in ("0", "1", "2", "3", "01", "23", "0123")}
    assert tree.unresolved == tree.conflicts == ()
    assert check_tree(PAIRS, tree.root, 0.1) == ()
    for node in tree.root.walk():
        assert node.t_end is not None
        assert node.t_start is not None
        assert node.t_end <= node.noise_amount <= node.t_start


def test_merge_times_of_gaussians_are_closed_forms() -> None:
    from scipy.stats import norm

    tau = merge_times(PAIRS, 0.1)
    for i, j in combinations(range(4), 2):
        distance = np.linalg.norm(PAIRS.means[i] - PAIRS.means[j])  # type: ignore[index]
        assert tau[i, j] == pytest.approx(math.log(distance / 2) - math.log(norm.ppf(0.55)))


@settings(deadline=None)
@given(chains(labels=(2, 5)), st.floats(0.05, 0.6))
def test_a_tree_that_is_found_satisfies_the_definition(chain: Chain, eps: float) -> None:
    """Or there is none, because two labels never merge; every valid subset is a node or a conflict."""
    tau = merge_times(chain, eps)
    if np.isinf(tau).any():
        with pytest.raises(UserError, match="never come within"):
            build_tree(chain, eps)
        return
    tree = build_tree(chain, eps)
    assert check_tree(chain, tree.root, eps) == ()
    assert all(node.noise_amount in chain.index.points for node in tree.root.walk())
    listed = subsets(tree) | {frozenset(conflict.subset) for conflict in tree.conflicts}
    for size in range(1, len(chain.labels)):
        for subset in combinations(chain.labels, size):
            places = [chain.labels.index(label) for label in subset]
            t_end = tau[np.ix_(places, places)].max()
            rest = tuple(label for label in chain.labels if label not in subset)
            apart = chain.total_variation(subset, rest, t_end).value
            if abs(apart - (1 - eps**2)) > 1e-8:
                assert (frozenset(subset) in listed) == (apart >= 1 - eps**2)
    assert set(tree.unresolved) == {label for label in chain.labels if frozenset((label,)) not in subsets(tree)}


def test_every_kind_of_violation_names_its_node() -> None:
    root = build_tree(PAIRS, 0.1).root

    def broken(change: Node) -> set[tuple[tuple[str, ...], int]]:
        return {(violation.subset, violation.condition) for violation in check_tree(PAIRS, change, 0.1)}

    pair = next(child for child in root.children if child.subset == ("0", "1"))
    others = tuple(child for child in root.children if child is not pair)
    assert broken(replace(root, children=(replace(pair, noise_amount=1.0), *others))) == {(("0", "1"), 1)}
    late = replace(pair, noise_amount=root.noise_amount - 0.1)
    assert broken(replace(root, children=(late, *others))) == {(("0", "1"), 2)}
    equal = replace(root, noise_amount=pair.noise_amount)
    assert (("0", "1"), 3) in broken(equal)
    assert (root.subset, 1) in broken(equal)
    assert (("0", "1"), 0) in broken(pair)
    assert (("0", "2"), 0) in broken(replace(pair, children=(Node(("0", "2"), 0.1),)))
    assert (("0", "1"), 0) in broken(replace(root, children=(pair, *root.children)))


class Table:
    """Four labels whose curves are step functions on 0 .. 4.

    merge: the time at which two labels merge; apart: the last time at which a label set stands apart from the rest.
    """

    labels = ("a", "b", "c", "d")
    weights = np.array([0.01, 0.01, 0.01, 0.97])
    index = IndexSet("t", "1", 0, 4, range(5))
    merge: ClassVar = {"ab": 2, "bc": 1, "ac": 2, "ad": 4, "bd": 4, "cd": 4}
    apart: ClassVar = {"a": 3, "b": 0, "c": 3, "d": 3, "ab": 3, "bc": 3, "ac": -1, "abc": 3}

    def total_variation(self, a: tuple[str, ...], b: tuple[str, ...], t: float) -> Estimate:
        one, other = "".join(sorted(a)), "".join(sorted(b))
        if len(one + other) == 2:
            return Estimate(float(t < self.merge["".join(sorted(one + other))]))
        return Estimate(float(t <= self.apart.get(one, self.apart.get(other, -1))))


def test_overlapping_subsets_are_reported_as_conflicts() -> None:
    """{a, b} is valid on [2, 3] and {b, c} on [1, 3]: c has merged with b by 2, but is light beside d. One must go."""
    tree = build_tree(Table(), 0.1)
    assert {frozenset("bc"), frozenset("abc")} < subsets(tree)
    assert [conflict.subset for conflict in tree.conflicts] == [("a", "b")]
    assert tree.conflicts[0].reason == "overlaps {b, c}"
    assert check_tree(Table(), tree.root, 0.1) == ()


def test_labels_without_a_leaf_are_unresolved() -> None:
    means = np.array([[0.0, 0.0], [0.5, 0.0], [200.0, 0.0]])
    world = GaussianMixture(means=means)
    tree = build_tree(world, 0.1)
    assert tree.unresolved == ("0", "1")
    assert check_tree(world, tree.root, 0.1) == ()
    assert "unresolved: 0, 1" in tree_text(tree)
    with pytest.raises(UserError, match="label '0' has no leaf"):
        window_sequence(world, tree, "0")


def test_linkage_finds_the_same_tree_beyond_twelve_labels() -> None:
    """Sixteen components in eight pairs, the pairs far apart: more labels than are enumerated."""
    centres = 400.0 * np.repeat(np.eye(8), 2, axis=0)
    offsets = np.tile([[-3.0], [3.0]], (8, 1))
    world = GaussianMixture(means=np.hstack([centres, offsets]))
    tree = build_tree(world, 0.1)
    pairs = {frozenset((str(2 * i), str(2 * i + 1))) for i in range(8)}
    assert subsets(tree) == pairs | {frozenset((label,)) for label in world.labels} | {frozenset(world.labels)}
    assert tree.unresolved == ()


def test_windows_along_a_path_and_transfer() -> None:
    tree = build_tree(PAIRS, 0.1)
    path = window_sequence(PAIRS, tree, "3")
    assert [step.node.subset for step in path] == [("3",), ("2", "3"), ("0", "1", "2", "3")]
    assert [step.bound.weight_ratio for step in path] == pytest.approx([3, 1, 0])
    assert [step.node.noise_amount for step in path] == sorted(step.node.noise_amount for step in path)
    assert transferred(tree, 0.04).eps == pytest.approx(0.3)
    for delta in (0.81, -0.1, math.nan):
        with pytest.raises(UserError, match="delta is"):
            transferred(tree, delta)


def test_transfer_holds_for_perturbed_components() -> None:
    """Corollary 2 on a chain: mix each component with delta/2 of another law."""
    rng, delta = np.random.default_rng(8), 0.02
    components = np.kron(np.eye(4), np.ones((1, 2)) / 2)
    kernels = (np.kron(np.eye(2), np.full((4, 4), 0.25)), np.full((8, 8), 0.125))
    chain = Chain(np.full(4, 0.25), components, kernels)
    tree = build_tree(chain, 0.1)
    assert len(subsets(tree)) == 7
    near = replace(chain, components=(1 - delta / 2) * components + delta / 2 * rng.dirichlet(np.ones(8), 4))
    moved = transferred(tree, delta)
    assert check_tree(near, moved.root, moved.eps) == ()
    assert check_tree(near, moved.root, 0.01) != ()


def test_drawing() -> None:
    tree = build_tree(PAIRS, 0.1)
    lines = tree_text(tree).splitlines()
    assert lines[0].startswith("{0, 1, 2, 3}  t = ")
    assert [line.split("{")[0] for line in lines] == ["", "├─ ", "│  ├─ ", "│  └─ ", "└─ ", "   ├─ ", "   └─ "]


def test_a_plot_has_a_bar_for_every_node_with_children() -> None:
    from matplotlib.figure import Figure

    from blinkscope.tree import plot_tree

    axes = Figure().add_subplot()
    plot_tree(build_tree(PAIRS, 0.1), axes)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2", "3"]
    assert len(axes.collections) == 2 * 3


def test_bad_input() -> None:
    with pytest.raises(UserError, match="eps is 0"):
        build_tree(TwoGaussians(), 0)
    with pytest.raises(UserError, match="eps is 1"):
        check_tree(TwoGaussians(), Node(("+", "-"), 1.0), 1)
