"""Draw docs/figures/at-a-glance.svg: one theory for a Gaussian mixture and a language model, side by side.

Left the two Gaussians of Example 1, right the critical token of Example 4 as a toy language model, which writes text
through the same protocol as a real one. Everything is exact but the dots: these are forward-reverse experiments.

    python docs/figures/at_a_glance.py
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from blinkscope import Reply
from blinkscope.critical import critical_window
from blinkscope.divergence import label_law
from blinkscope.engines.toy import ToyEngine
from blinkscope.engines.toy_models import open_toy
from blinkscope.language.engine import Job
from blinkscope.language.engine import Path as Text
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.processes import TokenTruncation
from blinkscope.sampler import LabelCounts, LocalizationSampler, forward_reverse
from blinkscope.worlds.critical_token import CriticalToken
from blinkscope.worlds.experiment import LabelItself, world_sampler
from blinkscope.worlds.two_gaussians import TwoGaussians
from blinkscope.worlds.world import World

EPS, RUNS, EXPERIMENTS = 0.1, 14, 2000
STARTS = 100  # texts that are cut and written on, twice each
PROMPT = "Which way?"
FILE = Path(__file__).parent / "at-a-glance.svg"


@dataclass(frozen=True, eq=False)
class Column:
    """What one column shows. Every time is the theory's t.

    runs: (times, runs), pi_t of the first label along single runs. measured: forward-reverse from the first label.
    """

    title: str
    axis: str
    world: World
    times: np.ndarray[Any, Any]
    runs: np.ndarray[Any, Any]
    measured: LabelCounts


def gaussians() -> Column:
    world, times, rng = TwoGaussians(10.0), np.linspace(0.0, 6.0, 61), np.random.default_rng(1)
    y = world.mean_norm * np.where(rng.random(RUNS) < 0.5, 1, -1) + rng.standard_normal(RUNS)
    runs, decay = [world.posterior(y, 0.0)[:, 0]], math.exp(-float(times[1]))
    for t in times[1:]:  # the forward chain: its paths have the law of the sampler's, read backwards
        y = decay * y + math.sqrt(1 - decay**2) * rng.standard_normal(RUNS)
        runs.append(world.posterior(y, float(t))[:, 0])
    asked = [float(t) for t in np.linspace(0.3, 5.7, 13)]
    measured = forward_reverse(world_sampler(world), LabelItself(), ["+"], asked, EXPERIMENTS, rng)
    axis = "OU time t, falling as the sampler runs"
    return Column("A mixture of two Gaussians", axis, world, times, np.array(runs), measured)


@dataclass(frozen=True, eq=False)
class Resample:
    """The reverse sampler of a language model: go on writing after the tokens kept."""

    engine: ToyEngine

    def sample(self, rng: np.random.Generator, y: tuple[int, ...], t: float, n: int) -> Sequence[tuple[int, ...]]:
        kept = Text(self.engine.encode(PROMPT), y)
        jobs = [Job((i,), kept, len(y), stream=(i,)) for i in range(n)]
        written = self.engine.continue_(jobs, self.engine.default_sampling, int(rng.integers(2**31)))
        return [(*y, *completion.tokens) for completion in written]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The language model's own feature, read from token ids."""

    engine: ToyEngine
    name: str = "outcome"

    def label(self, sample: tuple[int, ...]) -> str | None:
        return self.engine.feature.label(Reply(self.engine.decode(sample), finished=True))


@dataclass(frozen=True)
class Kept:
    """Truncation to the first T - t of the world's T tokens; the word that names the label goes first."""

    length: int

    @property
    def index(self) -> Any:
        return TokenTruncation(self.length).index

    def noise(self, rng: np.random.Generator, x: tuple[int, ...], t: float) -> tuple[int, ...]:
        return x[: self.length - int(self.index.check(t))]


def language_model() -> Column:
    world, rng = CriticalToken(length=50, agree=20, width=3, leak=0.005), np.random.default_rng(2)
    engine = open_toy("critical-token?length=50&agree=20&width=3&leak=0.005")
    reverse, outcome = Resample(engine), Outcome(engine)
    texts = reverse.sample(rng, (), 0.0, 3 * STARTS)
    context, sampling = engine.encode(PROMPT), engine.default_sampling
    exact = [engine.truth(Text(context, text), sampling).posterior[: world.length + 1, 0] for text in texts[:RUNS]]
    start = [text for text in texts if outcome.label(text) == "first"][:STARTS]
    asked = [float(world.length - s) for s in (2, 6, 10, 14, 18, 20, 21, 22, 23, 26, 30, 34, 38, 42, 46)]
    measured = forward_reverse(LocalizationSampler(Kept(world.length), reverse), outcome, start, asked, 2, rng)
    times = np.arange(world.length + 1.0)
    return Column(
        "A language model (toy:critical-token)", "tokens kept", world, times, np.array(exact)[:, ::-1].T, measured
    )


def draw(column: Column, above: Axes, below: Axes, kept: bool) -> None:
    world, times = column.world, column.times
    place = (lambda t: times[-1] - t) if kept else (lambda t: t)
    x, window = place(times), critical_window(world, EPS, world.after, world.before)
    assert window.outcome == "window"
    for axes in (above, below):
        ends = place(window.t_before), place(window.t_after)
        shade = {"fc": WINDOW_COLOUR, "ec": WINDOW_EDGE, "alpha": 0.4, "lw": 1}
        axes.axvspan(*ends, **shade, label=rf"critical window, $\epsilon$ = {EPS}")
        axes.set(xlim=(place(times[-1]), place(times[0])), ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    for run in np.unique(column.runs, axis=1).T:
        above.plot(x, run, color=COLOURS[0] if run[0] > 0.5 else COLOURS[1], lw=1.1, alpha=0.85)
    above.set_title(column.title, fontsize=11, loc="left")
    for other, level, colour, name in (
        (world.labels[1:], 1 - EPS**2, COLOURS[2], r"TV between the outcomes, level $1 - \epsilon^2$"),
        (world.labels, EPS, COLOURS[3], r"TV to the whole mixture, level $\epsilon$"),
    ):
        values = [world.total_variation(world.after, other, float(t)).value for t in times]
        below.plot(x, values, color=colour, lw=1.8, label=name)
        below.axhline(level, color=colour, ls=":", lw=1.2)
    same = [label_law(world.law(float(t)), world.after).mean[0, 0] for t in times]
    below.plot(x, same, color="black", lw=1.2, label="P(same outcome), exact")
    seen = column.measured
    k = seen.labels.index(world.labels[0])
    share = seen.counts[:, k] / seen.counts.sum(axis=1)
    low, high = seen.interval()[:, :, k]
    bars = np.clip([share - low, high - share], 0, 1)
    style = {"fmt": "o", "color": "black", "ms": 4, "lw": 1}
    below.errorbar(place(seen.times), share, yerr=bars, **style, label="P(same outcome), measured")
    below.set_xlabel(column.axis)


def main() -> None:
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06)  # type: ignore[union-attr]
    panels = figure.subplots(2, 2, sharex="col", sharey=True)
    for i, column in enumerate((gaussians(), language_model())):
        draw(column, panels[0, i], panels[1, i], kept=i == 1)
    panels[0, 0].set_ylabel("posterior of one outcome\nalong single runs")
    panels[1, 0].set_ylabel("total variation, probability")
    handles, names = panels[1, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    drawing = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "blinkscope"}):
        figure.savefig(drawing, format="svg", metadata={"Date": None})
    # A tenth of a point is finer than the eye, and halves the file.
    FILE.write_text(re.sub(r"\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}", drawing.getvalue()))


if __name__ == "__main__":
    main()
