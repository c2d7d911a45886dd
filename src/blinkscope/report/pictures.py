"""A picture's result in words: what terminal, notebook and page say alike."""

from __future__ import annotations

import math

import numpy as np

from blinkscope.divergence import total_variation
from blinkscope.estimate.trace import Trace
from blinkscope.feature import UNPARSED
from blinkscope.plurals import counted
from blinkscope.processes import MASKING
from blinkscope.report import summary
from blinkscope.report.text import shortened
from blinkscope.symbols import is_text, spelled
from blinkscope.window import TokenWindow

TEXT_WIDTH = 40  # characters of a text of symbols in a table


def steps_of(trace: Trace) -> int:
    """Number of reverse steps from pure noise to the picture."""
    return int(trace.posterior.index[-1])


def subject(trace: Trace) -> str:
    """What the sample is: a picture, or a text of symbols, which a masked diffusion model makes."""
    assert trace.states is not None
    return "text" if is_text(trace.states[-1]) else "picture"


def answer(trace: Trace) -> str:
    """What the sample is, in one sentence."""
    if trace.final_label == UNPARSED:
        return f"Nothing could be read in the {subject(trace)}."
    return f"The {subject(trace)} is read as {summary.name(trace, trace.final_label)}."


def finding(trace: Trace) -> str:
    """Where the picture was decided, in one sentence; that no window was found is an answer too."""
    windows = trace.windows()
    if windows:
        return f"Decided {', then '.join(stretch(trace, window) for window in windows)}."
    change = float(total_variation(trace.curve[-1], trace.curve[0]))
    if change < trace.target.delta:
        return f"No window: from the noisiest level to the {subject(trace)} the outcome moves by {change:.2f} only."
    return (
        f"No window: the outcome never moves by {trace.target.delta:g} within {trace.target.max_width} of the "
        f"{counted(steps_of(trace), 'step')}."
    )


def ends(trace: Trace) -> str:
    """Where the probability of the picture's own label passes 1/4 and 3/4, in one sentence.

    Empty where nothing was read, or where an end could be anywhere.
    """
    if not trace.ends or max(end.sd for end in trace.ends) > steps_of(trace):
        return ""
    name = summary.name(trace, trace.final_label)
    parts = [
        f"{end.share:g} at step {end.step:.1f} ± {end.sd:.1f}" if end.sd else f"{end.share:g} before the first step"
        for end in trace.ends
    ]
    asked = "" if trace.target.ends is None else f"; asked for {counted(trace.target.ends, 'step')}"
    return f"The probability of {name} passes {' and '.join(parts)} (one standard deviation{asked})."


def reached(trace: Trace) -> str:
    """How far the run is from what was asked of it, in a sentence: of the ends, or of the curve."""
    if trace.target.ends is not None:
        return ends(trace) + summary.stopped(trace)
    return f"{ends(trace)} {summary.error(trace)}".strip()


def stretch(trace: Trace, window: TokenWindow) -> str:
    """A window in words, in steps and in time."""
    doubt = "" if window.certain else f", with probability {window.probability:.2f}"
    rows = np.searchsorted(trace.posterior.index, (window.start, window.end))
    clocks = [(_clock(trace), trace.times), ("log-SNR", trace.log_snr)]
    times = [f"{name} {' to '.join(said(float(at[row])) for row in rows)}" for name, at in clocks if at is not None]
    return f"between steps {window.start} and {window.end} of {steps_of(trace)} ({', '.join(times)}){doubt}"


def _clock(trace: Trace) -> str:
    """What a level's time is called: of masking it is the probability of a mask."""
    return "masked" if trace.unit == MASKING.unit else trace.unit


def headings(trace: Trace) -> tuple[str, ...]:
    """Over the columns of ``levels``: numbers, a mark, and the laws."""
    final = f"P({summary.name(trace, trace.final_label)}) [{trace.target.level:.0%}]"
    ratio = () if trace.log_snr is None else ("log-SNR",)
    masked = ("masked text",) if subject(trace) == "text" else ()
    return ("step", _clock(trace), *ratio, final, "", "all labels", *masked)


def levels(trace: Trace) -> list[tuple[str, ...]]:
    """A row in words for every noise level that was looked at; those inside a window carry a mark."""
    assert trace.times is not None
    assert trace.states is not None
    shown = [(shortened(spelled(state), TEXT_WIDTH),) if is_text(state) else () for state in trace.states]
    final, windows = trace.labels.index(trace.final_label), trace.windows()
    (low, high), ratios = trace.band, trace.log_snr
    return [
        (
            str(position),
            said(float(trace.times[row])),
            *(() if ratios is None else (said(float(ratios[row])),)),
            f"{trace.curve[row, final]:.2f} [{low[row, final]:.2f}, {high[row, final]:.2f}]",
            "|" if any(window.start <= position <= window.end for window in windows) else "",
            summary.law(dict(zip(trace.labels, trace.curve[row].tolist(), strict=True))),
            *shown[row],
        )
        for row, position in enumerate(trace.posterior.index.astype(int))
    ]


def said(x: float) -> str:
    """A time or a log-SNR, in three digits; what rounding leaves of zero is zero."""
    if math.isinf(x):
        return "infinite" if x > 0 else "-infinite"
    return f"{x if abs(x) > 1e-9 else 0:.3g}"


def cost(trace: Trace) -> str:
    """What the run took, in a line."""
    c = trace.cost
    seconds = f"; {c.seconds:,.1f} s, {c.model_seconds:,.1f} s of it in the model" if c.seconds else ""
    evaluations = counted(c.network_evaluations, "network evaluation")
    return f"{counted(c.continuations, 'continuation')}, {evaluations}{seconds}."


def method(trace: Trace) -> str:
    """What the rows of a curve are, by its kind and what was noised."""
    return TEXT_METHODS[trace.kind] if subject(trace) == "text" else METHODS[trace.kind]


METHODS = {
    "forward-reverse": "The picture was noised afresh for every draw: a row is its mean posterior over all noise.",
    "path": "Every draw went on from this trajectory's own state: a row is the posterior of this very trajectory.",
}
TEXT_METHODS = {
    "forward-reverse": (
        "The text was masked afresh for every draw: a row is its mean posterior over all ways to mask it, and the "
        "masked text beside it is one of them."
    ),
    "path": "Every draw filled in the masked text of its row: a row is the posterior of this very trajectory.",
}
