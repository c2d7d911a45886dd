"""How an item of a study is worked on, and who does it: this process, one item after the other, or others.

Whoever works has a ``Bench``: the study, its spec and the open model. What is drawn goes through a ``Keeper``, and only
the process that holds the run file writes to it. An item's random streams are keyed by its number, so its draws do not
depend on who works on it, or on what is worked on beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target
from blinkscope.keeper import Keeper, Shelf
from blinkscope.replies import Stopwatch
from blinkscope.runs.store import Run
from blinkscope.session import known_as

if TYPE_CHECKING:
    from blinkscope.studies.study import Study
    from blinkscope.studies.whole import Whole


@dataclass(frozen=True)
class StudyItem:
    """One of the things that a study asks a model about: its id, and the content that its work needs.

    A content with a ``problem`` is of an item that cannot be used; the sentence says why. One with ``unreached`` stands
    for all items of a data set, named in ``data``, that cannot be reached.
    """

    id: str
    content: Mapping[str, JSON]


@dataclass(frozen=True, eq=False)
class Desk:
    """What the work on one item needs: the model, how it samples, what is asked, and where draws are kept.

    keeper: of the item's own draws. beside: of draws that do not belong to its curve; they have a number of their own.
    prepared: what ``Study.prepare`` made.
    """

    engine: Any
    sampling: Any
    spec: Any
    target: Target
    item: StudyItem
    keeper: Keeper
    beside: Keeper
    stopwatch: Stopwatch
    watch: Callable[[Progress], None]
    prepared: Any = None

    @property
    def prompt(self) -> Any:
        """The item's prompt as the turns of a conversation."""
        from blinkscope.question import Question

        return Question(str(self.item.content["prompt"]), system=self.spec.asking.system).turns


@dataclass(frozen=True)
class Task:
    """An item that is to be worked on: the numbers under which a run keeps its draws, and those beside its curve."""

    number: int
    beside: int
    item: StudyItem


@dataclass(frozen=True)
class Done:
    """What the work on an item came to.

    kind: empty where there is an outcome; else why there is none: ``item`` where it would fail again, ``engine`` where
    it may be tried another time. reason: the sentence that goes with it.
    """

    task: Task
    outcome: Mapping[str, JSON] = field(default_factory=dict)
    kind: str = ""
    reason: str = ""


@dataclass(frozen=True)
class ModelFacts:
    """What a run file says of the model: its name, and a digest of its weights where it has one.

    beside: the same of other models that the study asks, by the setting that names them.
    """

    name: str
    digest: str = ""
    beside: Mapping[str, ModelFacts] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: Any, beside: Mapping[str, Any] | None = None) -> ModelFacts:
        others = {setting: cls.of(other) for setting, other in (beside or {}).items()}
        return cls(known_as(engine), getattr(engine, "digest", ""), others)


@dataclass(frozen=True, eq=False)
class Bench:
    """What the work on every item of a study shares."""

    study: Study
    spec: Any
    engine: Any
    sampling: Any
    prepared: Any

    @classmethod
    def open(cls, study: Study, spec: Any, model: Any, options: Mapping[str, Any]) -> Bench:
        """The bench with the model, and with all that the study prepares beside it."""
        engine, sampling = study.open(spec, model, options)
        return cls(study, spec, engine, sampling, study.prepare(spec, engine, options))

    @property
    def facts(self) -> ModelFacts:
        return ModelFacts.of(self.engine, self.study.beside(self.spec, self.prepared))

    def work(self, task: Task, shelf: Shelf, watch: Callable[[Progress], None]) -> Done:
        """Draw what an item needs and the shelf does not hold; afterwards the shelf holds all of it.

        Raises
        ------
        MissingExtra : a package is not installed; no other item would fare better.
        """
        stopwatch = Stopwatch()
        with Keeper(shelf, task.number, lambda: stopwatch.seconds) as keeper, Keeper(shelf, task.beside) as beside:
            parts = (self.engine, self.sampling, self.spec, self.spec.target)
            desk = Desk(*parts, task.item, keeper, beside, stopwatch, watch, self.prepared)
            try:
                if "problem" in task.item.content:
                    raise UserError(str(task.item.content["problem"]))
                return Done(task, self.study.work(desk))
            except MissingExtra:
                raise
            except UserError as error:  # the item's own fault
                return Done(task, kind="item", reason=str(error))
            except EngineError as error:
                return Done(task, kind="engine", reason=str(error))


class Team(Protocol):
    """Those who work on the items of one study; the model is open."""

    @property
    def facts(self) -> ModelFacts: ...

    def work(
        self,
        tasks: Sequence[Task],
        run: Run,
        begin: Callable[[Task], None],
        watch: Callable[[Progress | Whole], None],
    ) -> Iterator[Done]:
        """Each task's end, in any order; by then the run holds all of its draws.

        begin : called before work on a task. watch : called now and then with how far an item, or the whole, is.
        """
        ...


Workers = Callable[["Study", Any, Any, Mapping[str, Any]], AbstractContextManager[Team]]
"""Makes a team for a study, a spec, what names or is the model, and the options of engines; it is dismissed at the end
of the context."""


@dataclass(frozen=True, eq=False)
class OneByOne:
    """This process works on one task after the other."""

    bench: Bench

    @property
    def facts(self) -> ModelFacts:
        return self.bench.facts

    def work(
        self,
        tasks: Sequence[Task],
        run: Run,
        begin: Callable[[Task], None],
        watch: Callable[[Progress | Whole], None],
    ) -> Iterator[Done]:
        for task in tasks:
            begin(task)
            yield self.bench.work(task, run, watch)


def in_process(study: Study, spec: Any, model: Any, options: Mapping[str, Any]) -> AbstractContextManager[Team]:
    """The team that is this process alone."""
    return nullcontext(OneByOne(Bench.open(study, spec, model, options)))
