"""The analysis of recorded rollouts: what ``session`` does for a model, for ``replay:FILE``.

A recording brings its prompt, its labels and all its continuations along, so there is nothing to sample and nothing to
label. Outcomes are drawn without replacement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from blinkscope.converters import read_recorded
from blinkscope.errors import UserError
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.predict import FORKING_FROM
from blinkscope.estimate.record import MethodOptions, PathRecord
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target, Trace
from blinkscope.keeper import Keeper, keeping, provenance
from blinkscope.planning import Plan
from blinkscope.plurals import counted
from blinkscope.question import check_labels_and_seed, refuse_unused, sort_options
from blinkscope.replay import default_method, limited, record_of, source_of
from blinkscope.replay_comparison import comparison_of
from blinkscope.replay_formats import Item, item_to_json, select
from blinkscope.runs.spec import Spec, digest

SCHEME = "replay:"


@dataclass(frozen=True)
class Reading:
    """How recorded generations are read.

    method: None takes off-path forks where an item has some, else its free continuations; a name takes that method
        where and as often as something was recorded.
    labels: most labels kept apart.
    """

    method: MethodOptions | str | None = None
    seed: int = 0
    labels: int = 12

    def __post_init__(self) -> None:
        check_labels_and_seed(self)
        if isinstance(self.method, str):
            MethodOptions(self.method)  # refuses what there is not

    def record(self, item: Item, model: str, generation: int = 0) -> PathRecord:
        """What the analysis of the item needs; an item that this method cannot read is refused."""
        method = self.method if isinstance(self.method, MethodOptions) else default_method(item, self.method)
        record = record_of(item, method, seed=self.seed, labels=self.labels, model=model)
        return limited(replace(record, generation=generation), item)

    def to_json(self) -> dict[str, JSON]:
        method = self.method.to_json() if isinstance(self.method, MethodOptions) else self.method
        return {"method": method, "seed": self.seed, "labels": self.labels}


def locate_recorded(
    model: str,
    item: str | None,
    *,
    target: Target | None = None,
    run: str | Path | None = None,
    announce: Callable[[Plan], None] = lambda plan: None,
    watch: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> Trace:
    """Say where a recorded generation was decided; see ``locate``.

    Parameters
    ----------
    model : ``replay:FILE``.
    item : id of the generation; None takes the first of the file.
    options : fields of ``Reading`` and of ``Target``; all others belong to models that can be sampled from.
    """
    reading, target = split_options(target, options)
    name, chosen = name_of(model), select(read_recorded(file_of(model)), item)
    record = reading.record(chosen, name)  # before a file is begun for what cannot be read
    refuse_unread([chosen], reading, options)
    record.method_of_loop(target)  # or for what has no such target
    with keeping(run, spec_of(name, [chosen], reading, target)) as keeper:
        trace = analyse(chosen, keeper.record or record, target, keeper, announce=announce, watch=watch)
        keeper.finish(trace.status)
    return trace


def plan_recorded(model: str, item: str | None, **options: Any) -> Plan:
    """What ``locate_recorded`` would cost, no more than was recorded; see ``plan``."""
    reading, target = split_options(None, {**options, "method": MethodOptions()})
    chosen = select(read_recorded(file_of(model)), item)
    if not chosen.forks:
        raise UserError(
            f"item {chosen.id!r} has no forks, so there is nothing to plan: it is read by the grid, which takes the "
            "free continuations as they were recorded."
        )
    record = reading.record(chosen, name_of(model))
    above = Counter(fork.position for fork in chosen.forks if fork.p > FORKING_FROM)
    alternatives = tuple(above[s] for s in range(len(record.steps)))
    there = record.all_recorded
    note = (
        f"{counted(there.continuations, 'continuation')} of about {counted(there.generated_tokens, 'token')} in all "
        "can be drawn from the recording; divergence ends with them, whatever error it has reached by then. The other "
        "methods would ask a model for theirs."
    )
    return Plan(record, record.prediction(target), 0, (note,), alternatives)


def analyse(
    item: Item,
    record: PathRecord,
    target: Target,
    keeper: Keeper,
    *,
    announce: Callable[[Plan], None] = lambda plan: None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Trace:
    """The result for one item; what is drawn goes through the keeper."""
    if keeper.record is None:
        keeper.put(record, item=item_to_json(item))
    announce(Plan(record, record.prediction(target), len(keeper.known), keeper.notes))
    trace = keeper.analyse(record, source_of(item, record), target, watch)
    return replace(trace, comparison=comparison_of(item, record.labels))


def split_options(target: Target | None, options: Mapping[str, Any]) -> tuple[Reading, Target]:
    """What is asked for, by name, as ``Reading`` and ``Target``; a target's fields replace those of ``target``."""
    of_reading, target = sort_options(
        Reading,
        target,
        options,
        lambda name, known: (
            f"{name} makes no sense with recorded rollouts, whose prompt, labels and sampling are their own; leave "
            f"it out. There are {', '.join(known)}."
        ),
    )
    return Reading(**of_reading), target


def refuse_unread(items: Iterable[Item], reading: Reading, given: Collection[str]) -> None:
    """Refuse options, by name, that the method of none of the items would look at, where they are read by their own."""
    if reading.method is None and not any(item.forks for item in items):
        refuse_unused("grid", given, why=", by which recordings without forks are read,")


def spec_of(model: str, items: Sequence[Item], reading: Reading, target: Target, **more: JSON) -> Spec:
    """What a run file says of these items: their ids with digests of their content, so that a change is noticed."""
    digests: dict[str, JSON] = {item.id: digest_of(item) for item in items}
    identity: dict[str, JSON] = {"model": model, "items": digests, **reading.to_json(), **more}
    return Spec(identity=identity, target=asdict(target), provenance=provenance())


def digest_of(item: Item) -> str:
    """SHA-256 of an item's content, whatever file it stands in."""
    return digest(item_to_json(item))


def file_of(model: str) -> Path:
    """The file that ``replay:FILE`` names."""
    scheme, _, name = model.partition(":")
    if f"{scheme}:" != SCHEME or not name:
        raise UserError(f"the model is {model!r}; recorded rollouts are named by replay:FILE.")
    return Path(name)


def name_of(model: str) -> str:
    """The model as results spell it, without the folder of its file."""
    return f"{SCHEME}{file_of(model).name}"
