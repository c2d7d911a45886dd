"""Logs of Inspect AI as data of ``study cot``: what is read from them, and a study over one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalPlan, EvalSample, EvalSpec, write_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
    GenerateConfig,
)
from inspect_ai.scorer import Score

from blinkscope.engines import open_engine
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.language.engine import Job
from blinkscope.language.engine import Path as TokenPath
from blinkscope.studies import cot
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.logs import logged_samples
from blinkscope.studies.questions import question_items
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import run_study
from tests.studies.counted import Counted

FORK = "toy:fork?agree=4&width=2&length=16"


def sample(number: int, said: Any, value: Any, **changes: Any) -> EvalSample:
    turns = [
        ChatMessageSystem(content="Be right."),
        ChatMessageUser(content="Which way?"),
        ChatMessageAssistant(content=said),
    ]
    settings = {
        "epoch": 1,
        "target": "12",
        "messages": turns,
        "scores": {"match": Score(value=value), "length": Score(value=3)},
    }
    return EvalSample(id=f"q{number}", input="Which way?", **{**settings, **changes})


def written(path: Path, samples: list[EvalSample], config: GenerateConfig | None = None) -> Path:
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created="2026-11-25T10:00:00+00:00",
            task="sums",
            dataset=EvalDataset(name="sums", samples=len(samples)),
            model="somewhere/model",
            config=EvalConfig(),
            model_generate_config=config or GenerateConfig(),
        ),
        plan=EvalPlan(config=GenerateConfig(temperature=0.5, max_tokens=99)),
        samples=samples,
    )
    write_eval_log(log, str(path), format="eval")
    return path


def test_conversation_settings_and_scores_are_read(tmp_path: Path) -> None:
    thought = [ContentReasoning(reasoning="7 + 5"), ContentText(text="The answer is 12.")]
    config = GenerateConfig(temperature=0.7, top_p=0.9, stop_seqs=["END"])
    path = written(tmp_path / "x.eval", [sample(1, thought, "C"), sample(2, "13.", "I", epoch=2)], config)
    first, second = logged_samples(path)
    assert first["messages"] == [
        {"role": "system", "content": "Be right."},
        {"role": "user", "content": "Which way?"},
        {"role": "assistant", "content": "<think>\n7 + 5\n</think>\n\nThe answer is 12."},
    ]
    assert first["sampling"] == {"temperature": 0.7, "max_new_tokens": 99, "top_p": 0.9, "stop": ["END"]}
    assert (first["score"], first["target"]) == ({"match": "C", "length": "3"}, "12")
    assert [(row["id"], row["question"]) for row in (first, second)] == [("q1 epoch 1", "q1"), ("q2 epoch 2", "q2")]


@pytest.mark.parametrize(
    ("score", "ids"),
    [("match=I", ["q2"]), ("I", ["q2"]), ("length=3.0", ["q1", "q2"]), ("match=C", ["q1"])],
)
def test_samples_are_picked_by_score(score: str, ids: list[str], tmp_path: Path) -> None:
    path = written(tmp_path / "x.eval", [sample(1, "12.", "C"), sample(2, "13.", "I")])
    assert [row["id"] for row in logged_samples(path, score)] == ids
    with pytest.raises(UserError, match="no sample with the score 'match=X'; its scorers are length, match"):
        list(logged_samples(path, "match=X"))


def test_answers_are_graded_by_what_the_target_is(tmp_path: Path) -> None:
    tool = [ChatMessageUser(content="?"), ChatMessageTool(content="42", tool_call_id="1")]
    samples = [
        sample(1, "x", "C", target="B", choices=["one", "two"]),
        sample(2, "x", "C", target="$1,200"),
        sample(3, "x", "C", target="\\frac{1}{2}"),
        sample(4, "x", "C", target=""),
        sample(5, "x", "C", messages=[*tool, ChatMessageAssistant(content="42")]),
        sample(6, "x", "C", messages=tool[:1]),
    ]
    items = question_items([str(written(tmp_path / "x.eval", samples))], 10, 1, 0)
    assert [item.content.get("grading") for item in items[:3]] == ["letter", "number", "math"]
    problems = [str(item.content.get("problem")) for item in items[3:]]
    assert ["no target" in problems[0], "calls tools" in problems[1], "does not end" in problems[2]] == [True] * 3


def test_what_is_no_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.eval").write_text("no log")
    with pytest.raises(UserError, match=r"x\.eval is no log of Inspect AI"):
        question_items([str(tmp_path / "x.eval")], 1, 1, 0)
    with pytest.raises(UserError, match="cannot be read"):
        question_items([str(tmp_path / "y.eval")], 1, 1, 0)
    with pytest.raises(UserError, match=r"names no FILE\.eval"):
        CotSpec(score="I")


def test_the_recorded_generation_is_looked_into_and_a_killed_study_goes_on(tmp_path: Path) -> None:
    engine = open_engine(FORK)
    context = engine.encode("Which way?")
    (done,) = engine.continue_([Job((), TokenPath(context, ()), 0)], engine.default_sampling, 5)
    text = engine.decode(done.tokens)
    turns = [ChatMessageUser(content="Which way?"), ChatMessageAssistant(content=text)]
    log = written(tmp_path / "x.eval", [sample(i, "", "I", messages=turns) for i in (1, 2)])
    spec = CotSpec(
        data=(str(log),), ask=False, asking=Asking(FORK, seed=1, max_new_tokens=30), target=Target(error=0.2)
    )
    whole = run_study(cot.STUDY, spec, tmp_path / "whole.db")
    assert [row["score"] for row in whole.findings.tables["generations"]] == ["length: 3, match: I"] * 2
    streams: list[tuple[int, ...]] = []
    for stop_after in (9, 60, None):
        counted = Counted(FORK, stop_after)
        try:
            resumed = run_study(cot.STUDY, spec, tmp_path / "killed.db", model=counted)
        except KeyboardInterrupt:
            assert stop_after is not None
        streams += [stream for stream in counted.written if stream and stream[0] != 0]
    assert len(streams) == len(set(streams))
    assert resumed.to_json() == whole.to_json()
    from blinkscope.exports.generations import stored_generations

    found = list(stored_generations(tmp_path / "whole.db"))
    assert [generation.trace.text for generation in found] == [text, text]
    assert not any(generation.sampled for generation in found)
    sampled = found[0].record.settings["sampling"]
    assert isinstance(sampled, dict)
    assert sampled["temperature"] == 0.5  # the log's
    assert sampled["max_new_tokens"] == 30  # the spec's, although the log has 99


def test_a_system_prompt_beside_a_log_is_refused() -> None:
    with pytest.raises(UserError, match="brings the conversation with its own"):
        CotSpec(data=("x.eval",), asking=Asking(FORK, system="Be brief."))
