"""What a study of a model found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from blinkscope.report.terminal import write_parts
from blinkscope.report.text import shortened, visible

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult

CELL_WIDTH = 32
SHOWN_ROWS = 60


def print_study(result: StudyResult, file: IO[str], *, width: int | None = None) -> None:
    """Write a study's first table, its sentences, its failures and what it cost."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts: list[Any] = [Text(_heading(result), style="dim")]
    rows = next((rows for rows in result.findings.tables.values() if rows), ())
    if rows:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        columns = [name for name in rows[0] if not name.endswith(("_low", "_high"))]
        for name in columns:
            table.add_column(
                Text(shortened(name.replace("_", " "), CELL_WIDTH)),
                justify="left" if isinstance(rows[0][name], str) else "right",
            )
        for row in rows[:SHOWN_ROWS]:
            table.add_row(*(Text(_with_limits(row, name)) for name in columns))
        parts.append(table)
    if len(rows) > SHOWN_ROWS:
        parts.append(Text(f"and {len(rows) - SHOWN_ROWS} rows more: --json or --tables FOLDER has all of them"))
    parts += [Text(visible(sentence, keep="")) for sentence in result.findings.sentences]
    parts += [Text(line) for line in _standing(result)]
    write_parts(parts, console)


def _heading(result: StudyResult) -> str:
    asking = result.spec.get("asking")
    model = asking.get("model") if isinstance(asking, Mapping) else None
    seed = asking.get("seed") if isinstance(asking, Mapping) else None
    return visible(f"study {result.study} · {model} · seed {seed}", keep="")


def _standing(result: StudyResult) -> list[str]:
    """Cost, failures, and whether something is left to do."""
    cost = result.cost
    lines = []
    if cost["continuations"]:
        lines.append(f"{cost['continuations']:,} continuations, {cost['generated_tokens']:,} generated tokens.")
    failures = result.summary["failures"]
    assert isinstance(failures, dict)
    if failures:
        kinds = ", ".join(f"{count} ({kind})" for kind, count in failures.items())
        lines.append(f"Of {result.items} items {len(result.failed)} failed: {kinds}.")
    lines += [f"{visible(item, keep='')}: {visible(reason, keep='')}" for item, (_, reason) in result.failed.items()]
    if result.status != "complete":
        lines.append("The study is not finished; the same command goes on with it.")
    return lines


def _with_limits(row: Mapping[str, Any], name: str) -> str:
    """A cell, and its interval where the row has ``NAME_low`` and ``NAME_high``."""
    if f"{name}_low" not in row:
        return _cell(row[name])
    low, high = (_cell(row[f"{name}_{end}"]) or "?" for end in ("low", "high"))
    return f"{_cell(row[name])} [{low}, {high}]"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shortened(str(value), CELL_WIDTH)
