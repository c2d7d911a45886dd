"""Which weights are read: safetensors, whose reading runs no code that comes with them."""

from __future__ import annotations

from pathlib import Path

from blinkscope.errors import UserError


def need_safetensors(folder: Path) -> None:
    """Refuse a folder that holds pickled weights only."""
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            f"the folder {folder} holds no .safetensors file; other weights are refused, because loading them "
            "can run code that comes with them."
        )
