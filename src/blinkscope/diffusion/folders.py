"""``diffusers:FOLDER``: a pipeline that diffusers saved, read with care.

A folder may come from a stranger, so what it says is looked at before diffusers reads it: every part that is needed is
there, is of a class that is known, and has its weights as safetensors. Code in a folder is never run, and pickled
weights are read only where that is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blinkscope.diffusion.models import Parameters
from blinkscope.diffusion.pictures import PictureModel
from blinkscope.errors import MissingExtra, UserError

SCHEME = "diffusers:"
INDEX = "model_index.json"
ALLOWED = ("steps", "eta", "churn", "class", "null", "guidance")
NEEDED = ("unet", "transformer", "scheduler", "vae", "text_encoder", "tokenizer")
"""Parts that are read; a folder has some of them."""
LARGEST_CONFIG = 1_000_000  # bytes of a JSON file
WITH_WEIGHTS = ("unet", "transformer", "vae", "text_encoder")
CONFIGS = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}
_HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


@dataclass(frozen=True)
class Loading:
    """How a pipeline is loaded.

    device, dtype: of torch; None leaves them as they are.
    allow_pickle: read pickled weights too. They are opened by ``torch.load`` with ``weights_only``.
    batch_bytes: memory for a batch, roughly.
    """

    device: Any = None
    dtype: Any = None
    allow_pickle: bool = False
    batch_bytes: int | None = None


def open_pipeline(spec: str, prompt: str | None = None, loading: Loading | None = None) -> PictureModel:
    """The model that ``diffusers:FOLDER?key=value``, or a name on the Hugging Face hub in its place, names.

    Raises
    ------
    UserError : no such folder or name, a part that is missing or of an unknown class, pickled weights, a parameter that
        makes no sense.
    MissingExtra : a package that it needs is not installed.
    """
    place, _, query = spec.removeprefix(SCHEME).partition("?")
    loading = loading or Loading()
    asked = Parameters.read(SCHEME + place, query, ALLOWED)
    try:
        import diffusers
    except ImportError as error:
        raise MissingExtra("a pipeline of diffusers", "diffusion") from error
    from blinkscope.diffusion.pipelines import pipeline_model

    with _quiet(diffusers):
        folder = _folder(diffusers, place, loading)
        parts = check_folder(folder, allow_pickle=loading.allow_pickle)
        pipeline = _load(diffusers, folder, parts, loading)
    return pipeline_model(
        pipeline,
        asked,
        prompt=prompt,
        name=_spelled(place, asked),
        digest=_digest(folder, parts),
        batch_bytes=loading.batch_bytes,
    )


def check_folder(folder: Path, *, allow_pickle: bool = False) -> Mapping[str, str]:
    """The parts of a folder that are needed, with the names of their classes, all of them there.

    Raises
    ------
    UserError : the folder is no pipeline's, lacks a part or its weights, or brings code or pickled weights.
    """
    index = _json(folder / INDEX, f"{folder} holds no pipeline of diffusers: there is no {INDEX} in it.")
    if not isinstance(index.get("_class_name"), str):
        raise UserError(f"{folder / INDEX} names code of its own as the pipeline; code from a folder is never run.")
    parts = {}
    for name in NEEDED:
        entry = index.get(name)
        if entry is None or entry == [None, None]:
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and entry[0] in ("diffusers", "transformers")):
            raise UserError(f"{folder / INDEX} says that the {name} is {entry!r}, which is no class of diffusers.")
        parts[name] = str(entry[1])
    if "scheduler" not in parts or not {"unet", "transformer"} & parts.keys():
        raise UserError(f"{folder / INDEX} names no scheduler, or neither a unet nor a transformer: nothing denoises.")
    for name in parts:
        _check_part(folder / name, name, allow_pickle)
    return parts


def _check_part(part: Path, name: str, allow_pickle: bool) -> None:
    if not part.is_dir():
        raise UserError(f"the pipeline in {part.parent} lacks a part: there is no folder {part}.")
    config = part / CONFIGS.get(name, "config.json")
    if not config.is_file():
        raise UserError(f"the pipeline in {part.parent} lacks a part: there is no file {config}.")
    if name not in WITH_WEIGHTS or any(part.glob("*.safetensors")):
        return
    if not any(part.glob("*.bin")):
        raise UserError(f"the pipeline in {part.parent} lacks a part: there are no weights (.safetensors) in {part}.")
    if not allow_pickle:
        raise UserError(
            f"the weights in {part} are pickled, and loading such a file can run code that it brings; have them saved "
            "as .safetensors, or give --allow-pickle where you trust the file."
        )


def _json(path: Path, missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(missing)
    if path.stat().st_size > LARGEST_CONFIG:
        raise UserError(f"{path} has more than {LARGEST_CONFIG:,} bytes; that is no configuration.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON ({error}).") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object.")
    return content


def _folder(diffusers: Any, place: str, loading: Loading) -> Path:
    """The folder that is named, or that of a pipeline on the hub, fetched where it is not there yet."""
    path = Path(place).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise UserError(f"{place} is a file; give the folder of a pipeline.")
    if not _HUB_NAME.fullmatch(place):
        raise UserError(f"there is no folder {place!r}; give the folder of a pipeline, or a name on the hub, ORG/NAME.")
    try:
        found = diffusers.DiffusionPipeline.download(place, use_safetensors=None if loading.allow_pickle else True)
    except Exception as error:  # no network, no such name, no safetensors: every layer below says so in its own way
        raise UserError(
            f"there is no folder {place} here, and no pipeline of that name with safetensors could be fetched from the "
            f"Hugging Face hub ({_reason(error)})."
        ) from error
    return Path(found)


def _load(diffusers: Any, folder: Path, parts: Mapping[str, str], loading: Loading) -> Any:
    index = _json(folder / INDEX, "")
    left_out: dict[str, Any] = {name: None for name in index if not name.startswith("_") and name not in parts}
    if "requires_safety_checker" in index:
        left_out["requires_safety_checker"] = False
    numbers = {} if loading.dtype is None else {"torch_dtype": loading.dtype}
    try:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            str(folder),
            use_safetensors=None if loading.allow_pickle else True,
            local_files_only=True,
            **numbers,
            **left_out,
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, ImportError) as error:
        raise UserError(f"the pipeline in {folder} cannot be read: {_reason(error)}.") from error
    return pipeline if loading.device is None else pipeline.to(loading.device)


@contextlib.contextmanager
def _quiet(diffusers: Any) -> Iterator[None]:
    """Keep notices and progress bars of diffusers from the terminal; what fails is raised as ever."""
    log = diffusers.utils.logging
    level = log.get_verbosity()
    log.set_verbosity(log.CRITICAL)  # it also logs what it then raises, or gets over
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        log.enable_progress_bar()


def _spelled(place: str, asked: Parameters) -> str:
    said = {
        "steps": asked.steps,
        "eta": f"{asked.eta:g}",
        "churn": f"{asked.churn:g}" if asked.churn else None,
        "class": asked.class_,
        "null": asked.null,
        "guidance": f"{asked.guidance:g}" if asked.guidance != 1 else None,
    }
    return f"{SCHEME}{place}?" + "&".join(f"{key}={value}" for key, value in said.items() if value is not None)


def _digest(folder: Path, parts: Mapping[str, str]) -> str:
    """Of every file of the parts, so that changed weights under the same name are noticed."""
    total = hashlib.sha256()
    for name in sorted(parts):
        for path in sorted((folder / name).iterdir()):
            if path.is_file():
                total.update(f"{name}/{path.name}\0".encode())
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
