"""Draw docs/figures/at-a-glance.svg: one theory for a Gaussian mixture and a language model, side by side.

Left the two Gaussians of Example 1, right the toy language model ``toy:fork`` through the engine protocol, as a real
model would be. Both panels of a column read one object, the label posterior; the dots are forward-reverse experiments.

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

from blinkscope import Reply, open_model
from blinkscope.critical import CriticalWindow, critical_window
from blinkscope.divergence import label_law, mixture_total_variation
from blinkscope.engines.toy import ToyEngine, label_laws, law_of
from blinkscope.language.engine import Job
from blinkscope.language.engine import Path as Text
from blinkscope.palette import COLOURS, WINDOW_COLOUR, WINDOW_EDGE
from blinkscope.posterior import Posterior
from blinkscope.processes import TokenTruncation
from blinkscope.sampled import sampled_window
from blinkscope.sampler import IndexSet, LabelCounts, LocalizationSampler, forward_reverse
from blinkscope.worlds.experiment import LabelItself, world_sampler
from blinkscope.worlds.two_gaussians import TwoGaussians

EPS, DRAWN, STARTS, REPEATS = 0.1, 14, 100, 4
FILE = Path(__file__).parent / "at-a-glance.svg"


@dataclass(frozen=True, eq=False)
class Column:
    """What one column shows; every time is the theory's t.

    posterior: (times, observations, labels) with weights, exact. trajectories: (times, paths), pi_t of the first label.
    """

    title: str
    axis: str
    posterior: Posterior
    trajectories: np.ndarray[Any, Any]
    window: CriticalWindow
    measured: LabelCounts


def gaussians() -> Column:
    world, times, rng = TwoGaussians(10.0), np.linspace(0.0, 6.0, 61), np.random.default_rng(1)
    signs = np.where(rng.random(DRAWN) < 0.5, 1, -1)
    y = world.mean_norm * signs + rng.standard_normal(DRAWN)
    paths = [world.posterior(y, 0.0)[:, 0]]
    decay = math.exp(-float(times[1]))
    for t in times[1:]:  # the forward chain: its trajectories have the law of the sampler's, run backwards
        y = decay * y + math.sqrt(1 - decay**2) * rng.standard_normal(DRAWN)
        paths.append(world.posterior(y, float(t))[:, 0])
    laws = [world.law(float(t)) for t in times]
    posterior = Posterior(
        times,
        world.labels,
        np.concatenate([law.mean for law in laws]),
        weights=world.weights,
        mass=np.concatenate([law.mass for law in laws if law.mass is not None]),
        complete=True,
    )
    asked = [float(t) for t in np.linspace(0.3, 5.7, 13)]
    measured = forward_reverse(world_sampler(world), LabelItself(), ["+"], asked, STARTS * REPEATS, rng)
    window = critical_window(world, EPS, ("+",))
    return Column(
        "A mixture of two Gaussians",
        "OU time t, falling as the sampler runs",
        posterior,
        np.array(paths),
        window,
        measured,
    )


@dataclass(frozen=True, eq=False)
class Resample:
    """The reverse sampler of a language model: go on writing after the tokens kept."""

    engine: ToyEngine

    def sample(self, rng: np.random.Generator, y: tuple[int, ...], t: float, n: int) -> Sequence[tuple[int, ...]]:
        kept = Text(self.engine.encode("Which way?"), tuple(y))
        jobs = [Job((i,), kept, len(y), stream=(i,)) for i in range(n)]
        written = self.engine.continue_(jobs, self.engine.default_sampling, int(rng.integers(2**31)))
        return [(*y, *completion.tokens) for completion in written]


@dataclass(frozen=True, eq=False)
class Outcome:
    """The engine's own feature, read from token ids."""

    engine: ToyEngine
    name: str = "outcome"

    def label(self, sample: tuple[int, ...]) -> str | None:
        return self.engine.feature.label(Reply(self.engine.decode(sample), finished=True))


def language_model() -> Column:
    opened = open_model("toy:fork?agree=20&width=3&leak=0.005&length=50")
    assert isinstance(opened, ToyEngine)
    engine, rng = opened, np.random.default_rng(2)
    reverse, outcome = Resample(engine), Outcome(engine)
    posterior = exact_posterior(engine)
    length = len(posterior.index) - 1
    texts = reverse.sample(rng, (), 0.0, 4 * STARTS)
    context, sampling = engine.encode("Which way?"), engine.default_sampling
    paths = np.array([engine.truth(Text(context, text), sampling).posterior[:, 0] for text in texts[:DRAWN]])
    start = [text for text in texts if outcome.label(text) == "happy"][:STARTS]
    asked = [float(length - s) for s in (2, 6, 10, 14, 18, 20, 21, 22, 23, 26, 30, 34, 38, 42, 46)]
    sampler = LocalizationSampler(TokenTruncation(length), reverse)
    measured = forward_reverse(sampler, outcome, start, asked, REPEATS, rng)
    index = IndexSet("removed", "tokens", 0, length)
    window = sampled_window(posterior, index, EPS, ("happy",))
    return Column("A language model (toy:fork)", "tokens kept", posterior, paths[:, ::-1].T, window, measured)


def exact_posterior(engine: ToyEngine) -> Posterior:
    """The law of pi_t at every number of tokens removed: which states the text can be in, and how probably."""
    machine, length = engine.machine, engine.longest
    law = law_of(machine, engine.default_sampling)
    states = np.arange(len(machine.outcome))
    mass = np.zeros((length + 1, len(states)))
    mass[0, 0] = 1.0
    for s in range(length):
        np.add.at(mass[s + 1], machine.successors, mass[s][:, None] * law.p)
    pi = np.zeros((length + 1, len(states), len(machine.labels)))
    for s in range(length + 1):
        here = np.flatnonzero(mass[s])
        pi[s, here] = label_laws(machine, law, here, np.full(len(here), length - s))[:, : len(machine.labels)]
    removed = np.arange(length + 1.0)
    return Posterior(removed, machine.labels, pi[::-1], weights=pi[0, 0], mass=mass[::-1], complete=True)


def draw(column: Column, above: Axes, below: Axes, kept: bool) -> None:
    times = column.posterior.index
    x = times[-1] - times if kept else times
    place = (lambda t: times[-1] - t) if kept else (lambda t: t)
    after, rest = column.window.after, tuple(k for k in column.posterior.labels if k not in column.window.after)
    for axes in (above, below):
        ends = (place(column.window.t_before), place(column.window.t_after))
        axes.axvspan(
            *ends, fc=WINDOW_COLOUR, ec=WINDOW_EDGE, alpha=0.4, lw=1, label=r"critical window, $\epsilon$ = 0.1"
        )
        axes.set(xlim=(place(times[-1]), place(times[0])), ylim=(-0.03, 1.03))
        axes.spines[["top", "right"]].set_visible(False)
    for path in np.unique(column.trajectories, axis=1).T:
        above.plot(x, path, color=COLOURS[0] if path[0] > 0.5 else COLOURS[1], lw=0.9, alpha=0.75)
    above.set_title(column.title, fontsize=11, loc="left")
    apart, mixed = (
        [e.value for e in mixture_total_variation(column.posterior, after, other)]
        for other in (rest, column.posterior.labels)
    )
    below.plot(x, apart, color=COLOURS[2], lw=1.8, label=r"TV between the outcomes, level $1 - \epsilon^2$")
    below.plot(x, mixed, color=COLOURS[3], lw=1.8, label=r"TV to the whole mixture, level $\epsilon$")
    for level, colour in ((1 - EPS**2, COLOURS[2]), (EPS, COLOURS[3])):
        below.axhline(level, color=colour, ls=":", lw=1.2)
    same = label_law(column.posterior, after).mean[:, column.posterior.labels.index(after[0])]
    below.plot(x, same, color="black", lw=1.2, label="P(same outcome), exact")
    k = column.measured.labels.index(after[0])
    share = column.measured.counts[:, k] / column.measured.counts.sum(axis=1)
    low, high = column.measured.interval()[:, :, k]
    bars = np.clip([share - low, high - share], 0, 1)
    style = {"fmt": "o", "color": "black", "ms": 4, "lw": 1, "label": "P(same outcome), measured"}
    below.errorbar(place(column.measured.times), share, yerr=bars, **style)
    below.set_xlabel(column.axis)


def main() -> None:
    columns = gaussians(), language_model()
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    panels = figure.subplots(2, 2, sharex="col", sharey=True)
    for i, column in enumerate(columns):
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
