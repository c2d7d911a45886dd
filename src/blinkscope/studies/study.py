"""The core of every study of a live model: a spec, items, one run file, and a result made from that file alone.

What an item came to is stored when it is finished, so a study that was killed goes on with the draws that are missing.
An item that cannot be used is counted as failed and the others go on. Who works on the items: ``workers.py``.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import SCHEMA, Target
from blinkscope.features import open_feature
from blinkscope.keeper import named, provenance
from blinkscope.pictured import is_picture_model
from blinkscope.question import refuse_unused
from blinkscope.reread import items_of, target_of
from blinkscope.runs.spec import Spec, digest
from blinkscope.runs.store import Run
from blinkscope.session import open_model, sampling_of
from blinkscope.studies.reach import apart, begun, numbers_of, remember, still_missing
from blinkscope.studies.specs import spec_from
from blinkscope.studies.transcripts import Transcript
from blinkscope.studies.whole import Whole, not_finished
from blinkscope.studies.workers import Desk, ModelFacts, StudyItem, Task, Workers, in_process

__all__ = [
    "Desk",
    "Findings",
    "Row",
    "Study",
    "StudyItem",
    "StudyResult",
    "outcome_of",
    "result_of",
    "run_study",
    "study_of",
]

BESIDE = 2**31
"""Draws that do not belong to an item's curve are a generation of their own, this far above the item's number."""
JUDGE = "judge:"
DRAWN_BY = ("error", "continuations", "generated_tokens")
"""Fields of a target that decide what is drawn; the others only say how the draws are read."""

Row = Mapping[str, Any]


def open_texts(spec: Any, model: Any, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """The engine that a spec names, or the one that is given, and how it samples."""
    if is_picture_model(model):
        raise UserError(f"{model} makes no texts; blinkscope study diffusion asks it for its windows.")
    engine = open_model(model, options)
    return engine, sampling_of(engine, spec.asking.sampling)


@dataclass(frozen=True)
class Study:
    """A study: how its items are found, what is done with one, and what all of them say together.

    default: the spec that it has where nothing else is asked.
    items: of a spec, in their order. work: draws what one item needs and returns what it came to. result: summary,
    tables and sentences from the stored outcomes, (item, outcome) pairs in the order of the items. read: an outcome
    with what depends on how the draws are read, from the run. prepare: what the work on every item needs beside the
    model, from the spec, the model and the options of engines; made once. open: the model and its sampling settings,
    from the spec, what names or is the model, and the options of engines. beside: models that were prepared beside it,
    by the setting of the spec that names them, from the spec and what was prepared. currency: what draws cost.
    """

    name: str
    default: Any
    items: Callable[[Any], Sequence[StudyItem]]
    work: Callable[[Desk], Mapping[str, JSON]]
    result: Callable[[Any, Target, Sequence[tuple[str, Mapping[str, Any]]]], Findings]
    read: Callable[[Run, int, Target, Mapping[str, Any]], Mapping[str, Any]] = lambda run, number, target, outcome: (
        outcome
    )
    prepare: Callable[[Any, Any, Mapping[str, Any] | None], Any] = lambda spec, engine, options: None
    open: Callable[[Any, Any, Mapping[str, Any]], tuple[Any, Any]] = open_texts
    beside: Callable[[Any, Any], Mapping[str, Any]] = lambda spec, prepared: {}
    currency: str = "generated_tokens"


@dataclass(frozen=True)
class Findings:
    """What all items of a study say together.

    summary: numbers by name. tables: rows by name, the first one for the terminal. sentences: for a person to read.
    transcripts: texts for the report.
    """

    summary: Mapping[str, JSON]
    tables: Mapping[str, Sequence[Row]]
    sentences: Sequence[str] = ()
    transcripts: Sequence[Transcript] = ()


@dataclass(frozen=True)
class StudyResult:
    """The result of a study.

    status: ``complete``, or ``interrupted`` where the same command has something left to do. failed: kind and reason by
    item. waiting: how many of ``items`` wait to be worked on: for the first time, or again because the machine, the
    model or a judge failed, or because their data could not be reached.
    """

    study: str
    status: str
    spec: Mapping[str, JSON]
    target: Target
    items: int
    findings: Findings
    failed: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    cost: Mapping[str, JSON] = field(default_factory=dict)
    waiting: int = 0

    @property
    def exit_status(self) -> int:
        """0 where all items were worked on and at least one came to something, else 1."""
        return 0 if self.status == "complete" and len(self.failed) < self.items else 1

    @property
    def standing(self) -> str:
        """How far a study has come that is not complete; empty where it is."""
        if self.status == "complete":
            return ""
        return not_finished(self.items - self.waiting, self.items)

    @property
    def summary(self) -> dict[str, JSON]:
        kinds = Counter(kind for kind, _ in self.failed.values())
        counts: dict[str, JSON] = {"items": self.items, "failed": len(self.failed), "failures": dict(kinds)}
        return {**counts, **self.findings.summary, "cost": dict(self.cost)}

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``study NAME --json``."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "status": self.status,
            "spec": dict(self.spec),
            "target": asdict(self.target),
            "summary": self.summary,
            "failed": {item: {"kind": kind, "reason": reason} for item, (kind, reason) in self.failed.items()},
            "tables": {name: [_in_json(row) for row in rows] for name, rows in self.findings.tables.items()},
        }


def _in_json(row: Row) -> dict[str, JSON]:
    """A row of a table; JSON has no infinite numbers, so they are spelled "inf" and "-inf"."""
    return {name: str(x) if isinstance(x, float) and math.isinf(x) else x for name, x in row.items()}


def run_study(
    study: Study,
    spec: Any,
    path: str | Path,
    *,
    model: Any = None,
    engine_options: Mapping[str, Any] | None = None,
    workers: Workers = in_process,
    begin: Callable[[int, int, str], None] = lambda number, items, item: None,
    watch: Callable[[Progress | Whole], None] = lambda progress: None,
) -> StudyResult:
    """Work on every item of a study that is not finished, and say what all of them came to.

    Parameters
    ----------
    path : run file; an existing one of the same spec is continued.
    model : an engine, in place of the one that ``spec.asking.model`` names.
    workers : who works on the items; this process, one after the other, by default.
    begin : called with number, number of items and id before work on an item.

    Raises
    ------
    UserError : the spec makes no sense, the data cannot be read, or the file is another run.
    EngineError : there is nobody left to work on the items.
    """
    if spec.target.until != "error" and not hasattr(spec, "method"):
        raise UserError(f"study {study.name} looks into no single generation that has windows; leave until out.")
    items, missing = apart(study.items(spec))
    if not items:
        raise UserError(f"study {study.name} has no items; give it at least one.")
    if len({item.id for item in items}) < len(items):
        raise UserError(f"two items of study {study.name} have the same id; ids must differ.")
    broken: dict[str, tuple[str, str]] = {}
    with workers(study, spec, model if model is not None else spec.asking.model, engine_options or {}) as team:
        asked = _run_spec(study, spec, items, team.facts)
        with Run.create_or_open(path, begun(path, asked, missing)) as run:
            numbers = numbers_of(run, asked)
            remember(run, missing)
            places = {numbers[item.id]: place for place, item in enumerate(items)}
            tasks = [
                Task(number, BESIDE + number, item)
                for number, item in zip(places, items, strict=True)
                if outcome_of(run, number, spec.target) is None and run.document(named("failed", number)) is None
            ]
            for done in team.work(tasks, run, lambda task: begin(places[task.number], len(items), task.item.id), watch):
                number = done.task.number
                if not done.kind:
                    run.put_document(_name(number, spec.target), done.outcome)
                elif done.kind == "item":  # it would fail again
                    run.put_document(named("failed", number), {"kind": done.kind, "reason": done.reason})
                else:  # tried again the next time
                    broken[done.task.item.id] = (done.kind, done.reason)
            if not broken and not missing:
                run.complete("complete")
            return result_of(study, run, spec.target, broken)


def result_of(
    study: Study,
    run: Run,
    target: Target,
    broken: Mapping[str, tuple[str, str]] | None = None,
) -> StudyResult:
    """What the outcomes in an open run say together.

    An item that was finished for the run's own target, and not for this one, is read as it was drawn.

    broken: kind and reason of items that failed just now.
    """
    own, as_drawn = target_of(run), False
    document: dict[str, Any] = dict(run.spec.identity["spec"])  # type: ignore[arg-type]
    spec: Any = spec_from({**document, "target": asdict(target)}, type(study.default))
    found: list[tuple[str, Mapping[str, Any]]] = []
    failed: dict[str, tuple[str, str]] = dict(broken or {})
    items = items_of(run)
    for number, item in enumerate(items):
        outcome, failure = outcome_of(run, number, target), run.document(named("failed", number))
        if outcome is None and (outcome := outcome_of(run, number, own)) is not None:
            as_drawn = True
        if isinstance(failure, dict):
            failed[item] = (str(failure["kind"]), str(failure["reason"]))
        elif outcome is not None:
            found.append((item, study.read(run, number, target, outcome)))
    done = {*failed, *(item for item, _ in found)}
    unbegun = [item for item in items if item not in done]
    lacking = still_missing(run, items, unbegun)
    waiting = len(unbegun) + len(broken or {}) + len(lacking)
    failed |= {data: ("engine", why) for data, why in lacking.items()}
    numbers = [place + number for place in (0, BESIDE) for number in range(len(items))]
    draws = [draw for number in numbers for draw in run.draws(number).values()]
    findings = _findings(study, spec, target, found, finished=len(found) == len(items))
    if as_drawn:
        findings = replace(findings, sentences=(*findings.sentences, _as_drawn(own, target)))
    return StudyResult(
        study=study.name,
        status="interrupted" if waiting else "complete",
        spec=document,
        target=target,
        items=len({*items, *failed}),
        findings=findings,
        failed=failed,
        cost={"continuations": len(draws), study.currency: round(sum(draw.cost for draw in draws))},
        waiting=waiting,
    )


def _findings(
    study: Study, spec: Any, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]], *, finished: bool
) -> Findings:
    """What the outcomes say; they may be too few, or too much alike, to say anything."""
    if not found:
        return Findings({}, {})
    try:
        return study.result(spec, target, found)
    except UserError as error:
        why = str(error)
        if not finished:
            why = f"What there is so far ({len(found)} finished) says nothing yet: {why}"
        return Findings({"analysed": len(found)}, {}, (why[0].upper() + why[1:],))


def _as_drawn(own: Target, asked: Target) -> str:
    """What is said where a study is read with a target that it was not run with."""
    first, second = (
        ", ".join(f"{name.replace('_', ' ')} {value:g}" for name in DRAWN_BY if (value := getattr(target, name)))
        for target in (own, asked)
    )
    return f"The draws are those of a study with {first}; one with {second} may end with others."


def study_of(run: Run, find: Callable[[str], Study | None], **changes: Any) -> StudyResult | None:
    """The result of a study's open run, with fields of its target changed; None for any other run."""
    study = find(str(run.spec.identity.get("study")))
    if study is None:
        return None
    spec = run.spec.identity["spec"]
    if isinstance(spec, dict):
        refuse_unused(spec.get("method"), changes)  # type: ignore[arg-type]
    return result_of(study, run, target_of(run).changed(**changes))


def _run_spec(study: Study, spec: Any, items: Sequence[StudyItem], model: ModelFacts) -> Spec:
    settings = {name: value for name, value in asdict(spec).items() if name != "target"}
    settings["asking"] = {**settings["asking"], "model": _known(settings["asking"]["model"], model)}
    settings |= {setting: _known(settings[setting], other) for setting, other in model.beside.items()}
    if str(settings.get("feature")).startswith(JUDGE):  # the same goes for a judge's
        settings["feature"] = open_feature(settings["feature"]).name
    digests: dict[str, JSON] = {item.id: digest(item.content) for item in items}
    identity: dict[str, JSON] = {"study": study.name, "model": model.name, "spec": settings, "items": digests}
    if model.digest:
        identity["weights"] = model.digest
    identity |= {f"{setting}_weights": other.digest for setting, other in model.beside.items() if other.digest}
    return Spec(identity=identity, target=asdict(spec.target), provenance=provenance())


def _known(spelling: str, model: ModelFacts) -> str:
    """A model as a run file names it.

    It is what was asked for; where its server stands or its file lies may change, and is nobody else's business.
    """
    return model.name if spelling.startswith(("http://", "https://", "gguf:")) else spelling


def outcome_of(run: Run, number: int, target: Target) -> Mapping[str, Any] | None:
    """What an item came to under what a target lets be drawn; None where it was not finished."""
    document = run.document(_name(number, target))
    return document if isinstance(document, dict) else None


def _name(number: int, target: Target) -> str:
    drawn = [getattr(target, name) for name in DRAWN_BY]
    return f"outcome {number} {json.dumps(drawn)}"
