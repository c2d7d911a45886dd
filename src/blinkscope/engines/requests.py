"""Continuations as requests to something that draws by itself: which go together, their seeds, where a reply ends.

Child i of a request is drawn with the request's seed + i, so requests with neighbouring seeds would share draws. A
job's seed follows from its stream alone: replicates that stand in a row have neighbouring seeds and can be children of
one request, and a job draws the same without the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from blinkscope.engines.rows import Rules
from blinkscope.language.engine import Completion, Job
from blinkscope.language.sampling import Sampling

SEEDS = 64  # in the block of replicates whose seeds are neighbours


@dataclass(frozen=True)
class Group:
    """Jobs whose continuations are one request: the same prefix, and streams in a row.

    seed: the first job's. cap: most tokens of each.
    """

    jobs: tuple[Job, ...]
    seed: int
    cap: int


def grouped(jobs: Sequence[Job], sampling: Sampling, seed: int, *, most: int, bits: int) -> list[Group]:
    """Jobs as requests, sorted by prefix, so that each prefix is computed once.

    most: children that a request may have. bits: width of a seed.
    """
    # Children of a greedy request would all be the same, and are refused.
    most = 1 if sampling.temperature == 0 else min(most, SEEDS)
    first_seen = {path: i for i, path in enumerate(dict.fromkeys(job.path for job in jobs))}
    order = sorted(jobs, key=lambda job: (first_seen[job.path], job.kept, job.forced, job.stream))
    groups: list[Group] = []
    for job in order:
        own = _seed(seed, job.stream, bits)
        if groups and len(groups[-1].jobs) < most and _fits(job, own, groups[-1]):
            groups[-1] = replace(groups[-1], jobs=(*groups[-1].jobs, job))
        else:
            groups.append(Group((job,), own, sampling.max_new_tokens - job.kept - len(job.forced)))
    return groups


def _fits(job: Job, seed: int, group: Group) -> bool:
    """Whether a job's draw is the next child of a group's request."""
    first = group.jobs[0]
    same = (first.kept, first.forced, first.stream[:-1]) == (job.kept, job.forced, job.stream[:-1])
    return same and seed == group.seed + len(group.jobs) and (first.path is job.path or first.path == job.path)


def _seed(seed: int, stream: tuple[int, ...], bits: int) -> int:
    """The seed of a stream: streams that differ in their last number only have neighbours, in blocks of ``SEEDS``."""
    last = stream[-1] if stream else 0
    key = (*stream[:-1], last // SEEDS)
    block = int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0]) >> (64 - bits)
    return block - block % SEEDS + last % SEEDS


def said(job: Job) -> tuple[int, ...]:
    """The tokens of the reply that a job is given."""
    return (*job.path.tokens[: job.kept], *job.forced)


def is_over(job: Job, rules: Rules) -> bool:
    """Whether the reply is over before anything was written."""
    given = said(job)
    ended = len(given) >= rules.sampling.max_new_tokens or bool(rules.end_of_turn.intersection(given))
    return ended or rules.stops(given, 0)


def up_to_its_end(job: Job, tokens: tuple[int, ...], rules: Rules) -> tuple[tuple[int, ...], bool]:
    """What was written up to the token that completes a stop text, and whether the reply came to an end."""
    given = said(job)
    if rules.sampling.stop:
        for length in range(len(tokens) + 1):
            if rules.stops((*given, *tokens[:length]), max(len(given) + length - 1, 0)):
                return tokens[:length], True
    return tokens, bool(rules.end_of_turn.intersection((*given, *tokens)))


def before_question(job: Job, tokens: tuple[int, ...], ends: frozenset[int]) -> tuple[int, ...]:
    """Ids that stand before a follow-up question, which brings its own end of turn."""
    reply = (*said(job), *tokens)
    return (*job.path.context.ids, *(reply[:-1] if reply and reply[-1] in ends else reply))


def completion(
    job: Job,
    tokens: tuple[int, ...],
    stopped: bool,
    p: Sequence[float] = (),
    answer: str | None = None,
    asked: int = 0,
) -> Completion:
    """The completion of a job. p: of each written token, unknown where left out; asked: tokens of the answer."""
    unknown = [float("nan")] * (len(job.forced) + len(tokens) - len(p))
    return Completion(
        job,
        (*job.forced, *tokens),
        (*unknown, *p),
        "stop" if stopped else "length",
        answer,
        len(tokens) + asked,
    )
