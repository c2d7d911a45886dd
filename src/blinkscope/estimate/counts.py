"""Draws as counts, with the most frequent labels kept apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from blinkscope.estimate.source import Draw
from blinkscope.feature import OTHER


def kept_labels(final_label: str, pilot: Sequence[Draw], later: Sequence[Draw], limit: int) -> tuple[str, ...]:
    """The labels that are kept apart, ``limit`` at most, and ``(other)`` where more were seen.

    The pilot's labels come first, by how often they occurred there; labels that turn up later fill what room is left,
    in the order of their appearance, so that no label is ever dropped again. The final label is always kept.
    """
    frequency = Counter(draw.label for draw in pilot)
    ranked = sorted(frequency, key=lambda label: (-frequency[label], label))
    found = dict.fromkeys([*ranked, *(draw.label for draw in later)])
    found.pop(final_label, None)
    others = list(found)
    kept = others[: limit - 1]
    position = sum(1 for label in kept if frequency[label] > frequency[final_label])
    kept.insert(position, final_label)
    return (*kept, OTHER) if len(others) > limit - 1 else tuple(kept)


def count(
    draws: Sequence[Draw], labels: tuple[str, ...], keys: Sequence[int]
) -> Int[np.ndarray, "strata halves labels"]:
    """How often each label came out of each half of each stratum."""
    size = 2 * len(labels)
    row = {key: i * size for i, key in enumerate(keys)}
    column = {label: i for i, label in enumerate(labels)}
    other, width = len(labels) - 1, len(labels)
    place = [row[d.stratum] + (d.replicate % 2) * width + column.get(d.label, other) for d in draws]
    return np.bincount(np.asarray(place, dtype=np.int64), minlength=len(keys) * size).reshape(len(keys), 2, width)
