"""Items of a study spread over a Ray cluster: an actor with the model for each GPU, processor or server.

Ray decides where actors are placed, by what they ask for; this process hands out items, and it alone writes the run
file. A worker that dies is replaced, and its items are worked on again by others, with the draws that arrived before:
the streams are keyed by item, so nothing is drawn twice and nothing is lost.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from typing import Any

from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.loop import Progress
from blinkscope.placement import batched, keys_named_by, needs_of, servers_of
from blinkscope.runs.store import Run
from blinkscope.studies.cluster_shift import MOST_DEATHS, Hand, Place, Shift
from blinkscope.studies.cluster_worker import MOST_AT_ONCE, Held, Problem, Ready, Report, Worker
from blinkscope.studies.ray_session import ADVICE, LOCAL, first_sentence, ray_at
from blinkscope.studies.study import Study
from blinkscope.studies.whole import Whole
from blinkscope.studies.workers import Done, ModelFacts, Task, Team

HUB_TOKEN = "HF_TOKEN"
BATCH_BYTES = 2**30  # for keys and values of a worker without a GPU, where the user does not say
TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Cluster:
    """Workers on a Ray cluster: ``local`` begins one on this machine; ``auto`` or HOST:PORT is one that is there."""

    address: str = LOCAL

    @contextmanager
    def __call__(self, study: Study, spec: Any, model: Any, options: Mapping[str, Any]) -> Iterator[Team]:
        if not isinstance(model, str):
            raise UserError("a model that is in memory cannot be taken to the workers of a cluster; give its name.")
        options = {name: value for name, value in options.items() if value is not None}
        secrets = {}
        if self.address == LOCAL:  # in the call that opens the model; on other machines they are looked up there
            secrets = {HUB_TOKEN: token} if (token := os.environ.get(HUB_TOKEN)) else {}
            if keys := keys_named_by([model, *_texts(asdict(spec))]):
                options["keys"] = keys
        with ray_at(self.address) as ray:
            advice = "" if self.address == LOCAL else ADVICE
            hall = Hall(ray, study, spec, _places(ray, model, options), secrets, advice)
            try:
                hall.open()
                yield hall
            finally:
                hall.close()


@dataclass(eq=False)
class Hall:
    """The workers of one study, and what each is doing.

    secrets: variables that the workers get in memory. advice: what to try where no worker gets as far as to open the
    model.
    """

    ray: Any
    study: Study
    spec: Any
    places: Sequence[Place]
    secrets: Mapping[str, str] = field(default_factory=dict)
    advice: str = ""
    facts: ModelFacts = field(init=False)
    _vacant: deque[Place] = field(init=False)
    _hands: list[Hand] = field(default_factory=list)
    _opening: dict[Any, Hand] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._vacant = deque(self.places)

    def open(self) -> None:
        """Hire the first worker, or one for each server, and wait until one of them has the model open.

        A model is loaded, perhaps downloaded, by one worker alone at first, which tells how much memory it takes.
        """
        servers = needs_of(self.places[0].model) == "server"
        for _ in self.places if servers else self.places[:1]:
            self._hire(self._vacant.popleft())
        while not any(hand.ready for hand in self._hands):
            self._look(None)

    def work(
        self,
        tasks: Sequence[Task],
        run: Run,
        begin: Callable[[Task], None],
        watch: Callable[[Progress | Whole], None],
    ) -> Iterator[Done]:
        """See ``Team``. An item that a worker's engine fails with is given to another one before it counts."""
        for place in self._more_places(len(tasks)):
            self._hire(place)
        shift = Shift(run, deque(tasks), Whole(len(tasks)))
        while shift.waiting or shift.at_work:
            for hand, task in self._handed_out(shift):
                begin(task)
                call = hand.actor.work.remote(task, Held.of(run, task, shift.documents, shift.now))
                shift.at_work[call] = (hand, task)
            workers = sum(hand.ready is not None for hand in self._hands)
            watch(replace(shift.whole, at_work=len(shift.at_work), workers=workers))
            call = self._look(shift.at_work)
            if call is None:
                continue
            hand, task = shift.at_work[call]
            try:
                report: Report = self.ray.get(next(call))
            except self._gone as death:
                self._replace(hand, death)
                yield from shift.lose(hand, first_sentence(death))
                continue
            shift.store(report.writes)
            _warn(report.warned)
            if report.end is not None:
                yield from shift.end(call, report.end, workers)
        if tasks:
            watch(replace(shift.whole, workers=sum(hand.ready is not None for hand in self._hands)))

    def close(self) -> None:
        """Dismiss all workers."""
        for hand in self._hands:
            self._dismiss(hand)

    def _dismiss(self, hand: Hand) -> None:
        """End a worker, if there is still one: of an actor that was never begun Ray says so here."""
        with suppress(self.ray.exceptions.RaySystemError):
            self.ray.kill(hand.actor)

    @property
    def _gone(self) -> tuple[type[Exception], ...]:
        """What Ray says where a worker has died, or what it sent was lost with its machine."""
        said = self.ray.exceptions
        return (said.RayActorError, said.WorkerCrashedError, said.ObjectLostError)

    def _hire(self, place: Place, deaths: int = 0) -> None:
        actor = self.ray.remote(Worker).options(max_concurrency=MOST_AT_ONCE, **place.resources).remote()
        number = max((hand.number for hand in self._hands), default=0) + 1
        hand = Hand(actor, place, number, deaths)
        self._hands.append(hand)
        asked = (self.study, self.spec, place.model, place.options, self.secrets)
        self._opening[actor.open.remote(*asked)] = hand

    def _replace(self, hand: Hand, death: Exception) -> None:
        """Hire another worker for a dead one's place, unless it has lost too many in a row."""
        self._hands.remove(hand)
        self._dismiss(hand)  # in case that it only seemed dead
        if hand.deaths + 1 < MOST_DEATHS:
            self._hire(hand.place, hand.deaths + 1)
        elif not self._hands:
            advice = "" if hasattr(self, "facts") else self.advice
            why = f"the workers of the cluster die: {first_sentence(death)}"
            raise EngineError(f"{why} What was drawn is kept. {advice}".rstrip())

    def _more_places(self, tasks: int) -> Sequence[Place]:
        """Places that nobody has had yet for more workers, as many as there are items for. Those that compute on
        processors ask for as much memory as the first of them took, so that Ray begins no more than there is room
        for."""
        more = [self._vacant.popleft() for _ in range(min(len(self._vacant), tasks - len(self._hands)))]
        first = next(hand for hand in self._hands if hand.ready)
        assert first.ready is not None
        if needs_of(first.place.model) == "server" or "num_gpus" in first.place.resources:
            return more
        memory = first.ready.peak + first.place.options.get("batch_bytes", 0)
        return [replace(place, resources={**place.resources, "memory": memory}) for place in more]

    def _handed_out(self, shift: Shift) -> Iterator[tuple[Hand, Task]]:
        """Workers with room, the least busy first, each with the first item that not it, or everyone, failed with."""
        waiting, failed, everyone = shift.waiting, shift.failed, {hand.number for hand in self._hands}
        while waiting:
            free = [hand for hand in self._hands if hand.ready and hand.busy < hand.ready.at_once]
            found = next(
                (
                    (hand, task)
                    for hand in sorted(free, key=lambda hand: hand.busy)
                    for task in waiting
                    if hand.number not in failed[task.number] or failed[task.number] >= everyone
                ),
                None,
            )
            if found is None:
                return
            waiting.remove(found[1])
            found[0].busy += 1
            yield found

    def _look(self, at_work: Mapping[Any, Any] | None) -> Any:
        """Wait for a moment for news: of a worker that opens the model, which is seen to here, or of a task's call."""
        calls = [*self._opening, *(at_work or ())]
        if not calls:
            raise EngineError("no worker of the cluster is left. What was drawn is kept; start the same command again.")
        came, _ = self.ray.wait(calls, num_returns=1, timeout=TICK_SECONDS)
        if not came or came[0] not in self._opening:
            return came[0] if came else None
        hand = self._opening.pop(came[0])
        try:
            opened = self.ray.get(came[0])
        except self._gone as death:
            if "blinkscope" in str(death) and "ModuleNotFoundError" in str(death):
                raise UserError(
                    "the machines of the cluster do not have blinkscope; install it there, in the version that runs "
                    f"here: pip install blinkscope=={metadata.version('blinkscope')}"
                ) from death
            self._replace(hand, death)
            return None
        if isinstance(opened, Problem):
            self._hands.remove(hand)
            self._dismiss(hand)
            if opened.usage or not self._hands:
                raise opened.error()
            warnings.warn(f"a worker is left out: {opened.text}", stacklevel=2)
        else:
            self._welcome(hand, opened)
        return None

    def _welcome(self, hand: Hand, ready: Ready) -> None:
        """Give a worker something to do, if it has the same program and the same model as the others."""
        if ready.version != (version := metadata.version("blinkscope")):
            raise UserError(f"the cluster has blinkscope {ready.version} and this is {version}; install the same one.")
        others = [other.ready.facts for other in self._hands if other.ready is not None]
        if others and others[0] != ready.facts:
            raise UserError(
                f"the workers opened different models, {_told(others[0])} and {_told(ready.facts)}; the name must mean "
                "the same on every machine and server."
            )
        _warn(ready.warned)
        self.facts = ready.facts
        hand.ready = ready


def _places(ray: Any, model: str, options: Mapping[str, Any]) -> list[Place]:
    """A place for each server that a model's name holds, each GPU of the cluster, or else each of its processors."""
    needs = needs_of(model, str(options.get("device", "auto")))
    if needs == "server":
        return [Place(one, {"num_cpus": 0}, options) for one in servers_of(model)]
    there = ray.cluster_resources()
    gpus, processors = (int(there.get(name, 0)) for name in ("GPU", "CPU"))
    if needs == "gpu" and gpus:
        return [Place(model, {"num_cpus": 1, "num_gpus": 1}, options)] * gpus
    if batched(model):  # they share the machine's memory
        options = {"batch_bytes": BATCH_BYTES, **options}
    return [Place(model, {"num_cpus": 1}, options)] * max(1, processors)


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [text for item in inside for text in _texts(item)]


def _told(facts: ModelFacts) -> str:
    return f"{facts.name} ({facts.digest[:12]})" if facts.digest else facts.name


def _warn(texts: Sequence[str]) -> None:
    for text in texts:
        warnings.warn(text, stacklevel=2)
