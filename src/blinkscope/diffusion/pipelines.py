"""Pipelines of diffusers as picture models: a denoising network, a scheduler and, for latents, an autoencoder.

    unet UNet2DModel                              draws pictures, or a class of pictures
    transformer DiTTransformer2DModel             draws a class
    unet UNet2DConditionModel + text encoder      draws what a prompt asks for

Guidance of scale w denoises with E[X | Y] + w (E[X | Y, condition] - E[X | Y]) (Ho and Salimans, "Classifier-free
diffusion guidance", 2022). That is the posterior mean of no law, so with w other than 1 the sampler is outside the
theory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from blinkscope.diffusion.autoencoder import Autoencoder, VariationalAutoencoder
from blinkscope.diffusion.denoisers import Pictures
from blinkscope.diffusion.gaussian import BATCH, GaussianDiffusion
from blinkscope.diffusion.guidance import EVERYWHERE
from blinkscope.diffusion.models import Parameters
from blinkscope.diffusion.pictures import PictureModel
from blinkscope.diffusion.schedulers import Network, noise_schedule
from blinkscope.errors import EngineError, UserError

BATCH_BYTES = 2**30  # memory for the activations of a batch, roughly
KEPT = 16  # feature maps of full size that a network holds at a time, roughly
NETWORKS = ("UNet2DModel", "UNet2DConditionModel", "DiTTransformer2DModel")


def pipeline_model(
    pipeline: Any,
    asked: Parameters | None = None,
    *,
    prompt: str | None = None,
    name: str = "a pipeline of diffusers",
    digest: str = "",
    batch_bytes: int | None = None,
) -> PictureModel:
    """A loaded pipeline as a model of pictures; its networks stay where they are, in the numbers that they have.

    Parameters
    ----------
    asked : number of steps, noise, class and guidance; the scheduler in the pipeline says which levels these are.
    prompt : of a text-to-image pipeline.
    batch_bytes : memory for a batch, roughly.

    Raises
    ------
    UserError : a network, scheduler or setting that makes no sense here.
    """
    asked = asked or Parameters()
    network = _network(pipeline)
    _check(network, asked, prompt)
    schedule = noise_schedule(pipeline.scheduler, asked.steps)
    sample, autoencoder = _shape(network), None
    memory = BATCH_BYTES if batch_bytes is None else batch_bytes
    if getattr(pipeline, "vae", None) is not None:
        autoencoder = _autoencoder(pipeline.vae, sample, memory)
    conditioned = _conditioned(pipeline, network, asked, prompt)
    guided = asked.guidance != 1
    denoise = schedule.denoiser(conditioned[0])
    if guided:
        denoise = EVERYWHERE.denoiser(denoise, schedule.denoiser(conditioned[1]), asked.guidance)
    diffusion = GaussianDiffusion(
        denoise,
        schedule.times,
        sample,
        asked.eta,
        asked.churn,
        evaluations=2 if guided else 1,
        caveat=f"guidance = {asked.guidance:g}: a guided denoiser is the posterior mean of no law" if guided else None,
        batch=_rows(network, sample, memory),
    )
    return PictureModel(name, diffusion, digest=digest, autoencoder=autoencoder, notes=schedule.notes, prompt=prompt)


def _network(pipeline: Any) -> Any:
    for part in ("unet", "transformer"):
        network = getattr(pipeline, part, None)
        if type(network).__name__ in NETWORKS:
            return network
        if network is not None:
            raise UserError(f"the {part} is a {type(network).__name__}; there are {', '.join(NETWORKS)}.")
    raise UserError(f"a {type(pipeline).__name__} has no unet and no transformer, so nothing that denoises.")


def _check(network: Any, asked: Parameters, prompt: str | None) -> None:
    """What is asked for is something that this network can do."""
    kind, classes = type(network).__name__, _classes(network)
    if kind == "UNet2DConditionModel":
        if prompt is None:
            raise UserError("this pipeline draws what a prompt asks for; give one, '' for none.")
        if network.config.addition_embed_type or network.config.class_embed_type:
            raise UserError("this pipeline's unet needs more than a prompt; such pipelines cannot be looked into yet.")
    elif prompt is not None:
        raise UserError("this pipeline takes no prompt; leave it out.")
    if classes is None and (asked.class_ is not None or asked.null is not None):
        raise UserError("this pipeline has no classes; leave class and null out.")
    if classes is not None and asked.class_ is None:
        raise UserError(f"this pipeline draws a class; say which one, from 0 to {classes - 1}, with ?class=0.")
    for what, number in (("class", asked.class_), ("null", asked.null)):
        if number is not None and classes is not None and not 0 <= number < classes:
            raise UserError(f"{what} is {number}; this pipeline knows the numbers from 0 to {classes - 1}.")
    if asked.guidance != 1 and classes is None and prompt is None:
        raise UserError("this pipeline has neither a class nor a prompt that it could be guided towards.")
    if asked.guidance != 1 and kind == "UNet2DModel" and asked.null is None:
        raise UserError("guidance needs the number that stands for no class; give it with null, for instance null=10.")
    if not math.isfinite(asked.guidance) or asked.guidance < 0:
        raise UserError(f"guidance is {asked.guidance:g}; it is a number from 0 on, and 1 is none.")


def _classes(network: Any) -> int | None:
    """How many class numbers the network knows, that for no class included; None where it draws no class."""
    if type(network).__name__ == "DiTTransformer2DModel":
        return int(network.config.num_embeds_ada_norm) + 1
    if type(network).__name__ == "UNet2DModel" and network.class_embedding is not None:
        if network.config.num_class_embeds is None:
            raise UserError(
                "the unet takes embeddings in place of class numbers; such pipelines cannot be looked into."
            )
        return int(network.config.num_class_embeds)
    return None


def _conditioned(pipeline: Any, network: Any, asked: Parameters, prompt: str | None) -> tuple[Network, Network]:
    """The network under the condition, and under none; they are the same where it takes no condition."""
    import torch

    if type(network).__name__ == "UNet2DConditionModel":
        with torch.inference_mode():
            wanted, none = pipeline.encode_prompt(prompt, network.device, 1, True)

        def of_text(embedding: Any) -> Network:
            return _called(network, lambda y, t: network(y, t, embedding.expand(len(y), -1, -1)))

        return of_text(wanted), of_text(none)

    def of_class(number: int | None) -> Network:
        if number is None:
            return _called(network, network)
        return _called(network, lambda y, t: network(y, t, class_labels=torch.full((len(y),), number, device=y.device)))

    null = asked.null
    if null is None and type(network).__name__ == "DiTTransformer2DModel":
        null = int(network.config.num_embeds_ada_norm)
    return of_class(asked.class_), of_class(null)


def _called(network: Any, call: Callable[[Any, Any], Any]) -> Network:
    """A network of torch as a function of arrays.

    One that predicts its variances too answers with twice the channels; the first half is the prediction.
    """
    import torch

    def of_arrays(y: Pictures, time: float) -> Pictures:
        given = torch.from_numpy(np.asarray(y, dtype=np.float32)).to(network.device, network.dtype)
        times = torch.full((len(y),), time, device=network.device)
        try:
            with torch.inference_mode():
                answer = call(given, times).sample[:, : network.config.in_channels]
            return np.asarray(answer.float().cpu().numpy())
        except torch.OutOfMemoryError as error:
            raise EngineError(
                f"{len(y)} pictures at a time do not fit into the memory of {network.device}; give --batch-bytes."
            ) from error

    return of_arrays


def _shape(network: Any) -> tuple[int, ...]:
    """Of one sample."""
    config = network.config
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise UserError(
            f"the network is given {config.in_channels} channels and answers with {config.out_channels}; one that is "
            "given more than a noised picture cannot be looked into."
        )
    size = config.sample_size
    if size is None:
        raise UserError("the network's config.json does not say how large its pictures are (sample_size).")
    height, width = (size, size) if isinstance(size, int) else size
    return int(config.in_channels), int(height), int(width)


def _autoencoder(vae: Any, sample: tuple[int, ...], memory: int) -> Autoencoder:
    if type(vae).__name__ != "AutoencoderKL":
        raise UserError(f"the vae is a {type(vae).__name__}; only AutoencoderKL can be read.")
    config = vae.config
    if config.latent_channels != sample[0]:
        raise UserError(f"the vae has {config.latent_channels} latent channels and the network {sample[0]}.")
    larger = 2 ** (len(config.block_out_channels) - 1)
    picture = (int(config.out_channels), sample[1] * larger, sample[2] * larger)
    return VariationalAutoencoder(vae, picture, _rows(vae, picture, memory))


def _rows(network: Any, shape: tuple[int, ...], memory: int) -> int:
    """How many pictures a network works on at a time within so many bytes, roughly."""
    config = network.config
    widest = config.get("block_out_channels") or [config.num_attention_heads * config.attention_head_dim]
    return int(np.clip(memory // (4 * KEPT * widest[0] * shape[1] * shape[2]), 1, BATCH))
