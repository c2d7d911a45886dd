"""Texts of a study for its report: what was said, where it moved, and where the windows are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from blinkscope.divergence import total_variation
from blinkscope.estimate.trace import Trace

STILL = 0.005
"""Tokens that moved the outcome by less are not told apart."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a text.

    moved: total variation by which the outcome moved there, in [0, 1]. window: number of the window it belongs to,
    counted from 1; 0 outside of all. given: whether it was put into the model's mouth.
    """

    text: str
    moved: float = 0.0
    window: int = 0
    given: bool = False


@dataclass(frozen=True)
class Transcript:
    """One text of an item: the prompt it answers, its label, and its pieces, which together make the text."""

    item: str
    label: str
    pieces: tuple[Piece, ...]
    prompt: str = ""
    note: str = ""


def pieces_of(trace: Trace) -> tuple[Piece, ...]:
    """The text of a trace; neighbouring tokens of the same window that hardly moved anything are one piece."""
    rows = trace.posterior.index
    moved = np.minimum(total_variation(trace.curve[1:], trace.curve[:-1]), 1.0)
    of_token = np.zeros(len(trace.steps), dtype=int)
    for number, window in enumerate(trace.windows(), 1):
        of_token[window.start : window.end] = number
    pieces: list[Piece] = []
    for i, step in enumerate(trace.steps):
        row = int(np.searchsorted(rows, i, side="right")) - 1  # a method may have looked at some rows only
        change = float(moved[row]) if 0 <= row < len(moved) else 0.0
        piece = Piece(step.text, change if change >= STILL else 0.0, int(of_token[i]))
        if pieces and piece.moved == pieces[-1].moved == 0 and piece.window == pieces[-1].window:
            pieces[-1] = Piece(pieces[-1].text + piece.text, 0.0, piece.window)
        else:
            pieces.append(piece)
    return tuple(pieces)


def plain(tokens: Sequence[str]) -> tuple[Piece, ...]:
    """A text of which nothing is known but its words."""
    return (Piece("".join(tokens)),)
