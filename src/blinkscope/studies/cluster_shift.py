"""The items of a study while a cluster works on them: which wait, which worker has which, and what went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blinkscope.keeper import generation_of
from blinkscope.runs.store import Run
from blinkscope.studies.cluster_worker import Problem, Ready, Write
from blinkscope.studies.whole import Whole
from blinkscope.studies.workers import Done, Task

MOST_DEATHS = 3  # workers that an item may take with it, and that a place may lose in a row
MOST_TRIES = 2  # workers that may fail with an item before it counts as failed


@dataclass(frozen=True)
class Place:
    """Room for one worker: the model that it opens there, with which options, and what it asks of Ray."""

    model: str
    resources: Mapping[str, float]
    options: Mapping[str, Any]


@dataclass(eq=False)
class Hand:
    """A worker and what it has to do. deaths: of the workers that had its place before."""

    actor: Any
    place: Place
    number: int
    deaths: int = 0
    ready: Ready | None = None
    busy: int = 0


@dataclass(eq=False)
class Shift:
    """The items of one sitting: those that wait, those that are worked on, by their calls, and how it went so far.

    failed: numbers of the workers whose engine failed with an item. deaths: workers that died with it. now: time that
    this sitting has spent on a generation. documents: names of those in the run, by generation.
    """

    run: Run
    waiting: deque[Task]
    whole: Whole
    at_work: dict[Any, tuple[Hand, Task]] = field(default_factory=dict)
    failed: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    deaths: Counter[int] = field(default_factory=Counter)
    now: dict[int, tuple[float, float]] = field(default_factory=dict)
    documents: dict[int | None, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for name in self.run.documents():
            self.documents[generation_of(name)].append(name)

    def store(self, writes: Sequence[Write]) -> None:
        """Put what came into the run file."""
        for write in writes:
            write.apply(self.run)
            if write.method == "put_document":
                self.documents[generation_of(write.arguments[0])].append(write.arguments[0])
            elif write.method == "spend":
                self.now[write.arguments[2]] = write.arguments[:2]
            elif write.method == "add":
                drawn, cost = len(write.arguments[0]), sum(draw.cost for draw in write.arguments[0])
                done = self.whole
                self.whole = replace(done, continuations=done.continuations + drawn, cost=done.cost + cost)

    def end(self, call: Any, end: Done | Problem, workers: int) -> Iterator[Done]:
        """A task that came to an end; one that an engine failed with waits for another worker first."""
        hand, task = self.at_work.pop(call)
        hand.busy -= 1
        if isinstance(end, Problem):
            raise end.error()
        hand.deaths = 0
        if end.kind == "engine":
            self.failed[task.number].add(hand.number)
            if len(self.failed[task.number]) < min(MOST_TRIES, workers):
                self.waiting.append(task)
                return
        yield self._finished(end)

    def lose(self, hand: Hand, why: str) -> Iterator[Done]:
        """The tasks of a dead worker wait again, but for those that took too many with them."""
        for call in [call for call, (owner, _) in self.at_work.items() if owner is hand]:
            _, task = self.at_work.pop(call)
            self.deaths[task.number] += 1
            if self.deaths[task.number] < MOST_DEATHS:
                self.waiting.appendleft(task)
            else:
                reason = f"the worker died with it {MOST_DEATHS} times: {why}"
                yield self._finished(Done(task, kind="engine", reason=reason))

    def _finished(self, done: Done) -> Done:
        self.whole = replace(self.whole, finished=self.whole.finished + 1)
        return done
