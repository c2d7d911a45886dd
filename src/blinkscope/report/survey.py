"""What a study found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from blinkscope.report import summary
from blinkscope.report.terminal import write_parts
from blinkscope.report.text import told_apart, visible

if TYPE_CHECKING:
    from blinkscope.studies.survey import Finding, Survey


def print_survey(survey: Survey, file: IO[str], *, width: int | None = None) -> None:
    """Write what a study found for a person to read: a line for each item, and the sums."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("item", no_wrap=True)  # what --item takes
    right = ("tokens", "labels", "error", "drawn")
    for heading in ("tokens", "labels", "final label", "windows", "error", "drawn", ""):
        table.add_column(heading, justify="right" if heading in right else "left", min_width=8 * (heading == "windows"))
    analysed = tuple(finding.final_label for finding in survey.findings if finding.analysed)
    names = told_apart(analysed, summary.LABEL_WIDTH)
    for finding in survey.findings:
        table.add_row(*(Text(cell) for cell in _finding_cells(finding, names)))
    settings, lines = survey.settings, list(survey.sentences)
    if survey.standing:
        lines.append(survey.standing)
    lines += [
        f"{visible(finding.item, keep='')}: {visible(finding.failure, keep='')}"
        for finding in survey.findings
        if finding.failure is not None
    ]
    if survey.agreement is not None:
        lines.append(summary.agreement(survey.agreement.to_json()))
    heading = " · ".join(str(settings[name]) for name in ("model", "method") if settings.get(name))
    top = Text(visible(f"{heading} · seed {settings.get('seed')}", keep=""), style="dim")
    write_parts([top, table, *map(Text, lines)], console)


def _finding_cells(finding: Finding, names: Mapping[str, str]) -> tuple[str, ...]:
    name = visible(finding.item, keep="")
    if not finding.analysed:
        return (name, "", "", "", "", "", "", finding.status)
    windows = ", ".join(f"{w['start']}→{w['end']}" for w in finding.windows[:3])
    more = f" and {len(finding.windows) - 3} more" if len(finding.windows) > 3 else ""
    return (
        name,
        f"{finding.tokens:,}",
        f"{len(finding.labels)}",
        names[finding.final_label],
        windows + more or "none",
        f"{finding.error:.3f}",
        f"{finding.continuations:,}",
        "" if finding.status == "complete" else finding.status,
    )
