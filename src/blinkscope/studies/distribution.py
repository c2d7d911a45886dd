"""``study distribution``: the critical windows of all that a model says to one prompt ([LKC25], Definition 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blinkscope.critical import check_eps
from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target
from blinkscope.feature import start
from blinkscope.features import open_feature
from blinkscope.plurals import counted
from blinkscope.replies import Beginning, draw_generation, draw_replies
from blinkscope.session import feature_for, handed_judge, judge_of
from blinkscope.studies.intervals import clustered_interval
from blinkscope.studies.mixtures import (
    Generations,
    curve_rows,
    generations_of,
    regime_rows,
    reverse_rows,
    same_label,
    tree_rows,
    window_rows,
)
from blinkscope.studies.prefill import replies_each
from blinkscope.studies.specs import Asking, check_prompt
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem
from blinkscope.studies.transcripts import Transcript, plain


@dataclass(frozen=True)
class DistributionSpec:
    """What ``study distribution`` is asked.

    items: generations of the prompt. step: tokens between two cuts. feature: how they are told apart; None takes the
    model's own labels. labels: most labels kept apart. eps: of Definition 4.
    """

    prompt: str = "Should I get a cat or a dog for a small flat? Answer in one short sentence."
    items: int = 30
    step: int = 2
    feature: str | None = None
    labels: int = 6
    eps: float = 0.3
    asking: Asking = field(default_factory=lambda: Asking(max_new_tokens=24))
    target: Target = field(default_factory=lambda: Target(error=0.2))

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        check_eps(self.eps)
        if self.feature is not None:
            open_feature(self.feature)
        if self.items < 2:
            raise UserError(f"items is {self.items}; there must be at least 2 generations.")
        if self.step < 1:
            raise UserError(f"step is {self.step}; between two cuts there must be at least 1 token.")
        if self.labels < 2:
            raise UserError(f"labels is {self.labels}; at least 2 outcomes must be kept apart.")


def cuts(cap: int, step: int) -> tuple[int, ...]:
    """Numbers of tokens kept, from 0 to the cap, which is always among them."""
    return (*range(0, cap, step), cap)


def continued(desk: Desk, feature: Any, context: Any, places: Sequence[int]) -> dict[str, JSON]:
    """A fresh generation, cut after each number of tokens and continued as often as the target asks for."""
    seed = desk.spec.asking.seed
    common = {"seed": seed, "keeper": desk.keeper, "stopwatch": desk.stopwatch}
    path, whole = draw_generation(desk.engine, context, feature, desk.sampling, **common)
    count = max(2, replies_each(desk.target, len(places)))
    inside = {kept: Beginning(path, kept) for kept in places if kept < len(path.tokens)}
    draws = draw_replies(desk.engine, inside, feature, desk.sampling, count=count, **common)
    counts = [
        dict(Counter(draws[kept, i].label for i in range(count))) if kept in inside else {whole.label: count}
        for kept in places
    ]
    return {
        "kept": list(places),
        "tokens": list(desk.engine.pieces(path.tokens)),
        "final": whole.label,
        "counts": counts,  # type: ignore[dict-item]
    }


def _work(desk: Desk) -> Mapping[str, JSON]:
    spec: DistributionSpec = desk.spec
    places = cuts(desk.sampling.max_new_tokens, spec.step)
    return {"paths": [continued(desk, desk.prepared, desk.engine.encode(desk.prompt), places)]}


def same_rows(generations: Generations, level: float) -> list[Row]:
    """P(same label) against tokens kept, the mean over generations, with an interval over them."""
    shares = same_label(generations)
    rows: list[Row] = []
    for i, kept in enumerate(generations.kept):
        column = shares[:, i]
        limits = clustered_interval(range(len(column)), lambda chosen, c=column: float(c[chosen].mean()), level)  # type: ignore[misc]
        low, high = limits or (None, None)
        rows.append({"kept": kept, "share": float(column.mean()), "low": low, "high": high})
    return rows


def _result(spec: DistributionSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    generations = generations_of([outcome for _, outcome in found], spec.labels, target.level)
    sets = {label: (label,) for label in generations.labels}
    windows = window_rows(generations, sets, spec.eps)
    nodes, why = tree_rows(generations.mixture, spec.eps)
    weights = dict(zip(generations.labels, generations.mixture.weights.tolist(), strict=True))
    tables = {
        "windows": windows,
        "total_variation": curve_rows(generations, sets),
        "same": same_rows(generations, target.level),
        "forward_reverse": reverse_rows(generations),
        "tree": nodes,
        "theorem2": regime_rows(generations, spec.eps, nodes),
    }
    sentences = [window_sentence(row) for row in windows]
    law = ", ".join(f"{label} {weight:.2f}" for label, weight in weights.items())
    sentences.insert(0, f"Label law of {counted(len(generations.final), 'generation')}: {law}.")
    if why is not None:
        sentences.append(f"eps-mixture tree at eps = {spec.eps:g}: {why}")
    summary: dict[str, JSON] = {"analysed": len(found), "eps": spec.eps, "weights": weights}
    return Findings(summary, tables, sentences, transcripts_of(found))


def transcripts_of(found: Sequence[tuple[str, Mapping[str, Any]]]) -> tuple[Transcript, ...]:
    """The generations themselves."""
    return tuple(
        Transcript(item if len(outcome["paths"]) == 1 else f"{item} {i + 1}", path["final"], plain(path["tokens"]))
        for item, outcome in found
        for i, path in enumerate(outcome["paths"])
    )


def window_sentence(row: Row) -> str:
    """A window in words, or why there is none."""
    why = {
        "no-after": "never surely settled before the end",
        "no-before": "already favoured with nothing kept",
        "inverted": "settled while it still counts as open: the two regimes overlap",
    }
    if row["outcome"] != "window":
        return f"{row['of']}: no window ({why[row['outcome']]})."
    return f"{row['of']}: decided between {row['start']} and {row['end']} tokens kept."


def _prepare(spec: DistributionSpec, engine: Any, options: Mapping[str, Any] | None) -> Any:
    """The feature, with the model that judges where it is a judge: a mistake in it shows before anything is drawn."""
    feature = feature_for(engine, spec.feature)
    start(feature)
    return handed_judge(feature, judge_of(feature, engine, options), spec.prompt)


def _items(spec: DistributionSpec) -> list[StudyItem]:
    return [StudyItem(str(number + 1), {"prompt": spec.prompt}) for number in range(spec.items)]


STUDY = Study("distribution", DistributionSpec(), _items, _work, _result, prepare=_prepare)
