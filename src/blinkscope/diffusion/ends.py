"""Between which steps a picture was decided, and a method of the loop that spends its draws on that alone.

The **ends** of the change are the numbers of steps at which the probability p(s) of the picture's own label passes 1/4
and 3/4, for fresh noise at every draw. They are read off one smooth curve: logit p is a Gaussian process whose second
differences over the levels have standard deviation ``scale``, for a few scales weighted by their evidence (Laplace's
approximation; Rasmussen and Williams, "Gaussian processes for machine learning", 2006, section 3.4). The finished
picture stands at its end for ``ANCHOR`` draws of its own label. With f and S the process's posterior mean and
covariance, an end lies where f, made to rise by isotonic regression, passes logit q. Its variance is S there over the
squared slope, less ``SLOPE_DOUBT`` of the slope's own standard deviation: a slope that came out steep by luck would end
a run too early.

One more draw at level s, where a draw tells w = p (1 - p) about logit p, lowers the variance of an end at e by
S_es^2 / (1 / w + S_ss) over its squared slope. The draws of a round are chosen one by one, each where it lowers the sum
over both ends most per network evaluation, with S brought up to date as if it had been made (such designs: Chaloner and
Verdinelli, "Bayesian experimental design: a review", Statistical Science 10, 1995).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.levels import COARSE, NoiseLevels, evenly
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import End
from blinkscope.posterior import Posterior

SHARES = (0.25, 0.75)
SCALES = (0.03, 0.1, 0.3, 1.0)
ANCHOR = 4.0
LEVEL_SD = 100.0  # of the curve's height, a priori: next to nothing is known of it
LEAST_SLOPE, SLOPE_DOUBT = 0.05, 0.5  # of logit p, per place, where an end is
MOST_PLACES = 96  # levels that are told apart where a schedule has more
PILOT = 3  # draws of each half of a coarse level
ROUND, GROWTH = 16, 0.25  # draws of a round: at least so many, or this share of those before
FEWEST = 128  # draws before a run may end: the first few of a stretch can look steep by luck
CERTAIN = 3.0  # standard deviations of logit p beyond 1/4 at pure noise from which on there is no lower end


@dataclass(frozen=True, eq=False)
class ChangeEnds:
    """Draw where it tells most about the ends, until both are known to ``error`` steps.

    levels: how the draws are read as a curve; its own error is not aimed at.
    """

    levels: NoiseLevels
    error: float

    @property
    def strata(self) -> tuple[Stratum, ...]:
        return self.levels.strata

    def estimate(self, draws: Sequence[Draw]) -> Posterior:
        return self.levels.estimate(draws)

    def reached(self, draws: Sequence[Draw]) -> None:
        """It stops by itself."""

    def orders(self, draws: Sequence[Draw], round_: int) -> list[Order]:
        steps = len(self.strata)
        if round_ == 0:
            return [Order(position, half, 0, PILOT) for half in (0, 1) for position in evenly(steps, COARSE)]
        seen = _Seen.of(draws, self.levels.final_label, steps)
        process = _Process.given(seen)
        ends = process.ends()
        if len(draws) >= FEWEST and all(end.sd <= self.error for end in ends):
            return []
        size = max(ROUND, int(GROWTH * len(draws)))
        cost = np.array([stratum.cost for stratum in self.strata])[seen.places[:-1]]
        chosen = process.best(ends, cost, size)
        return _orders(draws, {int(seen.places[i]): n for i, n in enumerate(chosen) if n})


def read_ends(draws: Sequence[Draw], final_label: str, steps: int) -> tuple[End, ...]:
    """The ends of the change, from whatever draws there are; none without draws."""
    return _Process.given(_Seen.of(draws, final_label, steps)).ends() if draws else ()


def _orders(draws: Sequence[Draw], wanted: dict[int, int]) -> list[Order]:
    """So many more draws of each level, in halves that stay as equal as they can."""
    have = {position: [0, 0] for position in wanted}
    for draw in draws:
        if draw.stratum in have:
            have[draw.stratum][draw.replicate % 2] += 1
    orders = []
    for position, more in wanted.items():
        first, second = have[position]
        to_first = int(np.clip((first + second + more + 1) // 2 - first, 0, more))
        halves = ((0, first, to_first), (1, second, more - to_first))
        orders += [Order(position, half, start, count) for half, start, count in halves if count]
    return sorted(orders, key=lambda order: (-order.count, order.stratum, order.half))


@dataclass(frozen=True, eq=False)
class _Seen:
    """How often the label was the picture's own, at each of the places; the last place is the finished picture."""

    places: Int[np.ndarray, " places"]
    same: Float[np.ndarray, " places"]
    drawn: Float[np.ndarray, " places"]

    @classmethod
    def of(cls, draws: Sequence[Draw], final_label: str, steps: int) -> _Seen:
        places = np.unique(np.round(np.linspace(0, steps, min(steps, MOST_PLACES) + 1)).astype(int))
        same, drawn = np.zeros(len(places)), np.zeros(len(places))
        for draw in draws:
            i = int(np.abs(places - draw.stratum).argmin())
            drawn[i] += 1
            same[i] += draw.label == final_label
        same[-1] = drawn[-1] = ANCHOR
        return cls(places, same, drawn)


@dataclass(frozen=True, eq=False)
class _Process:
    """The posterior of logit p at each place, for each scale.

    weight: of each scale. mean: its f, shape (scales, places). covariance: its S.
    """

    places: Int[np.ndarray, " places"]
    weight: Float[np.ndarray, " scales"]
    mean: Float[np.ndarray, "scales places"]
    covariance: Float[np.ndarray, "scales places places"]

    @classmethod
    def given(cls, seen: _Seen) -> _Process:
        n = len(seen.places)
        second = np.diff(np.eye(n), 2, axis=0)
        fits = [_laplace(seen, second.T @ second / scale**2 + np.eye(n) / LEVEL_SD**2) for scale in SCALES]
        evidence = np.array([found[2] for found in fits])
        weight = np.exp(evidence - evidence.max())
        return cls(
            seen.places, weight / weight.sum(), np.stack([f for f, _, _ in fits]), np.stack([S for _, S, _ in fits])
        )

    def ends(self) -> tuple[End, ...]:
        from scipy.optimize import isotonic_regression
        from scipy.special import expit, logit

        curve = isotonic_regression(self.weight @ expit(self.mean)).x
        at = np.arange(len(curve))
        out = []
        for share in SHARES:
            # Flat stretches get a slope too small to matter, so that a crossing is one place.
            place = float(np.interp(share, curve + 1e-9 * at, at))
            first = self.weight @ self.mean[:, 0]
            spread = np.sqrt(self.weight @ self.covariance[:, 0, 0])
            if place == 0 and first - logit(share) > CERTAIN * spread:
                out.append(End(share, 0.0, 0.0))
                continue
            row, along = self._at(place)
            spreads = [np.einsum("i,sij,j->s", x, self.covariance, x) for x in (row, along)]
            slope = np.maximum(self.mean @ along - SLOPE_DOUBT * np.sqrt(spreads[1]), LEAST_SLOPE)
            variance = spreads[0] / slope**2
            # A place is more than one step where a schedule has many.
            width = float(np.interp(place + 0.5, at, self.places) - np.interp(place - 0.5, at, self.places))
            sd = float(np.sqrt(self.weight @ variance)) * max(width, 1.0)
            out.append(End(share, float(np.interp(place, at, self.places)), sd))
        return tuple(out)

    def best(self, ends: Sequence[End], cost: Float[np.ndarray, " levels"], size: int) -> Int[np.ndarray, " levels"]:
        """How many of the next ``size`` draws each level gets."""
        from scipy.special import expit

        k = int(self.weight.argmax())
        S, p = self.covariance[k].copy(), expit(self.mean[k])
        tells = p * (1 - p)
        rows = []
        for end in ends:
            if end.sd:
                row, along = self._at(float(np.interp(end.step, self.places, np.arange(len(self.places)))))
                rows.append(row / max(self.mean[k] @ along, LEAST_SLOPE))
        chosen = np.zeros(len(cost), dtype=int)
        for _ in range(size):
            lowered = sum((row @ S) ** 2 for row in rows) * tells / (1 + tells * np.diag(S))
            i = int(np.argmax(lowered[:-1] / cost))
            chosen[i] += 1
            S -= np.outer(S[:, i], S[i]) * (tells[i] / (1 + tells[i] * S[i, i]))
        return chosen

    def _at(self, place: float) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, " places"]]:
        """Weights with which f and its slope, from one place before to one after, are read at a place."""
        last = len(self.places) - 1
        i = min(int(place), last - 1)
        row, along = np.zeros((2, last + 1))
        row[i : i + 2] = 1 - (place - i), place - i
        low, high = max(i - 1, 0), min(i + 2, last)
        along[[low, high]] = -1 / (high - low), 1 / (high - low)
        return row, along


def _laplace(
    seen: _Seen, precision: Float[np.ndarray, "places places"]
) -> tuple[Float[np.ndarray, " places"], Float[np.ndarray, "places places"], float]:
    """Mode and covariance of logit p given the counts, and the log evidence; Newton's method with short steps."""
    from scipy.special import expit

    f = np.zeros(len(seen.places))
    for _ in range(60):
        p = expit(f)
        hessian = precision + np.diag(seen.drawn * p * (1 - p))
        step = np.linalg.solve(hessian, seen.same - seen.drawn * p - precision @ f)
        largest = float(np.abs(step).max())
        f = f + step / max(1.0, largest / 3)
        if largest < 1e-6:
            break
    p = expit(f)
    hessian = precision + np.diag(seen.drawn * p * (1 - p))
    fit = float(seen.same @ f - seen.drawn @ np.logaddexp(0, f))
    volume = float(np.linalg.slogdet(precision)[1] - np.linalg.slogdet(hessian)[1])
    return f, np.linalg.inv(hessian), fit - float(f @ precision @ f) / 2 + volume / 2
