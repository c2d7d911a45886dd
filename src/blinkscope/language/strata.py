"""The places of a scored path where draws can be bought.

``OffPathSource`` offers every position that can fork: its draws are forced off the path there and then run free.
``FreeSource`` offers every row: its draws simply go on from there, and may stay on the path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Int

from blinkscope.estimate import streams
from blinkscope.estimate.source import JSON, Draw, Order, Stratum
from blinkscope.feature import Reply
from blinkscope.language.engine import Alternatives, Ask, Completion, Engine, Job, Path, Score
from blinkscope.language.sampling import Sampling

Labeller = Callable[[Reply], str]
T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds spent waiting for the model."""

    seconds: float = 0.0

    def over(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time it takes to produce them is counted, the time between them is not."""
        while True:
            started = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self.seconds += time.perf_counter() - started
            yield item

    def once(self, call: Callable[[], T]) -> T:
        """The result of one call, its time counted."""
        started = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - started


@dataclass(frozen=True)
class Writer:
    """Writes continuations of one path and labels them; both sources share it.

    ask: a follow-up turn whose answer is labelled instead of the reply.
    """

    engine: Engine
    path: Path
    sampling: Sampling
    label: Labeller
    seed: int
    generation: int = 0
    ask: Ask | None = None
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    def job(self, purpose: int, position: int, replicate: int, forced: tuple[int, ...] = ()) -> Job:
        key = (purpose, self.generation, position, replicate)
        return Job((position, replicate), self.path, position, forced, key, self.ask)

    def write(self, jobs: Sequence[Job], p: dict[tuple[int, ...], float]) -> Iterator[Draw]:
        """Continuations as draws, as they finish; ``p`` holds the forks' probabilities by job key."""
        for done in self.stopwatch.over(self.engine.continue_(jobs, self.sampling, self.seed)):
            position, replicate = done.job.key
            fork = self.engine.pieces(done.tokens[:1])[0] if done.tokens else ""
            payload: dict[str, JSON] = {
                "text": self.engine.decode(done.tokens),
                "tokens": list(done.tokens),
                "finish": done.finish,
                **({"p": p[done.job.key]} if done.job.key in p else {}),
                **({"answer": done.answer} if done.answer is not None else {}),
            }
            yield Draw(position, replicate, self.label(self.reply(done)), float(done.generated), fork, payload)

    def reply(self, done: Completion) -> Reply:
        """What the feature reads: the elicited answer, or the whole reply with the prefill and the kept tokens."""
        if done.answer is not None:
            return Reply(done.answer, finished=True)
        kept = done.job.path.tokens[: done.job.kept]
        return Reply(done.job.path.context.prefill + self.engine.decode((*kept, *done.tokens)), done.finish == "stop")


@dataclass(frozen=True)
class OffPathSource:
    """Continuations that leave the path at an open position.

    alternatives: what could have stood at each position.
    strata: the positions on offer.
    """

    writer: Writer
    alternatives: Sequence[Alternatives]
    strata: tuple[Stratum, ...]

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        jobs: list[Job] = []
        p: dict[tuple[int, ...], float] = {}
        for order in orders:
            options = self.alternatives[order.stratum]
            rng = streams.stream(
                self.writer.seed, streams.FIRST, self.writer.generation, order.stratum, round_, order.half
            )
            columns = stratified(options, order.joint, rng)[: order.count]
            for replicate, column in zip(order.replicates(), columns, strict=True):
                if (order.stratum, replicate) in known:
                    continue
                job = self.writer.job(streams.FOLLOW, order.stratum, replicate, (int(options.ids[column]),))
                jobs.append(job)
                p[job.key] = float(options.p[column])
        yield from self.writer.write(jobs, p)


@dataclass(frozen=True)
class FreeSource:
    """Continuations that go on from any row under the sampling distribution itself."""

    writer: Writer
    strata: tuple[Stratum, ...]

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        jobs = [
            self.writer.job(streams.FREE, order.stratum, replicate)
            for order in orders
            for replicate in order.replicates()
            if (order.stratum, replicate) not in known
        ]
        yield from self.writer.write(jobs, {})


def stratified(options: Alternatives, count: int, rng: np.random.Generator) -> Int[np.ndarray, " count"]:
    """Columns of ``options`` for ``count`` first tokens: one uniform in each of ``count`` equal slices of the law.

    The slices are dealt out in random order, so any subset of the draws is as good as any other. Every draw on its own
    has the off-path law, and the average over the draws never has a larger variance than that of independent ones
    (one shared uniform for all slices could).
    """
    u = (rng.permutation(count) + rng.random(count)) / count
    cumulative = np.cumsum(options.p)
    return np.minimum(np.searchsorted(cumulative, u * cumulative[-1], side="right"), len(options.p) - 1)


def open_positions(score: Score, skipped: Bool[np.ndarray, " n"]) -> tuple[Stratum, ...]:
    """Positions that can fork and are not skipped; a draw at s costs about what is left of the path."""
    n = len(score.p)
    return tuple(
        Stratum(s, float(max(n - s - 1, 1)))
        for s in range(n)
        if score.off_path[s] > 0 and len(score.alternatives[s].ids) and not skipped[s]
    )


def rows(n: int) -> tuple[Stratum, ...]:
    """Every row before the last as a stratum."""
    return tuple(Stratum(s, float(n - s)) for s in range(n))
