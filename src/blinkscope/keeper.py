"""Draws on their way into a run file, one generation at a time."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Protocol

from blinkscope.errors import UserError, expect
from blinkscope.estimate import loop
from blinkscope.estimate.loop import Method, Outcome, Progress
from blinkscope.estimate.record import PathRecord
from blinkscope.estimate.source import JSON, Draw, Source
from blinkscope.estimate.trace import Target, Trace
from blinkscope.runs.spec import Difference, Spec
from blinkscope.runs.store import Run

FLUSH_SECONDS = 0.5


class Record(Protocol):
    """What a run file keeps of a text or a picture: enough to read its draws without the model."""

    def method_of_loop(self, target: Target) -> Method:
        """How its draws are ordered and read."""
        ...

    def trace(self, outcome: Outcome, target: Target, *, seconds: float, model_seconds: float) -> Trace:
        """The result that the outcome of the loop amounts to."""
        ...


class Shelf(Protocol):
    """Where a keeper finds what is known of a generation and puts what is new: a ``Run``, or what stands for one
    where the run file is not at hand."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def provenance_changes(self) -> Sequence[Difference]: ...

    def draws(self, generation: int = 0) -> Mapping[tuple[int, int], Draw]: ...

    def add(self, draws: Iterable[Draw], generation: int = 0) -> None: ...

    def document(self, name: str) -> JSON: ...

    def put_document(self, name: str, content: JSON | Mapping[str, JSON]) -> None: ...

    def spent(self, generation: int = 0) -> tuple[float, float]: ...

    def spend(self, seconds: float, model_seconds: float, generation: int = 0) -> None: ...


class Keeper:
    """Draws of one generation and the time they take, on their way into a run; without a run they are only counted.

    Draws are stored with the first that is finished half a second after the last were stored, and at the end, so that
    small batches do not wait for the disk. The last ones of a burst wait for the next draw.

    generation: number of the generation within its run. model_seconds: how long the model has worked so far.
    """

    def __init__(
        self, run: Shelf | None, generation: int = 0, model_seconds: Callable[[], float] = lambda: 0.0
    ) -> None:
        self.generation = generation
        self._run = run
        self._model_seconds = model_seconds
        self._started = time.monotonic()
        self._before = run.spent(generation) if run else (0.0, 0.0)
        self._waiting: list[Draw] = []
        self._flushed = time.monotonic()
        self.known: Mapping[tuple[int, int], Draw] = run.draws(generation) if run else {}
        document = run.document(named("path", generation)) if run else None
        self.record = None if document is None else PathRecord.from_json(document)
        self.notes: tuple[str, ...] = ()
        if run is not None:
            changed = "; ".join(str(difference) for difference in run.provenance_changes)
            self.notes = (*run.notes, *([f"the run goes on under other conditions: {changed}"] if changed else []))

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def put(self, record: PathRecord, **documents: Mapping[str, JSON]) -> None:
        """Store the record, and with it documents of the same generation; the record comes last."""
        if self._run is not None:
            for name, content in documents.items():
                if self._run.document(named(name, self.generation)) is None:
                    self._run.put_document(named(name, self.generation), content)
            self._run.put_document(named("path", self.generation), record.to_json())

    def document(self, name: str) -> JSON:
        """A stored document of this generation; None where there is none."""
        return None if self._run is None else self._run.document(named(name, self.generation))

    def put_document(self, name: str, content: Mapping[str, JSON]) -> None:
        """Store a document of this generation for good."""
        if self._run is not None:
            self._run.put_document(named(name, self.generation), content)

    def add(self, draw: Draw) -> None:
        self._waiting.append(draw)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._run is not None and self._waiting:
            self._run.add(self._waiting, self.generation)
            self._run.spend(*self._now, self.generation)
        self._waiting = []
        self._flushed = time.monotonic()

    @property
    def spent(self) -> tuple[float, float]:
        """Seconds so far, earlier sittings included, and those of them that the model took."""
        seconds, model_seconds = self._now
        return self._before[0] + seconds, self._before[1] + model_seconds

    @property
    def _now(self) -> tuple[float, float]:
        return time.monotonic() - self._started, self._model_seconds()

    def analyse(
        self, record: Record, source: Source, target: Target, watch: Callable[[Progress], None] = lambda progress: None
    ) -> Trace:
        """Draw from the source what is not known yet until the target is met; all of it is on disk afterwards."""
        outcome = loop.run(
            source, record.method_of_loop(target), target, known=self.known, record=self.add, watch=watch
        )
        self.settle()
        seconds, model_seconds = self.spent
        trace = record.trace(outcome, target, seconds=seconds, model_seconds=model_seconds)
        return _with_unread(trace, len({*self.known, *((draw.stratum, draw.replicate) for draw in trace.draws)}))

    def settle(self) -> None:
        """Everything of this generation is on disk, the time it took too."""
        self.flush()
        if self._run is not None:
            self._run.spend(*self._now, self.generation)

    def finish(self, status: str) -> None:
        """Put the completion mark of the whole run, which comes last, after everything is on disk."""
        if isinstance(self._run, Run):
            self._run.complete(status)


@contextmanager
def keeping(path: str | Path | None, spec: Spec, model_seconds: Callable[[], float] = lambda: 0.0) -> Iterator[Keeper]:
    """The keeper of a run of one generation; a run file is begun or gone on with, and closed at the end.

    A user's mistake that shows before anything was stored leaves no file behind, so that the name is free for the
    question put right.
    """
    if path is None:
        yield Keeper(None, 0, model_seconds)
        return
    expect("run", path, (str, Path), "the name of a run file")
    with Run.create_or_open(Path(path), spec) as run:
        try:
            with Keeper(run, 0, model_seconds) as keeper:
                yield keeper
        except UserError:
            if run.empty:
                run.discard()
            raise


def read_again(run: Run, generation: int, record: Record, target: Target) -> Trace:
    """The result of a generation's stored draws alone."""
    known = run.draws(generation)
    outcome = loop.run(None, record.method_of_loop(target), target, known=known)
    seconds, model_seconds = run.spent(generation)
    trace = record.trace(outcome, target, seconds=seconds, model_seconds=model_seconds)
    return _with_unread(trace, len(known))


def _with_unread(trace: Trace, stored: int) -> Trace:
    """The result with a note where there are more draws than a run with its target would have ordered."""
    if len(trace.draws) == stored:
        return trace
    unread = (
        f"{len(trace.draws):,} of the {stored:,} stored draws are read: those that a run with this target and "
        "estimator would have ordered."
    )
    return replace(trace, notes=(*trace.notes, unread))


def named(document: str, generation: int) -> str:
    """The name under which a run keeps a document of one of its generations."""
    return f"{document} {generation}" if generation else document


def generation_of(name: str) -> int | None:
    """The generation whose document a run keeps under that name; None where it is no generation's."""
    _, space, number = name.rpartition(" ")
    if not space:
        return 0
    return int(number) if number.isdecimal() else None


def provenance() -> dict[str, JSON]:
    """With what the run is made; a change between two sittings is mentioned, not refused."""
    libraries = {"blinkscope": "blinkscope", "numpy": "numpy", "torch": "torch", "transformers": "transformers"}
    libraries |= {"llama_cpp": "llama-cpp-python", "vllm": "vllm"}
    versions: dict[str, JSON] = {}
    for module, package in libraries.items():
        if module in sys.modules:
            with suppress(metadata.PackageNotFoundError):  # not installed, but on the path
                versions[package] = metadata.version(package)
    return {"versions": versions, "python": platform.python_version(), "machine": platform.platform()}
