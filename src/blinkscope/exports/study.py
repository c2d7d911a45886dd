"""The tables of a study as files: CSV for a spreadsheet, Parquet for everything else."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blinkscope.errors import MissingExtra
from blinkscope.outputs import check_folder, filled
from blinkscope.report.text import csv_cell

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult


def check_tables(folder: Path) -> None:
    """Refuse, before any work, tables that could not be written.

    Raises
    ------
    UserError : the place is refused (``outputs.check_folder``).
    MissingExtra : pyarrow is not installed.
    """
    check_folder(folder, "tables")
    if find_spec("pyarrow") is None:
        raise MissingExtra("--tables", "export")


def write_tables(result: StudyResult, folder: Path) -> None:
    """``TABLE.csv`` and ``TABLE.parquet`` for every table of a study that has rows; all of them or none.

    Raises
    ------
    UserError : the place is refused (``outputs.check_folder``).
    MissingExtra : pyarrow is not installed.
    EngineError : the machine could not store the files.
    """
    check_tables(folder)
    import pyarrow as pa
    from pyarrow import parquet

    with filled(folder, "tables") as place:
        for name, rows in result.findings.tables.items():
            if rows:
                _csv(place / f"{name}.csv", rows)
                parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), place / f"{name}.parquet")


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer, names = csv.writer(file), list(rows[0])
        lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
        for cells in lines:
            writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in cells])
