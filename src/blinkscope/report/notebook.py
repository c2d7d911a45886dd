"""A result as a notebook cell shows it: static HTML with inline styles, nothing that runs and nothing to fetch."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from blinkscope.estimate.trace import Trace
from blinkscope.report import pictures, summary, trees
from blinkscope.report.text import visible
from blinkscope.window import TokenWindow

# See-through colours, so that light and dark notebooks both stay readable.
CERTAIN = "background:rgba(240,190,40,.5);border-radius:3px;padding:0 2px"
LIKELY = "border-bottom:2px dashed rgba(220,150,0,.9)"
QUIET = "opacity:.7;font-size:90%"
BLOCK = (
    "white-space:pre-wrap;overflow-wrap:anywhere;margin:.6em 0;padding:.4em .8em;"
    "border-left:3px solid rgba(128,128,128,.5)"
)
CELL = "text-align:left;padding:.15em .8em .15em 0;vertical-align:top"
TABLE = "border-collapse:collapse;margin:.6em 0;color:inherit;font-size:inherit"
NUMBER = "line-height:0"
PAGE = "max-width:60em"
STRONG = "font-weight:bold"
HEADINGS = ("", "words", "tokens kept", "change", "probability", "direction", "before → after")


def notebook_html(trace: Trace) -> str:
    """The marked generation, or the noise levels of a picture, windows and cost; all text in it is escaped."""
    parts = [
        _element("div", summary.settings(trace), QUIET),
        *(_text(trace) if trace.times is None else _picture(trace)),
        *(_element("div", f"Note: {visible(note, keep='')}", QUIET) for note in trace.notes),
    ]
    return f'<div style="{PAGE}">{"".join(parts)}</div>'


def _text(trace: Trace) -> list[str]:
    windows = trace.windows()
    return [
        _element("div", f"Before the first token: {summary.start_law(trace)}"),
        _element("div", f"This text ended with: {summary.name(trace, trace.final_label)}"),
        f'<div style="{BLOCK}" dir="auto">{_marked(trace, windows)}</div>',
        _element("div", summary.answer(trace, windows), STRONG),
        _table(HEADINGS, _windows(trace, windows)) if windows else "",
        _element("div", f"{summary.cost(trace)} {summary.error(trace)}", QUIET),
    ]


def _picture(trace: Trace) -> list[str]:
    return [
        _element("div", pictures.answer(trace)),
        _element("div", pictures.method(trace), QUIET),
        _table(pictures.headings(trace), pictures.levels(trace)),
        _element("div", pictures.finding(trace), STRONG),
        _element("div", trees.narrowing(trace)),
        _element("div", f"{pictures.cost(trace)} {pictures.reached(trace)}", QUIET),
    ]


def _marked(trace: Trace, windows: Sequence[TokenWindow]) -> str:
    parts = []
    for segment in summary.segments(trace, windows):
        if segment.window is None:
            parts.append(html.escape(segment.text))
        else:
            window = windows[segment.window - 1]
            parts.append(_element("span", segment.text, CERTAIN if window.certain else LIKELY))
            parts.append(_element("sup", str(segment.window), NUMBER))
    return "".join(parts)


def _windows(trace: Trace, windows: Sequence[TokenWindow]) -> list[tuple[str, ...]]:
    return [
        (
            str(number),
            summary.words(trace, window, 60),
            f"{window.start} → {window.end}",
            f"{window.change:.2f} [{window.low:.2f}, {window.high:.2f}]",
            f"{window.probability:.2f}",
            summary.direction(trace, window),
            f"{summary.law(window.before)} → {summary.law(window.after)}",
        )
        for number, window in enumerate(windows, 1)
    ]


def _table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [_row("th", headings), *(_row("td", row) for row in rows)]
    return f'<table style="{TABLE}">{"".join(cells)}</table>'


def _row(tag: str, cells: Iterable[str]) -> str:
    return f"<tr>{''.join(_element(tag, cell, CELL) for cell in cells)}</tr>"


def _element(tag: str, text: str, style: str = "") -> str:
    attribute = f' style="{style}"' if style else ""
    return f"<{tag}{attribute}>{html.escape(text)}</{tag}>"
