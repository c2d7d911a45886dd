"""One continuation's life, without a model: what is fed, what is drawn, how replies and follow-up turns join."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blinkscope.engines.rows import Row, Rules
from blinkscope.language.engine import Ask, Context, Job, Path
from blinkscope.language.sampling import Sampling

END = 0
CONTEXT = Context((90, 91, 92))
PATH = Path(CONTEXT, (11, 12, 13, 14))
ASK = Ask((END, 70, 71), max_new_tokens=2)


def rules(cap: int = 6, stop: tuple[str, ...] = ()) -> Rules:
    """Tokens spell their letter: 1 is a, 2 is b, ..."""
    spell = lambda tokens: "".join(chr(96 + token) for token in tokens if token != END)  # noqa: E731
    return Rules(Sampling(max_new_tokens=cap, stop=stop), seed=5, end_of_turn=frozenset({END}), decode=spell)


def run(row: Row, says: list[int]) -> list[int]:
    """Feed and answer a row as the batch does; everything that was fed."""
    fed = []
    answers = iter(says)
    while not row.finished:
        fed.append(row.queue.popleft())
        if not row.queue:
            row.uniform()
            row.accept(next(answers), 0.5)
    assert next(answers, None) is None
    return fed


def everything(row: Row, fed: list[int]) -> list[int]:
    return [*(*CONTEXT.ids, *PATH.tokens)[: row.prefix], *fed]


@pytest.mark.parametrize("kept", range(5))
def test_prefix_is_kept_up_to_the_token_that_gives_the_first_logits(kept):
    row = Row(Job((), PATH, kept), rules())
    assert row.prefix == 3 + kept - 1
    fed = run(row, [21, END])
    assert everything(row, fed) == [*CONTEXT.ids, *PATH.tokens[:kept], 21]
    done = row.completion()
    assert (done.tokens, done.p, done.finish, done.generated) == ((21, END), (0.5, 0.5), "stop", 2)


def test_forced_tokens_are_fed_and_not_drawn():
    row = Row(Job((), PATH, 2, forced=(31, 32)), rules())
    assert row.prefix == 5
    fed = run(row, [21, END])
    assert everything(row, fed) == [*CONTEXT.ids, 11, 12, 31, 32, 21]
    done = row.completion()
    assert done.tokens == (31, 32, 21, END)
    assert [math.isnan(p) for p in done.p] == [True, True, False, False]
    assert done.generated == 2


def test_cap_counts_from_the_start_of_the_generation():
    row = Row(Job((), PATH, 3, forced=(31,)), rules(cap=6))
    run(row, [21, 22])
    assert (row.completion().tokens, row.completion().finish) == ((31, 21, 22), "length")


@pytest.mark.parametrize(
    ("job", "finish"),
    [
        (Job((), PATH, 2, forced=(END,)), "stop"),
        (Job((), PATH, 4), "length"),
        (Job((), PATH, 3, forced=(31,)), "length"),
        (Job((), Path(CONTEXT, (11, END)), 2), "stop"),
    ],
)
def test_nothing_left_to_write(job, finish):
    row = Row(job, rules(cap=4))
    done = row.completion()
    assert row.finished
    assert (done.tokens, done.finish, done.generated) == (job.forced, finish, 0)


def test_stop_text_may_begin_in_the_kept_and_forced_tokens():
    # "kl" kept, "m" forced, "n" drawn: the stop text klmn reaches over both borders.
    row = Row(Job((), PATH, 2, forced=(13,)), rules(cap=9, stop=("zz", "klmn")))
    fed = run(row, [14])
    assert everything(row, fed) == [*CONTEXT.ids, 11, 12, 13]
    assert (row.completion().tokens, row.completion().finish) == ((13, 14), "stop")


def test_stop_text_that_is_already_there_ends_the_reply():
    assert Row(Job((), PATH, 3), rules(stop=("lm",))).finished
    assert not Row(Job((), PATH, 2), rules(stop=("lm",))).finished


def test_follow_up_after_an_end_of_turn_feeds_that_token_once():
    row = Row(Job((), PATH, 1, ask=ASK), rules())
    fed = run(row, [21, END, 41, END])
    assert everything(row, fed) == [*CONTEXT.ids, 11, 21, END, 70, 71, 41]
    done = row.completion()
    assert (done.tokens, done.finish, done.answer, done.generated) == ((21, END), "stop", chr(96 + 41), 4)


def test_follow_up_after_a_cut_reply_feeds_its_last_token_first():
    for cap, stop in ((3, ()), (9, ("u",))):
        row = Row(Job((), PATH, 1, ask=ASK), rules(cap, stop))
        fed = run(row, [20, 21, 41, 42])
        assert everything(row, fed) == [*CONTEXT.ids, 11, 20, 21, END, 70, 71, 41]
        done = row.completion()
        assert done.tokens == (20, 21)
        assert done.finish == ("stop" if stop else "length")
        assert done.answer == chr(96 + 41) + chr(96 + 42)  # two tokens: its own cap


@pytest.mark.parametrize(
    ("job", "cap", "before"),
    [
        (Job((), PATH, 2, forced=(END,), ask=ASK), 9, [11, 12]),
        (Job((), PATH, 2, forced=(31, END), ask=ASK), 9, [11, 12, 31]),
        (Job((), PATH, 4, ask=ASK), 4, [11, 12, 13, 14]),
        (Job((), Path(CONTEXT, (11, END)), 2, ask=ASK), 9, [11]),
        (Job((), Path(CONTEXT, ()), 0, forced=(END,), ask=ASK), 9, []),
    ],
)
def test_follow_up_where_the_reply_was_over_from_the_start(job, cap, before):
    row = Row(job, rules(cap))
    fed = run(row, [END])
    assert everything(row, fed) == [*CONTEXT.ids, *before, END, 70, 71]
    done = row.completion()
    assert (done.tokens, done.answer, done.generated) == (job.forced, "", 1)


def test_each_row_draws_from_its_own_stream_and_answers_with_the_most_probable_token():
    row = Row(Job((), PATH, 1, stream=(3, 4), ask=ASK), rules(cap=3))
    expected = np.random.default_rng(np.random.SeedSequence(5, spawn_key=(3, 4))).random(2)
    assert [row.uniform(), row.uniform()] == expected.tolist()
    row.accept(21, 0.5)
    row.accept(END, 0.5)
    assert row.uniform() == 0.0
