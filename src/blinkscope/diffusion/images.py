"""A user's picture file as the array that a model makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.diffusion.record import Samples
from blinkscope.errors import MissingExtra, UserError

LARGEST_FILE = 100_000_000  # bytes


def read_image(path: Path, shape: tuple[int, ...]) -> Samples:
    """The picture in a file, pixels in [-1, 1].

    A ``.npy`` file holds the array itself. Any other is read as an image of height x width pixels, grey for one channel
    and RGB for three, black at -1 and white at 1.

    Raises
    ------
    UserError : the file cannot be read, or holds a picture of another size than the model makes.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes; that is no single picture.")
        return _array(path, shape) if path.suffix == ".npy" else _pixels(path, shape)
    except OSError as error:
        raise UserError(f"the picture {path} cannot be read: {error.strerror or error}.") from None


def _array(path: Path, shape: tuple[int, ...]) -> Samples:
    try:
        array: Samples = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} holds no array of numbers ({error}).") from None
    if not isinstance(array, np.ndarray) or array.shape != shape:
        found = getattr(array, "shape", "several arrays")
        raise UserError(f"the picture in {path} is of shape {found}; the model makes pictures of shape {shape}.")
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all() or np.abs(array).max() > 1:
        raise UserError(f"the picture in {path} has values outside [-1, 1]; scale it first.")
    return array


def _pixels(path: Path, shape: tuple[int, ...]) -> Samples:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtra("reading image files", "diffusion") from error
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"the model makes arrays of shape {shape}, no images; give the array as a .npy file.")
    try:
        image: Any = Image.open(path)
        if image.size != (shape[2], shape[1]):
            raise UserError(
                f"the picture in {path} has {image.width} x {image.height} pixels; the model makes pictures of "
                f"{shape[2]} x {shape[1]}."
            )
        grid = np.asarray(image.convert("L" if shape[0] == 1 else "RGB"), dtype=float)
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no image that can be read ({error}).") from None
    return np.asarray(grid.reshape(shape[1], shape[2], shape[0]).transpose(2, 0, 1) / 127.5 - 1)
