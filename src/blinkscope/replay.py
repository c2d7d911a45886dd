"""Recorded rollouts as a source: analysis of continuations that were paid for before.

At a position s a recording holds the path's token with probability p_s and forks f with probability p_sf; what remains,
r_s = 1 - p_s - sum_f p_sf, are alternatives that nobody followed. Everything is taken under the **recorded law**, which
renormalises over what was recorded:

    p'_s = p_s / (1 - r_s),    q'_s = 1 - p'_s,    gamma_s = sum_f p_sf gamma_sf / sum_f p_sf

and p'_s = 1 where no fork was recorded. With pi the curve under the model's law and rho the one under the recorded law,

    pi_s - rho_s = p_s (pi_{s+1} - rho_{s+1}) + r_s (delta_s - rho_s)

for the unknown label law delta_s of the remainder, so no row of rho is off by more than u_s = p_s u_{s+1} + r_s. The
largest u_s is the ``unrecorded_weight``.

An analysis takes recorded outcomes without replacement: they are independent draws from the model's law as long as none
is used twice. A benchmark takes the record itself as a known law, with the exact curve ``truth_of``, and draws from it
with replacement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from blinkscope.errors import UserError
from blinkscope.estimate import streams
from blinkscope.estimate.record import MethodOptions, PathRecord
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.resampling import fraction_rows
from blinkscope.estimate.source import JSON, Draw, Order, Stratum
from blinkscope.estimate.trace import Step
from blinkscope.feature import OTHER
from blinkscope.posterior import Posterior
from blinkscope.replay_formats import Item, RecordedFork, Resample

WORTH_A_NOTE = 0.01  # unrecorded weight above which a reader is told


@dataclass(frozen=True, eq=False)
class Branch:
    """One way to go on from a position, and where it led.

    token: what it begins with; empty for a free continuation. p: its probability under the recorded law.
    weights: how often each label came out, or its probability where the law is known. cost: of one draw.
    """

    token: str
    p: float
    labels: tuple[str, ...]
    weights: Float[np.ndarray, " labels"]
    cost: float

    def share(self, labels: tuple[str, ...]) -> Float[np.ndarray, " labels"]:
        """The outcomes' proportions."""
        return on_labels(self.labels, self.weights / self.weights.sum(), labels)


@dataclass(frozen=True, eq=False)
class RecordedLaw:
    """The recorded law of an item: the weights of its path and, at every open position, the recorded forks.

    unrecorded: largest possible shift of a row of the curve by alternatives that were not recorded.
    """

    recursion: Recursion
    forks: Mapping[int, tuple[Branch, ...]]
    unrecorded: float

    def gamma(self, labels: tuple[str, ...]) -> Float[np.ndarray, "steps labels"]:
        """Off-path label laws as recorded; NaN where nothing was recorded."""
        out = np.full((self.recursion.steps, len(labels)), np.nan)
        for s, forks in self.forks.items():
            total = sum(branch.p for branch in forks)
            out[s] = sum(branch.p / total * branch.share(labels) for branch in forks)
        return out

    def variance(self, labels: tuple[str, ...]) -> Float[np.ndarray, "steps labels"]:
        """Variance of ``gamma`` as an estimate; every fork's proportions count with its own number of outcomes."""
        out = np.zeros((self.recursion.steps, len(labels)))
        for s, forks in self.forks.items():
            total = sum(branch.p for branch in forks)
            for branch in forks:
                share = branch.share(labels)
                out[s] += (branch.p / total) ** 2 * share * (1 - share) / branch.weights.sum()
        return out


def recorded_law(item: Item) -> RecordedLaw:
    """The law that is left when everything that was not recorded is left out."""
    steps = len(item.tokens)
    recorded = np.asarray([token.p or 0.0 for token in item.tokens])
    off_path = np.zeros(steps)
    at: dict[int, list[RecordedFork]] = {}
    for fork in item.forks:
        off_path[fork.position] += fork.p
        if fork.p > 0:
            at.setdefault(fork.position, []).append(fork)
    open_ = off_path > 0
    listed = recorded + off_path
    p = np.where(open_, recorded / np.where(open_, listed, 1.0), 1.0)
    leaving = 1 - recorded
    remainder = np.clip(1 - listed, 0.0, 1.0)
    share = np.divide(remainder, leaving, out=np.zeros(steps), where=leaving > 0)
    return RecordedLaw(
        Recursion(p, 1 - p),
        {s: tuple(_branch(fork, steps, float(fork.p / listed[s])) for fork in at[s]) for s in sorted(at)},
        float(Recursion(recorded, leaving).weight_of(share).max()),
    )


def truth_of(item: Item) -> Posterior:
    """The exact curve where the recorded law and the recorded proportions are taken for the truth."""
    law, labels = recorded_law(item), labels_of(item)
    mean = law.recursion.curve(law.gamma(labels), one_hot(item.final_label, labels))
    return Posterior(np.arange(len(mean), dtype=float), labels, mean)


def labels_of(item: Item, limit: int | None = None) -> tuple[str, ...]:
    """The final label and the others by how often they were recorded; ``limit`` at most, then ``(other)``."""
    found: Counter[str] = Counter()
    for outcomes in item.outcomes:
        found.update({label: count for label, count in outcomes.items() if count})
    others = sorted((label for label in found if label != item.final_label), key=lambda label: (-found[label], label))
    if limit is None or len(others) < limit:
        return (item.final_label, *others)
    return (item.final_label, *others[: limit - 1], OTHER)


def default_method(item: Item, name: str | None = None) -> MethodOptions:
    """A method as far as the record goes, with free continuations at every row that has some, alike everywhere.

    Where no name is given: off-path forks where there are any, otherwise the free continuations.
    """
    if name == "divergence" or (name is None and item.forks):
        return MethodOptions()
    rows = [entry for entry in item.resamples if entry.position < len(item.tokens)]
    if not rows:
        raise UserError(f"item {item.id!r} has no free continuations from before its last token, which this takes.")
    return MethodOptions(
        name or "grid",
        fractions=tuple(entry.position / len(item.tokens) for entry in rows),
        resamples=min(sum(entry.outcomes.values()) for entry in rows),
    )


def record_of(
    item: Item, method: MethodOptions | None = None, *, seed: int = 0, labels: int = 12, model: str = "replay"
) -> PathRecord:
    """What the analysis of a recorded generation needs; all probabilities are those of the recorded law."""
    method = method or default_method(item)
    law = recorded_law(item)
    steps = len(item.tokens)
    if method.name == "divergence":
        if not item.forks:
            raise UserError(f"item {item.id!r} has no forks, which method divergence is about; use method grid.")
        cost = {s: sum(b.p * b.cost for b in forks) / sum(b.p for b in forks) for s, forks in law.forks.items()}
    else:
        cost = {s: float(steps - s) for s in range(steps)}
        cost.update((s, free.cost) for s, (free,) in _resampled(item).items())
    settings: dict[str, JSON] = {
        "prompt": item.prompt,
        "model": model,
        "item": item.id,
        "feature": None,
        "method": method.name,
        "sampling": None,
        "seed": seed,
    }
    notes: tuple[str, ...] = ()
    if method.name == "divergence" and law.unrecorded > WORTH_A_NOTE:
        notes = (
            "probabilities are those of the recorded law, with alternatives that nobody followed left out; these could "
            f"move a row of the curve by up to {law.unrecorded:.2f}.",
        )
    return PathRecord(
        settings=settings,
        text=item.text,
        tokens=(),
        steps=tuple(
            Step(token.text, float(p), float(q))
            for token, p, q in zip(item.tokens, law.recursion.p, law.recursion.off_path, strict=True)
        ),
        listed=(1.0,) * steps,
        strata=tuple((s, max(cost[s], 1.0)) for s in sorted(cost)),
        final_label=item.final_label,
        method=method,
        seed=seed,
        labels=labels,
        scored_tokens=0,
        notes=notes,
        unrecorded=law.unrecorded if method.name == "divergence" else 0.0,
    )


def source_of(item: Item, record: PathRecord, *, with_replacement: bool = False) -> ReplaySource:
    """Where the draws of ``record``'s method come from.

    Off-path draws are the recorded forks. Free ones are the recorded resamples; with replacement they follow the
    exact curve of the recorded law, so that every method can be compared on the same law.
    """
    if record.method.name == "divergence":
        branches = recorded_law(item).forks
    else:
        branches = _free(item) if with_replacement else _resampled(item)
    return ReplaySource(record.places, branches, record.seed, record.generation, with_replacement)


def limited(record: PathRecord, item: Item) -> PathRecord:
    """The record for draws without replacement, with how many there are in each place.

    Raises
    ------
    UserError : the grid looks at a row at which nothing was recorded.
    """
    source = source_of(item, record)
    limits = {key: source.limit(key) or 0 for key, _ in record.strata}
    if record.method.name == "grid":
        for row in fraction_rows(len(record.steps), record.method.fractions):
            if not limits[row]:
                raise UserError(
                    f"item {item.id!r} has no free continuations after {row} tokens, where the grid looks; leave its "
                    "fractions out to take the rows that were recorded."
                )
    return replace(record, limits=tuple(limits.values()))


@dataclass(frozen=True, eq=False)
class ReplaySource:
    """Recorded outcomes, drawn as a model would be asked for them.

    Without replacement, what a draw gives depends on its stratum and replicate alone: a source has no memory, and a
    resumed run must not use an outcome a second time. So the order of a position's draws is settled beforehand
    (``plans``) and ends where a fork with its next outcome would be needed that is not there any more.
    """

    strata: Sequence[Stratum]
    branches: Mapping[int, tuple[Branch, ...]]
    seed: int
    generation: int = 0
    with_replacement: bool = False

    @cached_property
    def plans(self) -> dict[int, list[tuple[Branch, str]]]:
        """What each stratum's draws without replacement give, by replicate, as far as they go."""
        return {s: _plan(branches, self.seed, (self.generation, s)) for s, branches in self.branches.items()}

    def limit(self, stratum: int) -> int | None:
        """Number of the stratum's replicates that there are, 0 .. limit - 1; None where they never end."""
        return None if self.with_replacement else len(self.plans.get(stratum, ()))

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        for order in orders:
            if order.stratum not in self.branches:
                raise UserError(f"no continuations were recorded at position {order.stratum}; use another method.")
            results = self._known_law(order, round_) if self.with_replacement else self._planned(order)
            for replicate, (branch, label) in zip(order.replicates(), results, strict=True):
                if (order.stratum, replicate) not in known:
                    payload: dict[str, JSON] = {"p": branch.p} if branch.token else {}
                    yield Draw(order.stratum, replicate, label, branch.cost, branch.token, payload)

    def _planned(self, order: Order) -> list[tuple[Branch, str]]:
        plan = self.plans[order.stratum]
        last = order.replicates()[-1]
        if last >= len(plan):
            raise UserError(
                f"the outcomes recorded at position {order.stratum} have run out: there are {len(plan)} draws, and "
                f"number {last + 1} was asked for; ask for a larger error, for a budget or for fewer resamples."
            )
        return [plan[replicate] for replicate in order.replicates()]

    def _known_law(self, order: Order, round_: int) -> list[tuple[Branch, str]]:
        branches = self.branches[order.stratum]
        place = (self.generation, order.stratum)
        rng = streams.stream(self.seed, streams.FIRST, *place, round_, order.half)
        chosen = _pick(np.asarray([b.p for b in branches]), _spread_uniforms(order.joint, rng))
        follow = rng.random(order.joint)
        label = np.zeros(order.joint, dtype=np.int64)
        for number in set(chosen.tolist()):
            mine = chosen == number
            label[mine] = _pick(branches[number].weights, follow[mine])
        return [(branches[b], branches[b].labels[i]) for b, i in zip(chosen, label, strict=True)][: order.count]


def _branch(entry: RecordedFork | Resample, steps: int, p: float) -> Branch:
    left = max(steps - entry.position - isinstance(entry, RecordedFork), 1)  # a forced token costs nothing
    outcomes = {label: count for label, count in entry.outcomes.items() if count}
    return Branch(
        token=entry.token if isinstance(entry, RecordedFork) else "",
        p=p,
        labels=tuple(outcomes),
        weights=np.asarray(list(outcomes.values()), dtype=float),
        cost=float(left if entry.mean_tokens is None else entry.mean_tokens),
    )


def _resampled(item: Item) -> dict[int, tuple[Branch, ...]]:
    steps = len(item.tokens)
    return {entry.position: (_branch(entry, steps, 1.0),) for entry in item.resamples if entry.position < steps}


def _free(item: Item) -> dict[int, tuple[Branch, ...]]:
    """Free continuations under the recorded law, at every row: the exact label law and the expected cost."""
    law, truth = recorded_law(item), truth_of(item)
    cost = 0.0
    out: dict[int, tuple[Branch, ...]] = {}
    for s in reversed(range(len(item.tokens))):
        forks = law.forks.get(s, ())
        cost = 1 + law.recursion.p[s] * cost + sum(branch.p * branch.cost for branch in forks)
        out[s] = (Branch("", 1.0, truth.labels, truth.mean[s], float(cost)),)
    return out


def on_labels(
    found: tuple[str, ...], weights: Float[np.ndarray, " found"], labels: tuple[str, ...]
) -> Float[np.ndarray, " labels"]:
    """Weights on another list of labels; what is not on it goes to its last one, ``(other)``."""
    column = {label: i for i, label in enumerate(labels)}
    out = np.zeros(len(labels))
    np.add.at(out, [column.get(label, len(labels) - 1) for label in found], weights)
    return out


def one_hot(label: str, labels: tuple[str, ...]) -> Float[np.ndarray, " labels"]:
    return np.asarray([name == label for name in labels], dtype=float)


def _plan(branches: tuple[Branch, ...], seed: int, place: tuple[int, int]) -> list[tuple[Branch, str]]:
    """Draws of one position in the order of their replicates, until a branch has no outcome left.

    The halves choose their branches independently and never get the same outcome, so they share no randomness. Where
    the plan ends depends on these choices but on no label.
    """
    counts = [int(branch.weights.sum()) for branch in branches]
    half = (sum(counts) + 1) // 2
    p = np.asarray([branch.p for branch in branches])
    chosen = np.empty(2 * half, dtype=np.int64)
    for h in (0, 1):
        chosen[h::2] = _pick(p, _spread_uniforms(half, streams.stream(seed, streams.FIRST, *place, h)))
    end = sum(counts)
    label = np.zeros(2 * half, dtype=np.int64)
    for number, (branch, count) in enumerate(zip(branches, counts, strict=True)):
        mine = np.flatnonzero(chosen == number)
        if len(mine) > count:
            end = min(end, int(mine[count]))
        outcomes = np.repeat(np.arange(len(branch.labels)), branch.weights.astype(np.int64))
        shuffled = streams.stream(seed, streams.FOLLOW, *place, number).permutation(outcomes)
        label[mine[:count]] = shuffled[: len(mine)]
    return [(branches[b], branches[b].labels[i]) for b, i in zip(chosen[:end], label[:end], strict=True)]


def _pick(weights: Float[np.ndarray, " options"], u: Float[np.ndarray, " count"]) -> Int[np.ndarray, " count"]:
    """Options with probability in proportion to their weights, by inverting the cumulative law at uniforms ``u``."""
    cumulative = np.cumsum(weights)
    return np.minimum(np.searchsorted(cumulative, u * cumulative[-1], side="right"), len(weights) - 1)


def _spread_uniforms(count: int, rng: np.random.Generator) -> Float[np.ndarray, " count"]:
    """Uniforms of which any stretch in a row is spread evenly over [0, 1): a van der Corput sequence, scrambled.

    Each is uniform by itself. Any stretch falls into the halves, quarters, eighths ... of the interval as evenly as its
    length allows, so the mean of a function over it never has a larger variance than over independent uniforms
    (Owen 1995, "Randomly permuted (t,m,s)-nets and (t,s)-sequences"). Splitting the cells in random order once more
    doubles the sequence.
    """
    cells = np.zeros(1, dtype=np.int64)
    while len(cells) < count:
        first = rng.integers(0, 2, len(cells))
        cells = np.concatenate([2 * cells + first, 2 * cells + 1 - first])
    return np.asarray((cells + rng.random(len(cells))) / len(cells))[:count]
