"""What the curves of single generations say, as the rows of tables that a study draws its charts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blinkscope.divergence import total_variation
from blinkscope.estimate.trace import Trace
from blinkscope.studies.intervals import clustered_intervals
from blinkscope.studies.study import Row

POINTS = 21
"""Places, from the start to the end of a generation, at which the curves of different lengths are averaged."""


def said_of(trace: Trace) -> dict[str, Any]:
    """What the curve of a generation says.

    Returns
    -------
    said : ``tokens``, their number; ``windows``, as in the JSON; ``covered``, the share of the tokens in a window;
        ``largest_jump``, the most that the law moves between two rows, in total variation; ``curve``, the probability
        of the final label at ``POINTS`` places of the text; ``largest_fall``, the most by which that falls from one
        place to the next; ``error``, the largest standard deviation.
    """
    windows = trace.to_json()["windows"]
    n, curve, index = len(trace.steps), trace.curve, trace.posterior.index
    final = trace.labels.index(trace.final_label) if trace.final_label in trace.labels else None
    same = np.zeros(len(index)) if final is None else curve[:, final]
    jumps = total_variation(curve[1:], curve[:-1])
    at_points = np.interp(np.linspace(0, n, POINTS), index, same)
    return {
        "tokens": n,
        "windows": windows,
        "covered": sum(window["end"] - window["start"] for window in windows) / n,
        "largest_jump": float(min(1.0, jumps.max(initial=0.0))),
        "largest_fall": float(np.clip(np.diff(at_points[::-1]).max(), 0, 1)),
        "curve": at_points.tolist(),
        "error": trace.error["reached_max"],
    }


def curve_rows(curve: Sequence[float], **of: Any) -> list[Row]:
    """The rows of one generation's curve, with what tells it from the others."""
    return [{**of, "fraction": i / (POINTS - 1), "share": value} for i, value in enumerate(curve)]


def window_row(item: str, tokens: int, window: Mapping[str, Any]) -> Row:
    """A window of a generation of so many tokens."""
    names = ("start", "end", "text", "change", "low", "high", "probability", "direction")
    return {"item": item, "tokens": tokens, **{name: window[name] for name in names}}


def mean_curve(questions: Mapping[str, str], curves: Sequence[Row], level: float) -> list[Row]:
    """The mean curve of some generations, with an interval over their questions at every place.

    Parameters
    ----------
    questions : of each of these generations, by its item.
    """
    inside = [row for row in curves if row["item"] in questions]
    shape = (len(questions), POINTS)
    shares = np.array([row["share"] for row in inside]).reshape(shape)
    names = [str(i) for i in range(POINTS)]
    limits = clustered_intervals(
        [questions[row["item"]] for row in inside[::POINTS]],
        lambda chosen: dict(zip(names, shares[chosen].mean(axis=0).tolist(), strict=True)),
        names,
        level,
    )
    rows: list[Row] = [
        {"fraction": i / (POINTS - 1), "share": value, "low": limits[str(i)][0], "high": limits[str(i)][1]}
        for i, value in enumerate(shares.mean(axis=0).tolist())
    ]
    if not all("direct" in row for row in inside):
        return rows
    direct = np.array([row["direct"] for row in inside]).reshape(shape).mean(axis=0).tolist()
    return [{**row, "direct": value} for row, value in zip(rows, direct, strict=True)]
