"""Preference pairs at the tokens that mattered: both sides really sampled, and graded.

Inside a window the generation and a continuation that left it there part at one token. Where they were graded
differently they make a pair: the better one is *chosen*, the other *rejected*, and the prompt is everything both share.
The rows are TRL's standard ones, {"prompt", "chosen", "rejected"}: a half-finished turn has no conversational form,
because a chat template closes every turn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blinkscope.errors import UserError
from blinkscope.estimate.source import Draw
from blinkscope.estimate.trace import Trace
from blinkscope.exports.generations import StoredGeneration
from blinkscope.feature import RESERVED
from blinkscope.window import TokenWindow

SINGLE_TOKEN_WARNING = (
    "trainers append the end-of-text token to both sides, so a pair of single tokens also teaches to stop after them; "
    "leave --single-token out unless your trainer can be told not to."
)
SHOWN_LABELS = 12
REPLACEMENT = "\ufffd"  # stands for bytes that are no text by themselves


@dataclass(frozen=True)
class Preference:
    """What makes one continuation better than another.

    labels: the good outcomes; every other label is bad, except the reserved ones, which are not graded.
    single_token: only the tokens at which the two part, instead of the whole continuations.
    """

    labels: tuple[str, ...]
    single_token: bool = False

    def __post_init__(self) -> None:
        if not self.labels:
            raise UserError("say which outcome is the better one, with --prefer LABEL (repeatable).")
        for label in self.labels:
            if label in RESERVED:
                raise UserError(f"{label} is no graded outcome and cannot be preferred; name a label of the feature.")


@dataclass(frozen=True)
class Share:
    """Estimated probability of a preferred outcome, with its interval; n continuations, None for the curve's own."""

    p: float
    low: float
    high: float
    n: int | None


@dataclass(frozen=True)
class Side:
    """One side of a pair.

    text: from the token at which the two part to the end. p: that token's probability. preferred: what it led to.
    """

    text: str
    token: str
    p: float
    label: str
    preferred: Share


def preference_pairs(generations: Sequence[StoredGeneration], preference: Preference) -> list[dict[str, Any]]:
    """The pairs of all generations; one that never comes to a preferred outcome has none.

    Raises
    ------
    UserError : a preferred outcome is one of no generation, or the run was not made in a way that has such pairs.
    """
    for generation in generations:
        _check(generation)
    seen = dict.fromkeys(label for generation in generations for label in generation.trace.labels)
    for label in preference.labels:
        if label not in seen:
            shown = ", ".join(list(seen)[:SHOWN_LABELS]) + (", ..." if len(seen) > SHOWN_LABELS else "")
            raise UserError(f"{label!r} is no outcome of this run; there are {shown}.")
    return [row for generation in generations for row in preference_rows(generation, preference)]


def preference_rows(generation: StoredGeneration, preference: Preference) -> Iterator[dict[str, Any]]:
    """Pairs of one generation, by window and position; for each alternative token the first continuation that fits.

    The chosen token is the better one on average too: a lucky continuation of a bad token says nothing for it.
    A side that was cut off at the length cap is left out, because training on it would teach to stop there; so is a
    pair that parts inside a character or at the end of the turn, which no text can show. A generation among whose
    outcomes no preferred one is has no pairs.
    """
    trace, record = generation.trace, generation.record
    labels = tuple(label for label in preference.labels if label in trace.labels)
    if not labels or trace.final_label in RESERVED or not record.ended:
        return
    preference = replace(preference, labels=labels)
    by_position: dict[int, dict[str, list[Draw]]] = defaultdict(lambda: defaultdict(list))
    for draw in trace.draws:
        by_position[draw.stratum][draw.fork].append(draw)
    path_is_good = trace.final_label in preference.labels
    for window in trace.windows():
        for s in range(window.start, window.end):
            kept = "".join(step.text for step in trace.steps[:s])
            for token, draws in sorted(by_position[s].items()):
                other = next((d for d in draws if _usable(d) and _good(d, preference) != path_is_good), None)
                if other is None:
                    continue
                sides = (
                    _path_side(generation, s, kept, preference),
                    _other_side(token, other, draws, preference, trace),
                )
                if not _spelled(kept, sides, trace.text):
                    continue
                chosen, rejected = sides if path_is_good else sides[::-1]
                if chosen.preferred.p <= rejected.preferred.p:
                    continue
                yield {
                    "prompt": record.context + kept,
                    "chosen": chosen.token if preference.single_token else chosen.text,
                    "rejected": rejected.token if preference.single_token else rejected.text,
                    "metadata": {
                        **_where(generation, window, s),
                        **_said_of("chosen", chosen),
                        **_said_of("rejected", rejected),
                    },
                }


def _path_side(generation: StoredGeneration, s: int, kept: str, preference: Preference) -> Side:
    trace = generation.trace
    step = trace.steps[s]
    return Side(trace.text[len(kept) :], step.text, step.p, trace.final_label, _on_path(trace, s + 1, preference))


def _other_side(token: str, draw: Draw, draws: Sequence[Draw], preference: Preference, trace: Trace) -> Side:
    p = draw.payload.get("p")
    after = _after(draws, preference, trace.target.level)
    return Side(str(draw.payload["text"]), token, float(p) if isinstance(p, (int, float)) else 0.0, draw.label, after)


def _spelled(kept: str, sides: Sequence[Side], text: str) -> bool:
    """Whether the two part between whole characters, inside the text and not at the token that ends the turn."""
    whole = not any(REPLACEMENT in side.text for side in sides)
    return whole and text.startswith(kept) and all(s.text and s.token and s.text.startswith(s.token) for s in sides)


def _check(generation: StoredGeneration) -> None:
    record = generation.record
    if record.method.name != "divergence":
        raise UserError(
            f"pairs that part at one token come from runs of the method divergence, and this one's is "
            f"{record.method.name}."
        )
    if record.limits is not None:
        raise UserError("recorded rollouts hold outcomes but no texts, so there is nothing to make pairs of.")
    if not record.context:
        raise UserError("this run file was made by a version that did not keep the templated prompt; run it again.")


def _usable(draw: Draw) -> bool:
    return draw.label not in RESERVED and draw.payload.get("finish") == "stop" and bool(draw.payload.get("text"))


def _good(draw: Draw, preference: Preference) -> bool:
    return draw.label in preference.labels


def _on_path(trace: Trace, row: int, preference: Preference) -> Share:
    """Probability of a preferred outcome once the path's own token is said: the curve, with its joint draws."""
    posterior, level = trace.posterior, trace.target.level
    columns = [posterior.labels.index(label) for label in preference.labels]
    (at,) = np.flatnonzero(posterior.index == row)
    mean = float(posterior.mean[at, columns].sum())
    if posterior.draws is None:
        return Share(mean, mean, mean, None)
    low, high = np.quantile(posterior.draws[:, at, columns].sum(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Share(mean, min(float(low), mean), max(float(high), mean), None)


def _after(draws: Sequence[Draw], preference: Preference, level: float) -> Share:
    """The same after an alternative token: the share of its continuations, with the Clopper-Pearson interval."""
    from scipy.stats import binomtest

    good, n = sum(_good(draw, preference) for draw in draws), len(draws)
    limits = binomtest(good, n).proportion_ci(level, "exact")
    return Share(good / n, float(limits.low), float(limits.high), n)


def _where(generation: StoredGeneration, window: TokenWindow, s: int) -> dict[str, Any]:
    return {
        "item": generation.item,
        "position": s,
        "window_start": window.start,
        "window_end": window.end,
        "window_change": window.change,
        "window_low": window.low,
        "window_high": window.high,
        "window_probability": window.probability,
        "path_sampled": generation.sampled,
    }


def _said_of(name: str, side: Side) -> dict[str, Any]:
    return {
        f"{name}_label": side.label,
        f"{name}_token": side.token,
        f"{name}_token_p": side.p,
        f"{name}_preferred": side.preferred.p,
        f"{name}_preferred_low": side.preferred.low,
        f"{name}_preferred_high": side.preferred.high,
        f"{name}_continuations": side.preferred.n,
    }
