"""Classifier-free guidance where the class is decided, and nowhere else.

A guided denoiser leans away from what the model predicts without a class (Ho and Salimans, "Classifier-free diffusion
guidance", 2022),

    E[X | Y_t] + w ( E[X | Y_t, c] - E[X | Y_t] ),      w = 1: not guided

which makes the class come out more surely and pictures less various. At noise levels above T_before every class is
still open, and below T_after it is settled ([LKC25], Definition 4), so guidance has its work to do between them. That
an interval of guidance keeps variety was found by search in Kynkäänniemi and others, "Applying guidance in a limited
interval improves sample and distribution quality in diffusion models", NeurIPS 2024; here the interval is measured on
the model itself, by ``blinkscope study diffusion``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.diffusion.schedules import Times, times_of_sigmas
from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.processes import log_snr, sigma_from_ou_time

UNGUIDED = 1 + 1e-6
"""A scale that changes nothing, but that diffusers takes for guidance, so that it keeps its batches as they are."""


@dataclass(frozen=True)
class GuidanceInterval:
    """Noise levels from ``low`` to ``high``, as OU times; ``high`` may be infinite (from pure noise on)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise UserError(f"guidance from OU time {self.low:g} to {self.high:g} makes no sense; low is below high.")

    def scale(self, t: float, inside: float) -> float:
        """The scale of guidance at an OU time: ``inside`` within the interval, 1 elsewhere."""
        return inside if self.low <= t <= self.high else 1.0

    def denoiser(self, conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
        """The denoiser guided inside the interval; outside it the unconditional one is not evaluated.

        A guided denoiser is the posterior mean of no law, so what it samples is outside the theory.
        """

        def denoise(y: Pictures, t: float) -> Pictures:
            given, weight = conditional(y, t), self.scale(t, scale)
            if weight == 1:
                return given
            free = unconditional(y, t)
            return np.asarray(free + weight * (given - free))

        return denoise

    def callback(self, scale: float) -> GuidanceCallback:
        """For ``callback_on_step_end`` of a pipeline of diffusers."""
        return GuidanceCallback(self, scale)

    def to_json(self) -> dict[str, JSON]:
        """The ends as OU time, noise-to-signal ratio sigma and log signal-to-noise ratio; infinite ones are null."""
        ends = np.array([self.low, self.high])
        sigma, ratio = [sigma_from_ou_time(float(t)) for t in ends], log_snr(ends)
        said = {"ou_time": ends.tolist(), "sigma": sigma, "log_snr": ratio.tolist()}
        return {name: [end if math.isfinite(end) else None for end in pair] for name, pair in said.items()}

    @classmethod
    def from_json(cls, document: Any) -> GuidanceInterval:
        """The interval that ``to_json`` wrote."""
        try:
            low, high = document["ou_time"]
            return cls(float(low), math.inf if high is None else float(high))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is no guidance interval ({error}).") from None


EVERYWHERE = GuidanceInterval(0.0, math.inf)


@dataclass(frozen=True)
class GuidanceCallback:
    """Sets the scale of a pipeline's guidance after each step for the one that follows.

    The pipeline is called with ``guidance_scale=callback.first``, which its first step takes. Outside the interval the
    scale is ``UNGUIDED``: both halves of the batch are still evaluated, so that no tensor has to change its shape.
    """

    interval: GuidanceInterval
    scale: float

    def __post_init__(self) -> None:
        if not self.scale > 1:
            raise UserError(f"scale is {self.scale:g}; guidance has a scale above 1.")

    @property
    def first(self) -> float:
        """The scale of the first step, from about pure noise."""
        return self._at(math.inf)

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
        if not hasattr(pipeline, "_guidance_scale"):
            raise UserError(f"a {type(pipeline).__name__} has no guidance whose scale could change between its steps.")
        times = scheduler_times(pipeline.scheduler)
        if step + 1 < len(times):
            pipeline._guidance_scale = self._at(float(times[step + 1]))
        return tensors

    def _at(self, t: float) -> float:
        return max(self.interval.scale(t, self.scale), UNGUIDED)


def scheduler_times(scheduler: Any) -> Times:
    """OU times before each of the steps that a scheduler of diffusers is set to, in the order of its steps.

    Signal levels of training (DDPM, DDIM, Euler, DPM-Solver and others) are read by the number of the training step;
    without them, sigmas are noise-to-signal ratios (EDM), or interpolation times in flow matching.
    """
    if hasattr(scheduler, "alphas_cumprod"):
        signal = np.asarray(scheduler.alphas_cumprod, dtype=float)
        told = np.asarray(scheduler.timesteps, dtype=float)
        return np.asarray(-0.5 * np.interp(told, np.arange(len(signal)), np.log(np.maximum(signal, 1e-300))))
    if not hasattr(scheduler, "sigmas"):
        raise UserError(f"a {type(scheduler).__name__} does not say how noisy its steps are.")
    sigmas = np.asarray(scheduler.sigmas, dtype=float)[: len(scheduler.timesteps)]
    if "Flow" in type(scheduler).__name__:
        with np.errstate(divide="ignore"):
            sigmas = sigmas / (1 - sigmas)
    return times_of_sigmas(sigmas)


def read_interval(path: str | Path, label: str | None = None) -> GuidanceInterval:
    """The interval in a file of ``blinkscope export --to guidance``: that of all classes, or of one.

    Raises
    ------
    UserError : the file cannot be read, or holds no such class.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"the guidance interval in {path} cannot be read ({error}).") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} holds no guidance interval.")
    if label is None:
        return GuidanceInterval.from_json(document.get("interval"))
    labels = document.get("labels")
    if not isinstance(labels, dict) or label not in labels:
        raise UserError(f"{path} holds no interval of {label!r}; it holds those of {', '.join(labels or ())}.")
    return GuidanceInterval.from_json(labels[label])
