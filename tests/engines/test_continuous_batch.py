"""Rows that come and go, against a decoder whose law depends on all that a row was fed, and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from blinkscope.engines.array_logits import ArrayLogits
from blinkscope.engines.continuous_batch import Entry, in_order, write
from blinkscope.engines.rows import Rules
from blinkscope.language.engine import Ask, Context, Job, Path
from blinkscope.language.sampling import Sampling

VOCABULARY, END = 12, 0
LAW = Sampling(temperature=1.0, top_p=0.95, max_new_tokens=9)
PATHS = (Path(Context((7, 8)), (1, 2, 3, 4, 5)), Path(Context((9,)), (2, 2, 3, 4, 6, 7, 8)))


class Listener:
    """A ``Decoder`` that keeps the texts themselves; logits are drawn from a stream that a text names."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.most = self.fed = 0

    def put(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            assert entry.place <= len(self.rows)
            ids = (*entry.path.context.ids, *entry.path.tokens)
            self.rows[entry.place : entry.place + 1] = [ids[: entry.tokens]]

    def drop(self, place: int) -> None:
        last = self.rows.pop()
        if place < len(self.rows):
            self.rows[place] = last

    def step(self, fed: Sequence[int], wanted: Sequence[int]) -> ArrayLogits:
        assert len(fed) == len(self.rows)
        assert list(wanted) == sorted(set(wanted))
        self.most, self.fed = max(self.most, len(fed)), self.fed + len(fed)
        self.rows = [(*row, token) for row, token in zip(self.rows, fed, strict=True)]
        return ArrayLogits(np.array([logits(self.rows[place]) for place in wanted]).reshape(-1, VOCABULARY))


def logits(text: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(list(text)).normal(size=VOCABULARY) * 2


def jobs() -> list[Job]:
    forced = ((), (3,), (4, 5), (END,))
    asks = (None, None, Ask((11, 10), 3))
    return [Job((i,), PATHS[i % 2], (3 * i) % 6, forced[i % 4], (i,), asks[i % 3]) for i in range(40)]


def written(capacity: int, order: Sequence[Job], stop: tuple[str, ...] = ()) -> tuple[dict[int, object], Listener]:
    listener = Listener()
    law = Sampling(LAW.temperature, LAW.top_k, LAW.top_p, LAW.min_p, LAW.max_new_tokens, stop)
    rules = Rules(law, 5, frozenset([END]), lambda ids: "".join(chr(97 + id_) for id_ in ids))
    done = {}
    for row in write(order, rules, listener, capacity):
        completion = row.completion()
        done[completion.job.key[0]] = (completion.tokens, completion.p, completion.answer, completion.finish)
    return done, listener


@pytest.mark.parametrize("stop", [(), ("d",)])
@pytest.mark.parametrize("capacity", [1, 3, 7, 64])
def test_a_row_is_written_as_if_it_were_alone(capacity, stop):
    alone = {job.key[0]: written(1, [job], stop)[0][job.key[0]] for job in jobs()}
    together, listener = written(capacity, jobs(), stop)
    assert set(together) == set(alone)
    for key, (tokens, p, *rest) in together.items():
        assert (tokens, *rest) == (alone[key][0], *alone[key][2:])
        np.testing.assert_array_equal(p, alone[key][1])
    assert listener.most <= capacity
    backwards, _ = written(capacity, jobs()[::-1], stop)
    assert {key: value[0] for key, value in backwards.items()} == {key: value[0] for key, value in alone.items()}


def test_the_batch_is_full_while_jobs_wait():
    done, listener = written(8, jobs())
    assert len(done) == 40
    assert listener.most == 8


def test_jobs_are_best_written_path_by_path_and_the_longest_first():
    ordered = in_order(jobs())
    paths = [job.path for job in ordered]
    assert paths == sorted(paths, key=PATHS.index)
    for path in PATHS:
        kept = [job.kept for job in ordered if job.path == path]
        assert kept == sorted(kept)
