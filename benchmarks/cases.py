"""Cases with a known law, shared by the benchmarks: toy models, and recorded rollouts taken as the truth.

Of every case the off-path label laws are known exactly, token by token, and so are the curve and the law of free
continuations. All methods draw from these laws through the same ``ReplaySource``, with replacement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path as FilePath

import numpy as np

from blinkscope import open_model
from blinkscope.engines.machine import certain, endings
from blinkscope.engines.toy import ToyEngine
from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Stratum
from blinkscope.estimate.trace import Target
from blinkscope.feature import OTHER, TRUNCATED, UNPARSED
from blinkscope.language.engine import Job, Path, Score
from blinkscope.posterior import Posterior
from blinkscope.replay import Branch, ReplaySource, labels_of, recorded_law
from blinkscope.replay_formats import read_rollouts
from blinkscope.session import SKIPPED_AT_MOST
from blinkscope.window import TokenWindow, default_max_width, token_windows

TOYS = (
    "maze?seed={seed}&length=80&labels=2",
    "maze?seed={seed}&length=80&labels=4",
    "maze?seed={seed}&length=80&labels=8",
    "maze?seed={seed}&length=80&labels=4&open=0.2",
    "walk?drift=0.1&barrier=5&length=80",
    "fork",
    "null?seed={seed}&length=60&labels=2",
    "null?seed={seed}&length=60&labels=4",
    "null?seed={seed}&length=60&labels=8",
)
LENGTHS = 4  # continuations of each fork of a toy model, for its mean length


@dataclass(frozen=True, eq=False)
class Case:
    """One path with everything known about it.

    null: the model was built so that there is no window.
    forks: at every open position the alternatives, with their exact label laws and mean costs.
    """

    name: str
    null: bool
    recursion: Recursion
    forks: Mapping[int, tuple[Branch, ...]]
    labels: tuple[str, ...]
    final_label: str

    @cached_property
    def final(self) -> np.ndarray:
        return np.asarray([label == self.final_label for label in self.labels], dtype=float)

    @cached_property
    def gamma(self) -> np.ndarray:
        """Off-path label laws, (steps, labels); 0 where the path cannot be left."""
        out = np.zeros((self.recursion.steps, len(self.labels)))
        for s, forks in self.forks.items():
            total = sum(branch.p for branch in forks)
            out[s] = sum(branch.p / total * branch.share(self.labels) for branch in forks)
        return out

    @cached_property
    def truth(self) -> np.ndarray:
        """The exact curve, (rows, labels)."""
        return self.recursion.curve(self.gamma, self.final)

    @cached_property
    def windows(self) -> tuple[TokenWindow, ...]:
        """The windows that there are, at the default width and delta = 0.6."""
        rows = np.arange(self.recursion.steps + 1, dtype=float)
        return token_windows(Posterior(rows, self.labels, self.truth), self.final_label, delta=0.6)

    @cached_property
    def strata(self) -> tuple[Stratum, ...]:
        """Where the divergence method draws; the positions that ``locate`` would skip are left out."""
        skipped = self.recursion.negligible(SKIPPED_AT_MOST)
        return tuple(
            Stratum(s, max(sum(b.p * b.cost for b in forks) / sum(b.p for b in forks), 1.0))
            for s, forks in self.forks.items()
            if not skipped[s]
        )

    @cached_property
    def free_cost(self) -> np.ndarray:
        """Expected tokens of a free continuation at each row before the last."""
        out, after = np.zeros(self.recursion.steps), 0.0
        for s in reversed(range(self.recursion.steps)):
            forks = self.forks.get(s, ())
            out[s] = after = 1 + self.recursion.p[s] * after + sum(branch.p * branch.cost for branch in forks)
        return out

    @property
    def width(self) -> int:
        return default_max_width(self.recursion.steps)

    def divergence(self, seed: int, target: Target) -> Decomposition:
        sought = target.sought(self.recursion.steps)
        limit = len(self.labels) + 1
        return Decomposition(
            self.recursion, self.strata, self.final_label, limit, seed, target.estimator, sought=sought
        )

    def off_path_source(self, seed: int) -> ReplaySource:
        return ReplaySource(self.strata, self.forks, seed, with_replacement=True)

    def free_strata(self) -> tuple[Stratum, ...]:
        return tuple(Stratum(s, float(cost)) for s, cost in enumerate(self.free_cost))

    def free_source(self, seed: int) -> ReplaySource:
        law = {s: (Branch("", 1.0, self.labels, self.truth[s], float(c)),) for s, c in enumerate(self.free_cost)}
        return ReplaySource(self.free_strata(), law, seed, with_replacement=True)


def toy_cases(seeds: Sequence[int]) -> list[Case]:
    """One path of each toy model for every seed."""
    return [toy_case(spec.format(seed=seed), seed) for spec in TOYS for seed in seeds]


def toy_case(spelling: str, seed: int) -> Case:
    engine = open_model(f"toy:{spelling}")
    assert isinstance(engine, ToyEngine)
    sampling = engine.default_sampling
    context = engine.encode("Where to?")
    (done,) = engine.continue_([Job((), Path(context, ()), 0, (), (0, 0))], sampling, seed)
    path = Path(context, done.tokens)
    score = engine.score(path, sampling)
    exact = engine.truth(path, sampling)
    jobs = [
        Job((s, int(token), i), path, s, (int(token),), (1, s, int(token), i))
        for s, alternatives in enumerate(score.alternatives)
        for token in alternatives.ids
        for i in range(LENGTHS)
    ]
    lengths: dict[tuple[int, ...], list[int]] = {}
    for completion in engine.continue_(jobs, sampling, seed):
        lengths.setdefault(completion.job.key[:2], []).append(completion.generated)
    forks = exact_forks(engine, path, score, exact.labels)
    forks = {
        s: tuple(replace(b, cost=float(np.mean(lengths[s, int(b.token)]))) for b in branches)
        for s, branches in forks.items()
    }
    final = exact.labels[int(np.argmax(exact.posterior[-1]))]
    case = Case(
        f"toy:{spelling}", spelling.startswith("null"), Recursion(score.p, score.off_path), forks, exact.labels, final
    )
    assert np.abs(case.truth - exact.posterior).max() < 1e-9, spelling
    return case


def exact_forks(engine: ToyEngine, path: Path, score: Score, labels: Sequence[str]) -> dict[int, tuple[Branch, ...]]:
    """The alternatives at every open position of a toy model's path, by number, with the exact label law of each.

    The cost of one is what is left of the path, as the strata of a text reckon.
    """
    machine, sampling = engine.machine, engine.default_sampling
    states = [machine.start[None]]
    for token in path.tokens:
        states.append(machine.follow(states[-1], np.asarray([token])))
    s = np.repeat(np.arange(len(score.p)), [len(others.ids) for others in score.alternatives])
    tokens = np.concatenate([others.ids for others in score.alternatives])
    after = machine.follow(np.concatenate(states)[s], tokens)
    law = machine.posterior(sampling, after, sampling.max_new_tokens - s - 1)
    assert law is not None
    names = (*machine.labels, TRUNCATED, UNPARSED)
    ended, outcome = endings(machine, sampling)[tokens], machine.outcome(after)
    law = np.where(ended[:, None], certain(np.where(outcome < 0, len(names) - 1, outcome), len(names)), law)
    law = law[:, [names.index(label) for label in labels]]
    p = np.concatenate([others.p for others in score.alternatives])
    forks: dict[int, tuple[Branch, ...]] = {}
    for i, here in enumerate(s):
        cost = float(max(len(score.p) - here - 1, 1))
        forks[int(here)] = (*forks.get(int(here), ()), Branch(str(tokens[i]), float(p[i]), tuple(labels), law[i], cost))
    return forks


def replay_cases(file: FilePath, labels: int) -> list[Case]:
    """The recorded questions with forks, the ``labels`` - 1 most frequent outcomes kept apart and the rest summed."""
    cases = []
    for item in read_rollouts(file):
        if not item.forks:
            continue
        kept = labels_of(item, labels - 1)
        kept = kept if OTHER in kept or len(kept) > 1 else (*kept, OTHER)
        law = recorded_law(item)
        forks = {
            s: tuple(Branch(b.token, b.p, kept, b.share(kept), b.cost) for b in branches)
            for s, branches in law.forks.items()
        }
        cases.append(Case(f"replay:{item.id}", False, law.recursion, forks, kept, item.final_label))
    return cases
