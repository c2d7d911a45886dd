"""What the loop is doing, while it is doing it: a line that moves on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO, final, runtime_checkable

from blinkscope.plurals import counted
from blinkscope.report.text import visible
from blinkscope.studies.whole import Whole

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from blinkscope.estimate.loop import Progress

FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0  # seconds between the lines of a log; each wait is twice the one before


@runtime_checkable
class Display(Protocol):
    """Where a long task says how far it is."""

    def stage(self, text: str) -> None:
        """A new piece of work begins, for instance loading a model."""
        ...

    def update(self, progress: Progress | Whole) -> None:
        """The loop, or a study as a whole, has moved on; cheap enough to be called after every draw."""
        ...


@contextmanager
def progress_display(
    file: TextIO, *, quiet: bool = False, currency: str = "token", clock: Callable[[], float] = time.monotonic
) -> Iterator[Display]:
    """A display on ``file`` (stderr) that suits it: moving on a terminal, sparse lines elsewhere, none if ``quiet``.

    currency: what a draw costs, one of it.
    """
    if quiet:
        yield Silent()
        return
    from rich.console import Console

    console = Console(file=file, markup=False, highlight=False, emoji=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield Lines(file, currency, clock)
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn("line"),
        BarColumn(12),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Moving(bar, currency)


@final
class Silent:
    """Says nothing."""

    def stage(self, text: str) -> None: ...

    def update(self, progress: Progress | Whole) -> None: ...


@final
class Lines:
    """Plain lines, ever more seldom."""

    def __init__(self, file: TextIO, currency: str, clock: Callable[[], float]) -> None:
        self._file = file
        self._currency = currency
        self._clock = clock
        self._wait = FIRST_WAIT
        self._next = clock() + FIRST_WAIT

    def stage(self, text: str) -> None:
        print(visible(text, keep=""), file=self._file, flush=True)

    def update(self, progress: Progress | Whole) -> None:
        now = self._clock()
        over = isinstance(progress, Whole) and progress.finished == progress.items
        if now >= self._next or over:
            print(standing(progress, self._currency), file=self._file, flush=True)
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._next = now + self._wait


@final
class Moving:
    """A bar that fills as the squared error comes down, which is about in step with the cost."""

    def __init__(self, bar: Bar, currency: str) -> None:
        self._bar = bar
        self._currency = currency
        self._task = bar.add_task("", total=None)
        self._filled = 0.0

    def stage(self, text: str) -> None:
        self._bar.update(self._task, description=visible(text, keep=""))

    def update(self, progress: Progress | Whole) -> None:
        self._filled = max(self._filled, filled(progress))
        self._bar.update(self._task, description=standing(progress, self._currency), total=1.0, completed=self._filled)


def filled(progress: Progress | Whole) -> float:
    """Share of the work that is done, in [0, 1]: of a study its items; a variance falls as one over the cost."""
    if isinstance(progress, Whole):
        return progress.finished / progress.items
    if math.isnan(progress.error):
        return 0.0
    return 1.0 if progress.error <= progress.asked else (progress.asked / progress.error) ** 2


def standing(progress: Progress | Whole, currency: str = "token") -> str:
    """Rounds, continuations, cost and error, or items and what they cost, in a line that fits 80 columns."""
    drawn = counted(progress.continuations, "continuation")
    if isinstance(progress, Whole):
        return (
            f"{progress.finished:,} of {counted(progress.items, 'item')}, {progress.at_work} at work by "
            f"{progress.workers}: {drawn}, {counted(round(progress.cost), currency)}"
        )
    measure = "undecided" if progress.until == "windows" else "error"
    reached = "" if math.isnan(progress.error) else f"{measure} {progress.error:.3f}, "
    aim = "" if math.isnan(progress.asked) else f", {reached}asked {progress.asked:g}"
    cost = counted(round(progress.generated_tokens), currency)
    if progress.foreseen is not None:
        cost = f"{progress.generated_tokens:,.0f} of ~{counted(float(f'{progress.foreseen:.2g}'), currency)}"
    return f"round {progress.round + 1}: {drawn}, {cost}{aim}"
