"""What a study found, as a terminal shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, TYPE_CHECKING

from blinkscope.report import summary
from blinkscope.report.study import WIDEST, paragraphs
from blinkscope.report.terminal import plain_table, write_parts
from blinkscope.report.text import told_apart, visible

if TYPE_CHECKING:
    from blinkscope.studies.survey import Finding, Survey


HEADINGS = ("item", "tokens", "labels", "final label", "windows", "error", "drawn", "")


def print_survey(survey: Survey, file: IO[str], *, width: int | None = None) -> None:
    """Write what a study found for a person to read: a line for each item, and the sums."""
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    analysed = tuple(finding.final_label for finding in survey.findings if finding.analysed)
    names = told_apart(analysed, summary.LABEL_WIDTH)
    rows = [_finding_cells(finding, names) for finding in survey.findings]
    table = plain_table()
    for k, heading in enumerate(HEADINGS):
        # Cells stay whole, but for lists of windows, and heads are broken between words.
        whole = heading.split() if heading == "windows" else [*heading.split(), *(row[k] for row in rows)]
        table.add_column(
            heading,
            justify="right" if heading in ("tokens", "labels", "error", "drawn") else "left",
            min_width=max(map(cell_len, whole), default=0),
        )
    for row in rows:
        table.add_row(*map(Text, row))
    narrow = console.measure(table, options=console.options.update(width=WIDEST)).minimum > console.width
    listed = (
        paragraphs([(row[0], list(zip(HEADINGS[1:], row[1:], strict=True))) for row in rows], console.width)
        if narrow
        else table
    )
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
    write_parts([top, listed, *map(Text, lines)], console)


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
