"""What a study of a model found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import IO, TYPE_CHECKING, Any, Literal

from blinkscope.plurals import counted
from blinkscope.report.legends import NO_LIMIT, has_limits, legends
from blinkscope.report.terminal import plain_table, write_parts
from blinkscope.report.text import shortened, visible

if TYPE_CHECKING:
    from rich.console import Console

    from blinkscope.studies.comparison import Comparison
    from blinkscope.studies.study import StudyResult

CELL_WIDTH = 32
NAMED_WIDTH = 20
SHOWN_ROWS = 60
FEW_ROWS, MANY_COLUMNS = 5, 8
WIDEST = 1000
INDENT = 3
UNBROKEN = "\N{NO-BREAK SPACE}"


def print_study(result: StudyResult, file: IO[str], *, width: int | None = None) -> None:
    """Write a study's first table, its sentences, its failures and what it cost."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts: list[Any] = [Text(_heading(result), style="dim")]
    rows = next((rows for rows in result.findings.tables.values() if rows), ())
    if rows:
        parts += _listed(rows, console)
    if len(rows) > SHOWN_ROWS:
        parts.append(
            Text(f"and {counted(len(rows) - SHOWN_ROWS, 'row')} more: --json or --tables FOLDER has all of them")
        )
    parts += [Text(visible(sentence, keep="")) for sentence in result.findings.sentences]
    parts += [Text(line) for line in _standing(result)]
    write_parts(parts, console)


def _listed(rows: Sequence[Mapping[str, Any]], console: Console) -> list[Any]:
    """Rows as a table, or as a paragraph each where the screen is too narrow for one; then what short names mean."""
    from rich.text import Text

    table = _table(rows)
    room = console.measure(table, options=console.options.update(width=WIDEST))
    if room.maximum > console.width:  # rich would break columns evenly, whatever is in them
        for column in table.columns:
            column.width = column.min_width
    return [
        _paragraphs(rows, console.width) if room.minimum > console.width else table,
        *(Text(line, style="dim") for line in legends(rows)),
    ]


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a table, columns with limits holding them in brackets; a few rows of many columns are turned round."""
    from rich.cells import cell_len
    from rich.text import Text

    table = plain_table()
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
        justify: Literal["left", "right"] = "left" if isinstance(rows[0][of_column], str) else "right"
        # Cells stay whole; only heads of several words are broken between them.
        needed = max(cell_len(word) for word in (*name.split(), *(row_cells[k].plain for row_cells in cells)))
        table.add_column(Text(name), justify=justify, min_width=needed)
    for row_cells in cells:
        table.add_row(*row_cells)
    return table


def _paragraphs(rows: Sequence[Mapping[str, Any]], width: int) -> Any:
    first, *others = (name for name in rows[0] if not name.endswith(("_low", "_high")))
    return paragraphs(
        [
            (_with_limits(row, first), [(name.replace("_", " "), _with_limits(row, name)) for name in others])
            for row in rows[:SHOWN_ROWS]
        ],
        width,
    )


def paragraphs(rows: Sequence[tuple[str, Sequence[tuple[str, str]]]], width: int) -> Any:
    """Each row by its first cell and then, below it, by its other ones with their names, none of them broken."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[Any] = [Text()]
    for head, cells in rows:
        said = ", ".join(f"{name} {cell}".lstrip().replace(" ", UNBROKEN) for name, cell in cells if cell)
        filled = fill(said, max(width - INDENT, NAMED_WIDTH)).replace(UNBROKEN, " ")
        parts += [Text(head, style="bold"), Padding(Text(filled), (0, 0, 0, INDENT))]
    return Group(*parts, Text())


def print_comparison(comparison: Comparison, file: IO[str], *, width: int | None = None) -> None:
    """Write two runs of a study side by side, and their differences."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts: list[Any] = [
        Text(f"{name}: {_heading(result)}", style="dim")
        for name, result in (("first", comparison.first), ("second", comparison.second))
    ]
    parts += _listed(comparison.rows, console)
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
    lines = []
    if result.cost["continuations"]:
        cost = (
            counted(count, name.replace("_", " ").removesuffix("s"))
            for name, count in result.cost.items()
            if isinstance(count, int)
        )
        lines.append(f"{', '.join(cost)}.")
    failures = result.summary["failures"]
    assert isinstance(failures, dict)
    if failures:
        kinds = ", ".join(f"{count} ({kind})" for kind, count in failures.items())
        lines.append(f"Of {counted(result.items, 'item')} {len(result.failed):,} failed: {kinds}.")
    lines += [f"{visible(item, keep='')}: {visible(reason, keep='')}" for item, (_, reason) in result.failed.items()]
    if result.standing:
        lines.append(result.standing)
    return lines


def _with_limits(row: Mapping[str, Any], name: str) -> str:
    """A cell, and its interval where the row has ``NAME_low`` and ``NAME_high``."""
    if f"{name}_low" not in row:
        return _cell(row[name])
    if not has_limits(row, name):
        return _cell(row[name])
    low, high = (_cell(row[f"{name}_{end}"]) or NO_LIMIT for end in ("low", "high"))
    return f"{_cell(row[name])} [{low}, {high}]".lstrip()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:z.3f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else shortened(str(value), CELL_WIDTH)
