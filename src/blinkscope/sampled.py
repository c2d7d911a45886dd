"""Critical windows from sampled posteriors, at the finitely many times at which they were taken.

A world gives its curves; a model gives posteriors at some observations Y_t and some times. Its index set is then the
set of these times, sup and inf are taken over it, and nothing is interpolated. Each total variation is estimated at
each time by itself, with pointwise limits; data processing says that the true curve does not rise with t, so the
estimates are replaced by the closest non-increasing curve (isotonic regression). The limits are not smoothed: the
interval of a critical time holds every time that they do not rule out, which makes pointwise coverage enough.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float

from blinkscope.critical import CriticalWindow, Labels, critical_window, end_time, start_time
from blinkscope.divergence import Estimate, estimated_total_variation, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampler import IndexSet

Reading = Literal["value", "low", "high"]


@dataclass(frozen=True, eq=False)
class SampledMixture:
    """Curves of sampled posteriors, in the theory's time: a ``critical.Mixture``, so windows and trees follow.

    posterior: shape (rows, samples, labels), one row a time, with ``weights``; with ``counts`` where each posterior is
        itself an estimate.
    source: the index set that the posterior's ``index`` is from; it says which way noise grows.
    level: of the pointwise limits.
    reading: the curve itself, or its lower or upper limit.
    """

    posterior: Posterior
    source: IndexSet
    level: float = 0.95
    reading: Reading = "value"

    def __post_init__(self) -> None:
        if self.posterior.weights is None or self.posterior.mean.ndim != 3:
            raise UserError("windows need posteriors of shape (rows, samples, labels) with label weights.")
        for t in self.posterior.index:
            self.source.check(float(t))

    @property
    def labels(self) -> tuple[str, ...]:
        return self.posterior.labels

    @property
    def weights(self) -> Float[np.ndarray, " labels"]:
        assert self.posterior.weights is not None
        return self.posterior.weights

    @cached_property
    def index(self) -> IndexSet:
        times = tuple(float(t) for t in np.sort(self.source.time(self.posterior.index)))
        return IndexSet(self.source.name, self.source.unit, times[0], times[-1], times)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """The chosen reading of TV(p_t^A, p_t^B) at one of the sampled times."""
        key = (frozenset(a), frozenset(b))
        if key not in self._curves:
            self._curves[key] = self._curve(a, b)
        assert self.index.points is not None
        return Estimate(float(self._curves[key][self.index.points.index(self.index.check(t))]))

    @cached_property
    def _curves(self) -> dict[tuple[frozenset[str], frozenset[str]], Float[np.ndarray, " rows"]]:
        return {}

    def _curve(self, a: Labels, b: Labels) -> Float[np.ndarray, " rows"]:
        from scipy.optimize import isotonic_regression

        order = np.argsort(self.source.time(self.posterior.index))
        if self.posterior.counts is None:
            estimates = mixture_total_variation(self.posterior, a, b)
            values = [(e.value, *e.interval(self.level)) for e in estimates]
        else:
            values = [(e.value, e.low, e.high) for e in estimated_total_variation(self.posterior, a, b, self.level)]
        value, low, high = np.array(values)[order].T
        if self.reading == "low":
            return np.minimum.accumulate(low)
        if self.reading == "high":
            return np.maximum.accumulate(high[::-1])[::-1]
        return np.asarray(isotonic_regression(value, increasing=False).x)


def sampled_window(
    posterior: Posterior,
    index: IndexSet,
    eps: float,
    after: Labels,
    before: Labels | None = None,
    level: float = 0.95,
) -> CriticalWindow:
    """The critical window among the sampled times, each end with an interval that covers it with probability ``level``.

    The intervals are for T_after and T_end over the set of sampled times. One end is wrong only if a lower limit fails
    at one certain time, the other only if an upper limit does, so two-sided pointwise limits of that level suffice.
    """
    mixture = SampledMixture(posterior, index, level)
    window = critical_window(mixture, eps, after, before)
    low, high = replace(mixture, reading="low"), replace(mixture, reading="high")
    return replace(
        window,
        t_after_interval=(start_time(low, after, eps).time, start_time(high, after, eps).time),
        t_before_interval=(
            end_time(low, after, window.before, eps).time,
            end_time(high, after, window.before, eps).time,
        ),
    )
