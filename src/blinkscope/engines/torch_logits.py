"""Logits in a tensor of torch, on any device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from blinkscope.engines.next_token import Largest

_CACHED = 2**18  # numbers that stay in a processor's cache


@dataclass(frozen=True, eq=False)
class TorchLogits:
    """``Logits`` of shape (rows, vocabulary)."""

    values: torch.Tensor

    @property
    def shape(self) -> tuple[int, int]:
        rows, vocabulary = self.values.shape
        return rows, vocabulary

    def of(self, rows: Int[np.ndarray, " picked"]) -> TorchLogits:
        return TorchLogits(self.values[torch.as_tensor(rows, device=self.values.device)])

    def largest(self, length: int) -> Largest:
        logits = self.values.float()
        if length < logits.shape[1]:
            values, ids = torch.topk(logits, length, dim=1)
        else:
            values, ids = torch.sort(logits, dim=1, descending=True)
        return Largest(ids.cpu().numpy(), values.double().cpu().numpy())

    def log_normalizer(self, largest: Float[np.ndarray, " rows"], temperature: float) -> Float[np.ndarray, " rows"]:
        logits = self.values.float()
        # A few rows at a time on a CPU: what is in between then stays in its cache, and no large memory is asked for.
        rows = max(1, _CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
        tops = torch.from_numpy(largest).to(logits.dtype).to(logits.device)[:, None]
        # Relative to the largest, so that the logarithm is small and single precision is enough for it.
        above = [
            torch.logsumexp((block - top) / temperature, dim=1)
            for block, top in zip(logits.split(rows), tops.split(rows), strict=True)
        ]
        return largest / temperature + torch.cat(above).double().cpu().numpy()
