"""Between a model's samples and pictures, where the two differ: the latents of an autoencoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from blinkscope.diffusion.record import Samples


class Autoencoder(Protocol):
    """Pictures have pixels in [-1, 1]; samples are what the network denoises."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one picture: (channels, height, width)."""
        ...

    def encode(self, picture: Samples) -> Samples:
        """The sample of one picture."""
        ...

    def decode(self, samples: Samples) -> Samples:
        """The pictures of n samples, finished or noisy."""
        ...


@dataclass(frozen=True, eq=False)
class VariationalAutoencoder:
    """``AutoencoderKL`` of diffusers: a latent is (mean - shift) * scale of what its encoder makes of a picture.

    Rombach and others, "High-resolution image synthesis with latent diffusion models", CVPR 2022.

    batch: most pictures at a time.
    """

    network: Any
    shape: tuple[int, ...]
    batch: int

    def encode(self, picture: Samples) -> Samples:
        import torch

        with torch.inference_mode():
            mean = self.network.encode(self._tensor(picture[None])).latent_dist.mode()
        return np.asarray((mean.float().cpu().numpy()[0] - self._shift) * self._scale)

    def decode(self, samples: Samples) -> Samples:
        import torch

        out = []
        for start in range(0, len(samples), self.batch):
            with torch.inference_mode():
                given = self._tensor(samples[start : start + self.batch] / self._scale + self._shift)
                out.append(self.network.decode(given).sample.float().cpu().numpy())
        return np.clip(np.concatenate(out), -1, 1)

    @property
    def _scale(self) -> float:
        return float(self.network.config.scaling_factor)

    @property
    def _shift(self) -> float:
        return float(self.network.config.get("shift_factor") or 0.0)

    def _tensor(self, array: Samples) -> Any:
        import torch

        return torch.from_numpy(np.asarray(array, dtype=np.float32)).to(self.network.device, self.network.dtype)
