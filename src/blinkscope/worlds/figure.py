"""Definition 4's curves of a world, drawn: where they cross their levels is the critical window."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.critical import CriticalWindow, Labels, complement, critical_window
from blinkscope.figure_file import check_figure, save_figure
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.worlds.words import NAMED, index_words
from blinkscope.worlds.world import World, paper_window

PLOTTED, DRAWN = 160, 40  # times at which curves are drawn: exact ones, and those that cost an average over draws each
FEW = DRAWN - 1  # up to this many times of a finite index set are all drawn, and marked one by one


def write_plot(world: World, eps: float, path: Path, after: Labels | None = None, before: Labels | None = None) -> None:
    """``plot_world`` in a file; its ending says which format, for instance ``.svg``, ``.png`` or ``.pdf``.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    UserError : an ending that matplotlib does not know, or a place that is refused.
    EngineError : the machine could not store the file.
    """
    check_figure(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 3.3), layout="constrained")
    plot_world(world, eps, figure.add_subplot(), after, before)
    save_figure(figure, path)


def plot_world(world: World, eps: float, axes: Any, after: Labels | None = None, before: Labels | None = None) -> None:
    """Draw Definition 4's total variations and their levels against t on matplotlib axes.

    The window is shaded between the two times at which a curve crosses its level; where there is none the title says
    why. Triangles below the axis stand at the paper's own T_after and T_before, as far as these lie within the picture.
    Curves that are averages over draws have a band, their interval at level 0.95.
    """
    window = critical_window(world, eps, after or world.after, before or world.before)
    paper = paper_window(world, eps, window.after, window.before)
    times = _plotted_times(world, window)
    ends = [t for t in (window.t_after, window.t_before) if t is not None]
    axes.set(xlim=(times[0], times[-1]), ylim=(-0.03, 1.03), ylabel="total variation")
    for (name, (a, b), level), colour in zip(_criteria(world, window), COLOURS, strict=False):
        estimates = [world.total_variation(a, b, t) for t in times]
        values = [estimate.value for estimate in estimates]
        if any(estimate.standard_error for estimate in estimates):
            low, high = zip(*(estimate.interval() for estimate in estimates), strict=True)
            axes.fill_between(times, low, high, color=colour, alpha=0.25, lw=0)
        few = world.index.points is not None and len(times) <= FEW
        axes.plot(times, values, color=colour, lw=1.8, marker="o" if few else "", markersize=3.5, label=name)
        axes.axhline(level, color=colour, ls=":", lw=1.2)
    for time in ends:
        axes.axvline(time, color="#555555", lw=0.9, ls=(0, (5, 3)))
    published = [t for t in (paper.t_after, paper.t_before) if t is not None] if paper else []
    if visible := [t for t in published if times[0] <= t <= times[-1]]:
        name = "published ends" if len(visible) == len(published) else "published ends in view"
        axes.plot(visible, [-0.03] * len(visible), "k^", ms=7, clip_on=False, zorder=5, label=name)
    if window.outcome == "window":
        axes.axvspan(*ends, fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=0.4, lw=1, label="critical window")
    elif window.outcome == "inverted":
        axes.axvspan(*ends, fc="none", ec=WINDOW_EDGE, hatch="///", lw=1, label="inverted: both at once")
    _dress(axes, world, window)


def _criteria(world: World, window: CriticalWindow) -> list[tuple[str, tuple[Labels, Labels], float]]:
    """What Definition 4 compares: a name, the two label sets, and the level that their total variation is held to."""
    after, before, eps = window.after, window.before, window.eps
    compared: list[tuple[str, tuple[Labels, Labels], float]] = [
        (r"TV(after, rest), to reach $1 - \epsilon^2$", (after, complement(world.labels, after)), 1 - eps**2),
        (r"TV(after, before), to fall to $\epsilon$", (after, before), eps),
    ]
    if rest := complement(world.labels, before):
        compared.append((r"TV(before, rest), to reach $1 - \epsilon^2$", (before, rest), 1 - eps**2))
    return compared


def _dress(axes: Any, world: World, window: CriticalWindow) -> None:
    """Title, axis and legend. Sampling runs against t, from right to left; the axis says so."""
    reasons = {"no-after": r"never surely inside, no $T_{after}$", "no-before": r"never mixed, no $T_{before}$"}
    ends = {"$T_{after}$": window.t_after, "$T_{before}$": window.t_before}
    said = [f"{name} = {time:.4g}" for name, time in ends.items() if time is not None]
    if window.outcome in reasons:
        said.insert(0, reasons[window.outcome])
    asked = f"{world.name}: from {_named(window.before, world)} to {_named(window.after, world)}"
    asked = asked.replace("$", r"\$")  # labels are a user's words, not mathematics
    axes.set_title(asked + "\n" + rf"$\epsilon$ = {window.eps:g}: {', '.join(said)}", fontsize=10, loc="left")
    what = index_words(world.index.name, world.index.unit)
    axes.set_xlabel(rf"$\leftarrow$ sampling          t, {what}          noising $\rightarrow$")
    axes.xaxis.get_major_locator().set_params(integer=world.index.points is not None)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _named(chosen: Labels, world: World) -> str:
    """A label set in a few words."""
    if len(chosen) == len(world.labels) and len(chosen) > NAMED:
        return f"all {len(chosen)} labels"
    names = ", ".join(list(chosen)[:NAMED])
    return f"{{{names}}}" if len(chosen) <= NAMED else f"{{{names}, ...}}, {len(chosen)} of {len(world.labels)}"


def _plotted_times(world: World, window: CriticalWindow) -> list[float]:
    """Times about the window: from the data end on an interval, closer by in a long text."""
    index, count = world.index, PLOTTED if window.t_after_interval is None else DRAWN
    ends = [t for t in (window.t_after, window.t_before) if t is not None and math.isfinite(t)]
    if index.points is None:
        last = min(index.high, index.low + 1.5 * (max(ends, default=2.0) - index.low) + 0.1)
        return [float(t) for t in np.linspace(index.low, last, count)]
    points = index.points
    if window.outcome == "window":
        margin = max(ends[1] - ends[0], len(points) / 10, 5.0)
        points = [t for t in points if ends[0] - margin <= t <= ends[1] + margin]
    return [float(points[i]) for i in np.unique(np.linspace(0, len(points) - 1, count).round().astype(int))]
