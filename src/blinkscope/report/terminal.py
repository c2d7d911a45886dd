"""A result as a terminal shows it.

Everything that comes from a model goes through ``visible`` first and reaches rich as plain text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

from blinkscope.estimate.trace import Trace
from blinkscope.report import pictures, summary, trees
from blinkscope.report.text import shortened, told_apart, visible
from blinkscope.window import TokenWindow

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

TABLE_FROM = 100  # columns; below, each window is a paragraph
SUPERSCRIPT = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
SIGNS = {"─": "-", "→": ">", "…": "~", "±": "+-", "·": "-", "“": '"', "”": '"'}
CERTAIN, LIKELY = "bold black on yellow", "bold underline"


def print_trace(trace: Trace, file: IO[str], *, width: int | None = None) -> None:
    """Write a result for a person to read.

    Windows are marked in colour on a terminal, and as ``⟦words⟧¹`` where there is no colour (a pipe, ``NO_COLOR``).

    Parameters
    ----------
    width : columns; those of the terminal by default.
    """
    from rich.console import Console

    console = Console(file=file, width=width, markup=False, highlight=False, emoji=False)
    parts = _parts(trace, trace.windows(), console) if trace.times is None else _picture_parts(trace)
    write_parts(parts, console)


def write_parts(parts: Sequence[RenderableType], console: Console) -> None:
    """Write to the console's file, with no space at the ends of lines and with what the file's encoding lacks."""
    with console.capture() as written:
        for part in parts:
            console.print(part)
    lines = (line.rstrip(" ") for line in written.get().rstrip("\n").split("\n"))
    console.file.write(encodable("\n".join(lines) + "\n", console.file))


def plain_table() -> Table:
    """A table with a line below its head and no other ones, whatever the encoding."""
    from rich.box import SIMPLE_HEAD, Box
    from rich.table import Table

    # Of a box that calls itself ASCII rich makes no other one; ``encodable`` spells its line.
    return Table(box=Box(str(SIMPLE_HEAD), ascii=True), pad_edge=False)


def _parts(trace: Trace, windows: Sequence[TokenWindow], console: Console) -> list[RenderableType]:
    from rich.padding import Padding
    from rich.text import Text

    final = summary.name(trace, trace.final_label)
    width = console.width
    parts: list[RenderableType] = [Text(summary.settings(trace), style="dim")]
    if summary.question(trace):
        parts.append(Text(f"Prompt: {shortened(summary.question(trace), max(width - 8, 20))}", style="dim"))
    parts += [
        Text(),
        Text(f"Before the first token: {summary.start_law(trace)}"),
        Text.assemble("This text ended with: ", (final, "bold")),
        Text(),
        Padding(marked(trace, windows, console), (0, 0, 0, 2)),
        Text(),
        Text(summary.answer(trace, windows), style="bold"),
    ]
    if windows:
        listed = _table(trace, windows) if width >= TABLE_FROM else _paragraphs(trace, windows)
        parts += [Text(), listed]
    parts += [Text(), Text(summary.cost(trace)), Text(summary.error(trace))]
    parts += [Text(f"Note: {visible(note, keep='')}") for note in trace.notes]
    if trace.comparison is not None:
        parts += [Text(), Text(summary.agreement(trace.comparison)), *_furthest(trace.comparison)]
    return parts


def _picture_parts(trace: Trace) -> list[RenderableType]:
    """A picture's result: a row for every noise level that was looked at."""
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(summary.settings(trace), style="dim"),
        Text(),
        Text(pictures.answer(trace)),
        Text(pictures.method(trace), style="dim"),
        _levels(trace),
        Text(pictures.finding(trace), style="bold"),
        Text(visible(trees.narrowing(trace), keep="")),
        Text(),
        Text(pictures.cost(trace)),
        Text(pictures.reached(trace)),
    ]
    return parts + [Text(f"Note: {visible(note, keep='')}") for note in trace.notes]


def _levels(trace: Trace) -> RenderableType:
    from rich.text import Text

    table = plain_table()
    headings = pictures.headings(trace)
    mark = headings.index("")
    for k, heading in enumerate(headings):
        table.add_column(heading, justify="right" if k < mark else "left")
    for cells in pictures.levels(trace):
        table.add_row(*map(Text, cells))
    return table


def _furthest(comparison: Mapping[str, Any], most: int = 5) -> list[RenderableType]:
    """Where forks and free continuations are furthest apart, in their standard errors."""
    from rich.text import Text

    places = [(row, column) for row, zs in enumerate(comparison["z"]) for column, z in enumerate(zs) if z is not None]
    places.sort(key=lambda place: -abs(comparison["z"][place[0]][place[1]]))
    if not places:
        return []
    table = plain_table()
    for heading in ("tokens kept", "label", "predicted", "observed", "z"):
        table.add_column(heading, justify="left" if heading == "label" else "right")
    names = told_apart(tuple(comparison["labels"]), summary.LABEL_WIDTH)
    for row, column in places[:most]:
        predicted, observed = (
            f"{comparison[name][row][column]:.2f} ± {comparison[name + '_error'][row][column]:.2f}"
            for name in ("predicted", "observed")
        )
        label = names[comparison["labels"][column]]
        cells = (str(comparison["positions"][row]), label, predicted, observed, f"{comparison['z'][row][column]:+.1f}")
        table.add_row(*(Text(cell) for cell in cells))
    return [Text("Furthest apart:"), table]


def marked(trace: Trace, windows: Sequence[TokenWindow], console: Console) -> Text:
    """The generation with its windows marked: by colour, or by brackets, which the text itself then cannot hold."""
    from rich.text import Text

    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    fancy = encodable("⟦⟧¹", console.file) == "⟦⟧¹"
    opening, closing = ("⟦", "⟧") if fancy else ("[[", "]]")
    text = Text()
    for segment in summary.segments(trace, windows):
        words = segment.text.replace("⟦", "[").replace("⟧", "]")
        if segment.window is None:
            text.append(words)
            continue
        number = str(segment.window).translate(SUPERSCRIPT) if fancy else str(segment.window)
        style = CERTAIN if windows[segment.window - 1].certain else LIKELY
        text.append(words if coloured else f"{opening}{words}{closing}", style=style)
        text.append(number, style="bold")
    return text


def _table(trace: Trace, windows: Sequence[TokenWindow]) -> RenderableType:
    from rich.text import Text

    table = plain_table()
    for heading, right in (
        ("", True),
        ("words", False),
        ("tokens kept", True),
        (f"change [{trace.target.level:.0%}]", True),
        ("probability", True),
        ("direction", False),
        ("before → after", False),
    ):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for number, window in enumerate(windows, 1):
        cells = (
            str(number),
            summary.words(trace, window, 30),
            f"{window.start} → {window.end}",
            _change(window),
            f"{window.probability:.2f}",
            summary.direction(trace, window),
            f"{summary.law(window.before, 2)} → {summary.law(window.after, 2)}",
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _paragraphs(trace: Trace, windows: Sequence[TokenWindow]) -> RenderableType:
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    parts: list[RenderableType] = []
    for number, window in enumerate(windows, 1):
        parts.append(Text(f"{number}. {summary.words(trace, window, 40)}  (tokens kept {window.start} → {window.end})"))
        said = (
            f"change {_change(window)}, probability {window.probability:.2f}, {summary.direction(trace, window)}\n"
            f"{summary.law(window.before, 2)} → {summary.law(window.after, 2)}"
        )
        parts.append(Padding(Text(said), (0, 0, 0, 3)))
    return Group(*parts)


def _change(window: TokenWindow) -> str:
    return f"{window.change:.2f} [{window.low:.2f}, {window.high:.2f}]"


def encodable(text: str, file: IO[str]) -> str:
    """The text with what the file's encoding cannot hold spelled out, or by a sign as wide where there is one."""
    encoding = getattr(file, "encoding", None) or "utf-8"
    for sign, other in SIGNS.items():
        if not sign.encode(encoding, "ignore"):
            text = text.replace(sign, other)
    return text.encode(encoding, "backslashreplace").decode(encoding)
