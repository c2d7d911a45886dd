"""One who works on items of a study in a process of Ray's, perhaps on another machine.

It holds no run file: it is told what the run knows of an item, and sends back what is new as it comes.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

from blinkscope.errors import BlinkscopeError, EngineError, UserError
from blinkscope.estimate.source import JSON, Draw
from blinkscope.placement import items_at_once
from blinkscope.runs.spec import Difference
from blinkscope.runs.store import Run
from blinkscope.studies.study import Study
from blinkscope.studies.workers import Bench, Done, ModelFacts, Task

MOST_AT_ONCE = 8
Times = Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Held:
    """What a run holds of a task, by generation: its own, and the one beside it.

    now: seconds, and those of them that the model took, that this sitting has spent on it already.
    """

    draws: Mapping[int, Mapping[tuple[int, int], Draw]]
    documents: Mapping[str, JSON]
    spent: Times
    now: Times
    notes: tuple[str, ...]
    changes: tuple[Difference, ...]

    @classmethod
    def of(cls, run: Run, task: Task, documents: Mapping[int | None, Sequence[str]], now: Times) -> Held:
        """documents: the names of those in the run, by generation."""
        generations = (task.number, task.beside)
        return cls(
            {n: run.draws(n) for n in generations},
            {name: run.document(name) for n in generations for name in documents.get(n, ())},
            {n: run.spent(n) for n in generations},
            {n: now[n] for n in generations if n in now},
            run.notes,
            run.provenance_changes,
        )


@dataclass(frozen=True)
class Write:
    """Something new for the run file: a method of ``Run`` and its arguments."""

    method: str
    arguments: tuple[Any, ...]

    def apply(self, run: Run) -> None:
        match self.method:
            case "add":
                run.add(*self.arguments)
            case "put_document":
                run.put_document(*self.arguments)
            case "spend":
                run.spend(*self.arguments)


@dataclass(frozen=True)
class Problem:
    """Why nothing can be done, whoever tries. usage: whether the user can mend it."""

    usage: bool
    text: str

    @classmethod
    def of(cls, error: BlinkscopeError) -> Problem:
        return cls(isinstance(error, UserError), str(error))

    def error(self) -> BlinkscopeError:
        """The error that it is on the user's side."""
        return UserError(self.text) if self.usage else EngineError(self.text)


@dataclass(frozen=True)
class Ready:
    """A worker whose model is open.

    version: of blinkscope there. at_once: items that it may be given at a time. peak: bytes of memory that it has taken
    at the most.
    """

    facts: ModelFacts
    version: str
    at_once: int
    peak: int
    warned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What a worker sends: writes in their order, warnings, and at last the end of its task."""

    writes: tuple[Write, ...] = ()
    warned: tuple[str, ...] = ()
    end: Done | Problem | None = None


@dataclass(eq=False)
class Copy:
    """What stands for the run where it is not at hand: a ``Shelf`` that sends what is put on it."""

    held: Held
    send: Callable[[Write], None]
    documents: dict[str, JSON] = field(init=False)

    def __post_init__(self) -> None:
        self.documents = dict(self.held.documents)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.held.notes

    @property
    def provenance_changes(self) -> Sequence[Difference]:
        return self.held.changes

    def draws(self, generation: int = 0) -> Mapping[tuple[int, int], Draw]:
        return self.held.draws[generation]

    def add(self, draws: Iterable[Draw], generation: int = 0) -> None:
        self.send(Write("add", (list(draws), generation)))

    def document(self, name: str) -> JSON:
        return self.documents.get(name)

    def put_document(self, name: str, content: JSON | Mapping[str, JSON]) -> None:
        self.documents[name] = dict(content) if isinstance(content, Mapping) else content
        self.send(Write("put_document", (name, self.documents[name])))

    def spent(self, generation: int = 0) -> tuple[float, float]:
        return self.held.spent[generation]

    def spend(self, seconds: float, model_seconds: float, generation: int = 0) -> None:
        before = self.held.now.get(generation, (0.0, 0.0))
        self.send(Write("spend", (before[0] + seconds, before[1] + model_seconds, generation)))


class Worker:
    """The actor: opens the model once, then works on the items that it is given."""

    def __init__(self) -> None:
        self._bench: Bench | None = None
        self._threads = ThreadPoolExecutor(MOST_AT_ONCE)
        self._warned: list[str] = []
        # Nobody reads this process's stderr.
        warnings.showwarning = lambda message, *place: self._warned.append(str(message))

    async def open(
        self, study: Study, spec: Any, model: str, options: Mapping[str, Any], secrets: Mapping[str, str]
    ) -> Ready | Problem:
        """Open the model. Keys of servers come with the options, so that they stay in memory, and so do secrets:
        variables that this process is to have, which no program that it was begun by has had."""
        os.environ.update(secrets)
        try:
            self._bench = bench = await self._aside(Bench.open, study, spec, model, options)
        except BlinkscopeError as error:
            return Problem.of(error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        at_once = min(MOST_AT_ONCE, items_at_once(bench.engine, bench.prepared))
        return Ready(bench.facts, metadata.version("blinkscope"), at_once, peak, self._said())

    async def work(self, task: Task, held: Held) -> AsyncIterator[Report]:
        """Work on an item; what is new comes back as it is drawn, its end with the last report."""
        assert self._bench is not None
        loop = asyncio.get_running_loop()
        new: asyncio.Queue[Write | None] = asyncio.Queue()

        def send(write: Write | None) -> None:
            loop.call_soon_threadsafe(new.put_nowait, write)

        working = asyncio.ensure_future(self._aside(self._bench.work, task, Copy(held, send), lambda progress: None))
        working.add_done_callback(lambda _: send(None))
        end: Done | Problem | None = None
        while end is None:
            got = [await new.get()]
            while not new.empty():
                got.append(new.get_nowait())
            if None in got:
                try:
                    end = await working
                except BlinkscopeError as error:
                    end = Problem.of(error)
            yield Report(tuple(write for write in got if write is not None), self._said(), end)

    def _said(self) -> tuple[str, ...]:
        """The warnings since the last time."""
        said, self._warned = tuple(self._warned), []
        return said

    async def _aside(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
