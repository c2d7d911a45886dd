"""What Python callers are told, and what every engine's transcripts are held to."""

from __future__ import annotations

from typing import Any

import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target, Trace
from blinkscope.language.sampling import Sampling
from blinkscope.question import Question
from blinkscope.reread import stored
from blinkscope.session import locate
from tests.engines import tiny

MODEL = "toy:fork"


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prompt": None}, "prompt is None; it must be the text of a user's turn, or a list of chat messages"),
        ({"prompt": 3}, "prompt is 3"),
        ({"system": 3}, "system is 3; it must be a text, or None"),
        ({"sampling": {"temperature": 1}}, r"sampling is \{'temperature': 1\}; it must be a Sampling"),
        ({"temperature": 0.7}, r"temperature is a field of Sampling; write sampling=Sampling\(temperature=...\)"),
        ({"banana": 1}, r"locate\(\) has no option 'banana'; it has prompt, "),
        ({"method": "guess"}, "there is no method 'guess'"),
        ({"method": 3}, "method is 3; it must be the name of a method"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        ({"labels": "4"}, "labels is '4'; it must be a whole number"),
        ({"error": "0.1"}, "error is '0.1'; it must be a number"),
        ({"delta": True}, "delta is True; it must be a number"),
        ({"run": 5}, "run is 5; it must be the name of a run file"),
        ({"engine_options": {"devce": "cpu"}}, "engine_options has no 'devce' for this model; it has device, dtype"),
        (
            {"engine_options": {"device": "cuda"}},
            "device, dtype and batch-bytes belong to models with weights in this process",
        ),
        ({"model": 5}, "int is neither a model name nor a causal language model"),
        ({"continuations": 10.0}, "continuations is 10.0; it must be a whole number, or None"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        locate(**{"model": MODEL, "prompt": "go", **options})


@pytest.mark.misuse
def test_settings_of_another_kind_are_refused() -> None:
    with pytest.raises(UserError, match="temperature is '1'; it must be a number"):
        Sampling(temperature="1")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="stop is 'x'"):
        Sampling(stop="x")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="max_width is 2"):
        Target(max_width=2.5)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="sampling is 'greedy'"):
        Question("go", sampling="greedy")  # type: ignore[arg-type]


def test_a_method_goes_by_its_name() -> None:
    trace = locate(MODEL, "go", method="bisect")
    assert trace.settings["method"] == "bisect"
    assert len(trace.posterior.index) < len(trace.steps)


def test_a_stored_run_is_read_again_only_with_another_target(tmp_path) -> None:
    run = tmp_path / "run.db"
    locate(MODEL, "go", run=run, continuations=40)
    assert stored(run, delta=0.3).target.delta == 0.3
    with pytest.raises(UserError, match="seed cannot be changed in a stored run; error, "):
        stored(run, seed=2)


def test_what_is_missing_for_a_smaller_error_is_said_without_blaming_an_interruption(tmp_path) -> None:
    from blinkscope.report import summary

    run = tmp_path / "run.db"
    assert locate(MODEL, "go", run=run, error=0.1).status == "complete"
    asked = stored(run, error=0.001)
    assert asked.status == "interrupted"
    assert summary.error(asked).endswith("asked for 0.001. These are the draws so far: locate goes on from them.")


def _transformers(sampling: Sampling, generation: str) -> Trace:
    engine = tiny.engine("llama")
    return locate(engine, "Hello", feature="exact", generation=generation, sampling=sampling, continuations=8)


@pytest.mark.parametrize(
    ("generation", "stop", "said"),
    [
        ("one<|end|>two", (), r"goes on after token 4 \('<\|end\|>'\), which ends it"),
        ("one. two. three", (". ",), r"goes on after token 5 \(' '\), which ends it"),
    ],
)
def test_a_transcript_that_goes_on_after_its_end_is_refused(generation: str, stop: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        _transformers(Sampling(stop=stop, max_new_tokens=40), generation)


def test_a_transcript_may_end_with_its_stop_text() -> None:
    trace = _transformers(Sampling(stop=(". ",), max_new_tokens=5), "one. ")
    assert [step.text for step in trace.steps] == list("one. ")


def test_a_toy_transcript_that_goes_on_after_its_end_is_refused() -> None:
    words = locate(MODEL, "go").text.split()
    with pytest.raises(UserError, match=r"goes on after token 3 .*, which ends it"):
        locate(MODEL, "go", generation=" ".join(words), sampling=Sampling(stop=(words[2],)))


@pytest.mark.parametrize(
    ("estimator", "seed", "budget"),
    [("unbiased", 1, 70), ("unbiased", 3, 83), ("unbiased", 5, 107), ("pooled", 4, 61), ("pooled", 5, 43)],
)
def test_a_raised_budget_gives_the_draws_of_the_larger_budget_at_once(
    estimator: str, seed: int, budget: int, tmp_path
) -> None:
    """First tokens are spread over the draws that a round plans, not over those that a budget lets it have.

    Each of these budgets cuts an order in which that makes a difference.
    """
    asked: dict[str, Any] = {"seed": seed, "error": 0.01, "estimator": estimator}
    model, run = "toy:maze?length=30&labels=3", tmp_path / "run.db"
    locate(model, "Where to?", run=run, continuations=budget, **asked)
    raised = locate(model, "Where to?", run=run, continuations=120, **asked)
    assert raised.draws == locate(model, "Where to?", continuations=120, **asked).draws
