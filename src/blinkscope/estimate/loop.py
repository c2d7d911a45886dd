"""The one loop: order draws, label them, estimate, stop.

A ``Method`` says which draws it wants next and what the draws so far amount to; the loop obtains them from a source,
takes those that a stored run already has, and stops at the asked-for error, at a budget, or when it is interrupted.
Methods read whole rounds only, so a run that was killed and started again goes through the same rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from blinkscope.estimate.source import Draw, Order, Source, Stratum
from blinkscope.estimate.trace import Status, Target
from blinkscope.posterior import Posterior


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

    @property
    def adaptive(self) -> bool:
        """Whether the loop should stop when the asked-for error is reached."""
        ...


@dataclass(frozen=True)
class Progress:
    """Where the loop is. ``error`` is NaN before the first round is complete."""

    round: int
    continuations: int
    generated_tokens: float
    error: float
    asked: float


@dataclass(frozen=True, eq=False)
class Outcome:
    """All draws that count, in the order of their rounds, the curve, and why the loop stopped."""

    draws: tuple[Draw, ...]
    posterior: Posterior
    status: Status


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
    stored = dict(known or {})
    cost = {stratum.key: stratum.cost for stratum in method.strata}
    draws: list[Draw] = []
    error = float("nan")
    status: Status = "complete"
    round_ = 0
    while True:
        orders = method.orders(draws, round_)
        if not orders:
            break
        affordable = within_budget(orders, cost, target, draws)
        finished: dict[tuple[int, int], Draw] = {}
        wanted = {(order.stratum, replicate) for order in affordable for replicate in order.replicates()}
        finished.update((key, stored[key]) for key in sorted(wanted & stored.keys()))
        tokens = sum(draw.cost for draw in draws) + sum(draw.cost for draw in finished.values())
        try:
            if source is None and len(finished) < len(wanted):
                status = "interrupted"
            elif source is not None and len(finished) < len(wanted):
                for draw in source.draw(affordable, round_, frozenset(finished)):
                    record(draw)
                    finished[draw.stratum, draw.replicate] = draw
                    tokens += draw.cost
                    watch(Progress(round_, len(draws) + len(finished), tokens, error, target.error))
        except KeyboardInterrupt:
            status = "interrupted"
        draws += [finished[key] for key in sorted(finished)]
        if status == "interrupted":
            break
        if method.adaptive:
            error = float(method.estimate(draws).sd.max())
            watch(Progress(round_, len(draws), tokens, error, target.error))
        if affordable != orders:
            status = "budget"
            break
        if error <= target.error:
            break
        round_ += 1
    return Outcome(tuple(draws), method.estimate(draws), status)


def within_budget(orders: list[Order], cost: Mapping[int, float], target: Target, draws: Sequence[Draw]) -> list[Order]:
    """The first orders, the last of them shortened, that the budgets leave room for.

    Tokens are reckoned at what draws have cost so far relative to their expected cost; a draw that was ordered is
    finished even where it turns out longer, since dropping it would prefer short continuations.
    """
    draws_left = float("inf") if target.continuations is None else target.continuations - len(draws)
    tokens_left = float("inf")
    if target.generated_tokens is not None:
        tokens_left = target.generated_tokens - sum(draw.cost for draw in draws)
    expected = sum(cost[draw.stratum] for draw in draws)
    dearer = sum(draw.cost for draw in draws) / expected if expected else 1.0
    kept: list[Order] = []
    for order in orders:
        each = max(cost[order.stratum] * dearer, 1.0)
        count = int(min(order.count, draws_left, tokens_left // each))
        if count > 0:
            kept.append(Order(order.stratum, order.half, order.start, count))
        if count < order.count:
            break
        draws_left -= count
        tokens_left -= count * each
    return kept
