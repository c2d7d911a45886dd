"""The figure of each study, drawn from its tables alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.report.text import shortened

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult

NAME_WIDTH = 30
Rows = Sequence[Mapping[str, Any]]


def write_figure(result: StudyResult, path: Path) -> None:
    """Draw a study's figure into a file; its ending says which format: ``.svg``, ``.png``, ``.pdf``.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    UserError : the study has no figure or no rows yet, or the file cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("--plot", "plot") from None

    draw = FIGURES.get(result.study)
    if draw is None or not result.findings.tables:
        raise UserError(f"study {result.study} has nothing to draw yet; leave --plot out.")
    # Words of a model must not be read as mathematics or as TeX, which can read files.
    with rc_context(
        {"text.usetex": False, "text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "blinkscope"}
    ):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        draw(figure.add_subplot(), result)
        if path.suffix.removeprefix(".") not in figure.canvas.get_supported_filetypes():
            raise UserError(f"a figure cannot be written to {path}; its name must end in .svg, .png or .pdf.")
        try:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        except OSError as error:
            raise UserError(f"the figure cannot be written to {path}: {error.strerror}.") from None


def _prefill(axes: Any, result: StudyResult) -> None:
    tables, outcome = result.findings.tables, result.findings.summary["outcome"]
    for rows in _by("item", tables["curve"]).values():
        known = [row for row in rows if row["share"] is not None]
        axes.plot(*_columns(known, "kept", "share"), color="#000000", alpha=0.15, lw=0.8)
    for (name, rows), colour in zip(_by("category", tables["mean"]).items(), _colours(), strict=False):
        _banded(axes, rows, "kept", colour, name)
    words = {row["kept"]: row["prefill"] for row in tables["curve"]}
    axes.set_xticks(sorted(words), [_word(words, kept) for kept in sorted(words)], rotation=30, ha="right")
    axes.set(xlabel="prefilled up to this token", ylabel="mean score" if outcome == "score" else f"P({outcome})")
    _dress(axes)


def _word(words: Mapping[int, str], kept: int) -> str:
    return "nothing" if kept == 0 else shortened(words[kept][len(words.get(kept - 1, "")) :], NAME_WIDTH)


def _repeat(axes: Any, result: StudyResult) -> None:
    for (word, rows), colour in zip(_by("word", result.findings.tables["curve"]).items(), _colours(), strict=False):
        _banded(axes, rows, "times", colour, word)
    axes.set(xlabel="times that the word was said before", ylabel="P(it is said again)")
    _dress(axes)


def _distribution(axes: Any, result: StudyResult) -> None:
    tables = result.findings.tables
    for row in tables["windows"]:
        if row["outcome"] == "window":
            axes.axvspan(row["start"], row["end"], fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=0.3, lw=1)
    for (name, rows), colour in zip(_by("of", tables["total_variation"]).items(), _colours(), strict=False):
        _banded(axes, rows, "kept", colour, f"TV of {name}")
    axes.plot(*_columns(tables["same"], "kept", "share"), color="#000000", lw=1.2, ls=(0, (4, 2)), label="P(same)")
    axes.set(xlabel="tokens kept", ylabel="total variation to the rest")
    _dress(axes)


def _structured(axes: Any, result: StudyResult) -> None:
    tables = result.findings.tables
    exact = "exact_" if "exact_start" in tables["windows"][0] else ""
    narrowest: dict[str, tuple[int, int]] = {}
    for row in tables["windows"]:
        span, line = (row[f"{exact}start"], row[f"{exact}end"]), row["of"].partition(".")[0]
        if row[f"{exact}outcome"] == "window" and _width(span) < _width(narrowest.get(line, (0, 10**9))):
            narrowest[line] = span
    for line, (start, end) in narrowest.items():
        axes.axvspan(start, end, fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=0.3, lw=1)
        axes.annotate(
            f"line {line}", ((start + end) / 2, 1.0), xycoords=("data", "axes fraction"), ha="center", va="bottom"
        )
    _banded(axes, tables["same"], "kept", COLOURS[0], "drawn")
    if "exact" in tables["same"][0]:
        axes.plot(*_columns(tables["same"], "kept", "exact"), color="#000000", lw=1.2, ls=(0, (4, 2)), label="exact")
    axes.set(xlabel="tokens kept", ylabel="P(same answers)")
    _dress(axes)


def _cot(axes: Any, result: StudyResult) -> None:
    """Every generation's P(same answer), those with a window in colour, and the mean of all."""
    groups = _by("item", result.findings.tables["curves"]).values()
    for rows in groups:
        colour, alpha = (COLOURS[1], 0.6) if rows[0]["windows"] else ("#000000", 0.15)
        axes.plot(*_columns(rows, "fraction", "share"), color=colour, alpha=alpha, lw=0.9)
    shares = [[row["share"] for row in rows] for rows in groups]
    mean = [sum(column) / len(column) for column in zip(*shares, strict=True)]
    fractions = [row["fraction"] for row in next(iter(groups))]
    axes.plot(fractions, mean, color=COLOURS[0], lw=2.2, label="mean")
    if all("direct" in rows[0] for rows in groups):
        direct = [[row["direct"] for row in rows] for rows in groups]
        straight = [sum(column) / len(column) for column in zip(*direct, strict=True)]
        axes.plot(fractions, straight, color=COLOURS[2], lw=1.8, ls=(0, (4, 2)), label="asked directly")
    axes.plot([], [], color=COLOURS[1], lw=0.9, label="with a window")
    axes.plot([], [], color="#000000", alpha=0.3, lw=0.9, label="without")
    axes.set(xlabel="share of the generation kept", ylabel="P(same answer)")
    _dress(axes)


def _detect(axes: Any, result: StudyResult) -> None:
    """How well the ratio of the first tokens tells the texts apart, family by family."""
    early = result.findings.tables.get("early", ())
    for (name, rows), colour in zip(_by("family", early).items(), _colours(), strict=False):
        curve = [{"share": row["auroc"], "low": row["auroc_low"], "high": row["auroc_high"], **row} for row in rows]
        _banded(axes, curve, "tokens", colour, name)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel="tokens of the reply read", ylabel="AUROC of the ratio")
    _dress(axes)


def _width(span: tuple[int, int]) -> int:
    return span[1] - span[0]


def _banded(axes: Any, rows: Rows, x: str, colour: str, name: str) -> None:
    """A curve of shares with its interval."""
    places, shares = _columns(rows, x, "share")
    low, high = ([row["share"] if row[end] is None else row[end] for row in rows] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=colour, alpha=0.18, lw=0)
    axes.plot(places, shares, color=colour, marker="o", markersize=3.5, lw=1.8, label=shortened(name, NAME_WIDTH))


def _dress(axes: Any) -> None:
    axes.set_ylim(-0.03, 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#000000", alpha=0.08)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _by(name: str, rows: Rows) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(str(row[name]), []).append(row)
    return groups


def _columns(rows: Rows, *names: str) -> list[list[Any]]:
    return [[row[name] for row in rows] for name in names]


def _colours() -> list[str]:
    return [*COLOURS, *COLOURS]


FIGURES: Mapping[str, Callable[[Any, StudyResult], None]] = {
    "prefill": _prefill,
    "repeat": _repeat,
    "distribution": _distribution,
    "structured": _structured,
    "cot": _cot,
    "temperature": _cot,
    "detect": _detect,
}
