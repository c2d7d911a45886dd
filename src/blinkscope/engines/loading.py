"""Reading transformers models: from safetensors or GGUF, on a device, in a number format, without noise."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers

from blinkscope.engines.weights import need_safetensors
from blinkscope.errors import EngineError, UserError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Placement:
    """Where a model computes, and with what numbers: ``"auto"`` keeps those of the checkpoint."""

    device: torch.device
    dtype: torch.dtype | str

    @classmethod
    def of(cls, device: str, dtype: str) -> Placement:
        """Read ``--device`` and ``--dtype``: ``auto`` takes a CUDA device where there is one, and float32 elsewhere."""
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            place = torch.device(device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {device!r} cannot be used here; choose auto, cpu or cuda.") from error
        if dtype == "auto":
            return cls(place, "auto" if place.type == "cuda" else torch.float32)
        if dtype not in _DTYPES:
            raise UserError(f"dtype is {dtype!r}; choose auto, {', '.join(_DTYPES)}.")
        return cls(place, _DTYPES[dtype])


@dataclass(frozen=True)
class Loaded:
    """A model, in evaluation mode on its device, and its tokenizer."""

    model: Any
    tokenizer: Any


def load(source: str, placement: Placement) -> Loaded:
    """Load a folder, a ``.gguf`` file or a name on the Hugging Face hub.

    Weights are read from safetensors or GGUF only, and code that comes with them is never run.

    Raises
    ------
    UserError
        Where there is no such thing, where it holds pickled weights only, or where weights are missing from it.
    """
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UserError(f"there is no file {source}.")
        return _read(str(path.parent), placement, gguf_file=path.name, local_files_only=True)
    if path.is_dir():
        need_safetensors(path)
        return _read(str(path), placement, use_safetensors=True, local_files_only=True)
    if not _HUB_NAME.fullmatch(source):
        raise UserError(f"there is no folder {source}.")
    return _from_hub(source, placement)


def _read(place: str, placement: Placement, **how: Any) -> Loaded:
    shared = {key: value for key, value in how.items() if key != "use_safetensors"}
    with quiet(stderr="gguf_file" in how):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False, **shared)
            auto: Any = transformers.AutoModelForCausalLM
            model, report = auto.from_pretrained(
                place, dtype=placement.dtype, trust_remote_code=False, output_loading_info=True, **how
            )
        except torch.OutOfMemoryError as error:
            raise EngineError(f"{place} does not fit into the memory of {placement.device}.") from error
        except Exception as error:
            # What the library of tokenizers raises is of no class of its own.
            if not isinstance(error, (OSError, ValueError, KeyError)) and type(error) is not Exception:
                raise
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{place} cannot be read as a causal language model: {reason}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"{place} lacks {len(missing)} of the model's weights, {missing[0]} among them.")
    return Loaded(model.to(placement.device).eval(), tokenizer)


def _from_hub(name: str, placement: Placement) -> Loaded:
    """A model by its name: asked for where there is a network, else from the hub's cache on this machine."""
    try:
        # Asking first takes a second; the loaders would try each file of a missing model again and again.
        huggingface_hub.HfApi().model_info(name, timeout=10)
    except huggingface_hub.errors.RepositoryNotFoundError as error:
        raise UserError(
            f"there is no folder {name} here and no model {name} on the Hugging Face hub that may be read "
            "without a login; check the spelling, ORG/NAME."
        ) from error
    except Exception as error:  # no network, and every HTTP library says so in its own way
        if isinstance(huggingface_hub.try_to_load_from_cache(name, "config.json"), str):
            return _read(name, placement, use_safetensors=True, local_files_only=True)
        raise UserError(
            f"there is no folder {name} here, and the Hugging Face hub cannot be reached; give a folder or a "
            ".gguf file, or try again where there is a network."
        ) from error
    return _read(name, placement, use_safetensors=True)


@contextlib.contextmanager
def quiet(*, stderr: bool = False) -> Iterator[None]:
    """Keep transformers' notices and progress bars from the terminal; errors are raised as ever.

    stderr: also hold back what is written there directly, as the GGUF reader's progress bar is.
    """
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()) if stderr else contextlib.nullcontext():
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
