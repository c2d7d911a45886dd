"""Do windows go with failure? The numbers of the paper's Table 1, from one row for each generation.

With Y for "has a window" and R for "is right", per data set and model:

    dAcc = P(R | not Y) - P(R | Y)        dCW = P(Y | not R) - P(Y | R)

Intervals are bootstrapped over questions: generations of one question are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.studies.intervals import clustered_intervals, share_interval
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


Numbers = Callable[[Int[np.ndarray, " chosen"]], Mapping[str, float | None]]
"""The numbers of some observations, chosen by their place; None where one is not defined."""

WITH_INTERVAL = ("share_with_window", "accuracy", "dacc", "dcw", "largest_jump")


def numbers_of(rows: Sequence[Row]) -> Numbers:
    """Of generations (``right``, None where grading failed; ``windows``; ``largest_jump``; ``covered``): the numbers of
    Table 1, the mean largest jump, and the share of the text that windows cover."""
    graded = np.array([row["right"] is not None for row in rows], dtype=bool)
    right = np.array([bool(row["right"]) for row in rows], dtype=bool)
    window = np.array([row["windows"] > 0 for row in rows], dtype=bool)
    jump = np.array([row["largest_jump"] for row in rows], dtype=float)
    covered = np.array([row["covered"] for row in rows], dtype=float)

    def numbers(chosen: Int[np.ndarray, " chosen"]) -> Mapping[str, float | None]:
        known = chosen[graded[chosen]]
        with_window, without = known[window[known]], known[~window[known]]
        dcw = difference(window, ~right, known)
        return {
            "share_with_window": _mean(window[chosen]),
            "accuracy": _mean(right[known]),
            "accuracy_with": _mean(right[with_window]),
            "accuracy_without": _mean(right[without]),
            "dacc": difference(right, window, known),
            # P(Y | not R) - P(Y | R) with "not R" as what is given, so its sign is the other way round.
            "dcw": None if dcw is None else -dcw,
            "largest_jump": _mean(jump[chosen]),
            "covered": _mean(covered[chosen]),
        }

    return numbers


def table_one(rows: Sequence[Row], level: float, **place: Any) -> dict[str, Any]:
    """One line of Table 1, with intervals over ``question``."""
    numbers, questions = numbers_of(rows), [row["question"] for row in rows]
    line = {**place, "generations": len(rows), "ungraded": sum(row["right"] is None for row in rows)}
    limits = clustered_intervals(questions, numbers, WITH_INTERVAL, level)
    for name, value in numbers(np.arange(len(rows))).items():
        line[name] = value
        if name in limits:
            line[f"{name}_low"], line[f"{name}_high"] = limits[name]
    return line


def _mean(values: Bool[np.ndarray, " n"] | Float[np.ndarray, " n"]) -> float | None:
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
