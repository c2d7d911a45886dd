"""Everything about one path that its analysis needs, in the form in which a run file keeps it.

With a ``PathRecord`` and the stored draws a result can be computed again, with another delta, level or error, without
the model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError, expect, expect_fields
from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.loop import Method, Outcome
from blinkscope.estimate.predict import Prediction, bisection, predict
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.resampling import Bisection, Grid, fraction_rows
from blinkscope.estimate.source import JSON, Stratum
from blinkscope.estimate.trace import Cost, Step, Target, Trace
from blinkscope.feature import OTHER
from blinkscope.posterior import Posterior

METHODS = ("divergence", "grid", "bisect")
Truth: TypeAlias = tuple[tuple[str, ...], tuple[tuple[float, ...], ...]]
DEFAULT_FRACTIONS = tuple(i / 10 for i in range(10))
RAN_OUT = "the recorded outcomes have run out, since none is used twice; what was asked for takes more rollouts."


@dataclass(frozen=True)
class MethodOptions:
    """How draws are spent.

    name: ``divergence`` (off-path continuations), ``grid`` (the paper's fractions) or ``bisect``.
    fractions, resamples: of the grid; ``resamples`` is the bisection's too.
    threshold: the bisection splits where the ends differ by at least this in total variation.
    """

    name: str = "divergence"
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    resamples: int = 100
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise UserError(f"there is no method {self.name!r}; choose one of {', '.join(METHODS)}.")
        expect_fields(self, ("resamples",), int, "a whole number")
        expect_fields(self, ("threshold",), (int, float), "a number")
        expect("fractions", self.fractions, (tuple, list, np.ndarray), "numbers, such as (0.0, 0.5)")
        fractions = tuple(expect("one of fractions", f, (int, float), "a number") for f in self.fractions)
        object.__setattr__(self, "fractions", fractions)
        if self.resamples < 2:
            raise UserError(f"resamples is {self.resamples}; a share needs at least 2 draws.")
        if not 0 < self.threshold <= 1:
            raise UserError(f"the bisection's threshold is {self.threshold}; it must lie in (0, 1].")
        fraction_rows(1, self.fractions)

    def to_json(self) -> dict[str, JSON]:
        """The options that matter for this method."""
        grid: dict[str, JSON] = {"fractions": list(self.fractions), "resamples": self.resamples}
        bisect: dict[str, JSON] = {"resamples": self.resamples, "threshold": self.threshold}
        return {"name": self.name, **{"divergence": {}, "grid": grid, "bisect": bisect}[self.name]}


@dataclass(frozen=True)
class PathRecord:
    """One scored path.

    listed: share of each position's off-path law that the engine could list.
    strata: (key, cost) of every place where draws can be bought.
    limits: how many draws each of these places has; None where they never end.
    unrecorded: weight of alternatives that nobody followed, apart from those that the engine could not list.
    truth: labels and exact curve, where the model's law is known.
    settings: what was asked, for display; see ``Trace``.
    context: everything before the generation as text, template and prefill included; empty where nobody knows it.
    ended: whether the generation came to its own end; False where it was cut off at the length cap.
    """

    settings: Mapping[str, JSON]
    text: str
    tokens: tuple[int, ...]
    steps: tuple[Step, ...]
    listed: tuple[float, ...]
    strata: tuple[tuple[int, float], ...]
    final_label: str
    method: MethodOptions
    seed: int
    labels: int
    scored_tokens: int
    truth: Truth | None = None
    notes: tuple[str, ...] = ()
    generation: int = 0
    limits: tuple[int, ...] | None = None
    unrecorded: float = 0.0
    context: str = ""
    ended: bool = False

    @property
    def recursion(self) -> Recursion:
        return Recursion(
            np.asarray([step.p for step in self.steps]), np.asarray([step.off_path for step in self.steps])
        )

    @property
    def places(self) -> tuple[Stratum, ...]:
        """The strata as the loop knows them."""
        limits = self.limits if self.limits is not None else (None,) * len(self.strata)
        return tuple(Stratum(*place, limit) for place, limit in zip(self.strata, limits, strict=True))

    def aim_of(self, target: Target) -> Target:
        """What of a study's target is for this item: only a divergence is drawn until its windows are known."""
        return target if self.method.name == "divergence" else replace(target, until="error")

    def method_of_loop(self, target: Target) -> Method:
        """The method that this record's draws are ordered by and read with; refused where it has no such aim."""
        if target.until == "windows" and self.method.name != "divergence":
            raise UserError(f"until is of the method divergence, and this is {self.method.name}; leave it out.")
        shared: dict[str, Any] = {
            "strata": self.places,
            "final_label": self.final_label,
            "limit": self.labels,
            "seed": self.seed,
            "generation": self.generation,
        }
        if self.method.name == "grid":
            rows = fraction_rows(len(self.steps), self.method.fractions)
            return Grid(rows=rows, resamples=self.method.resamples, **shared)
        if self.method.name == "bisect":
            return Bisection(resamples=self.method.resamples, threshold=self.method.threshold, **shared)
        sought = target.sought(len(self.steps))
        return Decomposition(recursion=self.recursion, estimator=target.estimator, sought=sought, **shared)

    def prediction(self, target: Target) -> Prediction:
        """What a run to this target is expected to cost, budgets left aside; known before anything is drawn."""
        expected = self._expected(target)
        return expected if self.limits is None else expected.at_most(self.all_recorded)

    @property
    def all_recorded(self) -> Prediction:
        """Continuations and expected tokens of all draws that there are, where they come to an end."""
        assert self.limits is not None
        tokens = sum(limit * cost for limit, (_, cost) in zip(self.limits, self.strata, strict=True))
        return Prediction(sum(self.limits), round(tokens))

    def _foreseen(self, tokens: float | None) -> int | None:
        if tokens is None or self.limits is None:
            return None if tokens is None else round(tokens)
        return min(round(tokens), self.all_recorded.generated_tokens)

    def _expected(self, target: Target) -> Prediction:
        """The same for draws that never end."""
        if self.method.name == "divergence":
            return predict(self.recursion, self.places, target)
        if self.method.name == "bisect":
            return bisection(len(self.steps), self.method.resamples)
        rows = fraction_rows(len(self.steps), self.method.fractions)
        costs = [stratum.cost for stratum in self.places if stratum.key in rows]
        return Prediction(self.method.resamples * len(rows), round(self.method.resamples * sum(costs)))

    def trace(self, outcome: Outcome, target: Target, *, seconds: float = 0.0, model_seconds: float = 0.0) -> Trace:
        """The result that the outcome of the loop amounts to."""
        recursion = self.recursion
        skipped, unrecorded = None, self.unrecorded
        if self.method.name == "divergence":
            undrawn = (recursion.off_path > 0).astype(float)
            undrawn[sorted({draw.stratum for draw in outcome.draws})] = 0.0
            skipped = recursion.weight_of(undrawn)
            unlisted = np.where(undrawn > 0, 0.0, 1 - np.asarray(self.listed))
            unrecorded += float(recursion.weight_of(unlisted).max(initial=0.0))
        posterior = outcome.posterior
        truth = None
        if self.truth is not None:
            posterior = _with_room(posterior, self.truth)
            truth = _on_labels(self.truth, posterior.labels)[posterior.index.astype(int)]
        return Trace(
            settings=self.settings,
            text=self.text,
            steps=self.steps,
            final_label=self.final_label,
            posterior=posterior,
            draws=outcome.draws,
            target=target,
            status=outcome.status,
            cost=Cost(
                continuations=len(outcome.draws),
                generated_tokens=round(sum(draw.cost for draw in outcome.draws)),
                scored_tokens=self.scored_tokens,
                predicted_tokens=self.prediction(target).generated_tokens,
                foreseen_tokens=self._foreseen(outcome.foreseen),
                seconds=seconds,
                model_seconds=model_seconds,
            ),
            skipped=skipped,
            unrecorded_weight=unrecorded,
            truth=truth,
            undecided=outcome.error if target.until == "windows" and not math.isnan(outcome.error) else None,
            notes=(*self.notes, RAN_OUT) if outcome.ran_out and self.limits is not None else self.notes,
        )

    def to_json(self) -> dict[str, JSON]:
        return {**asdict(self), "method": self.method.to_json()}

    @classmethod
    def from_json(cls, document: Any) -> PathRecord:
        """The record that ``to_json`` wrote; a document of another form is refused."""
        try:
            method = dict(document["method"])
            if "fractions" in method:
                method["fractions"] = tuple(method["fractions"])
            truth, limits = document["truth"], document.get("limits")
            return cls(
                **{
                    **document,
                    "tokens": tuple(document["tokens"]),
                    "steps": tuple(Step(**step) for step in document["steps"]),
                    "listed": tuple(document["listed"]),
                    "strata": tuple((int(key), float(cost)) for key, cost in document["strata"]),
                    "method": MethodOptions(**method),
                    "limits": None if limits is None else tuple(int(limit) for limit in limits),
                    "truth": truth and (tuple(truth[0]), tuple(tuple(row) for row in truth[1])),
                    "notes": tuple(document["notes"]),
                }
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"the run file's record of its path cannot be read ({error}).") from None


def _with_room(posterior: Posterior, truth: Truth) -> Posterior:
    """The estimate with ``(other)`` among its labels, never seen, where the exact curve has labels that were not."""
    unseen = [row for name, row in zip(truth[0], np.asarray(truth[1]).T, strict=True) if name not in posterior.labels]
    if OTHER in posterior.labels or not np.any(unseen):
        return posterior
    grown: dict[str, Any] = {
        name: np.concatenate([found, np.zeros((*found.shape[:-1], 1))], axis=-1)
        for name in ("mean", "draws", "believed", "deviation")
        if (found := getattr(posterior, name)) is not None
    }
    return replace(posterior, labels=(*posterior.labels, OTHER), **grown)


def _on_labels(truth: Truth, labels: tuple[str, ...]) -> Float[np.ndarray, "rows labels"]:
    """The exact curve on the labels of the estimate; what is not among them goes to ``(other)``."""
    names, rows = truth
    out = np.zeros((len(rows), len(labels)))
    for name, column in zip(names, np.asarray(rows).T, strict=True):
        if name in labels or OTHER in labels:  # else it never occurs
            out[:, labels.index(name if name in labels else OTHER)] += column
    return out
