"""What a run is expected to cost, said before its first draw."""

from __future__ import annotations

from dataclasses import dataclass

from blinkscope.estimate.predict import MethodCost, Prediction, planned_costs
from blinkscope.estimate.record import PathRecord


@dataclass(frozen=True)
class Plan:
    """What is known before the first draw: the scored path and what the run is expected to cost.

    alternatives: how many there are at each position with a probability above ``FORKING_FROM``.
    seconds_per_token: of the generation itself, which was written alone; None where it was given. Continuations are
        written side by side and need less.
    """

    record: PathRecord
    prediction: Prediction
    known_draws: int
    notes: tuple[str, ...] = ()
    alternatives: tuple[int, ...] = ()
    seconds_per_token: float | None = None

    @property
    def costs(self) -> tuple[MethodCost, ...]:
        """What the divergence method to several errors and other methods would cost on this path."""
        return planned_costs(len(self.record.steps), self.record.prediction, self.alternatives)
