"""What a study of a model found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Literal

from blinkscope.report.terminal import write_parts
from blinkscope.report.text import shortened, visible

if TYPE_CHECKING:
    from blinkscope.studies.comparison import Comparison
    from blinkscope.studies.study import StudyResult

CELL_WIDTH = 32
NAMED_WIDTH = 20
SHOWN_ROWS = 60
FEW_ROWS, MANY_COLUMNS = 5, 8


def print_study(result: StudyResult, file: IO[str], *, width: int | None = None) -> None:
    """Write a study's first table, its sentences, its failures and what it cost."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts: list[Any] = [Text(_heading(result), style="dim")]
    rows = next((rows for rows in result.findings.tables.values() if rows), ())
    if rows:
        parts.append(_table(rows))
    if len(rows) > SHOWN_ROWS:
        parts.append(Text(f"and {len(rows) - SHOWN_ROWS} rows more: --json or --tables FOLDER has all of them"))
    parts += [Text(visible(sentence, keep="")) for sentence in result.findings.sentences]
    parts += [Text(line) for line in _standing(result)]
    write_parts(parts, console)


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a table, columns with limits holding them in brackets; a few rows of many columns are turned round."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    columns = [name for name in rows[0] if not name.endswith(("_low", "_high"))]
    names = [shortened(name.replace("_", " "), CELL_WIDTH) for name in columns]
    cells = [[Text(_with_limits(row, name)) for name in columns] for row in rows[:SHOWN_ROWS]]
    if len(rows) <= FEW_ROWS and len(columns) > MANY_COLUMNS:
        table.add_column(Text(names[0]))
        for first, *_ in cells:
            table.add_column(first, justify="right")
        for name, *values in zip(names[1:], *(row[1:] for row in cells), strict=True):
            table.add_row(Text(name), *values)
        return table
    for k, (name, of_column) in enumerate(zip(names, columns, strict=True)):
        # What the row is about stays whole where the screen is narrow.
        whole = k == 0 and max(len(row_cells[0]) for row_cells in cells) <= NAMED_WIDTH
        justify: Literal["left", "right"] = "left" if isinstance(rows[0][of_column], str) else "right"
        table.add_column(Text(name), justify=justify, no_wrap=whole)
    for row_cells in cells:
        table.add_row(*row_cells)
    return table


def print_comparison(comparison: Comparison, file: IO[str], *, width: int | None = None) -> None:
    """Write two runs of a study side by side, and their differences."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts: list[Any] = [
        Text(f"{name}: {_heading(result)}", style="dim")
        for name, result in (("first", comparison.first), ("second", comparison.second))
    ]
    parts.append(_table(comparison.rows))
    level = comparison.first.target.level
    parts.append(
        Text(
            f"Differences are second less first over what both were asked ({comparison.shared} in all), with "
            f"{level:.0%} intervals over questions."
        )
    )
    parts += [Text(visible(f"differing: {said}", keep="")) for said in comparison.differing]
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
        lines.append(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in cost.items()) + ".")
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
    if low == high == "?":
        return _cell(row[name])
    return f"{_cell(row[name])} [{low}, {high}]"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:z.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shortened(str(value), CELL_WIDTH)
