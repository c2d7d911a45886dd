"""``study diffusion``: the critical windows of all that a diffusion model draws ([LKC25], Definition 4).

Many samples are drawn. The state of each trajectory at some noise levels is kept and denoised again and again; the
labels estimate its posterior there, and the mixture of the theory follows as it does for texts (``mixtures.py``), with
reverse steps taken in place of tokens kept. Each item is a sample that ``show --item`` and ``report --item`` show.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from typing import Any

from blinkscope.critical import check_eps, first_time, last_time
from blinkscope.diffusion.guidance import GuidanceInterval
from blinkscope.diffusion.levels import evenly
from blinkscope.diffusion.pictures import PictureModel, experiment, source_of
from blinkscope.diffusion.record import PictureRecord
from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON, Order
from blinkscope.estimate.trace import Target
from blinkscope.pictured import DOCUMENT, OWN_LABELS, PictureQuestion, labeller, open_model
from blinkscope.plurals import counted
from blinkscope.sampled import SampledMixture
from blinkscope.studies.distribution import same_rows
from blinkscope.studies.mixtures import (
    Generations,
    curve_rows,
    generations_of,
    regime_rows,
    reverse_rows,
    tree_rows,
    window_rows,
)
from blinkscope.studies.prefill import replies_each
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem, StudyResult

TOLD = 3
"""Pairs of labels, the last and the first to part, that are told in a sentence."""


@dataclass(frozen=True)
class Drawing:
    """Which model draws, and from which random numbers."""

    model: str = "diffusion:digits"
    seed: int = 0


@dataclass(frozen=True)
class DiffusionSpec:
    """What ``study diffusion`` is asked.

    items: samples drawn. levels: noise levels at which their trajectories are looked at, at equal distances in steps,
    from pure noise on. prompt: of text-to-image pipelines. feature: as with ``locate``; None takes the model's own
    labels. labels: most labels kept apart. eps: of Definition 4.
    """

    items: int = 60
    levels: int = 8
    prompt: str | None = None
    feature: str | None = None
    labels: int = 12
    eps: float = 0.3
    asking: Drawing = field(default_factory=Drawing)
    target: Target = field(default_factory=lambda: Target(error=0.18))

    def __post_init__(self) -> None:
        check_eps(self.eps)
        if self.items < 2 or self.levels < 2 or self.labels < 2:
            raise UserError(
                f"items, levels and labels are {self.items}, {self.levels} and {self.labels}; there must be at least 2 "
                "of each."
            )


def _open(spec: DiffusionSpec, model: Any, options: Mapping[str, Any]) -> tuple[PictureModel, None]:
    """The model, with the labels that are asked for as its own."""
    given = {name: value for name, value in options.items() if value not in (None, "auto")}
    opened = open_model(model, spec.prompt, given)
    label, _ = labeller(PictureQuestion(feature=spec.feature), opened)
    return replace(opened, label=label), None


def _work(desk: Desk) -> Mapping[str, JSON]:
    """A fresh sample, and its trajectory's states denoised as often as the target asks for."""
    spec: DiffusionSpec = desk.spec
    model: PictureModel = desk.engine
    sampler = model.sampler
    document = desk.keeper.document(DOCUMENT)
    if document is None:
        kept = evenly(sampler.steps, spec.levels)
        record = experiment(
            model,
            method="clone",
            seed=spec.asking.seed,
            labels=spec.labels,
            times=[float(sampler.times[sampler.steps - position]) for position in kept],
            settings={"model": model.name, "feature": spec.feature or OWN_LABELS, "image": None},
            generation=desk.keeper.generation,
        )
        desk.keeper.put_document(DOCUMENT, record.to_json())
    else:
        record = PictureRecord.from_json(document)
    assert record.positions is not None
    count = max(2, replies_each(desk.target, len(record.positions)))
    halves = ((count + 1) // 2, count // 2)
    orders = [Order(place, half, 0, halves[half]) for place in record.positions for half in (0, 1)]
    draws = dict(desk.keeper.known)
    for draw in desk.stopwatch.over(source_of(record, model).draw(orders, 0, draws.keys())):
        desk.keeper.add(draw)
        draws[draw.stratum, draw.replicate] = draw
    counts = [dict(Counter(draws[place, i].label for i in range(count))) for place in record.positions]
    path: dict[str, JSON] = {
        "kept": [*record.positions, record.steps],
        "final": record.final_label,
        "counts": [*counts, {record.final_label: count}],  # type: ignore[list-item]
    }
    times: list[JSON] = [time if math.isfinite(time) else None for time in record.times]
    return {"paths": [path], "times": times, "outside": record.outside, "notes": list(record.notes)}


@dataclass(frozen=True)
class Clock:
    """What the theory calls the levels: a time for every number of reverse steps taken; None for pure noise."""

    times: tuple[float | None, ...]

    def at(self, kept: int | None) -> float | None:
        return None if kept is None else self.times[len(self.times) - 1 - kept]

    def beside(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with the time after their number of steps."""
        return [_insert(row, "kept", {"time": self.at(row["kept"])}) for row in rows]


def _insert(row: Row, after: str, more: Mapping[str, JSON]) -> Row:
    out: dict[str, Any] = {}
    for name, value in row.items():
        out[name] = value
        if name == after:
            out |= more
    return out


def pair_rows(generations: Generations, clock: Clock, eps: float) -> list[Row]:
    """When each pair of labels parts; those that part last come first.

    merged: the most steps after which TV(p^i, p^j) <= eps. apart: the fewest from which on it is at least 1 - eps^2;
    None where it never is. Both with limits.
    """
    mixture, last = generations.mixture, generations.kept[-1]
    readings = {"": mixture, "_low": replace(mixture, reading="high"), "_high": replace(mixture, reading="low")}

    def place(time: float | None) -> int | None:
        return None if time is None else round(last - time)

    rows: list[Row] = []
    for a, b in combinations(generations.labels, 2):
        merged: dict[str, JSON] = {}
        apart: dict[str, JSON] = {}
        for ending, curve in readings.items():
            distance = partial(_distance, curve, a, b)
            merged[f"merged{ending}"] = place(first_time(distance, eps, curve.index))
            apart[f"apart{ending}"] = place(last_time(distance, 1 - eps**2, curve.index))
        times = {f"t_{name}": clock.at(row[name]) for name, row in (("merged", merged), ("apart", apart))}  # type: ignore[arg-type]
        rows.append({"of": f"{a}, {b}", **merged, **apart, **times})
    return sorted(rows, key=lambda row: (last + 1 if row["apart"] is None else row["apart"], row["merged"] or 0))[::-1]


def _distance(mixture: SampledMixture, a: str, b: str, t: float) -> float:
    return mixture.total_variation((a,), (b,), t).value


def _result(spec: DiffusionSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    generations = generations_of([outcome for _, outcome in found], spec.labels, target.level, stratified=True)
    clock = Clock(tuple(found[0][1]["times"]))
    sets = {label: (label,) for label in generations.labels}
    windows = window_rows(generations, sets, spec.eps)
    nodes, why = tree_rows(generations.mixture, spec.eps)
    pairs = pair_rows(generations, clock, spec.eps)
    weights = dict(zip(generations.labels, generations.mixture.weights.tolist(), strict=True))
    tables: dict[str, Sequence[Row]] = {
        "windows": [{**row, "t_before": clock.at(row["start"]), "t_after": clock.at(row["end"])} for row in windows],
        "total_variation": clock.beside(curve_rows(generations, sets)),
        "pairs": pairs,
        "tree": clock.beside(nodes),
        "theorem2": [
            {**row, "t_start": clock.at(row["start"]), "t_end": clock.at(row["end"])}
            for row in regime_rows(generations, spec.eps, nodes)
        ],
        "same": clock.beside(same_rows(generations, target.level)),
        "forward_reverse": clock.beside(reverse_rows(generations)),
    }
    law = ", ".join(f"{label} {weight:.2f}" for label, weight in weights.items())
    sentences = [f"Label law of {counted(len(generations.final), 'sample')}: {law}.", *map(_sentence, windows)]
    last, first = pairs[:TOLD], pairs[TOLD:][: -TOLD - 1 : -1]
    parting = f"Last to stand apart, from so many steps on: {_parting(last)}."
    sentences.append(f"{parting} First: {_parting(first)}." if first else parting)
    if why is not None:
        sentences.append(f"eps-mixture tree at eps = {spec.eps:g}: {why}")
    outside = found[0][1].get("outside")
    if outside is not None:
        sentences.append(f"Outside the theory: {outside}. What is said of windows and bounds does not describe it.")
    sentences += [f"Note: {note}" for note in found[0][1].get("notes", ())]
    summary: dict[str, JSON] = {"analysed": len(found), "eps": spec.eps, "weights": weights, "outside": outside}
    return Findings(summary, tables, sentences)


def _sentence(row: Row) -> str:
    """A window in words, or why there is none."""
    if row["outcome"] == "no-before":
        return f"{row['of']}: no window (favoured in pure noise already)."
    if row["outcome"] != "window":
        why = "the two regimes overlap" if row["outcome"] == "inverted" else "never surely settled before the end"
        return f"{row['of']}: no window ({why})."
    return f"{row['of']}: decided between {row['start']} and {row['end']} reverse steps."


def guidance_interval(windows: Sequence[Row], label: str | None = None) -> GuidanceInterval:
    """The noise levels at which the class is decided, from the table ``windows`` of the study.

    From T_after to T_before of one label, or from the first T_after to the last T_before of all. A class that is never
    surely settled needs guidance to the end, one that is favoured in pure noise already needs it from the start. Where
    the two regimes of a class meet or overlap nothing lies between them.
    """
    spans = {str(row["of"]): span for row in windows if (span := _span(row)) is not None}
    if label is not None:
        spans = {name: span for name, span in spans.items() if name == label}
    if not spans:
        what = "no class is" if label is None else f"{label!r} is not"
        raise UserError(f"there is no interval to guide in: {what} decided between two of the noise levels looked at.")
    return GuidanceInterval(min(low for low, _ in spans.values()), max(high for _, high in spans.values()))


def _span(row: Row) -> tuple[float, float] | None:
    low = 0.0 if row["t_after"] is None else row["t_after"]
    high = math.inf if row["t_before"] is None else row["t_before"]
    return (low, high) if low < high else None


def guidance_document(result: StudyResult) -> dict[str, JSON]:
    """The intervals of all classes together and of each, as ``export --to guidance`` writes them."""
    windows = result.findings.tables.get("windows", ())
    if result.study != STUDY.name or not windows:
        raise UserError("this run holds no study of a diffusion model, so nothing says where its classes are decided.")
    labels = [str(row["of"]) for row in windows if _span(row) is not None]
    asking = result.spec["asking"]
    return {
        "model": asking["model"] if isinstance(asking, dict) else None,
        "eps": result.findings.summary["eps"],
        "interval": guidance_interval(windows).to_json(),
        "labels": {label: guidance_interval(windows, label).to_json() for label in labels},
    }


def _parting(rows: Sequence[Row]) -> str:
    return "; ".join(f"{row['of']} ({'never' if row['apart'] is None else row['apart']})" for row in rows)


def _items(spec: DiffusionSpec) -> list[StudyItem]:
    return [StudyItem(str(number + 1), {}) for number in range(spec.items)]


STUDY = Study("diffusion", DiffusionSpec(), _items, _work, _result, open=_open, currency="network_evaluations")
