"""The running ratio: exact on models with a known law, and what happens at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blinkscope.detection.reading import Part, Side, read
from blinkscope.detection.running import Running, alarm_level, running, watch
from blinkscope.detection.scores import scores
from blinkscope.engines import open_engine
from blinkscope.errors import UserError
from blinkscope.language.engine import Path
from blinkscope.language.reading import RAW, Conversation
from tests.detection.toys import ALIGNED, PROMPT, UNALIGNED, replies

ASKED = Conversation(PROMPT)


def part(*tokens: tuple[str, float], beyond: int = 0) -> Part:
    return Part((*(text for text, _ in tokens), *["beyond"] * beyond), np.array([log_p for _, log_p in tokens]))


def both(reply: str) -> Running:
    sides = [Side(open_engine(model)) for model in (ALIGNED, UNALIGNED)]
    first, second = (read(side, ASKED, reply) for side in sides)
    assert first.prompt.pieces == ()  # a toy model has no law of prompts
    return running(first.reply, second.reply)


def test_the_ratio_is_that_of_the_two_exact_laws() -> None:
    """So many words without an end are the marginal law of the walk's steps, computed here from its definition."""
    steps = both("so then wait, good,")
    words = {"so": (True, 0.4), "then": (True, 0.3), "wait,": (False, 0.3), "good,": (True, 0.2)}

    def log_law(drift: float) -> list[float]:
        strong, weak, total, out = 0.5, 0.5, 1.0, []
        for ahead, p in words.values():
            strong *= 0.5 + drift if ahead else 0.5 - drift
            weak *= 0.5 - drift if ahead else 0.5 + drift
            out.append(math.log(p * (strong + weak) / total))
            total = strong + weak
        return out

    assert steps.aligned == pytest.approx(log_law(0.05))
    assert steps.unaligned == pytest.approx(log_law(0.3))
    assert steps.log_ratio[-1] == pytest.approx(sum(log_law(0.3)) - sum(log_law(0.05)))
    values = scores(running(part(), part()), steps)
    assert values["reply_ratio"] == pytest.approx(steps.log_ratio[-1] / 4)
    assert values["reply_running_max"] == pytest.approx(max(steps.log_ratio))
    assert values["perplexity"] == pytest.approx(math.exp(-np.mean(log_law(0.05))))
    assert math.isnan(values["prompt_ratio"])


def test_false_alarms_on_texts_of_the_aligned_model_keep_to_the_bound() -> None:
    """Ville: at most alpha = 1/4 of such texts ever reach log 4. With 300 texts, Bin(300, 1/4) > 113 has p < 1e-6.

    And the ratio after eight steps, itself bounded, has mean 1 (a martingale); six standard errors.
    """
    found = [both(text) for text in replies(ALIGNED, 300)]
    alarms = sum(steps.alarm(alarm_level(0.25)) is not None for steps in found)
    assert alarms <= 113
    after = np.exp([steps.log_ratio[min(7, len(steps.pieces) - 1)] for steps in found])
    assert abs(after.mean() - 1) < 6 * after.std() / math.sqrt(len(after))
    caught = sum(both(text).alarm(alarm_level(0.25)) is not None for text in replies(UNALIGNED, 50))
    assert caught / 50 > 2 * alarms / 300


def test_tokens_that_do_not_match_are_summed_up_to_where_they_do() -> None:
    aligned = part(("ab", -1.0), ("c", -2.0), ("d", -4.0), ("e", -8.0))
    unaligned = part(("a", -0.5), ("bc", -0.25), ("", -0.125), ("de", -3.0))
    steps = running(aligned, unaligned)
    assert steps.pieces == ("abc", "de")
    assert steps.aligned.tolist() == [-3.0, -12.0]
    assert steps.unaligned.tolist() == [-0.75, -3.125]


def test_where_one_model_reads_less_both_are_compared_as_far_as_it_read() -> None:
    steps = running(part(("a", -1.0), ("b", -1.0)), part(("a", -2.0), beyond=1))
    assert steps.pieces == ("a",)
    steps = running(part(("a", -1.0), ("b", -1.0)), part(("ab", -2.0), beyond=3))
    assert (steps.pieces, steps.aligned.tolist()) == (("ab",), [-2.0])


def test_infinite_ratios_and_none() -> None:
    inf = math.inf
    steps = Running(("a", "b", "c"), np.array([-1.0, -inf, -1.0]), np.array([-1.0, -1.0, -inf]))
    assert steps.log_ratio[:2].tolist() == [0.0, inf]
    assert math.isnan(steps.log_ratio[2])
    assert steps.alarm(5.0) == 2
    values = scores(steps, Running((), np.empty(0), np.empty(0)))
    assert values["prompt_aligned"] == -inf
    assert math.isnan(values["prompt_ratio"])
    assert values["perplexity"] == inf
    assert math.isnan(values["reply_running_max"])
    only = Running(("a", "b"), np.array([-1.0, -1.0]), np.array([-inf, -1.0]))
    assert only.log_ratio.tolist() == [-inf, -inf]
    assert only.alarm(0.0) is None


def test_a_word_that_cannot_follow_has_probability_zero_and_an_empty_reply_no_score() -> None:
    assert both("Done.").aligned.tolist() == [-math.inf]
    assert both("").pieces == ()


def test_a_token_before_which_nothing_stands_is_left_out() -> None:
    steps = running(part(("a", math.nan), ("b", -1.0)), part(("a", math.nan), ("b", -2.0)))
    assert (steps.pieces, steps.log_ratio.tolist()) == (("b",), [-1.0])


def test_watching_gives_what_reading_gives_and_stops_when_told_to() -> None:
    reply = "so then wait, good, so so"
    engines = [open_engine(model) for model in (ALIGNED, UNALIGNED)]
    tokens = engines[0].encode_reply(engines[0].encode(PROMPT), reply, finished=False).tokens
    taken = []

    def arriving():  # type: ignore[no-untyped-def]
        for token in tokens:
            taken.append(token)
            yield token

    steps = list(watch(Side(engines[0]), Side(engines[1]), ASKED, arriving()))
    assert [step.log_ratio for step in steps] == pytest.approx(both(reply).log_ratio.tolist())
    assert "".join(step.token for step in steps).split() == reply.split()
    assert steps[-1].mean_ratio == pytest.approx(steps[-1].log_ratio / 6)
    taken.clear()
    for step in watch(Side(engines[0]), Side(engines[1]), ASKED, arriving()):
        if step.position == 2:
            break
    assert len(taken) == 2


def test_watching_refuses_models_with_other_tokens() -> None:
    other = Side(open_engine("toy:fork"))
    with pytest.raises(UserError, match="same tokens"):
        list(watch(Side(open_engine(ALIGNED)), other, ASKED, iter([3])))


def test_an_alarm_level_outside_its_range_is_refused() -> None:
    assert alarm_level(0.01) == pytest.approx(math.log(100))
    for alpha in (0.0, 1.0, -1.0):
        with pytest.raises(UserError, match="between 0 and 1"):
            alarm_level(alpha)


def test_the_score_of_an_engine_is_read_without_its_filters() -> None:
    engine = open_engine(ALIGNED)
    path = engine.encode_reply(engine.encode(PROMPT), "so hmm.", finished=False)
    raw = engine.score(Path(path.context, path.tokens), RAW).p
    assert read(Side(engine), ASKED, "so hmm.").reply.log_p == pytest.approx(np.log(raw))


def test_tokens_that_share_no_boundary_are_refused() -> None:
    first, second = (Part(pieces, np.full(len(pieces), -1.0)) for pieces in (("ab", "cd"), ("abc",)))
    with pytest.raises(UserError, match="end nowhere at the same place"):
        running(first, second)
    cut = Part(("ab", "cd"), np.full(1, -1.0))
    assert running(cut, second).pieces == ()  # the window ended before a common boundary
    assert running(Part((), np.empty(0)), second).pieces == ()
