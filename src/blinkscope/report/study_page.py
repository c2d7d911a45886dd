"""What the page of a study shows; ``html.page`` makes a file of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from blinkscope.report.charts import Chart, charts
from blinkscope.report.html import data_block, page
from blinkscope.report.legends import legends
from blinkscope.report.trees import study_tree

if TYPE_CHECKING:
    from blinkscope.studies.comparison import Comparison
    from blinkscope.studies.study import StudyResult
    from blinkscope.studies.transcripts import Transcript

SCRIPTS = ("vendor/htm-preact.standalone.umd.js", "assets/common.js", "assets/tree.js", "assets/study.js")
STYLES = ("assets/report.css", "assets/study.css")
LONGEST_TABLE = 3000
"""Rows of a table in the page; ``--tables`` writes them all."""
TEXT_BYTES = 4_000_000
"""Texts of a page, in bytes; those with a window come first when not all of them fit."""
NOT_SHOWN = ("curves", "mean_curves")  # the charts show them


def study_page(result: StudyResult, comparison: Comparison | None = None) -> str:
    """The report of a study as the text of an HTML file; with another run beside it where they are compared."""
    return page(study_data(result, comparison), SCRIPTS, STYLES)


def study_data(result: StudyResult, comparison: Comparison | None = None) -> dict[str, Any]:
    """Findings, charts, tables, texts and settings, and a comparison with another run."""
    texts = _fitting(result.findings.transcripts)
    tables = {name: rows for name, rows in result.findings.tables.items() if rows and name not in NOT_SHOWN}
    return {
        # What every page has: there is no single curve here.
        **{"labels": [], "windows": [], "curve": None, "notes": []},
        "study": result.study,
        "status": result.status,
        "standing": result.standing,
        "sentences": list(result.findings.sentences),
        "items": result.items,
        "cost": dict(result.cost),
        "failed": [{"item": item, "kind": kind, "reason": why} for item, (kind, why) in result.failed.items()],
        "settings": _flat(result.spec) | _flat(asdict(result.target), "target."),
        "charts": [[_chart(chart) for chart in row] for row in charts(result)],
        "tree": None if (tree := study_tree(result)) is None else asdict(tree),
        "tables": [_table(name, rows) for name, rows in tables.items()],
        "texts": texts,
        "texts_left_out": len(result.findings.transcripts) - len(texts),
        "comparison": None if comparison is None else _comparison(comparison),
    }


def _chart(chart: Chart) -> dict[str, Any]:
    return asdict(chart)


def _table(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(rows[0])
    cells = [[_cell(row.get(column)) for column in columns] for row in rows[:LONGEST_TABLE]]
    return {
        "name": name.replace("_", " "),
        "columns": columns,
        "rows": cells,
        "left_out": len(rows) - len(cells),
        "legends": legends(rows),
    }


def _cell(value: Any) -> Any:
    """A value that the page can sort: a number, a text, a truth value or nothing."""
    return value if isinstance(value, (str, int, float, bool, type(None))) else json.dumps(value)


def _fitting(transcripts: Sequence[Transcript]) -> list[dict[str, Any]]:
    """As many texts as fit, in their order; where not all of them do, those with a window are preferred."""
    wanted = sorted(range(len(transcripts)), key=lambda i: not any(piece.window for piece in transcripts[i].pieces))
    found: dict[int, dict[str, Any]] = {}
    size = 0
    for i in wanted:
        text = asdict(transcripts[i])
        size += len(data_block(text))
        if size > TEXT_BYTES:
            break
        found[i] = text
    return [found[i] for i in sorted(found)]


def _flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Settings by dotted name; what is not set is left out."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        elif value is not None and value not in ((), [], ""):
            flat[f"{before}{name}"] = value if isinstance(value, (str, int, float)) else json.dumps(value)
    return flat


def _comparison(comparison: Comparison) -> dict[str, Any]:
    return {
        "models": [_model(result) for result in (comparison.first, comparison.second)],
        "differing": list(comparison.differing),
        "shared": comparison.shared,
        "level": comparison.first.target.level,
        "table": _table("comparison", comparison.rows),
        "charts": [[_chart(chart) for chart in row] for row in charts(comparison.second)],
    }


def _model(result: StudyResult) -> str:
    asking = result.spec.get("asking")
    return str(asking.get("model")) if isinstance(asking, Mapping) else ""
