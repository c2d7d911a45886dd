"""Keys and values: of one path, kept to be sliced; and of many rows that decode together.

A row is one continuation. Rows stand right-aligned in columns: the newest token of every row is in the same column,
and older tokens are in the columns to its left, so that one step writes one column whatever the rows' lengths.

    column    begin                 end
    row 0       .  .  a  b  c  d  e          a row's first token is in column ``starts[row]``;
    row 1       a  b  c  d  e  f  g          what lies to the left of it is masked
    row 2       .  .  .  .  .  a  b

A row that leaves is overwritten by a waiting one or by the last one; nothing else is copied, except every ``ROOM``
steps, when the columns in use are moved to fresh storage. Because the distance of two columns is the distance of two
tokens, sliding windows and position biases of a model's own attention stay right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

ROOM = 64  # columns kept free for new tokens; moving everything once in so many steps costs next to nothing

# Layers whose state after s tokens is the first s columns of their state after more. A recurrent state is not.
_SLICEABLE = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}


@dataclass(frozen=True, eq=False)
class KeyValues:
    """What every layer remembers of one token sequence; each tensor has the shape (1, heads, tokens, width).

    Layers that borrow another layer's keys and values have None.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor] | None, ...]

    @classmethod
    def of(cls, cache: Cache) -> KeyValues:
        layers: list[Any] = cache.layers
        return cls(tuple((x.keys, x.values) if x.is_initialized else None for x in layers))

    @property
    def bytes_per_token(self) -> int:
        return sum(
            x.element_size() * x.shape[1] * x.shape[3] for layer in self.layers if layer is not None for x in layer
        )

    @property
    def tokens(self) -> int:
        return next(layer[0].shape[2] for layer in self.layers if layer is not None)


def can_slice(model: Any) -> bool:
    """Whether a model's memory of a prefix can be cut out of its memory of a longer text."""
    layers = DynamicCache(config=model.config).layers
    return not model._is_stateful and all(type(layer).__name__ in _SLICEABLE for layer in layers)


@dataclass
class _Columns:
    """Which part of the storage is in use; one object shared by all layers."""

    rows: int = 0
    begin: int = 0
    end: int = 0


class _RowLayer(DynamicLayer):
    """One layer's storage, in the form in which a model's attention asks for it."""

    def __init__(self, columns: _Columns, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.columns = columns
        self.storage = [keys, values]
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return self.columns.end - self.columns.begin

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows, begin, end = self.columns.rows, self.columns.begin, self.columns.end
        keys, values = self.storage
        new_end = end + key_states.shape[2]
        keys[:rows, :, end:new_end] = key_states
        values[:rows, :, end:new_end] = value_states
        self.keys, self.values = keys[:rows, :, begin:new_end], values[:rows, :, begin:new_end]
        return self.keys, self.values


@dataclass(frozen=True, eq=False)
class View:
    """What a forward pass over all rows has to be told.

    mask: 1 where a row may look, over the columns in use and the one about to be written; shape (rows, columns).
    positions: position of the token that each row is fed, shape (rows,).
    """

    mask: Int[np.ndarray, "rows columns"]
    positions: Int[np.ndarray, " rows"]


class RowKeyValues:
    """The memory of the rows of one batch.

    Parameters
    ----------
    like : any key-values of the same model; only their shapes are read.
    capacity : most rows at a time.
    """

    def __init__(self, like: KeyValues, capacity: int) -> None:
        self._capacity = capacity
        self._columns = _Columns()
        self._starts = np.zeros(capacity, dtype=np.int64)
        self._layers = [None if layer is None else self._storage(*layer) for layer in like.layers]
        # A layer that borrows from another never asks for its own; its place has to be there all the same.
        borrowing: Any = DynamicLayer
        self.cache = Cache(layers=[layer or borrowing() for layer in self._layers])

    def _storage(self, keys: torch.Tensor, values: torch.Tensor) -> _RowLayer:
        empty = [x.new_zeros(self._capacity, x.shape[1], 0, x.shape[3]) for x in (keys, values)]
        return _RowLayer(self._columns, *empty)

    @property
    def rows(self) -> int:
        return self._columns.rows

    def view(self) -> View:
        """What the next forward pass, which feeds one token to every row, has to be told."""
        starts = self._starts[: self.rows]
        self._columns.begin = int(starts.min())
        columns = np.arange(self._columns.begin, self._columns.end + 1)
        return View((columns >= starts[:, None]).astype(np.int64), self._columns.end - starts)

    def reserve(self, tokens: int) -> None:
        """Make sure that a row of so many tokens fits to the left of the next column, and a new token into it."""
        capacity = max(layer.storage[0].shape[2] for layer in self._layers if layer is not None)
        if tokens > self._columns.end or self._columns.end >= capacity:
            begin = int(self._starts[: self.rows].min(initial=self._columns.end))
            self._move(begin, width=max(tokens, self._columns.end - begin))

    def put(self, row: int, source: KeyValues, tokens: int) -> None:
        """Let ``row`` (an old one to be replaced, or the next new one) remember the first tokens of a path."""
        start, end = self._columns.end - tokens, self._columns.end
        for layer, prefix in zip(self._layers, source.layers, strict=True):
            if layer is not None and prefix is not None:
                for storage, states in zip(layer.storage, prefix, strict=True):
                    storage[row, :, start:end] = states[0, :, :tokens]
        self._starts[row] = start
        self._columns.rows = max(self.rows, row + 1)

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last, start, end = self.rows - 1, self._starts[self.rows - 1], self._columns.end
        if row != last:
            for layer in self._layers:
                if layer is not None:
                    for storage in layer.storage:
                        storage[row, :, start:end] = storage[last, :, start:end]
            self._starts[row] = start
        self._columns.rows = last

    def advance(self) -> None:
        """Count the column that a forward pass has just written."""
        self._columns.end += 1

    def _move(self, begin: int, width: int) -> None:
        """Go over to storage in which the columns from ``begin`` on end at column ``width``."""
        rows, end = self.rows, self._columns.end
        for layer in self._layers:
            if layer is not None:
                # One layer after the other, so that only one of them exists twice. Zeros, because what is masked
                # still takes part in a product with weight zero, which must not meet a NaN.
                for i, old in enumerate(layer.storage):
                    new = old.new_zeros(self._capacity, old.shape[1], width + ROOM, old.shape[3])
                    new[:rows, :, width - (end - begin) : width] = old[:rows, :, begin:end]
                    layer.storage[i] = new
        self._starts[:rows] += width - end
        self._columns.end = width
