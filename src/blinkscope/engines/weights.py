"""Which weights are read, and how those in files are told from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from blinkscope.errors import UserError

WEIGHTS = ".safetensors"
"""Reading these runs no code that comes with them."""
READ = (WEIGHTS, ".json", ".jinja", ".model", ".txt")
"""What is read of a folder: weights, settings, tokenizer and chat template."""
PIECES, PIECE = 256, 1 << 16
"""How many pieces of weights a digest reads, and their bytes."""


class OfFiles:
    """How run files know an engine of weights in files: under the name that it was given (``Stored``)."""

    _name: str
    _digest: str

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._name

    @property
    def digest(self) -> str:
        return self._digest


def need_safetensors(folder: Path) -> None:
    """Refuse a folder that holds pickled weights only."""
    if not any(folder.glob(f"*{WEIGHTS}")):
        raise UserError(
            f"the folder {folder} holds no .safetensors file; other weights are refused, because loading them "
            "can run code that comes with them."
        )


def file_digest(file: Path, pieces: int | None = None) -> str:
    """SHA-256 of a file's size and of pieces spread over all of it, 16 MiB at most by default, so that it is cheap."""
    size = file.stat().st_size
    total = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        for place in range(0, size, max(PIECE, size // (pieces or PIECES))):
            opened.seek(place)
            total.update(opened.read(PIECE))
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """SHA-256 of the files of a model's folder by name: weights in pieces, 16 MiB of all of them, the others whole."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix in READ)
    share = max(1, PIECES // max(1, sum(file.suffix == WEIGHTS for file in files)))
    total = hashlib.sha256()
    for file in files:
        pieces = share if file.suffix == WEIGHTS else file.stat().st_size // PIECE + 1
        total.update(f"{file.name}\0{file_digest(file, pieces)}\0".encode())
    return total.hexdigest()


def local_digest(source: str) -> str:
    """Of the file or the folder that a spelling names; empty where it names neither."""
    path = Path(source).expanduser()
    return file_digest(path) if path.is_file() else folder_digest(path) if path.is_dir() else ""
