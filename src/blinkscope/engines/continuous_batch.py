"""Continuous batching: rows of any length decode together, those that finish make room for those that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from blinkscope.engines.key_values import KeyValues, RowKeyValues
from blinkscope.engines.next_token import draw
from blinkscope.engines.rows import Row, Rules
from blinkscope.language.engine import Job, Path


@dataclass(frozen=True)
class Model:
    """What the batch needs of a model.

    forward: its own forward pass.
    prefix: keys and values of a path and its context.
    """

    forward: Callable[..., Any]
    prefix: Callable[[Path], KeyValues]
    device: torch.device


def write(jobs: Iterable[Job], rules: Rules, model: Model, capacity: int) -> Iterator[Row]:
    """Write all jobs, at most ``capacity`` at a time. They enter in the order given; each is yielded when done."""
    batch = _Batch(jobs, rules, model, capacity)
    while batch.busy:
        yield from batch.step()


class _Batch:
    def __init__(self, jobs: Iterable[Job], rules: Rules, model: Model, capacity: int) -> None:
        self._waiting = deque(jobs)
        self._rows: list[Row] = []
        self._rules, self._model, self._capacity = rules, model, capacity
        self._memory: RowKeyValues | None = None

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    # The decorator turns gradients off inside and leaves the caller's setting alone while the generator rests.
    @torch.inference_mode()
    def step(self) -> list[Row]:
        """Feed every row its next token and draw what follows; the rows that are done."""
        done = self._admit()
        if not self._rows or self._memory is None:
            return done
        logits = self._logits(self._memory, [row.queue.popleft() for row in self._rows])
        drawing = [place for place, row in enumerate(self._rows) if not row.queue]
        if drawing:
            if len(drawing) < len(self._rows):
                logits = logits[torch.as_tensor(drawing, device=logits.device)]
            u = np.array([self._rows[place].uniform() for place in drawing])
            drawn = draw(logits, self._rules.sampling, u)
            for place, token, p in zip(drawing, drawn.ids.tolist(), drawn.p.tolist(), strict=True):
                self._rows[place].accept(token, p)
        return done + [row for row in self._rows if row.finished]

    def _logits(self, memory: RowKeyValues, fed: list[int]) -> torch.Tensor:
        view = memory.view()
        output = self._model.forward(
            input_ids=torch.tensor(fed, device=self._model.device)[:, None],
            attention_mask=torch.from_numpy(view.mask).to(self._model.device),
            position_ids=torch.from_numpy(view.positions).to(self._model.device)[:, None],
            past_key_values=memory.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        memory.advance()
        return output.logits[:, -1]

    def _admit(self) -> list[Row]:
        """Let rows in and finished ones out; those that turn out to have nothing left to write are returned."""
        done: list[Row] = []
        entering: list[Row] = []
        free = self._capacity - sum(not row.finished for row in self._rows)
        while self._waiting and len(entering) < free:
            row = Row(self._waiting.popleft(), self._rules)
            (done if row.finished else entering).append(row)
        if entering and self._memory is None:
            self._memory = RowKeyValues(self._model.prefix(entering[0].job.path), self._capacity)
        if self._memory is not None:
            self._memory.reserve(max((row.prefix for row in entering), default=0))
            self._replace(self._memory, entering)
        return done

    def _replace(self, memory: RowKeyValues, entering: list[Row]) -> None:
        # From the last place to the first, so that a row moved into a gap is never a finished one.
        for place in reversed(range(len(self._rows))):
            if self._rows[place].finished:
                if entering:
                    row = entering.pop()
                    memory.put(place, self._model.prefix(row.job.path), row.prefix)
                    self._rows[place] = row
                else:
                    memory.drop(place)
                    last = self._rows.pop()
                    if place < len(self._rows):
                        self._rows[place] = last
        for row in entering:
            memory.put(len(self._rows), self._model.prefix(row.job.path), row.prefix)
            self._rows.append(row)
