"""vLLM in this process, against classes like its own whose model is a toy one (``fake_vllm.py``): the law is known."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path as FilePath

import numpy as np
import pytest

from blinkscope import engines, locate
from blinkscope.cli.main import main
from blinkscope.engines import open_engine, places
from blinkscope.engines import vllm as in_process
from blinkscope.engines.toy_models import open_toy
from blinkscope.engines.vllm import VllmEngine
from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.language.engine import Ask, Engine, Job, Path
from blinkscope.language.sampling import Sampling
from tests.engines import fake_vllm
from tests.engines.fake_vllm import LLM, LOADED, TOY, Model

FEATURE = "regex:(happy|sad)"
LAW = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=14)
LAWS = [LAW, Sampling(max_new_tokens=14), Sampling(1.4, 3, 0.95, 0.0, 14), Sampling(1.4, 3, 1.0, 0.05, 14)]


@pytest.fixture(autouse=True)
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    """``vllm:toy``."""
    fake_vllm.install(monkeypatch)
    monkeypatch.setitem(LOADED, "toy", Model())
    for name in ("VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.setenv(name, "as it was")
    return LOADED["toy"]


def start(engine: Engine) -> Path:
    return Path(engine.encode("Which way?"), ())


def reply(engine: Engine) -> Path:
    """A reply of the toy model after its prompt."""
    (done,) = engine.continue_([Job((), start(engine), 0, (), (0,))], Sampling(max_new_tokens=14), 2)
    return dataclasses.replace(start(engine), tokens=done.tokens)


def opened(toy: str = TOY, **settings: object) -> VllmEngine:
    """An engine of an ``LLM`` made by hand."""
    LOADED["by hand"] = Model(toy=toy)
    return VllmEngine("by hand", LLM("by hand", **{"max_logprobs": -1, **settings}))  # type: ignore[arg-type]


# What is exact.


@pytest.mark.parametrize("law", [*LAWS, Sampling(0, max_new_tokens=14)])
@pytest.mark.parametrize("most", [-1, 48, 20, 1])
def test_a_score_is_the_toy_models_own(law: Sampling, most: int) -> None:
    engine, toy = opened(max_logprobs=most), open_toy(TOY)
    path = reply(engine)
    score, known = engine.score(path, law), toy.score(Path(toy.encode("Which way?"), path.tokens), law)
    if most == 1 and law.temperature > 0:
        # What one listed token does not settle is said: as probability that is not listed, or as a bound in a note.
        bound = float(score.notes[0].split("total variation of ")[1].split()[0]) if score.notes else 1e-9
        assert np.abs(score.p - known.p).max() <= bound * 1.05
        missing = score.off_path - np.array([other.p.sum() for other in score.alternatives])
        assert -1e-9 < missing.min() < missing.max()
        return
    np.testing.assert_allclose(score.p, known.p, atol=1e-9)
    np.testing.assert_allclose(score.off_path, known.off_path, atol=1e-9)
    for ours, other in zip(score.alternatives, known.alternatives, strict=True):
        assert dict(zip(ours.ids, ours.p.round(9), strict=True)) == dict(zip(other.ids, other.p.round(9), strict=True))
    assert score.notes == ()


@pytest.mark.parametrize("law", LAWS)
def test_label_laws_are_the_toy_models_own(law: Sampling) -> None:
    engine, toy = open_engine("vllm:toy"), open_toy(TOY)
    count = 400
    jobs = [Job((i,), start(engine), 0, (), (3, i)) for i in range(count)]
    said = Counter("happy" in engine.decode(done.tokens) for done in engine.continue_(jobs, law, 5))
    truth = toy.truth(reply(toy), law)
    assert truth is not None
    p = float(truth.posterior[0, truth.labels.index("happy")])
    # 5.5 standard deviations: 4e-8, two-sided, for each of the laws.
    assert abs(said[True] / count - p) < 5.5 * np.sqrt(p * (1 - p) / count)


def test_a_curve_is_the_toy_models_own() -> None:
    engine, toy = open_engine("vllm:toy"), open_toy(TOY)
    law = Sampling(max_new_tokens=14)
    trace = locate(engine, "Which way?", feature=FEATURE, sampling=law, seed=3, error=0.05)
    path = Path(toy.encode("Which way?"), tuple(step.id or 0 for step in trace.steps))
    truth = toy.truth(path, law)
    assert truth is not None
    right = truth.posterior[:, truth.labels.index("happy")]
    # The error asked for is the largest standard deviation; 5.5 of them: 4e-8 for each of 15 rows.
    assert np.abs(trace.curve[:, trace.labels.index("happy")] - right).max() < 5.5 * 0.05


def test_a_path_may_fill_the_whole_window() -> None:
    engine = opened()
    path = reply(engine)
    full = opened(max_model_len=len(path.context.ids) + len(path.tokens))
    np.testing.assert_array_equal(full.score(path, LAW).p, engine.score(path, LAW).p)
    with pytest.raises(UserError, match="context window is"):
        full.score(dataclasses.replace(path, tokens=(*path.tokens, 5)), LAW)


# The traps.


def test_a_path_is_read_in_one_request_and_more_is_asked_where_the_law_needs_it(
    monkeypatch: pytest.MonkeyPatch, model: Model
) -> None:
    engine = open_engine("vllm:toy")
    path = reply(engine)
    known = engine.score(path, LAW)
    monkeypatch.setattr(places, "LISTED", (2, 3, 8))
    monkeypatch.setattr(in_process, "LISTED_AT_A_TIME", 12)
    model.requests.clear()
    model.calls = 0
    score = engine.score(path, LAW)
    np.testing.assert_allclose(score.p, known.p, atol=1e-12)
    (ids, first), *more = model.requests
    assert ids == [*path.context.ids, *path.tokens[:-1]]
    assert (first.prompt_logprobs, first.logprobs, first.max_tokens) == (2, 2, 1)
    assert {(one.prompt_logprobs, one.logprobs, one.max_tokens) for _, one in more} == {(None, 3, 1), (None, 8, 1)}
    assert len({tuple(prefix) for prefix, one in more if one.logprobs == 3}) < len(path.tokens)  # others were settled
    assert 3 < model.calls < len(model.requests)


def test_first_tokens_are_forced_by_the_prefix_not_by_a_bias(model: Model) -> None:
    engine = open_engine("vllm:toy")
    path = reply(engine)
    score = engine.score(path, LAW)
    position = int(np.argmax(score.off_path))
    token = int(score.alternatives[position].ids[0])
    model.requests.clear()
    (done,) = engine.continue_([Job((0,), path, position, (token,), (1,))], LAW, 0)
    ((ids, _),) = model.requests
    assert ids == [*path.context.ids, *path.tokens[:position], token]
    assert done.tokens[0] == token


def test_every_field_of_the_sampling_law_is_always_sent(model: Model) -> None:
    model.generation = {"temperature": 0.3, "top_k": 2, "top_p": 0.5, "repetition_penalty": 1.3, "max_new_tokens": 3}
    engine = open_engine("vllm:toy")
    assert engine.default_sampling == Sampling(0.3, 2, 0.5)
    model.requests.clear()
    list(engine.continue_([Job((), start(engine), 0, (), (1,))], LAW, 0))
    ((_, asked),) = model.requests
    assert (asked.temperature, asked.top_p, asked.top_k, asked.min_p) == (0.8, 0.9, 0, 0.0)
    assert (asked.repetition_penalty, asked.presence_penalty, asked.frequency_penalty) == (1.0, 0.0, 0.0)
    assert (asked.max_tokens, asked.min_tokens, asked.ignore_eos) == (14, 0, False)
    remarks = engine.remarks(engine.encode("<user>"))  # type: ignore[attr-defined]
    assert remarks == (
        "the prompt spells <user>, which the tokenizer reads as marks, not as text.",
        "the model's generation config asks for repetition_penalty=1.3, which is not followed.",
    )


def test_neighbouring_seeds_never_share_draws(model: Model) -> None:
    engine = open_engine("vllm:toy")
    jobs = [Job((a, i), start(engine), 0, (), (3, a, i)) for a in range(4) for i in range(70)]
    model.requests.clear()
    list(engine.continue_(jobs, dataclasses.replace(LAW, max_new_tokens=2), 1))
    seeds = [seed for _, asked in model.requests for seed in range(asked.seed, asked.seed + asked.n)]
    assert len(set(seeds)) == len(seeds) == len(jobs)
    assert len(model.requests) < 20  # children of few requests
    assert max(seeds) < 2**62


def test_a_jobs_draw_does_not_depend_on_what_shares_its_request(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    engine = open_engine("vllm:toy")
    jobs = [Job((i,), start(engine), 0, (), (3, i)) for i in range(90)]
    together = {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)}
    alone = {done.job.key: done.tokens for job in jobs[::9] for done in engine.continue_([job], LAW, 1)}
    assert alone == {key: together[key] for key in alone}
    monkeypatch.setattr(in_process, "AT_A_TIME", 10)
    model.calls = 0
    assert {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)} == together
    assert model.calls > 1


def test_completions_are_handed_over_call_by_call(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    engine = open_engine("vllm:toy")
    monkeypatch.setattr(in_process, "AT_A_TIME", 10)
    running = engine.continue_(
        [Job((a, i), start(engine), 0, (), (3, a, i)) for a in range(9) for i in range(9)], LAW, 1
    )
    model.calls = 0
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert model.calls == 1


def test_any_end_of_turn_token_ends_a_reply(model: Model) -> None:
    model.generation = {"eos_token_id": [0, 7]}
    engine = open_engine("vllm:toy")
    for end in (0, 7):
        (done,) = engine.continue_([Job((), start(engine), 0, (5, end))], LAW, 0)
        assert (done.tokens, done.finish) == ((5, end), "stop")
    model.requests.clear()
    list(engine.continue_([Job((), start(engine), 0)], LAW, 0))
    assert model.requests[0][1].stop_token_ids == [0, 7]


def test_a_follow_up_question_comes_after_the_reply_at_temperature_0(model: Model) -> None:
    engine = open_engine("vllm:toy")
    path = reply(engine)
    question = engine.follow_up(path, "So?")
    assert "".join(engine.pieces(question)) == "<end><user><unknown><assistant>"
    jobs = [
        Job((0,), path, len(path.tokens), (), (1,), Ask(question, 5)),  # a reply that is over
        Job((1,), path, 3, (), (2,), Ask(question, 5)),
        Job((2,), path, 3, (), (3,)),
    ]
    model.requests.clear()
    done = {one.job.key: one for one in engine.continue_(jobs, LAW, 1)}
    asked = [(ids, how) for ids, how in model.requests if how.temperature == 0]
    assert [how.max_tokens for _, how in asked] == [5, 5]
    for ids, _ in asked:
        assert tuple(ids[-len(question) :]) == question
        assert ids[-len(question) - 1] != 0  # the question brings the end of turn
    assert done[2,].answer is None
    answer = done[0,].answer
    assert answer
    assert done[0,].generated == 5
    assert done[1,].generated == len(done[1,].tokens) + 5


def test_tokens_that_are_impossible_are_no_alternatives() -> None:
    score = opened().score(reply(opened()), Sampling(max_new_tokens=14))
    assert all(np.isfinite(other.p).all() and (other.p > 0).all() for other in score.alternatives)


# What is asked of vLLM when it starts.


def test_weights_are_read_from_safetensors_and_standard_output_is_left_alone(
    model: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath
) -> None:
    import os

    for name in ("VLLM_LOGGING_STREAM", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"):
        monkeypatch.delenv(name)
    open_engine("vllm:toy", dtype="bfloat16")
    assert model.arguments == {
        "dtype": "bfloat16",
        "load_format": "safetensors",
        "trust_remote_code": False,
        "enable_prefix_caching": True,
    }
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no \.safetensors file"):
        open_engine(f"vllm:{tmp_path}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"logprobs_mode": "processed_logprobs"}, "returns processed_logprobs"),
        ({"max_logprobs": 0}, "lists no log-probabilities"),
    ],
)
def test_an_llm_made_by_hand_has_to_tell_raw_probabilities(settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        opened(**settings)


# Mistakes and failures.


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ("vllm:", {}, "vllm:ORG/NAME or vllm:FOLDER"),
        ("vllm:org/none", {}, "vLLM cannot open org/none: org/none is not a local folder"),
        ("vllm:toy", {"device": "cuda"}, "leave out device"),
        ("vllm:toy", {"batch_bytes": 100}, "leave out device and batch-bytes"),
    ],
)
def test_models_that_cannot_be_opened(spec: str, options: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        open_engine(spec, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_missing_vllm_is_answered_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'blinkscope\[vllm\]'"):
        open_engine("vllm:org/model")


@pytest.mark.parametrize(
    ("law", "words"),
    [
        (Sampling(top_p=0.9, min_p=0.05), "min-p before top-p"),
        (Sampling(temperature=0.005), "temperature is 0.005"),
        (Sampling(temperature=2.5), "vLLM takes 0 or 0.01 to 2"),
    ],
)
def test_laws_that_vllm_would_change_are_refused(law: Sampling, words: str) -> None:
    engine = open_engine("vllm:toy")
    path = reply(engine)
    with pytest.raises(UserError, match=words):
        engine.score(path, law)
    with pytest.raises(UserError, match=words):
        list(engine.continue_([Job((), path, 0)], law, 0))


def test_failures_are_said_in_vllms_own_words(model: Model) -> None:
    engine = open_engine("vllm:toy")
    jobs = [Job((), start(engine), 0)]
    for broken, kind, words in (
        (
            fake_vllm.VLLMServerError("EngineCore encountered\nan issue."),
            EngineError,
            "EngineCore encountered an issue",
        ),
        (RuntimeError("CUDA out of memory"), EngineError, "CUDA out of memory"),
        (fake_vllm.VLLMValidationError("no such thing"), UserError, "vLLM refuses this: no such thing"),
    ):
        model.broken = broken
        with pytest.raises(kind, match=words):
            list(engine.continue_(jobs, LAW, 0))
    model.broken = None
    model.window = 10
    with pytest.raises(UserError, match="context window is 10"):
        list(open_engine("vllm:toy").continue_(jobs, LAW, 0))


def test_the_fake_takes_what_vllm_takes_and_no_more() -> None:
    with pytest.raises(TypeError):
        sys.modules["vllm"].SamplingParams(best_of=3)
    with pytest.raises(TypeError):
        sys.modules["vllm"].LLM("toy", device="cuda")
    assert fake_vllm.SamplingParams(temperature=0.001, max_tokens=1).temperature == 0.01
    with pytest.raises(fake_vllm.VLLMValidationError):
        fake_vllm.SamplingParams(temperature=0, n=2)


def test_the_command_line_looks_into_a_vllm_model(tmp_path: FilePath, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("locate", "Which way?", "--model", "vllm:toy", "--feature", FEATURE, "--continuations", "60", "--json")
    run = str(tmp_path / "run.db")
    assert main([*words, "-o", run]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["model"] == "vllm:toy"
    assert main([*words, "-o", run]) == 0  # everything is in the run file
    again = json.loads(capsys.readouterr().out)
    assert again["curve"] == first["curve"]
