"""What the loop draws from.

A **source** offers **strata**: places where one more draw can be bought. An off-path position of a text is one, a
noise level of a picture is one, a recorded fork is one. A draw costs something (generated tokens, network
evaluations) and has a label. The loop knows nothing else about models.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"


@dataclass(frozen=True)
class Stratum:
    """A place where draws can be bought.

    key: its name for good, for instance the position in the text; draws are stored under it.
    cost: expected cost of one draw, in the source's currency.
    limit: how many replicates there are, 0 .. limit - 1; None where they never end.
    """

    key: int
    cost: float
    limit: int | None = None

    def room(self, half: int) -> float:
        """Most draws that a half can have; even replicates are those of half 0."""
        return math.inf if self.limit is None else (self.limit + 1 - half) // 2


@dataclass(frozen=True)
class Order:
    """A request for ``count`` draws from one stratum that are planned, and may be drawn, jointly.

    half: 0 or 1. Every stratum's draws come in two halves that never share randomness, so that each half can steer
        the other's number of draws without biasing it.
    start: number of draws that this half of the stratum had before.
    planned: how many would be drawn jointly if no budget had cut the order short, so that a larger budget later finds
        the same first draws; None where none did.
    """

    stratum: int
    half: int
    start: int
    count: int
    planned: int | None = None

    @property
    def joint(self) -> int:
        """How many draws are planned jointly; the first ``count`` of them are wanted."""
        return self.count if self.planned is None else self.planned

    def replicates(self) -> tuple[int, ...]:
        """Numbers of the draws within the stratum: even ones belong to half 0, odd ones to half 1."""
        return tuple(2 * i + self.half for i in range(self.start, self.start + self.count))


@dataclass(frozen=True)
class Draw:
    """One labelled draw.

    fork: what it began with, for display (the text of a forced first token), and its probability in ``payload``.
    cost: what it did cost, in the source's currency.
    payload: whatever the source wants to keep with it; JSON only.
    """

    stratum: int
    replicate: int
    label: str
    cost: float
    fork: str = ""
    payload: Mapping[str, JSON] = field(default_factory=dict)


@runtime_checkable
class Source(Protocol):
    """Something to draw from."""

    @property
    def strata(self) -> Sequence[Stratum]:
        """All strata, in the order of their keys."""
        ...

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        """Carry out the orders of one round, yielding each draw as it is finished.

        ``known`` holds (stratum, replicate) pairs that were drawn before; they are left out, and what is drawn for
        the others is what would have been drawn had they not been known.
        """
        ...
