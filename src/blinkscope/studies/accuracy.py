"""Do windows go with failure? The numbers of the paper's Table 1, from one row for each generation.

With Y for "has a window" and R for "is right", per data set and model:

    dAcc = P(R | not Y) - P(R | Y)        dCW = P(Y | not R) - P(Y | R)

Intervals are bootstrapped over questions: generations of one question are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from blinkscope.studies.intervals import clustered_interval, share_interval
from blinkscope.studies.study import Row

JUMP_EDGES = (0.0, 0.25, 0.5, 0.75, 1.0)


def difference(
    of: Bool[np.ndarray, " n"], given: Bool[np.ndarray, " n"], chosen: Int[np.ndarray, " chosen"]
) -> float | None:
    """P(of | not given) - P(of | given) among the chosen; None where one of the two groups is empty."""
    of, given = of[chosen], given[chosen]
    if given.all() or not given.any():
        return None
    return float(of[~given].mean() - of[given].mean())


def table_one(rows: Sequence[Row], level: float, **place: Any) -> dict[str, Any]:
    """One line of Table 1, from rows with ``question``, ``right`` (None where grading failed) and ``windows``."""
    graded = [row for row in rows if row["right"] is not None]
    right = np.array([row["right"] for row in graded], dtype=bool)
    window = np.array([row["windows"] > 0 for row in graded], dtype=bool)
    questions = [row["question"] for row in graded]
    with_window = sum(row["windows"] > 0 for row in rows)
    line: dict[str, Any] = {
        **place,
        "generations": len(rows),
        "ungraded": len(rows) - len(graded),
        "share_with_window": with_window / len(rows),
        "accuracy": _mean(right),
        "accuracy_with": _mean(right[window]),
        "accuracy_without": _mean(right[~window]),
    }
    for name, of, given in (("dacc", right, window), ("dcw", window, ~right)):
        statistic = _statistic(of, given)
        value = statistic(np.arange(len(graded)))
        # dCW compares wrong with right generations, so its sign is the other way round.
        low, high = clustered_interval(questions, statistic, level) or (None, None)
        if name == "dcw":
            value, low, high = _negated(value), _negated(high), _negated(low)
        line |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return line


def _statistic(
    of: Bool[np.ndarray, " n"], given: Bool[np.ndarray, " n"]
) -> Callable[[Int[np.ndarray, " chosen"]], float | None]:
    return lambda chosen: difference(of, given, chosen)


def _negated(value: float | None) -> float | None:
    return None if value is None else -value


def _mean(values: Bool[np.ndarray, " n"]) -> float | None:
    return float(values.mean()) if len(values) else None


def jump_rows(rows: Sequence[Row], level: float) -> list[Row]:
    """Accuracy against the largest jump of the curve, in four classes."""
    lines: list[Row] = []
    for low, high in pairwise(JUMP_EDGES):
        inside = [
            row
            for row in rows
            if row["right"] is not None and (low <= row["largest_jump"] < high or row["largest_jump"] == high == 1)
        ]
        if inside:
            right = sum(row["right"] for row in inside)
            limits = share_interval(right, len(inside), level)
            line = {"jump_from": low, "jump_to": high, "generations": len(inside), "share": right / len(inside)}
            lines.append({**line, "low": limits[0], "high": limits[1]})
    return lines


def place_rows(windows: Sequence[Row]) -> list[Row]:
    """Where windows start, in tenths of their generation."""
    counts = np.bincount([min(9, int(10 * row["start"] / row["tokens"])) for row in windows], minlength=10)
    return [{"tenth": i + 1, "windows": int(count)} for i, count in enumerate(counts)]
