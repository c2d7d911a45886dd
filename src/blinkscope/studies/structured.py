"""``study structured``: when a model fills in a form, each answer has its own window ([LKC25], structured output)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from blinkscope.critical import check_eps, critical_window
from blinkscope.errors import UserError
from blinkscope.estimate import streams
from blinkscope.estimate.source import JSON, Draw
from blinkscope.estimate.trace import Target
from blinkscope.plurals import counted
from blinkscope.posterior import Posterior
from blinkscope.sampled import SampledMixture
from blinkscope.studies.blanks import Fill, Form, enumerate_fills, laws_along
from blinkscope.studies.distribution import continued, cuts, same_rows, transcripts_of, window_sentence
from blinkscope.studies.mixtures import Generations, curve_rows, generations_of, kept_index, tree_rows, window_rows
from blinkscope.studies.prefill import replies_each
from blinkscope.studies.specs import Asking, check_prompt
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem

STORY = """Plan a story. Write one word on each line: the hero, the place, what the hero carries, and the animal.

Example:
1. Teacher
2. City
3. Book
4. Mouse

Now write another plan with four other words."""
"""A form with an example filled in, and without its options: a small model copies ``(Pirate/Ninja)``, or takes the
first option nearly always."""

PAPER = """Choose one word of each pair in parentheses. Write the five sentences with your words, and nothing else.

1. The (Pirate/Ninja) leapt over the deck.
2. At the shelter she chose a (Dog/Cat).
3. The (River/Bridge) shone in the sun.
4. The castle was guarded by a (Dragon/Knight).
5. For supper he wanted (Pizza/Sushi)."""
"""The paper's form: five sentences with its five two-way choices. The other words are ours."""

START = "1."


@dataclass(frozen=True)
class StructuredSpec:
    """What ``study structured`` is asked.

    blanks: the options of each line, ``Pirate/Ninja``, or a sentence with them, ``The (Pirate/Ninja) leapt.`` prompt:
    ``{lines}`` in it stands for the lines with their options. items: generations. restricted: hold every token to those
    that lead to one of the options; the law is then exact. step: tokens between two cuts. eps: of Definition 4. labels:
    most tuples kept apart.
    """

    blanks: tuple[str, ...] = ("Pirate/Knight", "Moon/Sea", "Sword/Map", "Bear/Horse")
    prompt: str = STORY
    items: int = 40
    restricted: bool = True
    step: int = 1
    eps: float = 0.3
    labels: int = 40
    asking: Asking = field(default_factory=lambda: Asking(temperature=1.0, top_p=1.0, max_new_tokens=24))
    target: Target = field(default_factory=lambda: Target(error=0.12))

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        Form(self.blanks)
        check_eps(self.eps)
        if self.items < 2 or self.step < 1:
            raise UserError(
                f"items and step are {self.items} and {self.step}; give at least 2 generations and 1 token."
            )


def _items(spec: StructuredSpec) -> list[StudyItem]:
    prompt = spec.prompt.replace("{lines}", Form(spec.blanks).lines)
    if spec.restricted:
        return [StudyItem("form", {"prompt": prompt})]
    return [StudyItem(str(number + 1), {"prompt": prompt}) for number in range(spec.items)]


def _work(desk: Desk) -> Mapping[str, JSON]:
    spec: StructuredSpec = desk.spec
    form = Form(spec.blanks)
    context = desk.engine.encode(desk.prompt, prefill=START)
    if not spec.restricted:
        return {"paths": [continued(desk, form, context, cuts(desk.sampling.max_new_tokens, spec.step))]}
    plain = replace(desk.sampling, top_p=1.0, top_k=0, min_p=0.0)
    fills = desk.stopwatch.once(lambda: enumerate_fills(desk.engine, context, plain, form))
    longest = max(len(fill.tokens) for fill in fills)
    paths = [_held_path(desk, fills, number, cuts(longest, spec.step)) for number in range(spec.items)]
    law: list[JSON] = [{"label": fill.label, "tokens": list(fill.tokens), "p": fill.p} for fill in fills]
    return {"paths": paths, "fills": law}  # type: ignore[dict-item]


def _held_path(desk: Desk, fills: Sequence[Fill], number: int, places: Sequence[int]) -> dict[str, JSON]:
    """A generation of the model held to the options, and its continuations.

    Drawing token by token from the tree of ``enumerate_fills`` is drawing a way to fill the form in from its law given
    the tokens kept, so nothing has to be generated.
    """
    seed = desk.spec.asking.seed
    p = np.array([fill.p for fill in fills])
    own = fills[streams.stream(seed, streams.GENERATION, number).choice(len(fills), p=p / p.sum())]
    laws, count = laws_along(fills, own.tokens), max(2, replies_each(desk.target, len(places)))
    counts: list[JSON] = []
    for kept in places:
        law = laws[min(kept, len(own.tokens))]
        drawn = [
            fills[streams.stream(seed, streams.FREE, number, kept, i).choice(len(fills), p=law)].label
            for i in range(count)
        ]
        counts.append(dict(Counter(drawn)))
        for i, label in enumerate(drawn):
            key = (number * (max(places) + 1) + kept, i)
            if key not in desk.keeper.known:
                desk.keeper.add(Draw(*key, label, 0.0))
    exact = [float(laws[min(kept, len(own.tokens)), fills.index(own)]) for kept in places]
    return {
        "kept": list(places),
        "tokens": list(desk.engine.pieces(own.tokens)),
        "final": own.label,
        "counts": counts,
        "exact": exact,  # type: ignore[dict-item]
    }


def _result(spec: StructuredSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    form = Form(spec.blanks)
    generations = generations_of([outcome for _, outcome in found], spec.labels, target.level)
    sets = {
        f"{line + 1}. {option}": chosen
        for line, options in enumerate(form.options)
        for option in options
        if (chosen := _seen(form.chosen(line, option), generations)) and len(chosen) < len(generations.labels)
    }
    fills = [Fill(f["label"], tuple(f["tokens"]), f["p"]) for f in found[0][1].get("fills", [])]
    windows = window_rows(generations, sets, spec.eps)
    mixture = exact_mixture(fills, form, generations.kept) if fills else generations.mixture
    if fills:
        windows = [{**row, **_exact_window(mixture, form, row["of"], spec.eps)} for row in windows]
    nodes, why = tree_rows(mixture, spec.eps)
    paths = [path for _, outcome in found for path in outcome["paths"]]
    same = _with_exact(same_rows(generations, target.level), paths)
    law = _law_rows(fills, generations)
    tables = {
        "windows": windows,
        "same": same,
        "law": law,
        "total_variation": curve_rows(generations, sets),
        "tree": nodes,
        "texts": [_text_row(path) for path in paths],
    }
    parsed = sum(path["final"] in form.labels for path in paths) / len(paths)
    sentences = [window_sentence(row) for row in windows]
    sentences.insert(0, f"{parsed:.0%} of {counted(len(paths), 'generation')} fill the form in.")
    if why is not None:
        sentences.append(f"eps-mixture tree at eps = {spec.eps:g}: {why}")
    summary: dict[str, JSON] = {"analysed": len(paths), "filled": parsed, "eps": spec.eps}
    return Findings(summary, tables, sentences, transcripts_of(found))


def _seen(labels: Sequence[str], generations: Generations) -> tuple[str, ...]:
    return tuple(label for label in labels if label in generations.labels)


def _with_exact(rows: list[Row], paths: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The exact mean beside the estimate, where the law is known."""
    if "exact" not in paths[0]:
        return rows
    exact = np.array([path["exact"] for path in paths]).mean(axis=0)
    return [{**row, "exact": float(value)} for row, value in zip(rows, exact, strict=True)]


def _law_rows(fills: Sequence[Fill], generations: Generations) -> list[Row]:
    """The law of the tuples as drawn with nothing kept, beside the enumerated one."""
    drawn = Counter[str]()
    for tables in generations.counts:
        drawn.update(tables[0])
    exact = {fill.label: fill.p for fill in fills}
    total = drawn.total()
    names = sorted(exact or drawn, key=lambda label: -exact.get(label, drawn[label]))
    return [{"label": name, "drawn": drawn[name] / total, "exact": exact.get(name)} for name in names]


def exact_mixture(fills: Sequence[Fill], form: Form, kept: Sequence[int]) -> SampledMixture:
    """Every way to fill the form in, with its probability: posteriors, total variations and windows without error."""
    p = np.array([fill.p for fill in fills])
    laws = [laws_along(fills, fill.tokens) for fill in fills]
    mean = np.array([[law[min(s, len(law) - 1)] for law in laws] for s in kept])
    posterior = Posterior(
        np.array(kept, dtype=float),
        tuple(fill.label for fill in fills),
        mean,
        weights=p / p.sum(),
        mass=np.tile(p / p.sum(), (len(kept), 1)),
        complete=True,
    )
    return SampledMixture(posterior, kept_index(kept))


def _exact_window(mixture: SampledMixture, form: Form, name: str, eps: float) -> dict[str, JSON]:
    line, _, option = name.partition(". ")
    window = critical_window(mixture, eps, form.chosen(int(line) - 1, option))
    start, end = (None if t is None else round(mixture.source.high - t) for t in (window.t_before, window.t_after))
    return {"exact_start": start, "exact_end": end, "exact_outcome": window.outcome}


def _text_row(path: Mapping[str, Any]) -> Row:
    return {"label": path["final"], "text": "".join(path["tokens"])}


STUDY = Study("structured", StructuredSpec(), _items, _work, _result)
