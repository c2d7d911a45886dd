"""Small networks that ship with the package: float32 safetensors beside a report of their training as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.outputs import Kind, check_file, check_folder, explained, written

NETWORK = Kind("weights", "safetensors file", re.compile(rb'(?s).{8}\{"'))
TRAINING = Kind("report of the training", "JSON object", re.compile(rb"\s*\{"))
HOME = resources.files("blinkscope.diffusion") / "weights"


@contextmanager
def seeded_training(seed: int) -> Iterator[None]:
    """torch with its random numbers fixed, and as they were before when the block ends.

    Raises
    ------
    MissingExtra : torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra("training", "diffusion") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def weights_digest(weights: str) -> str:
    """SHA-256 of the weights that ship with the package."""
    return hashlib.sha256((HOME / weights).read_bytes()).hexdigest()


def load_weights(networks: Mapping[str, Any], weights: str, report: str, folder: Path | None = None) -> dict[str, Any]:
    """Give networks their weights, from the package or from a folder; returns the report of their training.

    Parameters
    ----------
    networks : by the name that stands before the names of their tensors.
    weights, report : names of the two files.

    Raises
    ------
    UserError : a file is missing or is not what it should be.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    home = HOME if folder is None else folder
    try:
        tensors = load((home / weights).read_bytes())
        said: dict[str, Any] = json.loads((home / report).read_text(encoding="utf-8"))
        for name, network in networks.items():
            own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
            network.load_state_dict(own)
            network.eval()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the model in {home} cannot be read ({error}).") from None
    return said


def check_weights(weights: str, report: str, folder: Path) -> None:
    """Refuse, before anything is trained, a folder that the two files could not be written into.

    Raises
    ------
    UserError : the place is refused (``outputs.check_folder``, ``outputs.check_file``).
    """
    check_folder(folder, NETWORK.name, new=False)
    if folder.is_dir():
        check_file(folder / weights, NETWORK)
        check_file(folder / report, TRAINING)


def save_weights(networks: Mapping[str, Any], weights: str, said: Mapping[str, Any], report: str, folder: Path) -> None:
    """Write networks and the report of their training.

    Raises
    ------
    UserError, EngineError : as ``outputs.written``.
    """
    from safetensors.torch import save

    with explained(folder, NETWORK.name):
        folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value for name, network in networks.items() for key, value in network.state_dict().items()
    }
    with written(folder / weights, NETWORK) as file:
        file.write(save({key: value.contiguous() for key, value in tensors.items()}))
    with written(folder / report, TRAINING) as file:
        file.write((json.dumps(said, indent=2) + "\n").encode())
