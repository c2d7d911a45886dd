"""Pipelines of diffusers with random weights of a few thousand numbers, saved as ``save_pretrained`` saves any."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

SIDE = 8  # pixels of a picture, or of latents


def unet(classes: int | None = None, channels: int = 3, out_channels: int | None = None) -> Any:
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIDE,
        in_channels=channels,
        out_channels=out_channels or channels,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        attention_head_dim=4,
        num_class_embeds=classes,
    ).eval()


def autoencoder() -> Any:
    from diffusers import AutoencoderKL

    torch.manual_seed(1)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * SIDE,
    ).eval()


def unconditional(scheduler: Any = None) -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler

    return DDPMPipeline(unet(), scheduler or DDPMScheduler())


def of_classes() -> Any:
    """Four classes, the last of which stands for none."""
    from diffusers import DDIMPipeline, DDIMScheduler

    return DDIMPipeline(unet(classes=4), DDIMScheduler())


def transformer() -> Any:
    """Latents of three classes; the network predicts its variances too."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(2)
    network = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=4,
        in_channels=4,
        out_channels=8,
        num_layers=1,
        sample_size=SIDE,
        patch_size=4,
        num_embeds_ada_norm=3,
    ).eval()
    # A fresh one answers with zeros whatever it is asked.
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(0, 0.3)
    return DiTPipeline(network, autoencoder(), DDIMScheduler(clip_sample=False))


def stable_diffusion() -> Any:
    from diffusers import PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(3)
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters])}
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=12,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    network = UNet2DConditionModel(
        sample_size=SIDE,
        layers_per_block=1,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    return StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=text_encoder.eval(),
        tokenizer=CLIPTokenizer(vocab=words, merges=[], model_max_length=12),
        unet=network.eval(),
        scheduler=PNDMScheduler(skip_prk_steps=True, beta_schedule="scaled_linear", beta_end=0.012, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


KINDS = {
    "unconditional": unconditional,
    "of_classes": of_classes,
    "transformer": transformer,
    "stable_diffusion": stable_diffusion,
}


def save_all(folder: Path) -> Path:
    """One folder of each kind."""
    for name, make in KINDS.items():
        make().save_pretrained(folder / name)
    return folder
