"""``blinkscope detect``: every text read by both models, kept in a run file, and told apart by each score.

It is a study (``studies/study.py``): a text is an item, and what it came to is stored as soon as both models have read
it, so that scoring a long file goes on where it was killed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.detection.probe import KINDS, Probe, load_probe
from blinkscope.detection.reading import Side, read
from blinkscope.detection.running import Running, running
from blinkscope.detection.scores import scores
from blinkscope.detection.tables import Scored, findings
from blinkscope.detection.texts import conversation_of, text_items
from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target
from blinkscope.language.engine import Engine
from blinkscope.outputs import Kind
from blinkscope.reread import items_of, target_of
from blinkscope.runs.store import Run
from blinkscope.session import open_model
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import Desk, Findings, Study, StudyItem, outcome_of

RUNNING = Kind("running ratio", "running ratio", re.compile(rb'\{"id": "(?:[^"\\]|\\.)*", "position": '))


@dataclass(frozen=True)
class DetectSpec:
    """What ``detect score`` is asked.

    data, items: see ``text_items``. asking: the aligned model and its system prompt. unaligned, unaligned_system: the
    other one, by default the same model. probe, probe_sha256: file of a trained probe, and the digest of its content.
    """

    data: str = ""
    items: int | None = None
    asking: Asking = field(default_factory=Asking)
    unaligned: str | None = None
    unaligned_system: str | None = None
    probe: str | None = None
    probe_sha256: str | None = None
    target: Target = field(default_factory=Target)

    def __post_init__(self) -> None:
        if self.items is not None and self.items < 1:
            raise UserError(f"items is {self.items}; give a whole number from 1 on.")

    def with_probe(self, path: str) -> DetectSpec:
        """The same with a probe, whose file is read."""
        load_probe(Path(path))
        return replace(self, probe=path, probe_sha256=hashlib.sha256(Path(path).read_bytes()).hexdigest())


@dataclass(frozen=True)
class Instruments:
    """What a text is read with beside the aligned model."""

    unaligned: Engine
    probe: Probe | None = None


def _prepare(spec: DetectSpec, engine: Engine, options: Mapping[str, Any] | None) -> Instruments:
    unaligned = engine if spec.unaligned in (None, spec.asking.model) else open_model(spec.unaligned, options)
    if spec.probe is None:
        return Instruments(unaligned)
    probe = load_probe(Path(spec.probe))
    if (probe.model, probe.system) != (engine.name, spec.asking.system):
        raise UserError(
            f"the probe {spec.probe} was trained on {_side(probe.model, probe.system)}, not on "
            f"{_side(engine.name, spec.asking.system)}; train one for the aligned model."
        )
    return Instruments(unaligned, probe)


def _side(model: str, system: str | None) -> str:
    return f"{model} {f'with the system prompt {system!r}' if system is not None else 'without a system prompt'}"


def _work(desk: Desk) -> Mapping[str, JSON]:
    content, instruments = desk.item.content, desk.prepared
    conversation, reply = conversation_of(content), str(content["completion"])
    aligned = Side(desk.engine, desk.spec.asking.system)
    unaligned = Side(instruments.unaligned, desk.spec.unaligned_system)
    probe: Probe | None = instruments.probe
    first = desk.stopwatch.once(lambda: read(aligned, conversation, reply, None if probe is None else probe.layer))
    second = desk.stopwatch.once(lambda: read(unaligned, conversation, reply))
    marks = {} if probe is None or first.activation is None else probe.scores(first.activation)
    return {
        "label": content["label"],
        "family": content["family"],
        "unread": max(first.unread, second.unread),
        "prompt": _stored(running(first.prompt, second.prompt)),
        "reply": _stored(running(first.reply, second.reply)),
        "probe": {kind: marks[kind] for kind in KINDS if kind in marks},
    }


def _stored(steps: Running) -> dict[str, JSON]:
    return {
        "pieces": list(steps.pieces),
        "aligned": [in_json(value) for value in steps.aligned],
        "unaligned": [in_json(value) for value in steps.unaligned],
    }


def _steps(stored: Mapping[str, Any]) -> Running:
    return Running(
        tuple(stored["pieces"]),
        np.array([float(value) for value in stored["aligned"]]),
        np.array([float(value) for value in stored["unaligned"]]),
    )


def in_json(value: float) -> JSON:
    """A number as JSON spells it here: null where there is none, "inf" and "-inf" where it is infinite."""
    return None if math.isnan(value) else float(value) if math.isfinite(value) else str(float(value))


def _result(spec: DetectSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    texts = []
    for id_, outcome in found:
        prompt, reply = _steps(outcome["prompt"]), _steps(outcome["reply"])
        marks = {f"probe_{kind}": float(value) for kind, value in outcome["probe"].items()}
        values = {**scores(prompt, reply), **marks}
        texts.append(Scored(id_, outcome["label"], outcome["family"], values, reply, int(outcome["unread"])))
    said = findings(texts, target.level, spec.asking.seed)
    other = spec.unaligned if spec.unaligned is not None else spec.asking.model
    sides = (
        f"Aligned: {_side(spec.asking.model, spec.asking.system)}. Unaligned: {_side(other, spec.unaligned_system)}."
    )
    return replace(said, sentences=(sides, *said.sentences))


def _items(spec: DetectSpec) -> list[StudyItem]:
    if spec.unaligned in (None, spec.asking.model) and spec.unaligned_system == spec.asking.system:
        raise UserError(
            "the aligned and the unaligned model are the same, so that every log ratio is 0; give another --unaligned "
            "model, or a system prompt (--unaligned-system)."
        )
    return text_items(spec.data, spec.items)


def _beside(spec: DetectSpec, instruments: Instruments) -> Mapping[str, Engine]:
    return {} if spec.unaligned is None else {"unaligned": instruments.unaligned}


STUDY = Study("detect", DetectSpec(), _items, _work, _result, prepare=_prepare, beside=_beside)


def running_lines(path: Path) -> Iterator[str]:
    """The running ratio of every scored text in a run file, one JSON object a line and token.

    ``position`` is the number of tokens of the reply read; ``log_ratio`` the log-likelihood ratio after them, and
    ``mean_ratio`` the same for each token.
    """
    with Run.open(path) as run:
        target = target_of(run)
        for number, id_ in enumerate(items_of(run)):
            outcome = outcome_of(run, number, target)
            if outcome is None:
                continue
            steps = _steps(outcome["reply"])
            rows = zip(steps.pieces, steps.aligned, steps.unaligned, steps.log_ratio, strict=True)
            for position, (piece, aligned, unaligned, ratio) in enumerate(rows, 1):
                line = {
                    "id": id_,
                    "position": position,
                    "token": piece,
                    "aligned": in_json(aligned),
                    "unaligned": in_json(unaligned),
                    "log_ratio": in_json(ratio),
                    "mean_ratio": in_json(ratio / position),
                }
                yield json.dumps(line, allow_nan=False)
