"""Guidance inside an interval: which steps it acts on, in our own sampler and in pipelines of diffusers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.guidance import UNGUIDED, GuidanceInterval, read_interval, scheduler_times
from blinkscope.errors import UserError
from blinkscope.worlds.gaussian_mixture import GaussianMixture

INTERVAL = GuidanceInterval(0.5, 1.5)


def test_guidance_acts_inside_the_interval_only() -> None:
    """The free denoiser is asked at levels from 0.5 to 1.5 alone; the answer there is free + 3 (given - free)."""
    asked: list[float] = []

    def free(y: np.ndarray, t: float) -> np.ndarray:
        asked.append(t)
        return np.zeros_like(y)

    denoise = INTERVAL.denoiser(lambda y, t: np.ones_like(y), free, 3.0)
    times = np.array([0.0, 0.25, 0.5, 1.0, 1.5, 2.0, np.inf])
    answers = [float(denoise(np.zeros((1, 2)), float(t))[0, 0]) for t in times[1:]]
    assert answers == [1, 3, 3, 3, 1, 1]
    assert asked == [0.5, 1.0, 1.5]
    GaussianDiffusion(denoise, times, (2,)).sample([np.random.default_rng(0)])
    assert asked[3:] == [1.5, 1.0, 0.5]


def test_guidance_moves_samples_towards_their_class() -> None:
    """Two Gaussians 3 apart: more of those drawn from the right one lie on its side with guidance, in the window most.

    Shares of 600: unguided Phi(1.5) = 0.933. Twelve standard deviations of 0.01 lie between 0.933 and 1 - 0.933 / 12.
    """
    world = GaussianMixture(means=np.array([[1.5], [-1.5]]))
    right = GaussianMixture(means=np.array([[1.5], [1.5]]))
    rngs = [[np.random.default_rng([s, i]) for i in range(600)] for s in range(2)]
    times = np.linspace(0, 3, 31)
    plain = GaussianDiffusion(right.denoise, times, (1,)).sample(rngs[0])
    guided = GuidanceInterval(0.0, 2.0).denoiser(right.denoise, world.denoise, 3.0)
    pushed = GaussianDiffusion(guided, times, (1,)).sample(rngs[1])
    assert abs((plain > 0).mean() - 0.933) < 0.06
    assert (pushed > 0).mean() > 0.985
    assert pushed.mean() > plain.mean() + 0.2


def schedulers() -> list[Any]:
    diffusers = pytest.importorskip("diffusers")
    return [
        diffusers.DDPMScheduler(),
        diffusers.DDIMScheduler(),
        diffusers.EulerDiscreteScheduler(),
        diffusers.EDMEulerScheduler(),
        diffusers.FlowMatchEulerDiscreteScheduler(),
    ]


@pytest.mark.parametrize("number", range(5))
def test_a_schedulers_steps_have_the_times_of_its_noise(number: int) -> None:
    """Against the scheduler's own noising of a picture of zeros and of ones, where it noises; else its formula."""
    import torch

    scheduler = schedulers()[number]
    scheduler.set_timesteps(10)
    times = scheduler_times(scheduler)
    assert times.shape == (10,)
    assert (np.diff(times) < 0).all()
    for i in (0, 4, 9):
        one, zero = torch.ones(1, 1), torch.zeros(1, 1)
        at = scheduler.timesteps[i : i + 1]
        if hasattr(scheduler, "add_noise"):
            signal = float(scheduler.add_noise(one, zero, at)[0, 0])
            noise = float(scheduler.add_noise(zero, one, at)[0, 0])
        else:
            noise = float(scheduler.sigmas[i])
            signal = 1 - noise
        expected = math.inf if signal == 0 else 0.5 * math.log1p((noise / signal) ** 2)
        assert times[i] == pytest.approx(expected, rel=1e-3)


def tiny_pipeline() -> Any:
    """A text-to-image pipeline with random weights that is given its prompt as numbers."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        layers_per_block=1,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    return StableDiffusionPipeline(vae, None, None, unet, scheduler, None, None, requires_safety_checker=False)


def test_a_pipeline_of_diffusers_is_guided_inside_the_interval() -> None:
    """What scale each step ran at, and the latents of a run that sets the same scales by hand."""
    import torch

    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    callback = INTERVAL.callback(5.0)
    scales: list[float] = []
    forward = pipeline.unet.forward

    def spied(*arguments: Any, **options: Any) -> Any:
        scales.append(pipeline.guidance_scale)
        return forward(*arguments, **options)

    pipeline.unet.forward = spied
    embedded = {name: torch.randn(1, 3, 8) for name in ("prompt_embeds", "negative_prompt_embeds")}
    common = {"num_inference_steps": 12, "output_type": "latent", **embedded}

    def run(**options: Any) -> torch.Tensor:
        return pipeline(generator=torch.Generator().manual_seed(1), **common, **options).images

    found = run(guidance_scale=callback.first, callback_on_step_end=callback)
    times = scheduler_times(pipeline.scheduler)
    assert scales == [5.0 if 0.5 <= t <= 1.5 else UNGUIDED for t in times]
    assert 0 < scales.count(5.0) < 12
    assert not torch.allclose(found, run(guidance_scale=5.0), atol=1e-4)
    assert not torch.allclose(found, run(guidance_scale=UNGUIDED), atol=1e-4)
    always = GuidanceInterval(0, math.inf).callback(5.0)
    assert torch.equal(run(guidance_scale=5.0), run(guidance_scale=always.first, callback_on_step_end=always))
    # A scale that changes nothing: what the prompt alone asks for, up to the last digits.
    never = GuidanceInterval(0, 1e-9).callback(5.0)
    nothing = run(guidance_scale=never.first, callback_on_step_end=never)
    assert torch.allclose(nothing, run(guidance_scale=1.0), atol=1e-3)


@pytest.mark.parametrize("interval", [INTERVAL, GuidanceInterval(0.0, math.inf)])
def test_an_interval_is_kept_as_json(interval: GuidanceInterval) -> None:
    said = interval.to_json()
    assert GuidanceInterval.from_json(said) == interval
    assert said["sigma"][0] == pytest.approx(math.sqrt(math.expm1(2 * interval.low)))  # type: ignore[index]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="low is below high"):
        GuidanceInterval(2.0, 1.0)
    with pytest.raises(UserError, match="a scale above 1"):
        INTERVAL.callback(1.0)
    with pytest.raises(UserError, match="has no guidance"):
        INTERVAL.callback(2.0)(object(), 0, 0, {})
    with pytest.raises(UserError, match="does not say how noisy"):
        scheduler_times(object())
    with pytest.raises(UserError, match="cannot be read"):
        read_interval(tmp_path / "none.json")
    file = tmp_path / "some.json"
    for text, said in (("[]", "holds no guidance"), ("{}", "is no guidance"), ('{"interval": 3}', "is no guidance")):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            read_interval(file)
    with pytest.raises(UserError, match="no interval of '4'"):
        read_interval(file, "4")
