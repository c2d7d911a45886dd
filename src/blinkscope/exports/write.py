"""Files of an export: JSON lines, or a folder of Parquet tables in the layout of a data set on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blinkscope.errors import MissingExtra
from blinkscope.outputs import Kind, filled, written

LINES = Kind("export", "export as JSON lines", re.compile(rb'\{"item": '))
SHARD = "train-00000-of-00001.parquet"

Rows = Sequence[Mapping[str, Any]]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """One JSON object a line, all of them or none; returns how many were written."""
    count = 0
    with written(path, LINES) as file:
        for row in rows:
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            count += 1
    return count


def write_dataset(folder: Path, tables: Mapping[str, Rows], schemas: Mapping[str, Any], readme: str) -> None:
    """A folder that ``datasets.load_dataset(folder, TABLE)`` reads, whole or not there; a single table needs no name.

    Raises
    ------
    UserError : the place is refused (``outputs.check_folder``).
    EngineError : the machine could not store the files.
    """
    parquet, pa = _pyarrow()
    with filled(folder, "export") as whole:
        for name, rows in tables.items():
            place = whole / (name if len(tables) > 1 else "data")
            place.mkdir()
            parquet.write_table(pa.Table.from_pylist(list(rows), schema=schemas[name]), place / SHARD)
        (whole / "README.md").write_text(_front_matter(tables) + readme, encoding="utf-8")


def run_schemas() -> dict[str, Any]:
    """Types of the columns of ``exports.tables``, so that a table without rows has them too."""
    _, pa = _pyarrow()
    text, number, real = pa.string(), pa.int64(), pa.float64()
    law = pa.list_(pa.struct([("label", text), ("p", real)]))
    columns: dict[str, dict[str, Any]] = {
        "generations": {
            **dict.fromkeys(("item", "prompt", "system", "prefill", "model", "feature", "method", "estimator"), text),
            "seed": number,
            **dict.fromkeys(("sampling", "text", "final_label"), text),
            "labels": pa.list_(text),
            "status": text,
            **dict.fromkeys(("error_asked", "error_reached", "level"), real),
            **dict.fromkeys(("windows", "continuations", "generated_tokens", "scored_tokens"), number),
            "predicted_tokens": number,
        },
        "tokens": {"item": text, "position": number, "id": number, "text": text, "p": real, "off_path": real},
        "curve": {"item": text, "position": number, "label": text, "mean": real, "low": real, "high": real},
        "windows": {
            **{"item": text, "start": number, "end": number, "text": text},
            **dict.fromkeys(("change", "low", "high", "probability"), real),
            **{"direction": number, "before": law, "after": law},
        },
        "draws": {
            **{"item": text, "position": number, "replicate": number, "token": text, "p": real, "label": text},
            **{"cost": real, "text": text, "finish": text, "answer": text},
        },
    }
    return {name: pa.schema(list(fields.items())) for name, fields in columns.items()}


def preference_schema() -> Any:
    """Types of the rows of ``exports.preference``."""
    _, pa = _pyarrow()
    text, number, real = pa.string(), pa.int64(), pa.float64()
    metadata: dict[str, Any] = {"item": text, **dict.fromkeys(("position", "window_start", "window_end"), number)}
    metadata |= dict.fromkeys(("window_change", "window_low", "window_high", "window_probability"), real)
    metadata["path_sampled"] = pa.bool_()
    for side in ("chosen", "rejected"):
        metadata |= {f"{side}_label": text, f"{side}_token": text, f"{side}_token_p": real}
        metadata |= {f"{side}_preferred{end}": real for end in ("", "_low", "_high")}
        metadata[f"{side}_continuations"] = number
    return pa.schema(
        [("prompt", text), ("chosen", text), ("rejected", text), ("metadata", pa.struct(list(metadata.items())))]
    )


def _front_matter(tables: Mapping[str, Rows]) -> str:
    """What the hub, and ``datasets``, read first."""
    lines = ["---", "configs:"]
    for name in tables:
        place = name if len(tables) > 1 else "data"
        lines += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {place}/{SHARD}"]
    return "\n".join([*lines, "---", "", ""])


def _pyarrow() -> tuple[Any, Any]:
    if find_spec("pyarrow") is None:
        raise MissingExtra("writing Parquet", "export")
    import pyarrow
    from pyarrow import parquet

    return parquet, pyarrow
