"""Trees of labels as data: of one picture, and of all that a model makes; a page draws both alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from blinkscope.branch import Stage, branch
from blinkscope.report import summary

if TYPE_CHECKING:
    from blinkscope.estimate.trace import Trace
    from blinkscope.studies.study import Row, StudyResult

OPEN = 0.1
"""A picture's outcomes are open as long as leaving one out would leave out more than this of the probability."""
SAID = 3
"""Sets of a branch that are told in a sentence."""
AXES = {"diffusion": "reverse steps taken", "distribution": "tokens kept", "structured": "tokens kept"}
"""The studies with an eps-mixture tree, and what their trees run along."""


@dataclass(frozen=True)
class TreeNode:
    """A set of labels and the place from which on a sample stays inside it.

    k: the label's number among the labels of the page, where the node is a leaf of one of these.
    """

    name: str
    at: float
    children: tuple[TreeNode, ...] = ()
    k: int | None = None


@dataclass(frozen=True)
class Tree:
    """axis: what ``at`` counts, from 0 to ``last``."""

    axis: str
    last: float
    root: TreeNode


def study_tree(result: StudyResult) -> Tree | None:
    """The eps-mixture tree that a study found; None where it has none."""
    rows = result.findings.tables.get("tree", ())
    if result.study not in AXES or not rows:
        return None
    last = max(row["kept"] for row in result.findings.tables["same"])
    return Tree(AXES[result.study], float(last), _nested(rows))


def _nested(rows: Sequence[Row]) -> TreeNode:
    """The tree in a table that lists parents before their children, one level deeper each."""
    first, *rest = rows
    starts = [i for i, row in enumerate(rest) if row["depth"] == first["depth"] + 1]
    parts = [rest[i:j] for i, j in pairwise([*starts, len(rest)])]
    return TreeNode(str(first["labels"]), float(first["kept"]), tuple(_nested(part) for part in parts))


def stages(trace: Trace) -> tuple[Stage, ...]:
    """What a picture could still have become, the largest set first."""
    return branch(trace.posterior, trace.final_label, OPEN, trace.target.level)


def picture_tree(trace: Trace) -> Tree:
    """The branch of a picture: a node for each set of outcomes, a leaf for each label where it is no longer open."""
    at = trace.posterior.index
    found = stages(trace)
    node = _leaf(trace, trace.final_label, float(at[found[-1].row]))
    for stage, inner in zip(found[-2::-1], found[:0:-1], strict=True):
        closed = float(at[inner.row])
        leaves = (_leaf(trace, label, closed) for label in stage.labels[len(inner.labels) :])
        node = TreeNode(", ".join(stage.labels), float(at[stage.row]), (node, *leaves))
    return Tree("reverse steps taken", float(at[-1]), node)


def _leaf(trace: Trace, label: str, at: float) -> TreeNode:
    return TreeNode(label, at, k=trace.labels.index(label))


def narrowing(trace: Trace) -> str:
    """From which step on a picture could become few other things, in one sentence; the last sets only."""
    at = trace.posterior.index.astype(int)
    parts = []
    for stage in stages(trace)[-SAID:]:
        names = [summary.name(trace, label) for label in stage.labels]
        one = names[0] if len(names) == 1 else f"one of {', '.join(names)}"
        when = f"from step {at[stage.row]} on" if at[stage.row] < at[-1] else "at the end"
        parts.append(f"{one} {when}")
    *before, last = parts
    return (
        f"With probability {1 - OPEN:g} or more it becomes {', '.join([*before, ''])}{'and ' if before else ''}{last}."
    )
