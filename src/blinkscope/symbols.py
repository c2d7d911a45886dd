"""Texts of symbols, as masked diffusion models make them: rows of whole numbers in which some places are hidden."""

from __future__ import annotations

from typing import Any

import numpy as np

HIDDEN = -1  # stands for a hidden symbol


def is_text(sample: np.ndarray[Any, Any]) -> bool:
    """Whether a sample is such a row, and no picture or point."""
    return sample.ndim == 1 and sample.dtype.kind == "i"


def spelled(text: np.ndarray[Any, Any]) -> str:
    """The numbers of a text's symbols, shape (length,), with ``_`` at hidden places."""
    return " ".join("_" if symbol == HIDDEN else str(symbol) for symbol in text.tolist())
