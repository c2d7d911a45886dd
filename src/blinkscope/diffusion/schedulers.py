"""What a scheduler of diffusers says about its network, in the terms of ``denoisers.py``.

A scheduler names its noise levels in one of three ways, which are one thing in OU time:

    alphas_cumprod[i]     signal^2 of training step i (DDPM, DDIM)           t = -(1/2) ln alpha
    sigmas                noise-to-signal ratio (Euler, EDM)                  t = (1/2) ln(1 + sigma^2)
    sigmas of a flow      interpolation time s                                sigma = s / (1 - s)

Steps are then taken by ``GaussianDiffusion``. They are the scheduler's own steps where it is of first order: DDPM with
the smaller of its variances, DDIM with eta, Euler, ancestral Euler, EDM with churn, flow matching. Solvers of higher
order (PNDM, DPM-Solver and others) have no step with noise, so of these the levels of their training alone are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from blinkscope.diffusion.denoisers import Denoiser, Pictures, Prediction, denoiser_of
from blinkscope.diffusion.schedules import Times, check_steps, times_of_sigmas
from blinkscope.errors import UserError
from blinkscope.processes import log_snr

DISCRETE = ("DDPMScheduler", "DDIMScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
EDM, FLOW = "EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"
PREDICTIONS: dict[str, Prediction] = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}

Network = Callable[[Pictures, float], Pictures]
"""A network's answer about n observations at one time, in its own scale and with its own name of the time."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A scheduler, read.

    times: OU times of its levels, level 0 first.
    denoiser: from the network to E[X | Y_t].
    notes: what of the scheduler is not followed.
    """

    times: Times
    denoiser: Callable[[Network], Denoiser]
    notes: tuple[str, ...] = ()


def noise_schedule(scheduler: Any, steps: int) -> NoiseSchedule:
    """Read a scheduler of diffusers that is to be run in so many steps.

    Raises
    ------
    UserError : fewer than one step, more than ``MOST_STEPS`` or than there are training levels, or a scheduler that is
        none of the above.
    """
    check_steps(steps)
    name, config = type(scheduler).__name__, scheduler.config
    if config.get("thresholding"):
        raise UserError(
            f"the {name} thresholds pictures by their own quantiles, which is no step of a denoiser; set thresholding "
            "to false in its scheduler_config.json."
        )
    if name == EDM:
        return _edm(scheduler, steps)
    if name == FLOW:
        return _flow(scheduler, steps)
    if not hasattr(scheduler, "alphas_cumprod"):
        raise UserError(f"a {name} cannot be read; there are {', '.join((*DISCRETE, EDM, FLOW))} and their relatives.")
    return _discrete(scheduler, steps)


def _discrete(scheduler: Any, steps: int) -> NoiseSchedule:
    name, config = type(scheduler).__name__, scheduler.config
    notes: tuple[str, ...] = ()
    if name not in DISCRETE:
        from diffusers import DDIMScheduler

        scheduler = DDIMScheduler.from_config(config)
        notes = (f"of the folder's {name} the noise levels are taken, not the steps, which have no noise.",)
    trained = len(scheduler.alphas_cumprod)
    if steps > trained:
        raise UserError(f"the model was trained on {trained} noise levels; it cannot be run in {steps} steps.")
    predicts = _prediction(name, config)
    scheduler.set_timesteps(steps)
    told = _numbers(scheduler.timesteps)
    if "Euler" in type(scheduler).__name__:
        noisy = times_of_sigmas(_numbers(scheduler.sigmas)[:-1])
    else:
        with np.errstate(divide="ignore"):  # a schedule may end at pure noise
            noisy = -0.5 * np.log(_numbers(scheduler.alphas_cumprod)[told.astype(int)])
    times, clock = _clock(noisy, told)
    limit = float(config.get("clip_sample_range", 1.0)) if config.get("clip_sample") else None

    def denoiser(network: Network) -> Denoiser:
        plain = denoiser_of(network, predicts, "variance-preserving", clock)
        return plain if limit is None else lambda y, t: np.clip(plain(y, t), -limit, limit)

    return NoiseSchedule(times, denoiser, notes)


def _edm(scheduler: Any, steps: int) -> NoiseSchedule:
    """The preconditioning of Karras and others (2022), table 1: x0 = c_skip y + c_out F(c_in y; (1/4) ln sigma)."""
    predicts = _prediction(EDM, scheduler.config)
    if predicts == "x0":
        raise UserError("an EDMEulerScheduler predicts epsilon or v_prediction, not sample.")
    scheduler.set_timesteps(steps)
    spread, sign = float(scheduler.config.sigma_data), 1.0 if predicts == "eps" else -1.0

    def denoiser(network: Network) -> Denoiser:
        def x0(y: Pictures, sigma: float) -> Pictures:
            size = np.hypot(sigma, spread)
            answer = network(y / size, 0.25 * np.log(sigma))
            return np.asarray((spread / size) ** 2 * y + sign * sigma * spread / size * answer)

        return denoiser_of(x0, "x0", "variance-exploding")

    return NoiseSchedule(_rising(times_of_sigmas(_numbers(scheduler.sigmas)[:-1])), denoiser)


def _flow(scheduler: Any, steps: int) -> NoiseSchedule:
    config = scheduler.config
    for option in ("use_dynamic_shifting", "invert_sigmas"):
        if config.get(option):
            raise UserError(
                f"the {FLOW} has {option}, so its noise levels are set by the pipeline's own code; set it to false in "
                "its scheduler_config.json."
            )
    scheduler.set_timesteps(steps)
    time = _numbers(scheduler.sigmas)[:-1]
    with np.errstate(divide="ignore"):  # it begins at pure noise
        times = _rising(times_of_sigmas(time / (1 - time)))
    trained = float(config.num_train_timesteps)
    return NoiseSchedule(times, lambda network: denoiser_of(network, "v", "flow-matching", lambda time: trained * time))


def _prediction(name: str, config: Any) -> Prediction:
    said = config.get("prediction_type", "epsilon")
    if said not in PREDICTIONS:
        raise UserError(f"the {name} says that its network predicts {said!r}; it may be {', '.join(PREDICTIONS)}.")
    return PREDICTIONS[said]


def _rising(noisy: Float[np.ndarray, " steps"]) -> Times:
    """The levels from the picture on; a scheduler lists them from the noisiest one down."""
    times = np.append(0.0, noisy[::-1])
    if not (np.diff(times) > 0).all():
        raise UserError("the scheduler has equal noise levels with this number of steps; choose another.")
    return times


def _clock(
    noisy: Float[np.ndarray, " steps"], told: Float[np.ndarray, " steps"]
) -> tuple[Times, Callable[[float], float]]:
    """The levels, and what the network is told at an OU time: exactly at a level, between two by log-SNR."""
    times = _rising(noisy)
    exact = dict(zip(times[1:].tolist(), told[::-1].tolist(), strict=True))
    finite = np.isfinite(times[1:])
    ratio, named = -log_snr(times[1:][finite]), told[::-1][finite]

    def clock(t: float) -> float:
        found = exact.get(t)
        return float(np.interp(-log_snr(np.asarray(t)), ratio, named)) if found is None else found

    return times, clock


def _numbers(tensor: Any) -> Float[np.ndarray, " n"]:
    return np.asarray(tensor.detach().cpu().double().numpy())
