"""Sampled label posteriors of many generations of one prompt, as the mixture of the theory ([LKC25], section 2).

Each generation is cut after s tokens and continued m times; the m labels estimate its posterior pi_s. A text that is
shorter than s tokens is padded after its end, so its posterior stands at its label. Tokens kept run against the
theory's time: s = T - t.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from blinkscope.bounds import theorem2
from blinkscope.critical import Interval, complement, end_time, start_time
from blinkscope.divergence import label_law
from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.feature import OTHER, TRUNCATED, UNPARSED
from blinkscope.posterior import Posterior
from blinkscope.sampled import SampledMixture, sampled_window
from blinkscope.sampler import IndexSet
from blinkscope.studies.study import Row
from blinkscope.tree import Node, build_tree

_REMEDIES = {
    TRUNCATED: "; raise --max-new-tokens until they come to an end",
    UNPARSED: "; take a --feature that finds an outcome in them",
}


@dataclass(frozen=True, eq=False)
class Generations:
    """Generations of one prompt with the labels of what went on from each of their beginnings.

    kept: the numbers of tokens kept, rising from 0. final: the label of each generation. counts: how often each label
    came, one table for each generation and number of tokens kept; all tables of a generation have the same total.
    stratified: weigh generations so that each label has among them the weight that it has in the model, as draws from
    each p_t^theta; many of them must then be of every label.
    """

    kept: tuple[int, ...]
    final: tuple[str, ...]
    counts: tuple[tuple[Mapping[str, int], ...], ...]
    most_labels: int
    level: float
    stratified: bool = False

    @cached_property
    def posterior(self) -> Posterior:
        """Shape (kept, generations, labels), with counts; weights from what was drawn with nothing kept.

        Half a draw is added to every label that was ever seen, so that none has weight 0.
        """
        seen = Counter[str](self.final)
        for tables in self.counts:
            for table in tables:
                seen.update(table)
        common = [label for label, _ in seen.most_common()]
        labels = tuple(sorted(common[: self.most_labels])) if len(common) > self.most_labels else tuple(sorted(common))
        if len(common) > self.most_labels:
            labels = (*(label for label in labels if label != OTHER), OTHER)
        if len(labels) < 2:
            remedy = _REMEDIES.get(labels[0], "")
            raise UserError(f"every generation has the label {labels[0]!r}: there is nothing to tell apart{remedy}.")
        number = {label: i for i, label in enumerate(labels)}
        counts = np.zeros((len(self.kept), len(self.final), len(labels)), dtype=np.int64)
        for j, tables in enumerate(self.counts):
            for i, table in enumerate(tables):
                for label, count in table.items():
                    counts[i, j, number.get(label, len(labels) - 1)] += count
        first = counts[0].sum(axis=0) + 0.5
        weights = first / first.sum()
        mass = None
        if self.stratified:
            final = np.array([number.get(label, len(labels) - 1) for label in self.final])
            each = (weights / np.maximum(np.bincount(final, minlength=len(labels)), 1))[final]
            mass = np.tile(each / each.sum(), (len(self.kept), 1))
        return Posterior(
            index=np.array(self.kept, dtype=float),
            labels=labels,
            mean=counts / counts.sum(axis=-1, keepdims=True),
            weights=weights,
            mass=mass,
            counts=counts,
        )

    @property
    def index(self) -> IndexSet:
        return kept_index(self.kept)

    @cached_property
    def mixture(self) -> SampledMixture:
        return SampledMixture(self.posterior, self.index, self.level)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.posterior.labels


def kept_index(kept: Sequence[int]) -> IndexSet:
    """Tokens kept as an index set, from nothing to the last cut."""
    return IndexSet("kept", "tokens", 0, kept[-1], tuple(range(kept[-1] + 1)), direction=-1)


def same_label(generations: Generations) -> Float[np.ndarray, "generations kept"]:
    """Share of each generation's continuations that come to its own label."""
    return np.array(
        [
            [table.get(final, 0) / sum(table.values()) for table in tables]
            for final, tables in zip(generations.final, generations.counts, strict=True)
        ]
    )


def curve_rows(generations: Generations, sets: Mapping[str, Collection[str]]) -> list[Row]:
    """TV between each label set and all others, with pointwise limits, against tokens kept."""
    from blinkscope.divergence import estimated_total_variation

    rows: list[Row] = []
    for name, chosen in sets.items():
        rest = complement(generations.labels, chosen)
        for kept, estimate in zip(
            generations.kept,
            estimated_total_variation(generations.posterior, chosen, rest, generations.level),
            strict=True,
        ):
            rows.append({"of": name, "kept": kept, "share": estimate.value, "low": estimate.low, "high": estimate.high})
    return rows


def window_rows(generations: Generations, sets: Mapping[str, Collection[str]], eps: float) -> list[Row]:
    """The critical window from all labels to each label set, in tokens kept, with Theorem 2 and the certificate.

    The window reads: with ``start`` tokens kept everything is still open (T_before), with ``end`` tokens the text is
    surely inside the set (T_after). certificate: the chance of leaving the set again from ``end`` on, E[pi(rest)].
    """
    rows: list[Row] = []
    last = generations.kept[-1]
    for name, chosen in sets.items():
        window = sampled_window(generations.posterior, generations.index, eps, tuple(chosen), level=generations.level)
        end = _kept(window.t_after, last)
        place: dict[str, JSON] = {"of": name, "outcome": window.outcome}
        place |= {"start": _kept(window.t_before, last), "end": end}
        place |= _limits("start", window.t_before_interval, last) | _limits("end", window.t_after_interval, last)
        law = label_law(generations.posterior, tuple(chosen))
        inside = [generations.labels.index(label) for label in chosen]
        leaving = None
        if end is not None:
            row = generations.kept.index(end)
            # E[pi(S)^2] / E[pi(S)], both from the same generations, so that their errors cancel for the most part.
            staying = law.mean[row][inside].sum() * generations.mixture.weights[inside].sum()
            inner, mass = generations.posterior.mean[row][:, inside].sum(axis=-1), generations.posterior.mass
            reached = inner.mean() if mass is None else inner @ mass[row]
            leaving = float(np.clip(1 - staying / reached, 0, 1)) if reached > 0 else None
        bound = theorem2(generations.mixture, tuple(chosen), eps)
        rows.append({**place, "certificate": leaving, "theorem2": bound.sharper})
    return rows


def _kept(t: float | None, last: float) -> int | None:
    return None if t is None else round(last - t)


def _limits(name: str, interval: Interval | None, last: int) -> dict[str, JSON]:
    """An interval in the theory's time, turned round; an end is None where a limit never crosses."""
    low, high = interval or (None, None)
    return {f"{name}_low": _kept(high, last), f"{name}_high": _kept(low, last)}


def regime_rows(generations: Generations, eps: float, nodes: Sequence[Row]) -> list[Row]:
    """Theorem 2 for every label, from the label to itself, to each node of the tree above it, and to all labels.

    ``start`` to ``end``: the numbers of tokens kept, [T - T_start, T - T_end] turned round, between which cutting a
    text of the label and writing on gives the law of the target up to ``bound``. moved: how far the label law really
    is from the target's there, at the last such cut, which the bound must not be below.
    """
    mixture, last, labels = generations.mixture, generations.kept[-1], generations.labels
    low, high = replace(mixture, reading="low"), replace(mixture, reading="high")
    targets = [tuple(str(node["labels"]).split(", ")) for node in nodes]
    rows: list[Row] = []
    for init in labels:
        above = [target for target in targets if init in target and 1 < len(target) < len(labels)]
        for target in dict.fromkeys([(init,), *above, labels]):
            t_start, t_end = start_time(mixture, target, eps).time, end_time(mixture, (init,), target, eps).time
            starts = [start_time(reading, target, eps).time for reading in (low, high)]
            ends = [end_time(reading, (init,), target, eps).time for reading in (low, high)]
            place: dict[str, JSON] = {"from": init, "target": ", ".join(target)}
            place |= {"start": _kept(t_start, last), "end": _kept(t_end, last)}
            place |= _limits("start", (starts[0], starts[1]), last) | _limits("end", (ends[0], ends[1]), last)
            holds = t_start is not None and t_end is not None and t_end <= t_start
            bound = theorem2(mixture, target, eps)
            rows.append(
                {**place, "holds": holds, "published": bound.published, "sharper": bound.sharper}
                | {"moved": _moved(generations, init, target, _kept(t_end, last)) if holds else None}
            )
    return rows


def _moved(generations: Generations, init: str, target: Sequence[str], kept: int | None) -> float | None:
    """Distance between the label law after a cut and that of the target, which the bound is about."""
    if kept not in generations.kept:
        return None
    labels, weights = generations.labels, generations.mixture.weights
    inside = np.array([label in target for label in labels])
    law = label_law(generations.posterior, (init,)).mean[generations.kept.index(kept)]
    return float(np.abs(law - np.where(inside, weights, 0) / weights[inside].sum()).sum() / 2)


def reverse_rows(generations: Generations) -> list[Row]:
    """Label laws of the forward-reverse experiment: cut texts of one label after s tokens, continue, read the label."""
    rows: list[Row] = []
    for start in generations.labels:
        law = label_law(generations.posterior, (start,))
        for kept, mean, error in zip(generations.kept, law.mean, law.standard_error, strict=True):
            for label, p, sd in zip(law.labels, mean.tolist(), error.tolist(), strict=True):
                rows.append({"from": start, "kept": kept, "label": label, "p": p, "standard_error": sd})
    return rows


def tree_rows(mixture: SampledMixture, eps: float) -> tuple[list[Row], str | None]:
    """The nodes of the eps-mixture tree, parents first; and where there is none, why."""
    try:
        tree = build_tree(mixture, eps)
    except UserError as error:
        return [], str(error)
    last = mixture.source.high
    rows: list[Row] = []

    def walk(node: Node, depth: int) -> None:
        place: dict[str, Any] = {"depth": depth, "labels": ", ".join(node.subset)}
        rows.append({**place, "kept": _kept(node.noise_amount, last)})
        for child in node.children:
            walk(child, depth + 1)

    walk(tree.root, 0)
    return rows, f"no leaf at this eps: {', '.join(tree.unresolved)}." if tree.unresolved else None


def generations_of(
    outcomes: Sequence[Mapping[str, Any]], most_labels: int, level: float, stratified: bool = False
) -> Generations:
    """What the items of a study came to, as one mixture."""
    paths = [path for outcome in outcomes for path in outcome["paths"]]
    kept = max((tuple(path["kept"]) for path in paths), key=len)
    return Generations(
        kept=kept,
        final=tuple(str(path["final"]) for path in paths),
        counts=tuple(tuple(path["counts"]) for path in paths),
        most_labels=most_labels,
        level=level,
        stratified=stratified,
    )
