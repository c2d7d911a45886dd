"""Digits: two networks trained here, on real pictures, and shipped with the package.

No small pretrained diffusion model can be had as a package, so the project trains one on scikit-learn's handwritten
digits (1,797 scans of 8x8 pixels, ten classes): a UNet of 0.35 million parameters that predicts the velocity (see
``denoisers.py``) and is told the angle phi = arctan(sigma), and a classifier of 0.04 million that reads labels. The
UNet is trained with the class given half of the time and hidden otherwise, so it samples with and without a class.
``train_digits.py`` makes both again.

Pixels run from -1 (paper) to 1 (ink). Source of the data: E. Alpaydin and C. Kaynak, "Optical recognition of
handwritten digits", UCI machine learning repository, 1998, as shipped by scikit-learn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.denoisers import Denoiser, denoiser_of
from blinkscope.diffusion.shipped import check_weights, load_weights, save_weights
from blinkscope.errors import MissingExtra, UserError
from blinkscope.processes import sigma_from_ou_time

SHAPE = (1, 8, 8)
LABELS = tuple(str(digit) for digit in range(10))
NO_CLASS = len(LABELS)  # what the network is told where the class is hidden
TESTED = 360  # scans that neither network is trained on
WEIGHTS, REPORT = "digits.safetensors", "digits.json"


@dataclass(frozen=True, eq=False)
class Scans:
    """Pictures with their digits; pixels in [-1, 1], shape (n, 1, 8, 8)."""

    pictures: Float[np.ndarray, "n 1 8 8"]
    digits: Int[np.ndarray, " n"]


def load_scans() -> tuple[Scans, Scans]:
    """The scans that are trained on and those that are not, split at random once and for all."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtra("reading the scans of digits", "diffusion") from error
    data = load_digits()
    pictures = (data.images / 8 - 1).astype(np.float32)[:, None]
    order = np.random.default_rng(0).permutation(len(pictures))
    kept, tested = order[TESTED:], order[:TESTED]
    return Scans(pictures[kept], data.target[kept]), Scans(pictures[tested], data.target[tested])


@dataclass(frozen=True, eq=False)
class Digits:
    """The two networks, ready to use, and the report of their training."""

    unet: Any
    classifier: Any
    report: dict[str, Any]

    def denoiser(self, digit: int | None = None) -> Denoiser:
        """E[X | Y_t] of the network: of all digits, or of one class."""
        if digit is not None and not 0 <= digit < NO_CLASS:
            raise UserError(f"there is no digit {digit}; choose one from 0 to 9.")
        import torch

        told = NO_CLASS if digit is None else digit

        def velocity(y: Float[np.ndarray, "n 1 8 8"], t: float) -> Float[np.ndarray, "n 1 8 8"]:
            steps = torch.full((len(y),), network_time(t))
            classes = torch.full((len(y),), told)
            with torch.inference_mode():
                out = self.unet(torch.from_numpy(np.asarray(y, dtype=np.float32)), steps, classes).sample
            return np.asarray(out.numpy())

        return denoiser_of(velocity, "v")

    def probabilities(self, pictures: Float[np.ndarray, "n 1 8 8"]) -> Float[np.ndarray, "n 10"]:
        """What the classifier makes of each picture."""
        import torch

        with torch.inference_mode():
            scores = self.classifier(torch.from_numpy(np.asarray(pictures, dtype=np.float32)))
            return np.asarray(scores.softmax(dim=1).numpy())

    def label(self, pictures: Float[np.ndarray, "n 1 8 8"]) -> list[str]:
        """The most probable digit of each picture."""
        return [LABELS[k] for k in self.probabilities(pictures).argmax(axis=1)]


def network_time(t: float) -> float:
    """What the UNet is told for OU time t: its angle arctan(sigma) as a share of pi / 2, times 1000."""
    return 1000 * math.atan(sigma_from_ou_time(t)) / (math.pi / 2)


def new_networks() -> tuple[Any, Any]:
    """The two networks before training, as torch's global random numbers make them."""
    try:
        from diffusers import UNet2DModel
        from torch import nn
    except ImportError as error:
        raise MissingExtra("the digits model", "diffusion") from error
    unet = UNet2DModel(
        sample_size=SHAPE[1],
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(32, 40),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=8,
        num_class_embeds=NO_CLASS + 1,
    )
    classifier = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 64),
        nn.ReLU(),
        nn.Linear(64, len(LABELS)),
    )
    return unet, classifier


def load_digits_model(folder: Path | None = None) -> Digits:
    """The networks that ship with the package, or those that ``blinkscope train digits`` wrote to a folder."""
    unet, classifier = new_networks()
    report = load_weights({"unet": unet, "classifier": classifier}, WEIGHTS, REPORT, folder)
    return Digits(unet, classifier, report)


def check_digits_folder(folder: Path) -> None:
    """Refuse a folder that ``save_digits_model`` could not write into (``shipped.check_weights``)."""
    check_weights(WEIGHTS, REPORT, folder)


def save_digits_model(folder: Path, model: Digits) -> None:
    """Write the networks and their report, the weights as float32 safetensors."""
    save_weights({"unet": model.unet, "classifier": model.classifier}, WEIGHTS, model.report, REPORT, folder)
