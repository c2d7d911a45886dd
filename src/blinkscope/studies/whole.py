"""How far a study is whose items are worked on side by side."""

from __future__ import annotations

from dataclasses import dataclass

from blinkscope.plurals import share_of


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


def not_finished(done: int, items: int, *, asked: bool = True) -> str:
    """What is said of a study that has items left to work on.

    asked: whether it was asked for what is missing, rather than only read with another error or budget.
    """
    if asked:
        return f"The study is not finished: {share_of(done, items, 'item')}; the same command goes on with it."
    have = share_of(done, items, "item", ("has", "have"))
    return f"{have} all the draws that this error and these budgets take; a study with them draws what is missing."
