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
from blinkscope.worlds.world import PaperWindow, World, paper_window

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
    paper = paper_window(world, eps, after, before)
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
class Experiment:
    """Forward-reverse from S_after at one time, and what bounds its distance from ``target``'s p^S.

    place: ``T_before`` and ``halfway`` through the window, where ``target`` is S_before; ``T_after``, where it is
        S_after.
    published, sharper: Theorem 2's bounds; None halfway, where the theorem does not apply.
    certificate: the bound from the posteriors, which needs no window.
    measured: the distance between label laws, a lower bound on what the others bound from above (``measure``).
    """

    place: str
    t: float
    target: tuple[str, ...]
    published: float | None
    sharper: float | None
    certificate: float
    measured: Estimate


@dataclass(frozen=True)
class TableRow:
    """One world at one eps: its window, the paper's, and the experiment at the window's ends and between them.

    paper_outside: the published ends that lie outside the index set, by name.
    """

    world: str
    eps: float
    outcome: str
    t_after: float | None
    t_before: float | None
    width: float | None
    paper_t_after: float | None
    paper_t_before: float | None
    paper_outside: tuple[str, ...]
    experiments: tuple[Experiment, ...]


def table_row(world: World, eps: float) -> TableRow:
    """The rows of ``blinkscope worlds --table`` for one world and eps."""
    window, paper = critical_window(world, eps, world.after, world.before), world.paper(eps)
    t_after, t_before = window.t_after, window.t_before
    places: list[tuple[str, float | None, Labels]] = [("T_before", t_before, world.before)]
    if window.outcome == "window":
        places.append(("halfway", _middle(world, window), world.before))
    places.append(("T_after", t_after, world.after))
    return TableRow(
        world=world.name,
        eps=eps,
        outcome=window.outcome,
        t_after=t_after,
        t_before=t_before,
        width=None if t_before is None or t_after is None else t_before - t_after,
        paper_t_after=paper.t_after if paper else None,
        paper_t_before=paper.t_before if paper else None,
        paper_outside=outside(world, paper) if paper else (),
        experiments=tuple(
            experiment(world, eps, place, t, tuple(target)) for place, t, target in places if t is not None
        ),
    )


def experiment(world: World, eps: float, place: str, t: float, target: tuple[str, ...]) -> Experiment:
    """Bounds and measurement for the experiment from the world's S_after at t."""
    bound = theorem2(world, target, eps)
    certified = steps(world, world.after, target, t).certificate.value
    measured = measure(world, world.after, target, t)
    applies = place != "halfway"
    return Experiment(
        place, t, target, bound.published if applies else None, bound.sharper if applies else None, certified, measured
    )


def outside(world: World, paper: PaperWindow) -> tuple[str, ...]:
    """Which published ends lie outside the world's index set: before its low end or beyond its high one."""
    ends = {"t_after": paper.t_after, "t_before": paper.t_before}
    return tuple(name for name, t in ends.items() if t is not None and not world.index.low <= t <= world.index.high)


def _middle(world: World, window: CriticalWindow) -> float | None:
    """The time halfway through a window, where the index set has one strictly inside."""
    assert window.t_after is not None
    assert window.t_before is not None
    middle = (window.t_after + window.t_before) / 2
    if world.index.points is None:
        return middle
    nearest = world.index.points[bisect_right(world.index.points, middle) - 1]
    return nearest if window.t_after < nearest < window.t_before else None


def worlds_table(eps: Sequence[float] = (0.05, 0.1, 0.2)) -> tuple[TableRow, ...]:
    """Every registered world with its default parameters, at each eps."""
    return tuple(table_row(create_world(name), level) for name in WORLDS for level in eps)


COLUMNS = (
    "world", "eps", "exact window", "paper's window", "width", "at", "Theorem 2", "sharper", "certificate", "measured"
)  # fmt: skip


def table_markdown(rows: Sequence[TableRow]) -> str:
    """The rows as a Markdown table, a line for each experiment, padded so that it reads well in a terminal too."""
    cells = [COLUMNS, *(line for row in rows for line in _lines(row))]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = ["| " + " | ".join(f"{cell:{w}}" for cell, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    note = "\n`*` marks a published end outside the index set.\n" if any(row.paper_outside for row in rows) else ""
    return "\n".join(lines) + "\n" + note


def _lines(row: TableRow) -> list[tuple[str, ...]]:
    """One line for each experiment; the window stands in the first."""

    def number(value: float | None, digits: str = ".4g") -> str:
        return "-" if value is None else f"{value:{digits}}"

    def span(first: float | None, last: float | None, marks: tuple[str, str] = ("", "")) -> str:
        return "-" if first is None and last is None else f"[{number(first)}{marks[0]}, {number(last)}{marks[1]}]"

    exact = span(row.t_after, row.t_before)
    marks = ["*" if end in row.paper_outside else "" for end in ("t_after", "t_before")]
    window = (
        exact if row.outcome == "window" else f"{row.outcome} {exact}",
        span(row.paper_t_after, row.paper_t_before, (marks[0], marks[1])),
        number(row.width),
    )
    shown = [
        (
            found.place,
            number(found.published, ".3f"),
            number(found.sharper, ".3f"),
            number(found.certificate, ".3f"),
            f"{found.measured.value:.3f} +- {found.measured.standard_error:.3f}",
        )
        for found in row.experiments
    ] or [("-",) * 5]
    return [(row.world, f"{row.eps:g}", *(("",) * 3 if i else window), *line) for i, line in enumerate(shown)]


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
