"""What ``blinkscope world`` and ``blinkscope worlds --table`` say about a world."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from blinkscope.bounds import ProofSteps, proof_steps, theorem2
from blinkscope.critical import CriticalWindow, Labels, complement, critical_window, start_time
from blinkscope.divergence import Estimate
from blinkscope.worlds import WORLDS, create_world
from blinkscope.worlds.experiment import measure
from blinkscope.worlds.world import World

SCHEMA = 1
ROWS = 5  # times at which the certificate is given


def world_json(world: World, eps: float, after: Labels | None = None, before: Labels | None = None) -> dict[str, Any]:
    """Everything ``blinkscope world --json`` prints, as JSON-ready values.

    ``theorem2`` and ``certificate`` bound TV(p^{S, t}, p^{S_before}) of the forward-reverse experiment from S = S_after
    at times from t_before on; ``inside`` bounds its distance to p^{S_after} at t_after, the window's other end.
    The paper's window belongs to the world's default label sets and is left out for others.
    """
    after, before = tuple(after or world.after), tuple(before or world.before)
    window = critical_window(world, eps, after, before)
    paper = world.paper(eps) if (set(after), set(before)) == (set(world.after), set(world.before)) else None
    entering, staying = theorem2(world, before, eps), theorem2(world, after, eps)
    times = _certified_times(world, window)
    estimated = window.t_after_interval is not None or window.t_before_interval is not None
    result = {
        "schema": SCHEMA,
        "world": world.name,
        "parameters": parameters(world),
        "index": {"name": world.index.name, "unit": world.index.unit, "range": [world.index.low, world.index.high]},
        "labels": list(world.labels),
        "after": list(after),
        "before": list(before),
        "eps": eps,
        "method": "monte-carlo" if estimated else "exact",
        "outcome": window.outcome,
        "window": {"t_after": window.t_after, "t_before": window.t_before},
        "interval": {"t_after": window.t_after_interval, "t_before": window.t_before_interval} if estimated else None,
        "paper": asdict(paper) if paper else None,
        "theorem2": {"published": entering.published, "sharper": entering.sharper},
        "certificate": {"at": times, "bound": [steps(world, after, before, t).certificate.value for t in times]},
        "inside": None
        if window.t_after is None
        else {
            "at": window.t_after,
            "published": staying.published,
            "sharper": staying.sharper,
            "certificate": steps(world, after, after, window.t_after).certificate.value,
        },
    }
    if not times:
        result["certificate"] = None
    plain: dict[str, Any] = _plain(result)
    return plain


def parameters(world: World) -> dict[str, Any]:
    """The world's parameters by name, arrays by their shape; those left at None are left out."""
    values = {field.name: getattr(world, field.name) for field in fields(world)}  # type: ignore[arg-type]
    return {
        name: {"shape": value.shape} if isinstance(value, np.ndarray) else value
        for name, value in values.items()
        if value is not None
    }


def steps(world: World, init: Labels, target: Labels, t: float) -> ProofSteps:
    """The steps of Theorem 2's proof at t, with (I) from the world's own total variation."""
    rest = complement(world.labels, target)
    law = world.law(t, (target, rest) if rest else None)
    return replace(proof_steps(law, init, target)[0], mixing=world.total_variation(init, target, t))


def _certified_times(world: World, window: CriticalWindow) -> list[float]:
    """Times from t_before on at which Theorem 2 holds, reaching as far beyond as the window is wide."""
    if window.t_before is None:
        return []
    last = start_time(world, window.before, window.eps).time
    assert last is not None
    width = window.t_before - window.t_after if window.outcome == "window" and window.t_after is not None else 1.0
    if world.index.points is None:
        return [float(t) for t in np.unique(np.linspace(window.t_before, min(last, window.t_before + width), ROWS))]
    first = bisect_left(world.index.points, window.t_before)
    end = bisect_right(world.index.points, min(last, window.t_before + width)) - 1
    return [world.index.points[i] for i in np.unique(np.linspace(first, end, ROWS).round().astype(int))]


@dataclass(frozen=True)
class TableRow:
    """One world at one eps: its window, Theorem 2's bound, the certificate, and what the experiment gives.

    published, sharper, certificate: bounds on the distance of p^{S, t} from p^{S_before}, for S_after at t_before.
    measured: the same distance between label laws, a lower bound on it, from runs of the experiment (``measure``).
        None, like ``certificate``, where there is no t_before.
    """

    world: str
    eps: float
    outcome: str
    t_after: float | None
    t_before: float | None
    width: float | None
    paper_t_after: float | None
    paper_t_before: float | None
    published: float
    sharper: float
    certificate: float | None
    measured: Estimate | None


def table_row(world: World, eps: float) -> TableRow:
    """The row of ``blinkscope worlds --table`` for one world and eps."""
    window, paper = critical_window(world, eps, world.after, world.before), world.paper(eps)
    bound, at = theorem2(world, world.before, eps), window.t_before
    return TableRow(
        world=world.name,
        eps=eps,
        outcome=window.outcome,
        t_after=window.t_after,
        t_before=at,
        width=None if at is None or window.t_after is None else at - window.t_after,
        paper_t_after=paper.t_after if paper else None,
        paper_t_before=paper.t_before if paper else None,
        published=bound.published,
        sharper=bound.sharper,
        certificate=None if at is None else steps(world, world.after, world.before, at).certificate.value,
        measured=None if at is None else measure(world, world.after, world.before, at),
    )


def worlds_table(eps: Sequence[float] = (0.05, 0.1, 0.2)) -> tuple[TableRow, ...]:
    """Every registered world with its default parameters, at each eps."""
    return tuple(table_row(create_world(name), level) for name in WORLDS for level in eps)


def table_markdown(rows: Sequence[TableRow]) -> str:
    """The rows as a Markdown table, padded so that it reads well in a terminal too."""
    head = (
        "world",
        "eps",
        "exact window",
        "paper's window",
        "width",
        "Theorem 2",
        "sharper",
        "certificate",
        "measured",
    )
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(head))]
    lines = ["| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def _cells(row: TableRow) -> tuple[str, ...]:
    def number(value: float | None, digits: str = ".4g") -> str:
        return "-" if value is None else f"{value:{digits}}"

    def span(first: float | None, last: float | None) -> str:
        return "-" if first is None and last is None else f"[{number(first)}, {number(last)}]"

    exact, measured = span(row.t_after, row.t_before), row.measured
    return (
        row.world,
        f"{row.eps:g}",
        exact if row.outcome == "window" else f"{row.outcome} {exact}",
        span(row.paper_t_after, row.paper_t_before),
        number(row.width),
        number(row.published, ".3f"),
        number(row.sharper, ".3f"),
        number(row.certificate, ".3f"),
        "-" if measured is None else f"{measured.value:.3f} +- {measured.standard_error:.3f}",
    )


def _plain(value: Any) -> Any:
    """JSON-ready: numpy numbers and arrays as plain ones, infinities as "inf"."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value
