"""Logits in an array of numpy, for models that compute outside of torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from blinkscope.engines.next_token import Largest

_SPREAD = 3  # groups of columns for each logit that is looked for


@dataclass(frozen=True, eq=False)
class ArrayLogits:
    """``Logits`` of shape (rows, vocabulary)."""

    values: Float[np.ndarray, "rows vocabulary"]

    @property
    def shape(self) -> tuple[int, int]:
        rows, vocabulary = self.values.shape
        return rows, vocabulary

    def of(self, rows: Int[np.ndarray, " picked"]) -> ArrayLogits:
        return ArrayLogits(self.values[rows])

    def largest(self, length: int) -> Largest:
        """Found among those that reach a bound, which at least ``length`` logits of their row do.

        Columns are dealt out to some groups; the bound is the ``length``-th largest of the groups' own largest logits.
        Comparing a whole row with one number is several times faster than partitioning it.
        """
        rows, vocabulary = self.values.shape
        ids = np.zeros((rows, length), dtype=np.int64)
        values = np.empty((rows, length))
        bounds = self._bounds(length)
        for row, logits in enumerate(self.values):
            top = logits.max()
            if not np.isfinite(top):
                values[row] = top
                continue
            found = np.flatnonzero(logits >= bounds[row]) if bounds is not None else np.arange(vocabulary)
            order = np.argsort(-logits[found], kind="stable")[:length]
            ids[row], values[row] = found[order], logits[found[order]]
        return Largest(ids, values)

    def _bounds(self, length: int) -> Float[np.ndarray, " rows"] | None:
        """A bound for each row; None where groups would be too small to be worth it."""
        rows, vocabulary = self.values.shape
        size = vocabulary // (_SPREAD * length)
        if size < 2:
            return None
        groups = vocabulary // size
        tops = self.values[:, : groups * size].reshape(rows, size, groups).max(axis=1)
        return np.partition(tops, groups - length, axis=1)[:, groups - length]

    def log_normalizer(self, largest: Float[np.ndarray, " rows"], temperature: float) -> Float[np.ndarray, " rows"]:
        # Row by row, so that what is in between stays in the processor's cache. Relative to the largest, so that the
        # logarithm is small and single precision is enough for it.
        sums = [
            np.exp((row - row.dtype.type(top)) / row.dtype.type(temperature)).sum(dtype=np.float64)
            for row, top in zip(self.values, largest, strict=True)
        ]
        return largest / temperature + np.log(sums)
