"""What a model asks of the machine that works with it: a GPU, a processor, or only the way to its server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from blinkscope.engines import SCHEMES
from blinkscope.engines.servers.address import one_each, read_keys

Needs = Literal["server", "gpu", "processor"]


def needs_of(model: str, device: str = "auto") -> Needs:
    """What a model of that spelling computes on: its server, a GPU where there is one, or a processor alone."""
    scheme = model.partition(":")[0]
    if scheme in ("http", "https"):
        return "server"
    # What is no language model draws pictures.
    on_gpu = scheme not in SCHEMES or not {"torch", "vllm"}.isdisjoint(SCHEMES[scheme].packages)
    return "gpu" if on_gpu and device != "cpu" else "processor"


def batched(model: str) -> bool:
    """Whether a model keeps batches of keys and values whose size can be set."""
    scheme = model.partition(":")[0]
    return scheme in SCHEMES and "torch" in SCHEMES[scheme].packages


def servers_of(model: str) -> tuple[str, ...]:
    """The spelling of each server alone that a model's spelling names."""
    return one_each(model)


def keys_named_by(spellings: Iterable[str]) -> dict[str, str]:
    """The keys that this process has for the hosts that stand in spellings of models."""
    texts = [text for text in spellings if "://" in text]
    return (
        {host: key for host, key in read_keys().items() if any(f"//{host}" in text for text in texts)} if texts else {}
    )


def items_at_once(*engines: Any) -> int:
    """How many items of a study may be worked on at a time, from as many threads, with all of these engines."""
    return min(getattr(engine, "items_at_once", 1) for engine in engines if engine is not None)
