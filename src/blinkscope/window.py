"""Critical windows.

``TokenWindow`` is the window of one generation: a short stretch of steps over which the label posterior of that very
generation changes by at least delta in total variation. The windows of a whole distribution are in ``critical.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from blinkscope.divergence import total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior

LISTED_FROM = 0.5  # a window is listed from this probability on
CERTAIN_FROM = 0.95  # and called certain from this one on


@dataclass(frozen=True)
class TokenWindow:
    """An interval of the index over which the posterior changes by at least delta.

    start, end: rows of the curve; it covers the steps start .. end - 1.
    change: TV(pi_start, pi_end); low, high: its interval from joint draws.
    probability: share of joint draws whose change reaches delta.
    direction: sign of the change of the final label's probability; 0 where the interval of that change holds 0, that
        is, where mass moves between other labels.
    before, after: label laws at the two ends.
    """

    start: int
    end: int
    change: float
    low: float
    high: float
    probability: float
    direction: int
    before: dict[str, float]
    after: dict[str, float]

    @property
    def certain(self) -> bool:
        return self.probability >= CERTAIN_FROM


def default_max_width(steps: int) -> int:
    """Largest width of a window by default: a tenth of the generation, at least 3 steps."""
    return max(3, round(steps / 10))


def token_windows(
    posterior: Posterior,
    final_label: str,
    *,
    delta: float = 0.5,
    max_width: int | None = None,
    level: float = 0.95,
    rows: Float[np.ndarray, " boundaries"] | None = None,
) -> tuple[TokenWindow, ...]:
    """Windows of one generation.

    A candidate is an interval [a, b] with b - a <= max_width and TV(pi_a, pi_b) >= delta that at least half of the
    joint draws confirm, and that contains no shorter such interval: one that is not confirmed hides no longer one that
    is. Candidates are taken shortest first, then by larger change, then the earlier; what overlaps one already taken is
    dropped.

    Parameters
    ----------
    posterior : the curve of one path, ``mean`` of shape (rows, labels).
    max_width : in units of the index; a tenth of the index's range, at least 3, by default.
    rows : index values at which windows may start and end (for instance the ends of sentences); all by default. Widths
        are then counted in steps between these, and the largest width is 1 where none is given.
    """
    _check(delta, level)
    index = posterior.index
    if rows is None:
        chosen = np.arange(len(index))
        widths = index
        limit = float(max_width if max_width is not None else default_max_width(int(index[-1] - index[0])))
    else:
        chosen = np.flatnonzero(np.isin(index, rows))
        widths = np.arange(len(chosen), dtype=float)
        limit = float(max_width if max_width is not None else 1)
    if limit < 1:
        raise UserError(f"the largest width of a window is {limit:g}; it must be at least 1.")
    taken: list[TokenWindow] = []
    for a, b in _candidates(posterior, chosen, np.asarray(widths, dtype=float), delta, limit):
        start, end = int(chosen[a]), int(chosen[b])
        if all(index[end] <= other.start or index[start] >= other.end for other in taken):
            taken.append(_measure(posterior, start, end, final_label, delta, level))
    return tuple(sorted(taken, key=lambda window: window.start))


def rise_windows(
    posterior: Posterior, final_label: str, *, rise: float = 0.5, level: float = 0.95
) -> tuple[TokenWindow, ...]:
    """The paper's rule for a coarse curve: P(same label) rises by more than ``rise`` between consecutive rows.

    [LKC25], section 5: truncation fractions on a grid, a window counted by the rise alone. ``probability`` is that of
    such a rise, and windows that fewer than half of the joint draws confirm are not listed.
    """
    _check(rise, level)
    column = posterior.labels.index(final_label)
    windows = []
    for a in map(int, np.flatnonzero(np.diff(posterior.mean[:, column]) > rise)):
        window = _measure(posterior, a, a + 1, final_label, rise, level)
        if posterior.draws is not None:
            rises = posterior.draws[:, a + 1, column] - posterior.draws[:, a, column]
            window = replace(window, probability=float((rises > rise).mean()))
        windows.append(window)
    return tuple(window for window in windows if window.probability >= LISTED_FROM)


def _check(delta: float, level: float) -> None:
    if not 0 < delta <= 1:
        raise UserError(f"delta is {delta}; a window's change must lie in (0, 1].")
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it must lie strictly between 0 and 1.")


def _candidates(
    posterior: Posterior,
    chosen: Int[np.ndarray, " rows"],
    widths: Float[np.ndarray, " rows"],
    delta: float,
    limit: float,
) -> list[tuple[int, int]]:
    """Minimal intervals of the chosen rows whose change reaches delta and is confirmed, in the order of choice."""
    mean, draws = posterior.mean[chosen], _judging(posterior)
    found: list[tuple[float, float, int, int]] = []
    nearest_end = len(mean)  # the smallest end of a qualifying interval that starts further right
    for a in range(len(mean) - 2, -1, -1):
        reach = int(np.searchsorted(widths, widths[a] + limit, side="right"))
        change = total_variation(mean[a + 1 : min(reach, nearest_end)], mean[a])
        for b in a + 1 + np.flatnonzero(change >= delta):
            if draws is None or _share(total_variation(draws[:, chosen[a]], draws[:, chosen[b]]), delta) >= LISTED_FROM:
                found.append((widths[b] - widths[a], -float(change[b - a - 1]), a, int(b)))
                nearest_end = int(b)
                break
    return [(a, b) for _, _, a, b in sorted(found)]


def _judging(posterior: Posterior) -> Float[np.ndarray, "draws rows labels"] | None:
    """The joint draws by which what looks large is judged."""
    return posterior.draws if posterior.believed is None else posterior.believed


def _share(changes: Float[np.ndarray, " draws"], delta: float) -> float:
    return float((changes >= delta).mean())


def _measure(posterior: Posterior, a: int, b: int, final_label: str, delta: float, level: float) -> TokenWindow:
    before, after = posterior.mean[a], posterior.mean[b]
    change = float(total_variation(before, after))
    final = posterior.labels.index(final_label) if final_label in posterior.labels else None
    draws = _judging(posterior)
    if draws is None:
        low = high = change
        probability = 1.0
        shift_low = shift_high = 0.0 if final is None else float(after[final] - before[final])
    else:
        tail = [(1 - level) / 2, (1 + level) / 2]
        changes = total_variation(draws[:, a], draws[:, b])
        low, high = (float(x) for x in np.quantile(changes, tail))
        low, high = min(low, change), max(high, change)
        probability = _share(changes, delta)
        shifts = np.zeros(1) if final is None else draws[:, b, final] - draws[:, a, final]
        shift_low, shift_high = (float(x) for x in np.quantile(shifts, tail))
    direction = 1 if shift_low > 0 else -1 if shift_high < 0 else 0
    return TokenWindow(
        start=int(posterior.index[a]),
        end=int(posterior.index[b]),
        change=change,
        low=low,
        high=high,
        probability=probability,
        direction=direction,
        before=dict(zip(posterior.labels, (float(x) for x in before), strict=True)),
        after=dict(zip(posterior.labels, (float(x) for x in after), strict=True)),
    )
