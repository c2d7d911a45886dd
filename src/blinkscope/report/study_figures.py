"""The figure of each study, drawn from its charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blinkscope.figure_file import check_figure, save_figure
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.report.charts import Chart, Line, Panels, charts
from blinkscope.report.text import shortened

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult

NAME_WIDTH = 30
INK = "#000000"
STYLES: dict[str, dict[str, Any]] = {
    "line": {"lw": 1.8, "marker": "o", "markersize": 3.5},
    "plain": {"lw": 2.0},
    "dashed": {"lw": 1.4, "ls": (0, (4, 2))},
    "bright": {"lw": 1.1, "alpha": 0.8},
    "faint": {"lw": 0.8, "alpha": 0.16},
    "points": {"ls": "", "marker": "o", "markersize": 4.5},
}


def write_figure(result: StudyResult, path: Path) -> bool:
    """Draw a study's figure into a file; its ending says which format: ``.svg``, ``.png``, ``.pdf``.

    Returns
    -------
    False where the study found nothing to draw; then no file is written.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    UserError, EngineError : the file cannot be written.
    """
    check_figure(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = charts(result)
    if not panels:
        return False
    # Words of a model must not be read as mathematics or as TeX, which can read files.
    with rc_context({"text.usetex": False, "text.parse_math": False}):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        _draw(figure, panels)
        save_figure(figure, path)
    return True


def _draw(figure: Any, panels: Panels) -> None:
    """A row of the figure for each row of charts; a chart that is alone has its legend beside it."""
    alone = len(panels) == 1 and len(panels[0]) == 1
    if not alone:
        figure.set_size_inches(7.6, 2.7 * len(panels))
    rows = [figure] if len(panels) == 1 else figure.subfigures(len(panels), 1)
    across = max(map(len, panels[:-1]), default=0)
    for row, members in zip(rows, panels, strict=True):
        # The last row of a grid of curves keeps their width; the row of the other charts below it does not.
        count = across if members is not panels[-1] else len(members)
        places = row.subplots(1, count, squeeze=False)[0]
        for axes, chart in zip(places, members, strict=False):
            _chart(axes, chart, beside=alone or count == 1)
        for axes in places[len(members) :]:
            axes.set_axis_off()


def _chart(axes: Any, chart: Chart, *, beside: bool) -> None:
    for start, end, name in chart.spans:
        axes.axvspan(start, end, fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=0.3, lw=1)
        axes.annotate(
            shortened(name, NAME_WIDTH),
            ((start + end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            ha="center",
            va="bottom",
            fontsize=9,
        )
    for line in chart.lines:
        _line(axes, line)
    for x, y, words in chart.marks:
        axes.annotate(words, (x, y), xytext=(0, 9), textcoords="offset points", ha="center", fontsize=9)
    if chart.bars:
        axes.bar(*zip(*chart.bars, strict=True), width=0.085, color=COLOURS[0])
        axes.set_xlim(0, 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
    if chart.ticks:
        aslant = {"rotation": 30, "ha": "right"} if len(chart.ticks) > 4 else {}
        names = [name if "\n" in name.strip() else shortened(name, NAME_WIDTH) for _, name in chart.ticks]
        axes.set_xticks([x for x, _ in chart.ticks], names, **aslant)
    if chart.doubling:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
    if chart.probability:
        axes.set_ylim(-0.03, 1.03)
    axes.set(xlabel=chart.x, ylabel=chart.y)
    axes.set_title(shortened(chart.title, NAME_WIDTH), fontsize=10)
    # Points keep off the axes.
    axes.margins(x=0.12 if any(line.kind == "points" for line in chart.lines) else 0.02)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=INK, alpha=0.08)
    axes.set_axisbelow(True)
    if any(line.name for line in chart.lines):
        place = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if beside else {"loc": "lower right"}
        axes.legend(frameon=False, fontsize=9 if beside else 7.5, **place)


def _line(axes: Any, line: Line) -> None:
    colour = INK if line.colour is None else COLOURS[line.colour % len(COLOURS)]
    limits = [
        (x, y if low is None else low, y if high is None else high)
        for x, y, low, high in zip(line.x, line.y, line.low, line.high, strict=False)
    ]
    if limits and line.kind == "points":
        axes.vlines(*zip(*limits, strict=True), color=colour, lw=1.4)
    elif limits:
        axes.fill_between(*zip(*limits, strict=True), color=colour, alpha=0.18, lw=0)
    named = {"label": shortened(line.name, NAME_WIDTH)} if line.name else {}
    style = STYLES[line.kind]
    if named and line.kind == "faint":
        style = {**style, "alpha": 0.4}  # in the legend a single line must be seen
    axes.plot(line.x, line.y, color=colour, **style, **named)
