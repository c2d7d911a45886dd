"""The result: where one generation was decided.

A ``Trace`` holds the curve with its joint draws, the steps of the path, the draws behind it and what they cost.
Windows, forks and the JSON are read off it.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError, expect, expect_fields
from blinkscope.estimate.seeking import UNDECIDED_AT_MOST, Sought
from blinkscope.estimate.source import JSON, Draw
from blinkscope.feature import OTHER
from blinkscope.posterior import Posterior
from blinkscope.processes import OU_TIME, log_snr
from blinkscope.window import TokenWindow, default_max_width, rise_windows, token_windows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = 1
Status = Literal["complete", "budget", "interrupted"]
Estimator = Literal["unbiased", "pooled"]
ESTIMATORS: tuple[Estimator, ...] = ("unbiased", "pooled")
Aim = Literal["error", "windows"]
AIMS: tuple[Aim, ...] = ("error", "windows")


@dataclass(frozen=True)
class Step:
    """One step of the path: a token of a text, with its probability and that of leaving the path there."""

    text: str
    p: float
    off_path: float
    id: int | None = None


@dataclass(frozen=True)
class Target:
    """When to stop and what to call a window. May change between analyses of one run; nothing is drawn twice.

    error: stop when the largest posterior standard deviation over rows and labels is at most this.
    until: stop at this ``error``, or, whatever the error, when the ``windows`` are known; the latter takes the pooled
        estimator, see ``estimate/seeking.py``.
    continuations, generated_tokens: hard budgets; the first one reached stops.
    delta, max_width, level: see ``token_windows``.
    ends: of diffusion models, stop when the ends of the change are known to so many steps, whatever the error.
    estimator: how the draws of the divergence method are read; see ``estimate/evidence.py``.
    """

    error: float = 0.05
    continuations: int | None = None
    generated_tokens: int | None = None
    delta: float = 0.5
    max_width: int | None = None
    level: float = 0.95
    ends: float | None = None
    estimator: Estimator = "unbiased"
    until: Aim = "error"

    def __post_init__(self) -> None:
        expect_fields(self, ("error", "delta", "level"), (int, float), "a number")
        expect_fields(self, ("ends",), (int, float, type(None)), "a number of steps, or None")
        budgets = ("continuations", "generated_tokens", "max_width")
        expect_fields(self, budgets, (int, type(None)), "a whole number, or None")
        if self.estimator not in ESTIMATORS:
            raise UserError(f"there is no estimator {self.estimator!r}; choose one of {', '.join(ESTIMATORS)}.")
        if self.until not in AIMS:
            raise UserError(f"until is {self.until!r}; choose one of {', '.join(AIMS)}.")
        if self.until == "windows" and self.estimator != "pooled":
            raise UserError(
                "windows are sought with the estimator pooled, and with no other; for another one ask until the error."
            )
        if not 0 < self.error < 1:
            raise UserError(f"error is {self.error}; it is a standard deviation of a probability, in (0, 1).")
        if not 0 < self.delta <= 1:
            raise UserError(f"delta is {self.delta}; a window's change must lie in (0, 1].")
        if not 0 < self.level < 1:
            raise UserError(f"level is {self.level}; it must lie strictly between 0 and 1.")
        if self.ends is not None and not 0 < self.ends < math.inf:
            raise UserError(f"ends is {self.ends}; it is a standard deviation in steps, above 0.")
        if self.max_width is not None and self.max_width < 1:
            raise UserError(f"max-width is {self.max_width}; a window covers at least 1 token.")
        for name, budget in (("continuations", self.continuations), ("generated-tokens", self.generated_tokens)):
            if budget is not None and budget < 1:
                raise UserError(f"{name} is {budget}; a budget is a positive whole number.")

    def changed(self, **changes: Any) -> Target:
        """The same with some fields changed.

        Windows are sought with the pooled estimator where none is named, and whoever names an error asks for it.
        """
        if changes.get("until") == "windows":
            if "error" in changes:
                raise UserError("a run until the windows are known looks at no error; give error or until, not both.")
            changes = {"estimator": "pooled", **changes}
        elif "error" in changes:
            changes = {"until": "error", **changes}
        return replace(self, **changes)

    def sought(self, steps: int) -> Sought | None:
        """The windows that a run on a path of so many steps is to find; None where it goes by the error."""
        if self.until != "windows":
            return None
        return Sought(self.delta, self.max_width or default_max_width(steps))

    @property
    def asked(self) -> float:
        """What the method's ``reached`` must come down to."""
        return UNDECIDED_AT_MOST if self.until == "windows" else self.error


@dataclass(frozen=True)
class End:
    """Where the probability of a picture's own label passes a share.

    step: number of reverse steps taken, between two levels. sd: its standard deviation, in steps; 0 where the
    probability is above the share from pure noise on.
    """

    share: float
    step: float
    sd: float


@dataclass(frozen=True)
class Fork:
    """What one alternative token led to.

    position: tokens kept before it. p: its probability there. labels: how often each outcome followed.
    """

    position: int
    token: str
    p: float
    labels: dict[str, int]

    @property
    def continuations(self) -> int:
        return sum(self.labels.values())


@dataclass(frozen=True)
class Cost:
    """What a run took. Tokens are the currency of texts, network evaluations that of pictures.

    predicted_tokens: what was expected before anything was drawn. foreseen_tokens: what was expected after the first
    round; None where that was the last one, or tells nothing.
    """

    continuations: int = 0
    generated_tokens: int = 0
    scored_tokens: int = 0
    predicted_tokens: int = 0
    foreseen_tokens: int | None = None
    network_evaluations: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Where one generation was decided, with stated error.

    settings: what was asked, for display: ``prompt``, ``model``, ``method``, ``sampling``, ``seed``.
    steps: the generation, N of them; ``posterior`` has a row for each number of kept steps that the method looked at.
    skipped: largest possible shift of each row by positions left out (eta_t); None where none were.
    unrecorded_weight: largest possible shift of any row by alternatives that the engine could not list.
    truth: the exact curve on the same rows and labels, where the model's law is known.
    notes: what a reader should know before trusting the numbers.
    comparison: the curve that recorded forks predict beside recorded free continuations; None without such a record.
    kind: whether the rows are the posterior of one path, or its mean over fresh noisings of one sample.
    times: of diffusion models, the time of each row in the theory; else None. unit: OU time, or probability of a mask.
    states: of diffusion models, the sample at each row, shape (rows, ...); the last is the sample itself.
    thumbnails: small pictures of ``states``, where these are no pictures themselves.
    ends: of the kind ``forward-reverse``, where the probability of the final label passes 1/4 and 3/4; else empty.
    undecided: of a run until the windows are known, the probability that they are not; else None. See ``Sought``.
    """

    settings: Mapping[str, JSON]
    text: str
    steps: tuple[Step, ...]
    final_label: str
    posterior: Posterior
    draws: tuple[Draw, ...]
    target: Target
    status: Status
    cost: Cost
    skipped: Float[np.ndarray, " rows"] | None = None
    unrecorded_weight: float = 0.0
    truth: Float[np.ndarray, "rows labels"] | None = None
    notes: tuple[str, ...] = ()
    comparison: Mapping[str, JSON] | None = None
    kind: Literal["path", "forward-reverse"] = "path"
    times: Float[np.ndarray, " rows"] | None = None
    unit: str = OU_TIME.unit
    states: np.ndarray[Any, Any] | None = None
    thumbnails: tuple[Mapping[str, JSON], ...] | None = None
    ends: tuple[End, ...] = ()
    undecided: float | None = None

    def __repr__(self) -> str:
        length = f"tokens={len(self.steps)}" if self.times is None else f"steps={int(self.posterior.index[-1])}"
        return (
            f"Trace(model={self.settings.get('model')!r}, labels={reprlib.repr(self.labels)}, "
            f"final_label={reprlib.repr(self.final_label)}, {length}, windows={len(self.windows())}, "
            f"error={self.error['reached_max']:.3g}, status={self.status!r})"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return self.posterior.labels

    @property
    def log_snr(self) -> Float[np.ndarray, " rows"] | None:
        """Log signal-to-noise ratio of each row of a Gaussian diffusion model; None of others."""
        return log_snr(self.times) if self.times is not None and self.unit == OU_TIME.unit else None

    @property
    def curve(self) -> Float[np.ndarray, "rows labels"]:
        """The estimated label law for each number of kept tokens."""
        return self.posterior.mean

    @property
    def band(self) -> tuple[Float[np.ndarray, "rows labels"], Float[np.ndarray, "rows labels"]]:
        """Lower and upper limits of the curve at the target's level."""
        return self.posterior.band(self.target.level)

    @property
    def skipped_weight(self) -> float:
        """Largest possible shift of any row by positions left out."""
        return 0.0 if self.skipped is None else float(self.skipped.max())

    @property
    def error(self) -> dict[str, float]:
        """Asked-for and reached standard deviation: the largest over rows and labels, and the root mean square."""
        sd = self.posterior.sd
        return {
            "asked": self.target.error,
            "reached_max": float(sd.max()),
            "reached_rms": float(np.sqrt((sd**2).mean())),
        }

    def windows(
        self,
        delta: float | None = None,
        level: float | None = None,
        *,
        max_width: int | None = None,
        at: Literal["tokens", "sentences", "steps"] = "tokens",
    ) -> tuple[TokenWindow, ...]:
        """Windows of the generation; ``at`` reads the same curve at the ends of sentences or of lines instead.

        A curve of the method ``grid`` is read by the paper's own rule, ``rise_windows``.
        """
        if at not in ("tokens", "sentences", "steps"):
            raise UserError(f"windows can be read at tokens, sentences or steps, not at {at!r}.")
        delta, level = (
            expect(name, getattr(self.target, name) if value is None else value, (int, float), "a number")
            for name, value in (("delta", delta), ("level", level))
        )
        max_width = expect("max_width", max_width, (int, type(None)), "a whole number, or None")
        if self.settings.get("method") == "grid":
            return rise_windows(
                self.posterior,
                self.final_label,
                rise=delta,
                level=level,
            )
        return token_windows(
            self.posterior,
            self.final_label,
            delta=delta,
            max_width=max_width if max_width is not None else (self.target.max_width if at == "tokens" else None),
            level=level,
            rows=None if at == "tokens" else boundaries(self.steps, at),
        )

    @property
    def forks(self) -> tuple[Fork, ...]:
        """Every alternative that was tried, by position, the most probable first."""
        found: dict[tuple[int, str], tuple[float, Counter[str]]] = {}
        for draw in self.draws:
            if draw.fork:
                p = draw.payload.get("p")
                probability = float(p) if isinstance(p, (int, float)) else 0.0
                _, labels = found.setdefault((draw.stratum, draw.fork), (probability, Counter()))
                labels[draw.label if draw.label in self.labels else OTHER] += 1
        forks = [Fork(position, token, p, dict(labels)) for (position, token), (p, labels) in found.items()]
        return tuple(sorted(forks, key=lambda fork: (fork.position, -fork.p, fork.token)))

    def covered(self, window: TokenWindow) -> str:
        """The text that a window covers."""
        return "".join(step.text for step in self.steps[window.start : window.end])

    @property
    def _generation(self) -> dict[str, Any]:
        """What was analysed: a text with its tokens, or a picture by the name of its file."""
        if self.states is not None:
            return {"file": self.settings.get("image"), "shape": list(self.states.shape[1:])}
        return {
            "text": self.text,
            "tokens": [{"id": s.id, "text": s.text, "p": s.p, "off_path": s.off_path} for s in self.steps],
        }

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``locate --json``; two results are equal when they agree in everything but ``timing``."""
        low, high = self.band
        return {
            "schema": SCHEMA,
            "status": self.status,
            **self.settings,
            "estimator": self.target.estimator,
            "until": self.target.until,
            "generation": self._generation,
            "labels": list(self.labels),
            "final_label": self.final_label,
            "curve": {
                "kind": self.kind,
                "position": [int(i) for i in self.posterior.index],
                **({} if self.times is None else {"time": _spelled(self.times), "time_unit": self.unit}),
                **({} if self.log_snr is None else {"log_snr": _spelled(self.log_snr)}),
                "mean": self.curve.tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "level": self.target.level,
                **({} if self.skipped is None else {"skipped": self.skipped.tolist()}),
            },
            **({} if self.times is None else {"ends": [asdict(end) for end in self.ends]}),
            "windows": [
                {
                    "start": w.start,
                    "end": w.end,
                    "text": self.covered(w),
                    "change": w.change,
                    "low": w.low,
                    "high": w.high,
                    "probability": w.probability,
                    "direction": w.direction,
                    "before": w.before,
                    "after": w.after,
                }
                for w in self.windows()
            ],
            "forks": [
                {
                    "position": fork.position,
                    "token": fork.token,
                    "p": fork.p,
                    "continuations": fork.continuations,
                    "labels": fork.labels,
                }
                for fork in self.forks
            ],
            "error": {**self.error, "asked": None if self.target.until == "windows" else self.target.error},
            "undecided": self._undecided,
            "skipped_weight": self.skipped_weight,
            "unrecorded_weight": self.unrecorded_weight,
            "truth": None if self.truth is None else {"mean": self.truth.tolist()},
            "notes": list(self.notes),
            "comparison": self.comparison,
            "cost": {
                "continuations": self.cost.continuations,
                **({} if self.times is None else {"network_evaluations": self.cost.network_evaluations}),
                "generated_tokens": self.cost.generated_tokens,
                "scored_tokens": self.cost.scored_tokens,
                "predicted_tokens": self.cost.predicted_tokens,
                "foreseen_tokens": self.cost.foreseen_tokens,
            },
            "timing": {"seconds": self.cost.seconds, "model_seconds": self.cost.model_seconds},
        }

    @property
    def _undecided(self) -> dict[str, float] | None:
        """What is undecided about the windows, with the changes that it is about."""
        sought = self.target.sought(len(self.steps))
        if sought is None or self.undecided is None:
            return None
        return {
            "probability": self.undecided,
            "asked": self.target.asked,
            "clear": sought.clear,
            "least": sought.least,
        }

    def plot(self) -> Figure:
        """The curve with its bands and windows, as a matplotlib figure."""
        from blinkscope.report.figures import curve_figure

        return curve_figure(self)

    def _repr_html_(self) -> str:
        from blinkscope.report.notebook import notebook_html

        return notebook_html(self)


def _spelled(numbers: Float[np.ndarray, " rows"]) -> list[float | str]:
    """Numbers as JSON has them; infinities are "inf" and "-inf"."""
    return [float(x) if np.isfinite(x) else str(float(x)) for x in numbers]


def boundaries(steps: tuple[Step, ...], at: Literal["sentences", "steps"]) -> Float[np.ndarray, " boundaries"]:
    """Numbers of kept tokens at which a sentence (or a line, for ``steps``) ends, the two ends included.

    A sentence ends after ``.``, ``!`` or ``?`` (closing quotes and brackets belong to it) where white space, a line
    break or nothing follows.
    """
    ends = [0.0]
    for i, step in enumerate(steps):
        following = steps[i + 1].text[:1] if i + 1 < len(steps) else ""
        line_end = "\n" in step.text and following != "\n"
        if at == "steps":
            closed = line_end
        else:
            stripped = step.text.rstrip().rstrip("\"')]}”’*")
            closed = line_end or (stripped.endswith((".", "!", "?")) and (not following or following.isspace()))
        if closed:
            ends.append(float(i + 1))
    if ends[-1] != len(steps):
        ends.append(float(len(steps)))
    return np.asarray(ends)
