"""A matplotlib figure in a file; the ending of its name says which format."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.outputs import Kind, check_file, written

BEGINNINGS = {".svg": rb"\s*(<\?xml|<svg)", ".png": rb"\x89PNG", ".pdf": rb"%PDF"}


def check_figure(path: Path) -> Path:
    """Refuse, before any work, a figure that could not be written.

    Raises
    ------
    MissingExtra : matplotlib is not installed.
    UserError : the name's ending is no format, or the place is refused (``outputs.check_file``).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("--plot", "plot") from None
    if path.suffix.removeprefix(".") not in Figure().canvas.get_supported_filetypes():
        raise UserError(f"a figure cannot be written to {path}; its name must end in .svg, .png or .pdf.")
    return check_file(path, _kind(path))


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure whole or not at all. An equal figure gives the same SVG, byte for byte; its text stays text.

    Raises
    ------
    UserError, EngineError : as ``outputs.written``.
    """
    from matplotlib import rc_context

    drawn = io.BytesIO()
    stamp = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "blinkscope"}):
        figure.savefig(drawn, format=path.suffix.removeprefix("."), dpi=150, metadata=stamp)
    with written(path, _kind(path)) as file:
        file.write(drawn.getbuffer())


def _kind(path: Path) -> Kind:
    begins = BEGINNINGS.get(path.suffix)
    return Kind("figure", f"{path.suffix[1:].upper()} file", None if begins is None else re.compile(begins))
