"""What the short names in the tables of studies stand for, a line each: below a table in a terminal and in a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NO_LIMIT = "-"
"""What stands in an interval for a limit that there is not."""

LEGENDS = {
    "dacc": "dacc: accuracy of the texts without a window, less that of the texts with one.",
    "dcw": "dcw: share of texts with a window among the wrong ones, less that among the right ones.",
    "certificate": "certificate: the chance that what is in the set at the end of its window leaves it again.",
    "theorem2": "theorem2: how far, at most, Theorem 2 lets a cut in its range move the label law from the set's.",
}


def legends(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines that these rows need: for names of columns, or of numbers that have a row each, and for open limits."""
    names = {*rows[0], *(row.get("number") for row in rows)}
    found = [line for name, line in LEGENDS.items() if name in names]
    if any(_open(row, name) for row in rows for name in row):
        found.append(f"{NO_LIMIT} in an interval: the draws set no limit on this side.")
    return found


def has_limits(row: Mapping[str, Any], name: str) -> bool:
    """Whether a number has an interval, one side of which may be open."""
    return any(row.get(f"{name}_{end}") is not None for end in ("low", "high"))


def _open(row: Mapping[str, Any], name: str) -> bool:
    return has_limits(row, name) and None in (row.get(f"{name}_low"), row.get(f"{name}_high"))
