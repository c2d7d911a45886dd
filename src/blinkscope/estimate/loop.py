"""The one loop: order draws, label them, estimate, stop.

A ``Method`` says which draws it wants next and what the draws so far amount to; the loop obtains them from a source,
takes those that a stored run already has, and stops at the asked-for error, at a budget, or when it is interrupted.
Methods read whole rounds only, so a run that was killed and started again goes through the same rounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from blinkscope.estimate.source import Draw, Order, Source, Stratum
from blinkscope.estimate.trace import Aim, Status, Target
from blinkscope.posterior import Posterior


@runtime_checkable
class Method(Protocol):
    """A way to spend draws and to read them."""

    @property
    def strata(self) -> Sequence[Stratum]:
        """Where this method may draw."""
        ...

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        """What to draw in this round given the whole rounds before, most wanted first; empty where it is done."""
        ...

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        """The curve that the draws amount to."""
        ...

    def reached(self, draws: Sequence[Draw]) -> float | None:
        """What must come down to what is asked for; None where a method stops by itself.

        The curve's largest standard deviation, or the probability that its windows are not known yet.
        """
        ...


@runtime_checkable
class Foreseeing(Protocol):
    """A method that can tell, after its first round, what the whole run will cost."""

    def foreseen(self, draws: Sequence[Draw], error: float) -> float | None:
        """Expected cost of a run to this error, these draws included, budgets left aside; None if it cannot tell."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where the loop is. ``error`` is NaN before the first round is complete; ``foreseen`` as in ``Outcome``."""

    round: int
    continuations: int
    generated_tokens: float
    error: float
    asked: float
    foreseen: float | None = None
    until: Aim = "error"


@dataclass(frozen=True, eq=False)
class Outcome:
    """All draws that count, in the order of their rounds, the curve, and why the loop stopped.

    error: what the method's ``reached`` came down to; NaN without draws, or if it stops by itself.
    ran_out: whether the strata do not hold the draws that the target asks for.
    foreseen: what the first round said that the run would cost; None where it was the last one, or cannot tell.
    """

    draws: tuple[Draw, ...]
    posterior: Posterior
    status: Status
    error: float = math.nan
    ran_out: bool = False
    foreseen: float | None = None


def run(
    source: Source | None,
    method: Method,
    target: Target,
    *,
    known: Mapping[tuple[int, int], Draw] | None = None,
    record: Callable[[Draw], None] = lambda draw: None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Outcome:
    """Draw until the target is met.

    Parameters
    ----------
    source : where draws come from; None to analyse only what is ``known``.
    known : draws of a stored run by (stratum, replicate); they are not drawn again.
    record : called with every new draw as soon as it is finished.
    watch : called after every draw and after every round.
    """
    rounds = _Rounds(source, method, target, known or {}, record, watch)
    try:
        status = rounds.go()
    except KeyboardInterrupt:
        # What the open round has so far counts too; a run that is taken up again completes the round.
        rounds.close()
        status = "interrupted"
    posterior, error = method.estimate(rounds.draws), rounds.error
    if status == "interrupted" and rounds.draws:  # in the midst of a round
        reached = method.reached(rounds.draws)
        error = math.nan if reached is None else reached
    return Outcome(tuple(rounds.draws), posterior, status, error, rounds.ran_out, rounds.foreseen)


class _Rounds:
    """The state of one run of the loop: the draws of the whole rounds, and those of the open one.

    ran_out: whether a stratum was asked for draws that it does not have.
    """

    def __init__(
        self,
        source: Source | None,
        method: Method,
        target: Target,
        known: Mapping[tuple[int, int], Draw],
        record: Callable[[Draw], None],
        watch: Callable[[Progress], None],
    ) -> None:
        self.source, self.method, self.target = source, method, target
        self.known, self.record, self.watch = known, record, watch
        self.strata = {stratum.key: stratum for stratum in method.strata}
        self.draws: list[Draw] = []
        self.open: dict[tuple[int, int], Draw] = {}
        self.tokens = 0.0
        self.error = math.nan
        self.round = 0
        self.ran_out = False
        self.foreseen: float | None = None

    def go(self) -> Status:
        while orders := self.method.orders(self.draws, self.round):
            there = within_limits(orders, self.strata)
            self.ran_out = self.ran_out or there != orders
            affordable = within_budget(there, self.strata, self.target, self.draws)
            wanted = {(order.stratum, replicate) for order in affordable for replicate in order.replicates()}
            for key in sorted(wanted & self.known.keys()):
                self._take(self.known[key])
            if len(self.open) < len(wanted):
                if self.source is None:
                    self.close()
                    return "interrupted"
                for draw in self.source.draw(affordable, self.round, frozenset(self.open)):
                    self.record(draw)
                    self._take(draw)
                    self._report()
            self.close()
            error = self.method.reached(self.draws)
            if error is not None:
                self.error = error
                self._report()
            cut = affordable != there or not affordable
            # A pilot that was cut says nothing of the places it left out, so its error is none.
            if self.error <= self.target.asked and not (cut and self.round == 0):
                return "complete"
            if cut:
                return "budget"
            if self.round == 0 and isinstance(self.method, Foreseeing):
                self.foreseen = self.method.foreseen(self.draws, self.target.error)
            self.round += 1
        # The method wants nothing more: it is through, or nothing is left that would help.
        self.ran_out = self.ran_out or self.error > self.target.asked
        return "budget" if self.ran_out else "complete"

    def close(self) -> None:
        """The open round's draws join the others, in the order of their keys."""
        if self.open:
            self.draws += [self.open[key] for key in sorted(self.open)]
            self.open = {}

    def _take(self, draw: Draw) -> None:
        self.open[draw.stratum, draw.replicate] = draw
        self.tokens += draw.cost

    def _report(self) -> None:
        done = len(self.draws) + len(self.open)
        asked, until = self.target.asked, self.target.until
        self.watch(Progress(self.round, done, self.tokens, self.error, asked, self.foreseen, until))


def within_limits(orders: list[Order], strata: Mapping[int, Stratum]) -> list[Order]:
    """The orders, shortened to what their strata have."""
    kept = []
    for order in orders:
        count = int(min(order.count, strata[order.stratum].room(order.half) - order.start))
        if count > 0:
            kept.append(order if count == order.count else replace(order, count=count))
    return kept


def within_budget(
    orders: list[Order], strata: Mapping[int, Stratum], target: Target, draws: Sequence[Draw]
) -> list[Order]:
    """The first orders, the last of them shortened, that the budgets leave room for.

    Tokens are reckoned at what draws have cost so far relative to their expected cost; a draw that was ordered is
    finished even where it turns out longer, since dropping it would prefer short continuations.
    """
    draws_left = float("inf") if target.continuations is None else target.continuations - len(draws)
    tokens_left = float("inf")
    if target.generated_tokens is not None:
        tokens_left = target.generated_tokens - sum(draw.cost for draw in draws)
    expected = sum(strata[draw.stratum].cost for draw in draws)
    dearer = sum(draw.cost for draw in draws) / expected if expected else 1.0
    kept: list[Order] = []
    for order in orders:
        each = max(strata[order.stratum].cost * dearer, 1.0)
        count = int(min(order.count, draws_left, tokens_left // each))
        if count > 0:
            kept.append(order if count == order.count else replace(order, count=count, planned=order.joint))
        if count < order.count:
            break
        draws_left -= count
        tokens_left -= count * each
    return kept
