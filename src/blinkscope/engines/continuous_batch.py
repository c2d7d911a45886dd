"""Continuous batching: rows of any length decode together, those that finish make room for those that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from blinkscope.engines.next_token import Logits, draw
from blinkscope.engines.rows import Row, Rules
from blinkscope.language.engine import Job, Path


@dataclass(frozen=True)
class Entry:
    """A row that comes to ``place`` and remembers the first ``tokens`` ids of a path and its context."""

    place: int
    path: Path
    tokens: int


class Decoder(Protocol):
    """A model that decodes rows together, in places 0, 1, ... without gaps."""

    def put(self, entries: Sequence[Entry]) -> None:
        """Let rows in: each in the place of an old one, or in the next new place."""
        ...

    def drop(self, place: int) -> None:
        """Remove a row; the last row takes its place."""
        ...

    def step(self, fed: Sequence[int], wanted: Sequence[int]) -> Logits:
        """Feed every row its next token; logits of what follows in the places ``wanted``, which are in order."""
        ...


def in_order(jobs: Iterable[Job]) -> list[Job]:
    """Jobs in the order in which they are best written.

    Path by path, so that what is kept of each one is needed once; and within a path those first that have the most
    still to write, so that few are left at the end.
    """
    jobs = list(jobs)
    first_seen = {path: i for i, path in enumerate(dict.fromkeys(job.path for job in jobs))}
    return sorted(jobs, key=lambda job: (first_seen[job.path], job.kept))


def write(jobs: Iterable[Job], rules: Rules, decoder: Decoder, capacity: int) -> Iterator[Row]:
    """Write all jobs, at most ``capacity`` at a time. They enter in the order given; each is yielded when done."""
    batch = _Batch(jobs, rules, decoder, capacity)
    while batch.busy:
        yield from batch.step()


class _Batch:
    def __init__(self, jobs: Iterable[Job], rules: Rules, decoder: Decoder, capacity: int) -> None:
        self._waiting = deque(jobs)
        self._rows: list[Row] = []
        self._rules, self._decoder, self._capacity = rules, decoder, capacity

    @property
    def busy(self) -> bool:
        return bool(self._rows or self._waiting)

    def step(self) -> list[Row]:
        """Feed every row its next token and draw what follows; the rows that are done."""
        done = self._admit()
        if not self._rows:
            return done
        fed = [row.queue.popleft() for row in self._rows]
        drawing = [place for place, row in enumerate(self._rows) if not row.queue]
        logits = self._decoder.step(fed, drawing)
        if drawing:
            u = np.array([self._rows[place].uniform() for place in drawing])
            drawn = draw(logits, self._rules.sampling, u)
            for place, token, p in zip(drawing, drawn.ids.tolist(), drawn.p.tolist(), strict=True):
                self._rows[place].accept(token, p)
        return done + [row for row in self._rows if row.finished]

    def _admit(self) -> list[Row]:
        """Let rows in and finished ones out; those that turn out to have nothing left to write are returned."""
        done: list[Row] = []
        entering: list[Row] = []
        free = self._capacity - sum(not row.finished for row in self._rows)
        while self._waiting and len(entering) < free:
            row = Row(self._waiting.popleft(), self._rules)
            (done if row.finished else entering).append(row)
        self._replace(entering)
        return done

    def _replace(self, entering: Sequence[Row]) -> None:
        gaps = [place for place, row in enumerate(self._rows) if row.finished]
        entries = []
        for row in entering:
            place = gaps.pop() if gaps else len(self._rows)
            self._rows[place : place + 1] = [row]
            entries.append(Entry(place, row.job.path, row.prefix))
        if entries:
            self._decoder.put(entries)
        # From the last place to the first, so that a row moved into a gap is never a finished one.
        for place in reversed(gaps):
            self._decoder.drop(place)
            last = self._rows.pop()
            if place < len(self._rows):
                self._rows[place] = last
