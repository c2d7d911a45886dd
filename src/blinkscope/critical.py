"""The critical times of a distribution ([LKC25], Theorem 2 and Definition 4).

For S_init in S_target in Theta, S_after in S_before in Theta and 0 < eps < 1,

    T_start  = sup { t : TV(p_t^{S_target}, p_t^{Theta - S_target}) >= 1 - eps^2 }
    T_end    = inf { t : TV(p_t^{S_init}, p_t^{S_target}) <= eps }
    T_before = inf { t : TV(p_t^{S_after}, p_t^{S_before}) <= eps  and
                         TV(p_t^{S_before}, p_t^{Theta - S_before}) >= 1 - eps^2 }
    T_after  = sup { t : TV(p_t^{S_after}, p_t^{Theta - S_after}) >= 1 - eps^2 }

Total variations do not increase with t (data processing), so each time is the one place where a curve crosses its
level. On an interval that place is found by bracketing; on a finite index set the sup and inf are the max and min over
it, and nothing is interpolated. A set can be empty: its time is then None. With S_target = Theta the first condition is
void and T_start = sup I. Here t is the theory's time: larger is noisier.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import label_mask
from blinkscope.sampler import IndexSet

Labels = Collection[str]
Curve = Callable[[float], float]
Interval = tuple[float | None, float | None]
Outcome = Literal["window", "no-after", "no-before", "inverted"]

ROUNDING = 1e-12  # a total variation this close to its level counts as equal to it
# Where curves are estimated: a time is found when the curve is within SETTLED standard errors of its level, or to the
# relative precision COARSE.
SETTLED, COARSE = 0.02, 1e-4
LARGEST_TIME = 2.0**40  # a curve on an unbounded index set that has not crossed by then is taken never to cross


@runtime_checkable
class Mixture(Protocol):
    """What critical times and trees are computed from: labelled components and the distances between their mixtures."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def weights(self) -> Float[np.ndarray, " labels"]: ...

    @property
    def index(self) -> IndexSet: ...

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """TV(p_t^A, p_t^B)."""
        ...


@dataclass(frozen=True)
class CriticalWindow:
    """The critical window [t_after, t_before] of Definition 4, or the reason why there is none.

    t_after, t_before: None where the set in the definition is empty.
    t_after_interval, t_before_interval: where the curves are estimated, the times at which their pointwise limits
        cross; None where the curves are exact. An end is None where that limit never crosses.
    """

    eps: float
    after: tuple[str, ...]
    before: tuple[str, ...]
    t_after: float | None
    t_before: float | None
    t_after_interval: Interval | None = None
    t_before_interval: Interval | None = None

    @property
    def outcome(self) -> Outcome:
        """``window``, ``no-after`` (never surely inside S_after), ``no-before`` (never mixed) or ``inverted``.

        Each is an answer. Inverted windows (T_after >= T_before) occur for heavy S_after or large eps: the sampler is
        already surely inside S_after while it still counts as mixed, and nothing lies in between.
        """
        if self.t_after is None:
            return "no-after"
        if self.t_before is None:
            return "no-before"
        return "inverted" if self.t_after >= self.t_before else "window"


def critical_window(
    mixture: Mixture, eps: float, after: Labels, before: Labels | None = None, level: float = 0.95
) -> CriticalWindow:
    """The window in which the sampler goes from anything in ``before`` to surely inside ``after``.

    Parameters
    ----------
    mixture : a world, or anything else with total variations between label sets.
    after, before : S_after, a proper subset of S_before; all labels by default.
    level : of the intervals, where the total variations are estimates.

    Raises
    ------
    UserError : eps outside (0, 1), an empty or unknown label set, S_after not a proper subset of S_before.
    """
    check_eps(eps)
    before = mixture.labels if before is None else before
    check_nested(mixture.labels, after, before, proper=True)
    t_after, after_interval = start_time(mixture, after, eps, level)
    t_end, end_interval = end_time(mixture, after, before, eps, level)
    t_start, _ = start_time(mixture, before, eps, level)
    mixed = t_end is not None and t_start is not None and t_end <= t_start
    return CriticalWindow(
        eps,
        tuple(after),
        tuple(before),
        t_after,
        t_end if mixed else None,
        after_interval,
        end_interval if mixed else None,
    )


class CriticalTime(NamedTuple):
    """A critical time, None where its set is empty, and its interval where the curve is estimated."""

    time: float | None
    interval: Interval | None = None


def start_time(mixture: Mixture, target: Labels, eps: float, level: float = 0.95) -> CriticalTime:
    """T_start(eps), the last time at which S_target and its complement are still apart; T_after for S_after."""
    check_eps(eps)
    rest = complement(mixture.labels, target)
    if not rest:
        return CriticalTime(mixture.index.high)
    return _crossing(lambda t: mixture.total_variation(target, rest, t), last_time, 1 - eps**2, mixture.index, level)


def end_time(mixture: Mixture, init: Labels, target: Labels, eps: float, level: float = 0.95) -> CriticalTime:
    """T_end(eps), the first time from which S_init and S_target are close."""
    check_eps(eps)
    check_nested(mixture.labels, init, target)
    if set(init) == set(target):
        return CriticalTime(mixture.index.low)
    return _crossing(lambda t: mixture.total_variation(init, target, t), first_time, eps, mixture.index, level)


def last_time(curve: Curve, level: float, index: IndexSet, rtol: float = 1e-14) -> float | None:
    """sup { t in I : curve(t) >= level } of a non-increasing curve; None where the set is empty.

    rtol: relative precision of a time on an interval.
    """
    if index.points is not None:
        found = bisect_left(index.points, True, key=lambda t: curve(t) < level - ROUNDING)
        return index.points[found - 1] if found else None
    return _boundary(lambda t: curve(t) - level, index, rtol) if curve(index.low) >= level - ROUNDING else None


def first_time(curve: Curve, level: float, index: IndexSet, rtol: float = 1e-14) -> float | None:
    """inf { t in I : curve(t) <= level } of a non-increasing curve; None where the set is empty.

    rtol: relative precision of a time on an interval.
    """
    if index.points is not None:
        found = bisect_left(index.points, True, key=lambda t: curve(t) <= level + ROUNDING)
        return index.points[found] if found < len(index.points) else None
    if curve(index.low) <= level + ROUNDING:
        return index.low
    time = _boundary(lambda t: curve(t) - level, index, rtol)
    return None if math.isinf(time) or (time == index.high and curve(time) > level + ROUNDING) else time


def _boundary(excess: Curve, index: IndexSet, rtol: float) -> float:
    """Where a falling function that starts at zero or above goes below zero; the end of the interval if nowhere."""
    from scipy.optimize import brentq

    low, high = index.low, index.high
    if excess(low) <= 0:
        return low
    if math.isinf(high):
        high = low + 1.0
        while excess(high) >= 0:
            if high > LARGEST_TIME:
                return math.inf
            low, high = high, 2 * high
    elif excess(high) >= 0:
        return high
    return float(brentq(excess, low, high, xtol=1e-13, rtol=rtol))


def _crossing(
    curve: Callable[[float], Estimate],
    find: Callable[[Curve, float, IndexSet, float], float | None],
    level: float,
    index: IndexSet,
    confidence: float,
) -> CriticalTime:
    """Where an estimated curve crosses its level, and where its lower and upper limits do.

    For a non-increasing curve and its true critical time T, the lower limit crosses after T only if it fails at T (or
    at the next point), the upper one before T only if it fails there: pointwise limits are enough.
    """
    known: dict[float, Estimate] = {}

    def at(t: float) -> Estimate:
        if t not in known:
            known[t] = curve(t)
        return known[t]

    def crossing(reading: Callable[[Estimate], float]) -> float | None:
        def settled(t: float) -> float:
            value, slack = reading(at(t)), SETTLED * at(t).standard_error
            return level if index.points is None and abs(value - level) < slack else value

        estimated = any(estimate.standard_error for estimate in known.values())
        part = _narrowed(index, {t: reading(estimate) - level for t, estimate in known.items()})
        return find(settled, level, part, COARSE if estimated else 1e-14)

    at(index.low)
    time = crossing(lambda estimate: estimate.value)
    if not any(estimate.standard_error for estimate in known.values()):
        return CriticalTime(time)
    low = crossing(lambda estimate: estimate.interval(confidence)[0])
    high = crossing(lambda estimate: estimate.interval(confidence)[1])
    return CriticalTime(time, (low, high))


def _narrowed(index: IndexSet, excess: Mapping[float, float]) -> IndexSet:
    """The part of an interval in which a falling curve goes below zero, by its values at the times known so far."""
    if index.points is not None:
        return index
    low = max((t for t, value in excess.items() if value >= 0), default=index.low)
    high = min((t for t, value in excess.items() if value < 0 and t > low), default=index.high)
    return replace(index, low=low, high=high)


def complement(labels: tuple[str, ...], chosen: Labels) -> tuple[str, ...]:
    """Theta - S, in the order of the labels."""
    inside = set(chosen)
    return tuple(label for label in labels if label not in inside)


def check_eps(eps: float) -> None:
    if not 0 < eps < 1:
        raise UserError(f"eps is {eps}; it must lie strictly between 0 and 1.")


def check_nested(labels: tuple[str, ...], inner: Labels, outer: Labels, proper: bool = False) -> None:
    """Refuse label sets that are empty or unknown, and an inner set that is not (properly) inside the outer one."""
    inside, outside = label_mask(labels, inner), label_mask(labels, outer)
    stray = [label for label, a, b in zip(labels, inside, outside, strict=True) if a and not b]
    if stray:
        raise UserError(f"label {stray[0]!r} is in the smaller set but not in the larger one; the sets must be nested.")
    if proper and (inside == outside).all():
        raise UserError(f"both sets are {', '.join(inner)}; S_after must be smaller than S_before.")
