"""The tables of a study as files: CSV for a spreadsheet, Parquet for everything else."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.report.text import csv_cell

if TYPE_CHECKING:
    from blinkscope.studies.study import StudyResult


def check_tables(folder: Path) -> None:
    """Refuse, before any work, tables that could not be written.

    Raises
    ------
    UserError : the folder holds something already.
    MissingExtra : pyarrow is not installed.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder; give the name of a new one for the tables.")
    if find_spec("pyarrow") is None:
        raise MissingExtra("--tables", "export")


def write_tables(result: StudyResult, folder: Path) -> None:
    """``TABLE.csv`` and ``TABLE.parquet`` for every table of a study that has rows.

    Raises
    ------
    UserError : the folder holds something already.
    MissingExtra : pyarrow is not installed.
    """
    check_tables(folder)
    import pyarrow as pa
    from pyarrow import parquet

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in result.findings.tables.items():
            if rows:
                _csv(folder / f"{name}.csv", rows)
                parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), folder / f"{name}.parquet")
    except OSError as error:
        raise EngineError(f"{folder} cannot be written: {error.strerror or error}.") from error


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer, names = csv.writer(file), list(rows[0])
        lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
        for cells in lines:
            writer.writerow([csv_cell(cell) if isinstance(cell, str) else cell for cell in cells])
