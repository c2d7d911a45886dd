"""What Python callers are told, and what every engine's transcripts are held to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.record import MethodOptions
from blinkscope.estimate.trace import Target, Trace
from blinkscope.language.sampling import Sampling
from blinkscope.pictured import PictureQuestion
from blinkscope.question import Question
from blinkscope.report.html import write_report
from blinkscope.reread import stored
from blinkscope.session import locate
from tests.engines import tiny
from tests.studies.counted import Counted

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
        ({"banana": 1}, r"locate\(\) has no option 'banana'\. It has model, prompt, "),
        ({"erorr": 1}, r"has no option 'erorr'; did you mean 'error'\? It has .* target, run, .* item, image, times\."),
        ({"image": "x.png"}, "image is of pictures; it needs a model diffusion:NAME or diffusers:FOLDER"),
        ({"device": "cpu"}, r"device is of how a model is loaded; write engine_options=\{'device': ...\}"),
        ({"fractions": (0, 0.5)}, r"fractions is a field of MethodOptions; write method=MethodOptions\('grid', frac"),
        ({"target": {"error": 0.2}}, r"target is \{'error': 0.2\}; it must be a Target, such as Target\(error=0.1\)"),
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


@pytest.mark.misuse
def test_what_is_no_result_or_no_place_is_refused() -> None:
    trace = locate(MODEL, "go", error=0.2)
    for call, said in (
        (lambda: stored(3), "path is 3; it must be the name of a run file"),
        (lambda: write_report(3, "x.html"), "trace is 3; it must be a Trace"),
        (lambda: write_report(trace, 3), "path is 3; it must be the name of a file"),
        (lambda: trace.windows(level=2), "level is 2; it must lie strictly between 0 and 1"),
        (lambda: trace.windows(delta="1"), "delta is '1'; it must be a number"),
        (lambda: trace.windows(max_width=2.5), "max_width is 2.5; it must be a whole number, or None"),
        (lambda: MethodOptions("grid", fractions="0,1"), "fractions is '0,1'; it must be numbers"),
        (lambda: MethodOptions("grid", resamples=2.5), "resamples is 2.5; it must be a whole number"),
        (lambda: PictureQuestion(times="0.1,0.5"), r"times is '0.1,0.5'; it must be numbers, such as \(0.5"),
        (lambda: PictureQuestion(times=(0.1, "x")), "one of times is 'x'; it must be a number"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_numbers_of_numpy_are_numbers(tmp_path) -> None:
    """What is stored and shown of them is Python's own number."""
    of_numpy = {"error": np.float32(0.25), "delta": np.float64(0.5), "seed": np.int64(1), "labels": np.int32(4)}
    own = {"error": 0.25, "delta": 0.5, "seed": 1, "labels": 4}
    sampling = Sampling(temperature=np.float32(0.5), top_k=np.int64(3))
    assert repr(sampling) == repr(Sampling(temperature=0.5, top_k=3))
    assert (type(sampling.temperature), type(sampling.top_k)) == (float, int)
    trace = locate(MODEL, "go", run=tmp_path / "run.db", **of_numpy)
    again = locate(MODEL, "go", run=tmp_path / "run.db", **own)
    assert trace.to_json()["curve"] == again.to_json()["curve"]
    assert trace.windows(max_width=np.int64(9)) == trace.windows(max_width=9)
    with pytest.raises(UserError, match="error is"):
        Target(error=np.bool_(True))  # type: ignore[arg-type]


def test_a_result_is_shown_on_one_line() -> None:
    trace = locate(MODEL, "go", error=0.2)
    shown = repr(trace)
    assert shown.startswith("Trace(model='toy:fork")
    assert f"tokens={len(trace.steps)}, windows={len(trace.windows())}" in shown
    assert len(shown) < 300
    assert "\n" not in shown


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


def test_a_function_that_is_not_there_shows_before_the_generation_is_made() -> None:
    engine = Counted(MODEL)
    with pytest.raises(UserError, match="feature 'python:nope:f': there is no module 'nope'"):
        locate(engine, "x", feature="python:nope:f")
    assert engine.written == []
    with pytest.raises(UserError, match="the model of judge:strongreject@nope cannot be opened: there is no model"):
        locate(engine, "x", feature="judge:strongreject@nope")
