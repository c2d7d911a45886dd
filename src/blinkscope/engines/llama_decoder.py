"""A llama.cpp model at work: texts that are kept in its memory, and rows that decode together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from blinkscope.engines.array_logits import ArrayLogits
from blinkscope.engines.continuous_batch import Entry
from blinkscope.engines.llama_model import BATCH, MOST_SEQUENCES, LlamaMemory, LlamaModel
from blinkscope.engines.sequences import Texts

TEXTS = 4  # sequences that hold texts, beside one for each row
MOST_ROWS = MOST_SEQUENCES - TEXTS


class LlamaDecoder:
    """A ``Decoder`` of up to ``rows`` rows, each of up to ``tokens`` tokens.

    Rows are the sequences 0, 1, ... in the order of their places, without gaps; texts are the ones after them.
    """

    def __init__(self, model: LlamaModel, rows: int, tokens: int) -> None:
        self.rows = rows
        self._memory = LlamaMemory(model, rows + TEXTS, tokens)
        self._texts = Texts(rows, TEXTS)
        self._lengths: list[int] = []  # of each row, the tokens that it remembers

    @property
    def tokens(self) -> int:
        return self._memory.tokens

    def read(self, ids: Sequence[int], since: int) -> Iterator[tuple[int, Float[np.ndarray, "places vocabulary"]]]:
        """Keep a text; some places at a time, logits of what follows each of them from ``since`` on, but the last.

        Yields the first place, and the logits of it and of those after it, which are valid until the next.
        """
        reading = self._texts.plan(ids, min(since, len(ids) - 1))
        self._memory.copy(reading.source, reading.sequence, reading.known)
        for start in range(reading.known, len(ids), BATCH):
            some = ids[start : start + BATCH]
            wanted = range(max(0, since - start), min(len(some), len(ids) - 1 - start))
            places = range(start, start + len(some))
            logits = self._memory.decode(some, places, [reading.sequence] * len(some), wanted)
            if wanted:
                yield places[wanted.start], logits
        self._texts.hold(reading.sequence, ids)

    def clear(self) -> None:
        """Let all rows go, those of somebody who left in the middle."""
        self._lengths = []

    def put(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            ids = (*entry.path.context.ids, *entry.path.tokens)
            source = self._texts.find(ids)
            if source is None:
                for _ in self.read(ids, len(ids)):
                    pass
                source = self._texts.find(ids)
            assert source is not None
            self._memory.copy(source, entry.place, entry.tokens)
            self._lengths[entry.place : entry.place + 1] = [entry.tokens]

    def drop(self, place: int) -> None:
        last = len(self._lengths) - 1
        if place < last:
            self._memory.copy(last, place, self._lengths[last])
            self._lengths[place] = self._lengths[last]
        self._lengths.pop()

    def step(self, fed: Sequence[int], wanted: Sequence[int]) -> ArrayLogits:
        logits = self._memory.decode(fed, self._lengths, range(len(fed)), wanted)
        self._lengths = [length + 1 for length in self._lengths]
        return ArrayLogits(logits)
