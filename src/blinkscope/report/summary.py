"""A result in words: what terminal and notebook say alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.divergence import total_variation
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Trace
from blinkscope.plurals import counted
from blinkscope.report.text import NOTHING, blanks, shortened, told_apart, visible
from blinkscope.window import CERTAIN_FROM, TokenWindow, default_max_width

LABEL_WIDTH = 24
SHOWN_FROM = 0.005  # probabilities below this are not worth a reader's time


@dataclass(frozen=True)
class Segment:
    """A stretch of the generation, made visible; ``window`` is the number of the window it is, counted from 1."""

    text: str
    window: int | None = None


def name(trace: Trace, label: str) -> str:
    """A label as sentences and tables show it, never like another one of the result."""
    return told_apart((*trace.labels, trace.final_label), LABEL_WIDTH)[label]


def segments(trace: Trace, windows: Sequence[TokenWindow]) -> tuple[Segment, ...]:
    """The generation, cut at its windows.

    White space at the edge of a window is left outside of it; where a window is nothing else, signs stand for it.
    """
    found: list[Segment] = []
    position = 0

    def between(start: int, end: int) -> str:
        return "".join(step.text for step in trace.steps[start:end])

    def add(text: str, window: int | None = None) -> None:
        if text:
            found.append(Segment(visible(text), window))

    for number, window in enumerate(windows, 1):
        covered = between(window.start, window.end)
        core = covered.strip()
        lead, _, trail = covered.partition(core) if core else ("", "", covered)
        add(between(position, window.start) + lead)
        add(core or blanks(covered) or NOTHING, number)
        add(trail)
        position = window.end
    add(between(position, len(trace.steps)))
    return tuple(found)


def words(trace: Trace, window: TokenWindow, width: int) -> str:
    """What a window covers, on one line; a token may have no text at all."""
    return shortened(trace.covered(window), width) or NOTHING


def answer(trace: Trace, windows: Sequence[TokenWindow]) -> str:
    """The main finding in a sentence; that there is none is an answer too."""
    if len(windows) == 1:
        return f"1 window, {'certain' if windows[0].certain else 'likely but not certain'}."
    if windows:
        certain = sum(window.certain for window in windows)
        return f"{len(windows)} windows, {certain or 'none'} of them certain (probability {CERTAIN_FROM:g} or more)."
    if trace.steps and not trace.draws and all(step.off_path == 0 for step in trace.steps):
        return "No window: this sampler cannot fork."
    final = name(trace, trace.final_label)
    if trace.draws and all(draw.label == trace.final_label for draw in trace.draws):
        drawn = "the only continuation" if len(trace.draws) == 1 else f"all {len(trace.draws):,} continuations"
        all_same = f"{drawn} ended as this text did, with {final}."
        if not settled(trace):
            return f"Not enough was drawn to tell: so far {all_same}"
        return f"{'Nothing to decide' if trace.target.until == 'error' else 'No window is likely'}: {all_same}"
    if not trace.draws and trace.posterior.draws is not None:
        return "No window can be told: nothing was drawn."
    return _no_window(trace)


def settled(trace: Trace) -> bool:
    """Whether the run went on until it knew what was asked for, and positions left out cannot hide more than that."""
    return trace.status == "complete" and (pooled(trace) or trace.skipped_weight <= trace.target.error)


def pooled(trace: Trace) -> bool:
    """Whether positions without a draw are read from their neighbours."""
    return trace.settings.get("method") == "divergence" and trace.target.estimator == "pooled"


def _no_window(trace: Trace) -> str:
    if trace.skipped_weight >= trace.target.delta and not settled(trace):
        return (
            "Not enough was drawn to tell: no window was found, but positions left out may move the outcome by "
            f"{trace.skipped_weight:.2f}."
        )
    if trace.settings.get("method") == "grid":
        return _no_rise(trace)
    width = trace.target.max_width or default_max_width(len(trace.steps))
    start, end, change = largest_change(trace, width)
    never = "the outcome never moves by" if trace.target.until == "error" else "nowhere does the curve move by"
    said = f"No window: {never} {trace.target.delta:.2f} within {counted(width, 'token')}"
    if change >= trace.target.delta:
        return (
            f"No window is likely enough to list: fewer than half of the joint draws confirm the largest move, "
            f"{change:.2f} (tokens kept {start} to {end}); a smaller error would tell."
        )
    if change == 0:
        return f"{said}."
    return f"{said}; its largest move is {change:.2f} (tokens kept {start} to {end})."


def _no_rise(trace: Trace) -> str:
    """The same for a curve of the grid, which is read by the rises from one of its rows to the next."""
    index, delta = trace.posterior.index.astype(int), trace.target.delta
    rises = np.diff(trace.curve[:, trace.labels.index(trace.final_label)])
    a = int(np.argmax(rises))
    rise, where = float(rises[a]), f"(tokens kept {index[a]} to {index[a + 1]})"
    if rise > delta:
        return (
            f"No window is likely enough to list: fewer than half of the joint draws confirm the largest rise, "
            f"{rise:.2f} {where}; more resamples would tell."
        )
    final = shortened(trace.final_label, LABEL_WIDTH)
    said = f"No window: P({final}) never rises by more than {delta:.2f} from one row to the next"
    return f"{said}; its largest rise is {rise:.2f} {where}." if rise > 0 else f"{said}."


def largest_change(trace: Trace, width: float) -> tuple[int, int, float]:
    """Positions a < b <= a + width between which the curve moves most in total variation, and by how much."""
    index, curve = trace.posterior.index, trace.curve
    best = (0, 0, 0.0)
    for gap in range(1, min(int(width) + 1, len(index))):
        change = np.where(index[gap:] - index[:-gap] <= width, total_variation(curve[gap:], curve[:-gap]), 0.0)
        a = int(np.argmax(change))
        if change[a] > best[2]:
            best = (int(index[a]), int(index[a + gap]), float(change[a]))
    return best


def law(probabilities: Mapping[str, float], most: int = 3) -> str:
    """The most probable labels of a law: ``Dog 0.62, Cat 0.36``."""
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    names = told_apart(tuple(probabilities), LABEL_WIDTH)
    return ", ".join(f"{names[label]} {p:.2f}" for label, p in ranked[:most] if p >= SHOWN_FROM)


def start_law(trace: Trace, most: int = 4) -> str:
    """The label law before the first token, with intervals: ``Dog 0.44 [0.38, 0.50]``."""
    low, high = trace.band
    mean = trace.curve[0]
    ranked = [k for k in np.argsort(-mean, kind="stable") if mean[k] >= SHOWN_FROM]
    said = [_with_interval(name(trace, trace.labels[k]), mean[k], low[0, k], high[0, k]) for k in ranked]
    return ", ".join(said[:most]) + (f" and {len(said) - most} more" if len(said) > most else "")


def _with_interval(label: str, p: float, low: float, high: float) -> str:
    interval = f" [{low:.2f}, {high:.2f}]" if high - low >= SHOWN_FROM else ""
    return f"{label} {p:.2f}{interval}"


def direction(trace: Trace, window: TokenWindow) -> str:
    """What a window did to the final label."""
    if window.direction == 0:
        moved = abs(window.after.get(trace.final_label, 0.0) - window.before.get(trace.final_label, 0.0))
        return "direction not certain" if moved > window.change / 2 else "other labels"
    return f"{'towards' if window.direction > 0 else 'away from'} {name(trace, trace.final_label)}"


def cost(trace: Trace) -> str:
    """What the run took, in a line."""
    c = trace.cost
    later = "" if c.foreseen_tokens is None else f", {c.foreseen_tokens:,} after the first look"
    predicted = f" ({c.predicted_tokens:,} predicted{later})" if c.predicted_tokens else ""
    scored = f", {c.scored_tokens:,} scored" if c.scored_tokens else ""
    seconds = f"; {c.seconds:,.1f} s, {c.model_seconds:,.1f} s of it in the model" if c.seconds else ""
    drawn = f"{counted(c.continuations, 'continuation')}, {counted(c.generated_tokens, 'generated token')}"
    return f"{drawn}{predicted}{scored}{seconds}."


def stopped(trace: Trace) -> str:
    """Why the run stopped short of what was asked; empty where it did not."""
    return {
        "complete": "",
        "budget": " The budget was spent first.",
        "interrupted": " These are the draws so far: locate goes on from them.",
    }[trace.status]


def error(trace: Trace) -> str:
    """How exact the curve is, and why the run stopped."""
    reached = trace.error
    left_out = f" Positions left out move it by at most {trace.skipped_weight:.2g}." if trace.skipped_weight else ""
    if left_out and pooled(trace):
        left_out = (
            f" Positions without a draw are read from their neighbours (skipped weight {trace.skipped_weight:.2g})."
        )
    unlisted = (
        f" Alternatives without a record by at most {trace.unrecorded_weight:.2g}." if trace.unrecorded_weight else ""
    )
    to_an_error = trace.target.until == "error" and trace.settings.get("method") not in ("grid", "bisect")
    asked = f", asked for {reached['asked']:g}" if to_an_error else ""
    largest = f"{windows_known(trace)}Largest error of the curve {reached['reached_max']:.3f}{asked}."
    return f"{largest}{stopped(trace)}{left_out}{unlisted}"


def windows_known(trace: Trace) -> str:
    """How likely the listed windows are not those that there are; empty where that was not asked for."""
    sought = trace.target.sought(len(trace.steps))
    if trace.undecided is None or sought is None:
        return ""
    return (
        f"That a change of {sought.clear:g} is not listed, or that a listed one is less than {sought.least:g}, has "
        f"probability {trace.undecided:.2f}, asked for {trace.target.asked:g}. "
    )


def agreement(comparison: Mapping[str, JSON]) -> str:
    """How well recorded forks predict recorded free continuations, in a line."""
    said = {name: value for name, value in comparison.items() if isinstance(value, (int, float))}
    parts = [f"correlation {said['correlation']:.3f}" if "correlation" in said else "nothing varies"]
    if "spread" in said:
        parts.append(
            f"z-scores of {said['compared']:,} undecided shares have spread {said['spread']:.2f}, "
            f"{said['beyond_2']:.1%} of them beyond 2"
        )
    return f"Forks against free continuations: {'; '.join(parts)}."


def settings(trace: Trace) -> str:
    """Model, feature, method, sampling and seed, in a line."""
    said = trace.settings
    used = trace.target.estimator if said.get("method") == "divergence" else None
    method = ", ".join(str(word) for word in (said.get("method"), used) if word)
    model, feature = str(said.get("model") or ""), str(said.get("feature") or "")
    parts = [model, feature if feature != model else "", method, _sampling(said.get("sampling"))]
    if said.get("seed") is not None:
        parts.append(f"seed {said['seed']}")
    return " · ".join(visible(part, keep="") for part in parts if part)


def question(trace: Trace) -> str:
    """The question of a prompt: the last user's turn of a conversation, or the prompt itself."""
    said = trace.settings.get("prompt")
    if isinstance(said, list):
        turns = (turn for turn in reversed(said) if isinstance(turn, dict) and turn.get("role") == "user")
        said = next((turn.get("content") for turn in turns), "")
    return said if isinstance(said, str) else ""


def _sampling(sampling: JSON) -> str:
    """Only what is switched on."""
    if not isinstance(sampling, dict):
        return ""
    off = {"temperature": None, "top_k": 0, "top_p": 1, "min_p": 0}
    return ", ".join(
        f"{name.replace('_', '-')} {sampling[name]}"
        for name, value in off.items()
        if sampling.get(name, value) != value
    )
