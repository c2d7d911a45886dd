"""A transformers model that decodes many rows together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from blinkscope.engines.continuous_batch import Entry
from blinkscope.engines.key_values import KeyValues, RowKeyValues
from blinkscope.engines.torch_logits import TorchLogits
from blinkscope.language.engine import Path


class RowDecoder:
    """A ``Decoder``.

    Parameters
    ----------
    model : its own forward pass is called.
    prefix : keys and values of a path and its context.
    capacity : most rows at a time.
    """

    # Each method turns gradients off inside and leaves the caller's setting alone while its generator rests.

    def __init__(self, model: Any, prefix: Callable[[Path], KeyValues], capacity: int) -> None:
        self._model, self._prefix, self._capacity = model, prefix, capacity
        self._memory: RowKeyValues | None = None

    @torch.inference_mode()
    def put(self, entries: Sequence[Entry]) -> None:
        if self._memory is None:
            self._memory = RowKeyValues(self._prefix(entries[0].path), self._capacity)
        self._memory.reserve(max(entry.tokens for entry in entries))
        for entry in entries:
            self._memory.put(entry.place, self._prefix(entry.path), entry.tokens)

    @torch.inference_mode()
    def drop(self, place: int) -> None:
        assert self._memory is not None
        self._memory.drop(place)

    @torch.inference_mode()
    def step(self, fed: Sequence[int], wanted: Sequence[int]) -> TorchLogits:
        memory, device = self._memory, self._model.device
        assert memory is not None
        memory.reserve(0)
        view = memory.view()
        output = self._model(
            input_ids=torch.tensor(fed, device=device)[:, None],
            attention_mask=torch.from_numpy(view.mask).to(device),
            position_ids=torch.from_numpy(view.positions).to(device)[:, None],
            past_key_values=memory.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        memory.advance()
        logits = TorchLogits(output.logits[:, -1])
        return logits if len(wanted) == len(fed) else logits.of(np.array(wanted, dtype=np.int64))
