"""What the figures of a study show, as data: drawn by matplotlib in a file and by the page of a study's report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from blinkscope.plurals import counted

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult

HIGHLIGHTED = 5
"""Single generations in colour, of each data set."""
LARGEST_FALL = 0.3
"""A curve that falls by more than this between two places is not one of them."""
FLAT = 0.01
"""A curve that moves by no more than this stands still."""
FAINT = 200
"""Most single curves of a chart that are drawn at all; more would only make it grey."""
COLOURED = 6
"""Curves of one style, each with a colour of its own."""
WINDOW = "window"
"""The outcome of a pair of label sets that have a window."""
ENDS = 6
"""Pairs of labels at either end of a long list."""

Row = Mapping[str, Any]
Rows = Sequence[Row]
Kind = Literal["line", "plain", "dashed", "bright", "faint", "points"]


@dataclass(frozen=True)
class Line:
    """A curve.

    low, high: its interval, None where there is none. kind: ``line`` has a marker at every place, ``plain`` none;
    ``bright`` and ``faint`` are single generations among others; ``points`` have bars for intervals instead of a band.
    colour: number in the palette, None for ink. name: for the legend; empty where it has no entry.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    name: str = ""
    kind: Kind = "line"
    colour: int | None = 0
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One pair of axes.

    spans: start, end and name of the windows that are tinted. bars: place and height, in place of lines. ticks: names
    of places on the x-axis. marks: x, y and words of what stands above a place. probability: y runs from 0 to 1.
    doubling: x is drawn on a scale on which every doubling takes the same room.
    """

    x: str
    y: str
    title: str = ""
    lines: tuple[Line, ...] = ()
    spans: tuple[tuple[float, float, str], ...] = ()
    bars: tuple[tuple[float, float], ...] = ()
    ticks: tuple[tuple[float, str], ...] = ()
    marks: tuple[tuple[float, float, str], ...] = ()
    probability: bool = True
    doubling: bool = False


Panels = tuple[tuple[Chart, ...], ...]


def charts(result: StudyResult) -> Panels:
    """The charts of a study, row by row; none where it has none, or no result."""
    make = CHARTS.get(result.study)
    return make(result) if make is not None and result.findings.tables else ()


def _prefill(result: StudyResult) -> Panels:
    tables, outcome = result.findings.tables, result.findings.summary["outcome"]
    known = [row for row in tables["curve"] if row["share"] is not None]
    lines = [_line(rows, "kept", kind="faint", colour=None) for rows in _by("item", known).values()][:FAINT]
    for colour, (name, rows) in enumerate(_by("category", tables["mean"]).items()):
        lines.append(_line(rows, "kept", name=name, colour=colour))
    words = {row["kept"]: row["prefill"] for row in tables["curve"]}
    ticks = tuple((kept, _last_word(words, kept)) for kept in sorted(words))
    measured = "mean score" if outcome == "score" else f"P({outcome})"
    return ((Chart("prefilled up to this token", measured, lines=tuple(lines), ticks=ticks),),)


def _last_word(words: Mapping[int, str], kept: int) -> str:
    return "nothing" if kept == 0 else words[kept][len(words.get(kept - 1, "")) :]


def _repeat(result: StudyResult) -> Panels:
    groups = _by("word", result.findings.tables["curve"])
    lines = tuple(_line(rows, "times", name=word, colour=k) for k, (word, rows) in enumerate(groups.items()))
    return ((Chart("times that the word was said before", "P(it is said again)", lines=lines),),)


def _distribution(result: StudyResult) -> Panels:
    """A chart for each label: their intervals are wide, and would hide one another."""
    tables = result.findings.tables
    same = _line(tables["same"], "kept", name="P(same)", kind="dashed", colour=None, band=False)
    found = []
    for colour, (name, rows) in enumerate(_by("of", tables["total_variation"]).items()):
        line = _line(rows, "kept", name="to the rest", colour=colour)
        line = replace(line, y=tuple(min(max(y, 0.0), 1.0) for y in line.y))  # an unbiased estimate may lie outside
        windows = [row for row in tables["windows"] if row["of"] == name and row["outcome"] == WINDOW]
        found.append(
            Chart(
                "tokens kept",
                "total variation",
                title=name,
                lines=(line, same),
                spans=tuple((row["start"], row["end"], "") for row in windows),
            )
        )
    return _grid(found)


def _grid(members: Sequence[Chart]) -> Panels:
    """Charts of one kind in rows of two or three."""
    across = 2 if len(members) in (2, 4) else 3
    return tuple(tuple(members[i : i + across]) for i in range(0, len(members), across))


def _diffusion(result: StudyResult) -> Panels:
    """Every label's distance to the rest, and from when the pairs that part first and last stand apart."""
    tables = result.findings.tables
    lines = [
        _line(rows, "kept", name=name, kind="plain" if k < COLOURED else "dashed", colour=k % COLOURED, band=False)
        for k, (name, rows) in enumerate(_by("of", tables["total_variation"]).items())
    ]
    lines.append(_line(tables["same"], "kept", name="P(same)", colour=None, band=False))
    rows, last = list(tables["pairs"])[::-1], max(row["kept"] for row in tables["same"])
    shown = rows if len(rows) <= 2 * ENDS else [*rows[:ENDS], *rows[-ENDS:]]
    apart = tuple(float(last if row["apart"] is None else row["apart"]) for row in shown)
    points = Line(tuple(map(float, range(len(shown)))), apart, kind="points")
    ticks = tuple((float(i), row["of"]) for i, row in enumerate(shown))
    return (
        (
            Chart("reverse steps taken", "total variation to the rest", lines=tuple(lines)),
            Chart("first and last pairs", "apart from this step on", lines=(points,), ticks=ticks, probability=False),
        ),
    )


def _structured(result: StudyResult) -> Panels:
    tables = result.findings.tables
    exact = "exact_" if tables["windows"] and "exact_start" in tables["windows"][0] else ""
    narrowest: dict[str, tuple[int, int]] = {}
    for row in tables["windows"]:
        start, end, line = row[f"{exact}start"], row[f"{exact}end"], row["of"].partition(".")[0]
        before = narrowest.get(line, (0, 10**9))
        if row[f"{exact}outcome"] == WINDOW and end - start < before[1] - before[0]:
            narrowest[line] = (start, end)
    spans = tuple((start, end, f"line {line}") for line, (start, end) in narrowest.items())
    lines = [_line(tables["same"], "kept", name="drawn")]
    if exact:
        lines.append(_line(tables["same"], "kept", "exact", name="exact", kind="dashed", colour=None))
    marks = _plateaus(tables["same"], "exact" if exact else "share")
    return ((Chart("tokens kept", "P(same answers)", lines=tuple(lines), spans=spans, marks=marks),),)


def _plateaus(rows: Rows, name: str) -> tuple[tuple[float, float, str], ...]:
    """The middle and the value of every stretch of three places or more over which a curve stands still below 1."""
    marks = []
    start = 0
    for i in range(1, len(rows) + 1):
        if i < len(rows) and abs(rows[i][name] - rows[start][name]) <= FLAT:
            continue
        if i - start >= 3 and rows[start][name] < 1 - FLAT:
            value = sum(row[name] for row in rows[start:i]) / (i - start)
            marks.append(((rows[start]["kept"] + rows[i - 1]["kept"]) / 2, value, f"{value:.2f}"))
        start = i
    return tuple(marks)


def _cot(result: StudyResult) -> Panels:
    """Curves of each data set; where windows start, and how accuracy goes with the largest jump."""
    tables = result.findings.tables
    groups: dict[str, list[Row]] = {}
    for row in tables["mean_curves"]:
        groups.setdefault(_place(row), []).append(row)
    by_item = _by("item", tables["curves"])
    curves = tuple(
        _curves(name, means, [row for row in tables["generations"] if _place(row) == name], by_item)
        for name, means in groups.items()
    )
    places = _places(tables["places"])
    classes = [{**row, "place": row["jump_to"] - 0.125} for row in tables["jumps"]]
    ticks = tuple((row["place"], f"{row['jump_from']:g} to {row['jump_to']:g}") for row in classes)
    jumps = Chart("largest jump of the curve", "accuracy", lines=(_line(classes, "place", kind="points"),), ticks=ticks)
    if len(curves) == 1:
        return (curves, (places, jumps))
    return (*_grid(curves), (places, jumps))


def _replay(result: StudyResult) -> Panels:
    """Curves of the recordings, and where their windows start."""
    tables = result.findings.tables
    curves = _curves("", tables["mean_curves"], tables["generations"], _by("item", tables["curves"]))
    places = (_places(tables["places"]),) if tables["windows"] else ()
    return ((replace(curves, y="P(final label)"), *places),)


def _places(rows: Rows) -> Chart:
    bars = tuple(((row["tenth"] - 0.5) / 10, row["windows"]) for row in rows)
    return Chart("where windows start", "windows", bars=bars, probability=False)


def _place(row: Row) -> str:
    """Data set and temperature of a row, where it has one."""
    temperature = row.get("temperature")
    return str(row["data"]) + ("" if temperature is None else f", temperature {temperature:g}")


def _curves(name: str, means: Rows, generations: Rows, by_item: Mapping[str, Rows]) -> Chart:
    """The mean, and single generations: in colour those with a window that do not fall much again ([LKC25], Fig. 5)."""
    steady = [row for row in generations if row["windows"] and row["largest_fall"] <= LARGEST_FALL]
    bright = {row["item"] for row in sorted(steady, key=lambda row: -row["largest_jump"])[:HIGHLIGHTED]}
    others = [row["item"] for row in generations if row["item"] not in bright][:FAINT]
    lines = [_line(by_item[item], "fraction", kind="faint", colour=None) for item in others]
    lines += [_line(by_item[item], "fraction", kind="bright", colour=1) for item in sorted(bright)]
    lines.append(_line(means, "fraction", name="mean of all", kind="plain"))
    if "direct" in means[0]:
        lines.append(_line(means, "fraction", "direct", name="asked directly", kind="dashed", colour=2, band=False))
    if bright:
        lines.append(Line((), (), name="with a window", kind="bright", colour=1))
    if others:
        lines.append(Line((), (), name="others" if bright else "single ones", kind="faint", colour=None))
    return Chart("share of the generation kept", "P(same answer)", title=name, lines=tuple(lines))


def _temperature(result: StudyResult) -> Panels:
    """How often there are windows, how large the largest jump is, and how right the answers are."""
    rows = result.findings.tables["table"]
    columns = {
        "share_with_window": "share with a window",
        "largest_jump": "mean largest jump",
        "accuracy": "accuracy",
    }
    return (tuple(Chart("temperature", words, lines=(_numbers(rows, name),)) for name, words in columns.items()),)


def _numbers(rows: Rows, name: str) -> Line:
    known = [row for row in rows if row[name] is not None]
    return _line(known, "temperature", name_of_y=name, kind="points", limits=(f"{name}_low", f"{name}_high"))


def _majority(result: StudyResult) -> Panels:
    rows = [{**row, "place": i} for i, row in enumerate(result.findings.tables["ways"])]
    named = [f"{row['way'].replace('_', ' ')}\n{counted(round(row['tokens']), 'token')}" for row in rows]
    ticks = tuple(enumerate(named))
    return ((Chart("", "accuracy", lines=(_line(rows, "place", "accuracy", kind="points"),), ticks=ticks),),)


def _detect(result: StudyResult) -> Panels:
    """How well the ratio of the first tokens tells the texts apart, family by family; no chart without both labels."""
    groups = _by("family", result.findings.tables.get("early", ()))
    if not groups:
        return ()
    lines = tuple(
        _line(rows, "tokens", "auroc", name=family, colour=k, limits=("auroc_low", "auroc_high"))
        for k, (family, rows) in enumerate(groups.items())
    )
    return ((Chart("tokens of the reply read", "AUROC of the ratio", lines=lines, doubling=True),),)


def _line(
    rows: Rows,
    x: str,
    name_of_y: str = "share",
    *,
    name: str = "",
    kind: Kind = "line",
    colour: int | None = 0,
    band: bool = True,
    limits: tuple[str, str] = ("low", "high"),
) -> Line:
    """A curve from rows; with their interval where they have one, and it is asked for."""
    low, high = (tuple(row[end] for row in rows) if band and rows and end in rows[0] else () for end in limits)
    faint = kind in ("faint", "bright", "dashed")
    return Line(
        tuple(row[x] for row in rows),
        tuple(row[name_of_y] for row in rows),
        name,
        kind,
        colour,
        () if faint else low,
        () if faint else high,
    )


def _by(name: str, rows: Rows) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row[name]), []).append(row)
    return groups


CHARTS: Mapping[str, Callable[[StudyResult], Panels]] = {
    "prefill": _prefill,
    "repeat": _repeat,
    "distribution": _distribution,
    "diffusion": _diffusion,
    "structured": _structured,
    "cot": _cot,
    "temperature": _temperature,
    "majority": _majority,
    "replay": _replay,
    "detect": _detect,
}
