"""Denoisers: E[X | Y_t = y], the one function of a model that Gaussian diffusion needs.

All Gaussian families see the same thing up to a change of time and of scale (``processes.py``), so sampling is written
once, for the Ornstein-Uhlenbeck process

    y = a X + s Z,   a = e^{-t},   s = sqrt(1 - e^{-2t}),   sigma = s / a

and a family is a matter of what its network is given, told and asked. A network of the family with signal alpha and
noise beta at ratio sigma = beta / alpha is given sqrt(alpha^2 + beta^2) y, is told the family's own time, and answers
with one of

    "x0"    E[X | Y]
    "eps"   E[Z | Y],                   X = (Y - beta Z) / alpha
    "v"     E[alpha' X + beta' Z | Y],  X = (beta' Y - beta V) / (alpha beta' - alpha' beta)

where ' is the derivative along the family's path: along the angle arctan(sigma) for variance-preserving networks
(Salimans and Ho, "Progressive distillation for fast sampling of diffusion models", ICLR 2022), along sigma for
variance-exploding ones, along the interpolation time for flow matching (V is then Z - X).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from blinkscope.errors import EngineError, UserError
from blinkscope.processes import flow_time_from_sigma, sigma_from_ou_time

Pictures: TypeAlias = Float[np.ndarray, "..."]

Denoiser: TypeAlias = Callable[[Pictures, float], Pictures]
"""E[X | Y_t = y] for n observations at one OU time t."""

Prediction = Literal["x0", "eps", "v"]
Family = Literal["variance-preserving", "variance-exploding", "flow-matching"]


@dataclass(frozen=True)
class Coordinates:
    """A family at one noise level: Y = signal X + noise Z, its own time, and the derivatives along its path."""

    time: float
    signal: float
    noise: float
    signal_rate: float
    noise_rate: float


def coordinates(family: Family, t: float) -> Coordinates:
    """What a family calls the level of OU time t: OU time, sigma or interpolation time."""
    sigma = sigma_from_ou_time(t)
    if family == "variance-preserving":
        signal = math.exp(-t)
        noise = math.sqrt(-math.expm1(-2 * t))
        return Coordinates(t, signal, noise, -noise, signal)
    if family == "variance-exploding":
        return Coordinates(sigma, 1.0, sigma, 0.0, 1.0)
    if family == "flow-matching":
        time = flow_time_from_sigma(sigma)
        return Coordinates(time, 1 - time, time, -1.0, 1.0)
    raise UserError(f"there is no family {family!r}; choose variance-preserving, variance-exploding or flow-matching.")


def denoiser_of(
    function: Callable[[Pictures, float], Pictures],
    predicts: Prediction,
    family: Family = "variance-preserving",
    told: Callable[[float], float] | None = None,
) -> Denoiser:
    """The denoiser behind any function ``eps(y, t)``, ``x0(y, t)`` or ``v(y, t)``.

    Parameters
    ----------
    function : takes n observations, shape (n, ...), in the family's own scale, and one time.
    predicts : ``"x0"``, ``"eps"`` or ``"v"``, what it returns; see the module.
    family : whose scale and time it was made for.
    told : from the family's time to what the function is told, where that is something else, such as the number of a
        training step; the family's time itself by default.

    Raises
    ------
    UserError : an unknown prediction or family; an ``eps`` asked at pure noise (or a variance-exploding level there),
        where it says nothing about X.
    EngineError : the function returned another shape, or NaN.
    """
    if predicts not in ("x0", "eps", "v"):
        raise UserError(f"there is no prediction {predicts!r}; a denoiser predicts x0, eps or v.")
    coordinates(family, 1.0)

    def denoise(y: Pictures, t: float) -> Pictures:
        at = coordinates(family, t)
        if math.isinf(at.noise) or (predicts == "eps" and at.signal == 0):
            raise UserError("this denoiser has no answer at pure noise (t = inf); start from a finite noise level.")
        given = y * math.hypot(at.signal, at.noise)
        answer = np.asarray(function(given, at.time if told is None else told(at.time)))
        if answer.shape != y.shape or not np.isfinite(answer).all():
            what = f"shape {answer.shape} for {y.shape}" if answer.shape != y.shape else "NaN or infinite numbers"
            raise EngineError(f"the denoiser returned {what} at OU time {t:g}.")
        if predicts == "x0":
            return answer
        if predicts == "eps":
            return np.asarray((given - at.noise * answer) / at.signal)
        rate = at.signal * at.noise_rate - at.signal_rate * at.noise
        return np.asarray((at.noise_rate * given - at.noise * answer) / rate)

    return denoise
