"""Reading a text with a transformers model: log-probabilities and activations, some positions at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers.cache_utils import DynamicCache

from blinkscope.errors import EngineError

CHUNK = 256  # positions in one forward pass


@torch.inference_mode()
def log_probabilities(model: Any, ids: Sequence[int]) -> Float[np.ndarray, " n"]:
    """Log-probability of every token given those before it under the model's own law; NaN for the first."""
    found = np.full(len(ids), np.nan)
    cache = DynamicCache()
    for start in range(0, len(ids), CHUNK):
        stop = min(start + CHUNK, len(ids))
        logits = forward(model, ids[start:stop], start, cache).logits[0]
        said = ids[start + 1 : stop + 1]  # the logits at position i are those of token i + 1
        found[start + 1 : start + 1 + len(said)] = _said(logits[: len(said)], said)
    return found


@torch.inference_mode()
def mean_activation(
    model: Any, ids: Sequence[int], positions: Sequence[int], layer: int
) -> Float[np.ndarray, " width"]:
    """Mean of the residual stream after ``layer`` layers over ``positions``, in double precision."""
    wanted, cache = np.asarray(positions), DynamicCache()
    total: Any = 0.0
    for start in range(0, int(wanted.max()) + 1, CHUNK):
        stop = min(start + CHUNK, len(ids))
        states = forward(model, ids[start:stop], start, cache, output_hidden_states=True, logits_to_keep=1)
        inside = wanted[(wanted >= start) & (wanted < stop)] - start
        total = total + states.hidden_states[layer][0, inside.tolist()].double().sum(dim=0)
    return np.asarray((total / len(wanted)).cpu().numpy())


def follow(model: Any, ids: Sequence[int], tokens: Iterable[int]) -> Iterator[float]:
    """Log-probability of each token as it comes; the model takes a step only when the next token is there."""
    cache, place = DynamicCache(), 0
    waiting = list(ids)
    for token in tokens:
        for start in range(0, len(waiting), CHUNK):
            part = waiting[start : start + CHUNK]
            logits = _step(model, part, place, cache)
            place += len(part)
        yield float(_said(logits, [token])[0])
        waiting = [token]


@torch.inference_mode()
def _step(model: Any, ids: Sequence[int], place: int, cache: DynamicCache) -> torch.Tensor:
    logits: torch.Tensor = forward(model, ids, place, cache, logits_to_keep=1).logits[0]
    return logits


def forward(model: Any, ids: Sequence[int], place: int, cache: DynamicCache, **options: Any) -> Any:
    """The model's output for the ids that stand from ``place`` on, after those whose keys and values are cached."""
    device = model.device
    return model(
        input_ids=torch.tensor([list(ids)], device=device),
        position_ids=torch.arange(place, place + len(ids), device=device)[None],
        past_key_values=cache,
        use_cache=True,
        **options,
    )


def _said(logits: torch.Tensor, tokens: Sequence[int]) -> Float[np.ndarray, " rows"]:
    """Log-probabilities of one token in each row of logits."""
    logits = logits.float()
    # Relative to the largest, so that the logarithm is small and single precision is enough for it.
    above = logits - logits.max(dim=1, keepdim=True).values
    if bool(torch.isnan(above).any()):
        raise EngineError("the model returned logits that are not finite; try --dtype float32.")
    chosen = torch.tensor(list(tokens), device=logits.device)[:, None]
    return np.asarray((above.gather(1, chosen)[:, 0].double() - above.logsumexp(dim=1).double()).cpu().numpy())
