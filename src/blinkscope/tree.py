"""Hierarchies: eps-mixture trees ([LKC25], Definition 8).

A rooted tree with a label set Subset(u) and a time NoiseAmount(u) at every node, Subset(root) = Theta, the children's
subsets inside the parent's, such that

    (1) labels whose leaves meet at u are merged:  TV(p_t^i, p_t^j) <= eps at t = NoiseAmount(u)
    (2) u stands apart from the rest:              TV(p_t^{Subset(u)}, p_t^{Theta - Subset(u)}) >= 1 - eps^2 there
    (3) NoiseAmount increases towards the root

With the merge times tau_ij = inf { t : TV(p_t^i, p_t^j) <= eps } a subset S can be a node if T_end(S), the largest
tau_ij within S, is at most T_start(S); any time between the two may be its NoiseAmount, as long as (3) holds.

Corollary 1: forward-reverse from {i} at the NoiseAmounts of the nodes above its leaf gives each node's Subset in turn,
up to Theorem 2's bound: a sequence of critical windows. Corollary 2: the tree also serves a model of equal weights
whose components are within delta/2 in total variation, at eps + sqrt(delta).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from blinkscope.bounds import Theorem2, theorem2
from blinkscope.critical import Labels, Mixture, check_eps, complement, first_time, last_time
from blinkscope.errors import UserError
from blinkscope.sampler import IndexSet

ENUMERATED = 12  # up to this many labels every subset is tried; beyond, those that complete linkage proposes
ROUNDING = 1e-9  # slack when a tree is checked at its own critical times


@dataclass(frozen=True)
class Node:
    """A node u: Subset(u), NoiseAmount(u), the times it may lie between, and the nodes below.

    t_end, t_start: T_end(S) and T_start(S); None in a tree given by hand.
    """

    subset: tuple[str, ...]
    noise_amount: float
    children: tuple[Node, ...] = ()
    t_end: float | None = None
    t_start: float | None = None

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()


@dataclass(frozen=True)
class Conflict:
    """A subset that could be a node by itself but not beside the nodes that were kept, and why."""

    subset: tuple[str, ...]
    t_end: float
    t_start: float
    reason: str


@dataclass(frozen=True)
class MixtureTree:
    """An eps-mixture tree.

    unresolved: labels without a leaf: even at the data end they do not stand apart from the rest.
    conflicts: subsets left out because they clash with a node that has a wider [T_end, T_start].
    """

    eps: float
    root: Node
    unresolved: tuple[str, ...] = ()
    conflicts: tuple[Conflict, ...] = ()


@dataclass(frozen=True)
class Violation:
    """A node that breaks a property of Definition 8: its subset, which property (0: the tree's shape), and how."""

    subset: tuple[str, ...]
    condition: int
    reason: str


def build_tree(mixture: Mixture, eps: float) -> MixtureTree:
    """An eps-mixture tree of a mixture, as rich as its valid subsets allow.

    Up to ``ENUMERATED`` labels every subset is tried; beyond, the subsets that complete linkage of the merge times
    proposes. Those find every valid S where no outside label is light, w_k / w_{Theta - S} > (eps + eps^2) / (1 - eps)
    for all k outside S, and can miss some otherwise. Valid subsets need not be nested: those with the widest
    [T_end, T_start] are kept and the others reported as conflicts. NoiseAmounts lie inside [T_end, T_start].

    Raises
    ------
    UserError : eps outside (0, 1), or labels that never merge, for which no root exists.
    """
    check_eps(eps)
    tau = merge_times(mixture, eps)
    if math.isinf(tau.max()):
        i, j = np.unravel_index(int(np.argmax(tau)), tau.shape)
        raise UserError(
            f"labels {mixture.labels[i]!r} and {mixture.labels[j]!r} never come within eps = {eps:g} of each other, so "
            "there is no tree; take a larger eps."
        )
    spans = sorted(_valid_spans(mixture, tau, eps), key=lambda span: span.low - span.high)
    kept = [_Span(mixture.labels, float(tau.max()), mixture.index.high)]
    root = _arrange(kept, mixture.index)
    assert root is not None
    conflicts = []
    for span in spans:
        crossed = next((other.subset for other in kept if _crosses(span.subset, other.subset)), None)
        larger = None if crossed else _arrange([*kept, span], mixture.index)
        if larger is None:
            reason = f"overlaps {_braces(crossed)}" if crossed else "leaves no room for noise amounts that increase"
            conflicts.append(Conflict(span.subset, span.low, span.high, reason))
        else:
            kept, root = [*kept, span], larger
    leaves = {node.subset[0] for node in root.walk() if len(node.subset) == 1}
    return MixtureTree(eps, root, complement(mixture.labels, leaves), tuple(conflicts))


def merge_times(mixture: Mixture, eps: float) -> Float[np.ndarray, "labels labels"]:
    """tau_ij = inf { t : TV(p_t^i, p_t^j) <= eps } for every pair of labels; inf for pairs that never merge."""
    check_eps(eps)
    count = len(mixture.labels)
    tau = np.full((count, count), float(mixture.index.low))
    for i, j in combinations(range(count), 2):
        a, b = (mixture.labels[i],), (mixture.labels[j],)
        time = first_time(partial(_distance, mixture, a, b), eps, mixture.index)
        tau[i, j] = tau[j, i] = math.inf if time is None else time
    return tau


def check_tree(mixture: Mixture, root: Node, eps: float) -> tuple[Violation, ...]:
    """Check a tree, found or given, against Definition 8; empty where it is an eps-mixture tree of the mixture.

    A leaf is a node with one label. Labels without one are exempt from (1), as in the definition.
    """
    check_eps(eps)
    found = []
    if set(root.subset) != set(mixture.labels):
        found.append(Violation(root.subset, 0, "the root must hold all labels"))
    for node in root.walk():
        at, rest = node.noise_amount, complement(mixture.labels, node.subset)
        for a, b in _meeting_pairs(node):
            if (apart := mixture.total_variation((a,), (b,), at).value) > eps + ROUNDING:
                found.append(Violation(node.subset, 1, f"TV between {a} and {b} is {apart:.4g}, above eps = {eps:g}"))
        if rest and (apart := mixture.total_variation(node.subset, rest, at).value) < 1 - eps**2 - ROUNDING:
            found.append(Violation(node.subset, 2, f"TV to the rest is {apart:.4g}, below {1 - eps**2:.4g}"))
        for child in node.children:
            if not set(child.subset) < set(node.subset):
                found.append(Violation(child.subset, 0, f"is not inside its parent {_braces(node.subset)} properly"))
            if child.noise_amount >= at:
                reason = f"its noise amount {child.noise_amount:g} is not below its parent's {at:g}"
                found.append(Violation(child.subset, 3, reason))
        for one, other in combinations(node.children, 2):
            if set(one.subset) & set(other.subset):
                found.append(Violation(one.subset, 0, f"shares labels with its sibling {_braces(other.subset)}"))
    return tuple(found)


@dataclass(frozen=True)
class PathStep:
    """Forward-reverse from one label at ``node.noise_amount`` gives p^{node.subset} up to ``bound``."""

    node: Node
    bound: Theorem2


def window_sequence(mixture: Mixture, tree: MixtureTree, label: str) -> tuple[PathStep, ...]:
    """Corollary 1: the sequence of windows that a label passes, from its leaf to the root."""
    path = [node for node in tree.root.walk() if label in node.subset]
    if not path or len(path[-1].subset) != 1:
        raise UserError(f"label {label!r} has no leaf in this tree; it is not resolved at eps = {tree.eps:g}.")
    return tuple(PathStep(node, theorem2(mixture, node.subset, tree.eps)) for node in reversed(path))


def transferred(tree: MixtureTree, delta: float) -> MixtureTree:
    """Corollary 2: the same tree for a model of equal weights within delta/2 in TV of each component.

    It is an (eps + sqrt(delta))-mixture tree of that model, provided this stays below 1.
    """
    eps = tree.eps + math.sqrt(delta) if delta >= 0 else math.nan
    if not eps < 1:
        raise UserError(f"delta is {delta:g}; it must not be negative and eps + sqrt(delta) must stay below 1.")
    return replace(tree, eps=eps)


def tree_text(tree: MixtureTree) -> str:
    """The tree in box-drawing characters, one node a line with its noise amount."""
    lines: list[str] = []

    def write(node: Node, first: str, others: str) -> None:
        lines.append(f"{first}{_braces(node.subset)}  t = {node.noise_amount:.4g}")
        for i, child in enumerate(node.children):
            last = i == len(node.children) - 1
            write(child, others + ("└─ " if last else "├─ "), others + ("   " if last else "│  "))

    write(tree.root, "", "")
    if tree.unresolved:
        lines.append(f"unresolved: {', '.join(tree.unresolved)}")
    return "\n".join(lines)


def plot_tree(tree: MixtureTree, axes: Any) -> None:
    """Draw the tree on matplotlib axes: time upwards, labels along the bottom, a bar where branches meet."""
    leaves = [node for node in tree.root.walk() if not node.children]
    middle = {id(node): float(x) for x, node in enumerate(leaves)}
    for node in reversed(list(tree.root.walk())):
        if node.children:
            below = [middle[id(child)] for child in node.children]
            middle[id(node)] = (min(below) + max(below)) / 2
            axes.hlines(node.noise_amount, min(below), max(below), color="black")
            axes.vlines(below, [child.noise_amount for child in node.children], node.noise_amount, color="black")
    axes.set_xticks(range(len(leaves)), [", ".join(node.subset) for node in leaves])
    axes.set_ylabel("noise amount t")


class _Span(NamedTuple):
    """A valid subset with T_end <= T_start."""

    subset: tuple[str, ...]
    low: float
    high: float


def _valid_spans(mixture: Mixture, tau: Float[np.ndarray, "labels labels"], eps: float) -> Iterator[_Span]:
    """Proper subsets S with T_end(S) <= T_start(S)."""
    for members in _proposals(tau):
        inside = np.isin(np.arange(len(tau)), members)
        low = float(tau[np.ix_(inside, inside)].max())
        # At t = T_end(S) all of S lies within eps of each of its labels. A label k outside that has merged with one of
        # them by then is within 2 eps of p^S, so that TV(p^S, p^rest) <= 1 - (1 - 2 eps) w_k / w_rest.
        merged = mixture.weights[~inside][(tau[np.ix_(inside, ~inside)] <= low).any(axis=0)]
        if (1 - 2 * eps) * merged.max(initial=0.0) > (eps**2 + ROUNDING) * mixture.weights[~inside].sum():
            continue
        subset = tuple(mixture.labels[i] for i in members)
        apart = partial(_distance, mixture, subset, complement(mixture.labels, subset))
        high = last_time(apart, 1 - eps**2, mixture.index)
        if high is not None and high >= low:
            yield _Span(subset, low, high)


def _proposals(tau: Float[np.ndarray, "labels labels"]) -> Iterator[tuple[int, ...]]:
    """Proper subsets of the labels to try."""
    count = len(tau)
    if count <= ENUMERATED:
        for size in range(1, count):
            yield from combinations(range(count), size)
        return
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    clusters: list[tuple[int, ...]] = [(i,) for i in range(count)]
    for first, second, *_ in linkage(squareform(tau - tau.diagonal()[0]), method="complete"):
        clusters.append(tuple(sorted(clusters[int(first)] + clusters[int(second)])))
    yield from clusters[:-1]


def _arrange(spans: list[_Span], index: IndexSet) -> Node | None:
    """Nest subsets into a tree and choose their NoiseAmounts; None where these cannot increase to the root.

    On a finite index set amounts are counted in points, one apart at least. From the leaves up, ``floor`` is the least
    amount a node can have; from the root down each then takes the middle between its floor and its ceiling.
    """
    gap = 0 if index.points is None else 1
    where: Sequence[float] | None = index.points
    spans = sorted(spans, key=lambda span: (-len(span.subset), span.subset))
    lows = [span.low if where is None else bisect_left(where, span.low) for span in spans]
    highs = [span.high if where is None else bisect_left(where, span.high) for span in spans]
    below: list[list[int]] = [[] for _ in spans]
    for i in range(1, len(spans)):
        below[max(j for j in range(i) if set(spans[i].subset) < set(spans[j].subset))].append(i)
    floors = list(lows)
    for i in reversed(range(len(spans))):
        needed = max((floors[j] for j in below[i]), default=-math.inf)
        floors[i] = max(lows[i], needed + gap)
        if floors[i] > highs[i] or needed >= highs[i]:
            return None

    def place(i: int, ceiling: float) -> Node:
        top = min(highs[i], ceiling)
        amount = floors[i] + 1.0 if math.isinf(top) else (floors[i] + top) / 2
        if where is not None:
            amount = where[math.floor(amount)]
        children = tuple(place(j, (amount if where is None else bisect_left(where, amount)) - gap) for j in below[i])
        return Node(spans[i].subset, amount, children, spans[i].low, spans[i].high)

    return place(0, highs[0])


def _meeting_pairs(node: Node) -> Iterator[tuple[str, str]]:
    """Pairs of labels whose leaves meet at this node."""
    leaves = [[n.subset[0] for n in child.walk() if len(n.subset) == 1 and not n.children] for child in node.children]
    for one, other in combinations(leaves, 2):
        yield from ((a, b) for a in one for b in other if a != b)


def _distance(mixture: Mixture, a: Labels, b: Labels, t: float) -> float:
    return mixture.total_variation(a, b, t).value


def _crosses(one: Labels, other: Labels) -> bool:
    """Whether two sets overlap without one holding the other."""
    a, b = set(one), set(other)
    return bool(a & b) and not (a <= b or b <= a)


def _braces(subset: Labels) -> str:
    return "{" + ", ".join(subset) + "}"
