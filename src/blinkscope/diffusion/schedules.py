"""Noise levels in use, as rising OU times from 0 (the picture) to the level where sampling starts.

Whatever a scheduler calls its steps, its level i is an OU time, a noise-to-signal ratio sigma = sqrt(e^{2t} - 1) and a
log signal-to-noise ratio -2 ln sigma (``processes.log_snr``), so windows from different schedules can be compared.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError

Times = Float[np.ndarray, " levels"]

MOST_STEPS = 10_000  # a trajectory is kept whole, and takes as many evaluations


def times_of_sigmas(sigma: Float[np.ndarray, " levels"]) -> Times:
    """t = (1/2) ln(1 + sigma^2)."""
    return np.asarray(0.5 * np.log1p(np.asarray(sigma, dtype=float) ** 2))


def cosine_times(steps: int) -> Times:
    """Angles arctan(sigma) at equal distances up to pure noise, where t = inf.

    Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", ICML 2021, without their offset.
    """
    check_steps(steps)
    return np.append(times_of_sigmas(np.tan(np.pi / 2 * np.arange(steps) / steps)), np.inf)


def ddpm_times(alphas_cumprod: Float[np.ndarray, " trained"], steps: int) -> Times:
    """``steps`` of a model's training levels at equal distances, the noisiest among them ("trailing" spacing).

    alphas_cumprod: signal^2 at each training level, falling; diffusers' schedulers have it under this name. OU time is
        -(1/2) ln of it (Ho, Jain, Abbeel, "Denoising diffusion probabilistic models", NeurIPS 2020).
    """
    check_steps(steps)
    signal = np.asarray(alphas_cumprod, dtype=float)
    if signal.ndim != 1 or not (np.diff(signal) < 0).all() or not 0 < signal[-1] <= signal[0] < 1:
        raise UserError("alphas_cumprod must fall from below 1 to above 0.")
    if steps > len(signal):
        raise UserError(f"the model was trained on {len(signal)} noise levels; it cannot be run in {steps} steps.")
    chosen = np.round(np.arange(1, steps + 1) * len(signal) / steps).astype(int) - 1
    return np.append(0.0, -0.5 * np.log(signal[chosen]))


def karras_times(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Times:
    """sigma^{1/rho} at equal distances, and 0.

    Karras, Aittala, Aila, Laine, "Elucidating the design space of diffusion-based generative models", NeurIPS 2022,
    equation 5.
    """
    check_steps(steps)
    if not 0 < sigma_min < sigma_max or rho <= 0:
        raise UserError(f"sigma runs from {sigma_min:g} to {sigma_max:g} with rho {rho:g}; all positive, and rising.")
    roots = np.linspace(sigma_min ** (1 / rho), sigma_max ** (1 / rho), steps)
    return times_of_sigmas(np.append(0.0, roots**rho))


def flow_times(steps: int, shift: float = 1.0) -> Times:
    """Interpolation times at equal distances up to pure noise; ``shift`` > 1 spends more of them on noisy levels.

    Esser and others, "Scaling rectified flow transformers for high-resolution image synthesis", ICML 2024, equation 23.
    """
    check_steps(steps)
    if shift <= 0:
        raise UserError(f"shift is {shift:g}; it must be positive.")
    even = np.arange(steps) / steps
    time = shift * even / (1 + (shift - 1) * even)
    return np.append(times_of_sigmas(time / (1 - time)), np.inf)


def check_steps(steps: int) -> None:
    """Refuse a number of steps that no sampler is run in."""
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"there are {steps:,} steps; sampling takes from 1 to {MOST_STEPS:,}.")
