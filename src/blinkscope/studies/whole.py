"""How far a study is whose items are worked on side by side."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Whole:
    """All items together.

    items: that were not finished when this sitting began. finished: of these, by now. at_work: of these, now. workers:
    that are ready to work. continuations, cost: drawn in this sitting, and what they cost in the study's currency.
    """

    items: int
    finished: int = 0
    at_work: int = 0
    workers: int = 0
    continuations: int = 0
    cost: float = 0.0
