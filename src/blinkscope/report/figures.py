"""Figures of a result, for papers and notebooks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from blinkscope.errors import MissingExtra
from blinkscope.estimate.trace import Trace
from blinkscope.feature import RESERVED
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.report import summary
from blinkscope.report.text import told_apart
from blinkscope.window import TokenWindow

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESERVED_COLOURS = ("#555555", "#888888", "#BBBBBB")
MARKERS = ("", "o", "s")  # a second and third label of one colour carry sparse markers
PICTURES = {0x2400 + code: f"⟨U+{code:04X}⟩" for code in range(0x20)} | {
    0x2421: "⟨U+007F⟩"
}  # matplotlib's font has none
LABEL_WIDTH, WORDS_WIDTH = 28, 22
NAMED_WINDOWS = 12  # with more, their words would cover each other


def curve_figure(trace: Trace) -> Figure:
    """The label law along the generation: a line and a band for every label, windows shaded, the truth dashed if known.

    Returns
    -------
    A figure that belongs to no window system: write it with ``figure.savefig``, or let a notebook cell return it.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("plot()", "plot") from None

    # Words of a model must not be read as mathematics or as TeX, which can read files.
    with matplotlib.rc_context({"text.usetex": False, "text.parse_math": False, "axes.unicode_minus": True}):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        windows = trace.windows()
        for window in windows:
            shade = 0.55 if window.certain else 0.25
            axes.axvspan(window.start, window.end, fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=shade, lw=1)
        _draw_labels(axes, trace)
        _name_windows(axes, trace, windows)
        _dress(axes, trace)
    if "ipykernel" in sys.modules:
        _let_notebooks_show_figures()
    return figure


def _let_notebooks_show_figures() -> None:
    """Choose the notebook's own backend, which teaches it to show a figure that a cell returns."""
    from matplotlib import get_backend, pyplot

    pyplot.switch_backend(get_backend())


def _draw_labels(axes: Axes, trace: Trace) -> None:
    low, high = trace.band
    x = trace.posterior.index
    spacing = max(1, len(x) // 12)
    styles = label_styles(trace.labels)
    for k in range(len(trace.labels)):
        colour, marker = styles[k]
        axes.fill_between(x, low[:, k], high[:, k], color=colour, alpha=0.18, lw=0)
        axes.plot(
            x, trace.curve[:, k], color=colour, lw=1.8, marker=marker, markersize=4, markevery=(k % spacing, spacing)
        )
        if trace.truth is not None:
            axes.plot(x, trace.truth[:, k], color=colour, lw=1.2, ls=(0, (4, 2)))


def label_styles(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Colour and marker of every label: greys for the reserved ones, all pairs different."""
    styles = []
    plain = grey = 0
    for label in labels:
        if label in RESERVED:
            styles.append((RESERVED_COLOURS[grey % len(RESERVED_COLOURS)], ""))
            grey += 1
        else:
            styles.append((COLOURS[plain % len(COLOURS)], MARKERS[plain // len(COLOURS) % len(MARKERS)]))
            plain += 1
    return styles


def _name_windows(axes: Axes, trace: Trace, windows: Sequence[TokenWindow]) -> None:
    """The words of each window above it, aslant so that neighbours do not collide."""
    if len(windows) > NAMED_WINDOWS:
        return
    for window in windows:
        axes.annotate(
            _in_font(summary.words(trace, window, WORDS_WIDTH)),
            ((window.start + window.end) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            rotation=25,
            rotation_mode="anchor",
            ha="left",
            va="bottom",
            fontsize=9,
        )


def _in_font(text: str) -> str:
    return text.translate(PICTURES)


def _dress(axes: Axes, trace: Trace) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    axes.set(xlim=(trace.posterior.index[0], trace.posterior.index[-1]), ylim=(-0.02, 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    subject, counted = ("text", "tokens kept") if trace.times is None else ("sample", "reverse steps taken")
    axes.set_xlabel(counted)
    axes.set_ylabel("probability of the outcome")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#000000", alpha=0.08)
    axes.set_axisbelow(True)
    shown = [_in_font(name) for name in told_apart(trace.labels, LABEL_WIDTH).values()]
    shown = [
        f"{name} (this {subject})" if label == trace.final_label else name
        for name, label in zip(shown, trace.labels, strict=True)
    ]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, lw=1.8)
        for colour, marker in label_styles(trace.labels)
    ]
    if trace.truth is not None:
        handles.append(Line2D([], [], color="#000000", lw=1.2, ls=(0, (4, 2))))
        shown.append("exact")
    legend = axes.legend(
        handles, ["-"] * len(handles), frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5)
    )
    # Set afterwards: a legend drops names that begin with an underscore.
    for text, name in zip(legend.get_texts(), shown, strict=True):
        text.set_text(name)
