"""Scoring a file of texts into a run file: complete, resumable, and read again without the models."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blinkscope.detection.metrics import Resamples, quality
from blinkscope.detection.probe import save_probe, train_probe
from blinkscope.detection.reading import Side
from blinkscope.detection.study import STUDY, DetectSpec, Instruments, running_lines
from blinkscope.detection.texts import text_items
from blinkscope.detection.training import train_on
from blinkscope.engines import open_engine
from blinkscope.errors import UserError
from blinkscope.exports.study import write_tables
from blinkscope.language.engine import Score
from blinkscope.report.study import print_study
from blinkscope.report.study_figures import write_figure
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import StudyResult, run_study
from tests.detection.toys import ALIGNED, PROMPT, UNALIGNED, rows, write
from tests.engines import tiny
from tests.engines.fake_server import serving


class Counting:
    """A toy model that counts the texts it scores, and can be stopped as a kill would stop it."""

    def __init__(self, model: str, stop_after: int | None = None) -> None:
        self.inner, self.stop_after, self.scored = open_engine(model), stop_after, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def score(self, *arguments: Any) -> Score:
        if self.scored == self.stop_after:
            raise KeyboardInterrupt
        self.scored += 1
        return self.inner.score(*arguments)


def spec(tmp_path: Path, texts: list[dict[str, Any]] | None = None, **changes: Any) -> DetectSpec:
    data = write(tmp_path / "texts.jsonl", rows(20) if texts is None else texts)
    return DetectSpec(data=str(data), asking=Asking(model=ALIGNED), unaligned=UNALIGNED, **changes)


def by_name(result: StudyResult, table: str, **which: str) -> dict[str, Any]:
    (row,) = [row for row in result.findings.tables[table] if all(row[k] == v for k, v in which.items())]
    return dict(row)


def test_the_tables_say_what_the_scores_say(tmp_path: Path) -> None:
    result = run_study(STUDY, spec(tmp_path), tmp_path / "run.db")
    assert result.status == "complete"
    scored = result.findings.tables["scores"]
    positive = np.array([row["reply_ratio"] for row in scored if row["label"] == 1])
    negative = np.array([row["reply_ratio"] for row in scored if row["label"] == 0])
    assert len(positive) == len(negative) == 20
    for sign, flagged in ((1, "high"), (-1, "low")):
        found = by_name(result, "quality", score="reply_ratio", flagged=flagged, family="all")
        once = Resamples(np.ones((1, 20), int), np.ones((1, 20), int))
        expected = quality(sign * positive, sign * negative, once)
        assert found["auroc"] == expected.auroc
        assert found["recall"] == expected.recall
        assert found["threshold"] == sign * expected.threshold
    high = by_name(result, "auroc", score="reply_ratio", flagged="high")
    low = by_name(result, "auroc", score="reply_ratio", flagged="low")
    assert high["all"] + low["all"] == pytest.approx(1)
    assert high["all"] > 0.7
    assert high["all_low"] < high["all"] < high["all_high"]
    assert {"odd", "even"} < high.keys()
    assert by_name(result, "quality", score="prompt_ratio", flagged="high", family="odd")["missing_1"] == 10
    early = [row for row in result.findings.tables["early"] if row["family"] == "all"]
    assert [row["tokens"] for row in early[:4]] == [1, 2, 4, 8]
    assert early[-1]["auroc"] == high["all"]
    assert result.summary["alarm_level"] == pytest.approx(math.log(100))


def test_one_that_was_killed_scores_only_what_is_missing(tmp_path: Path) -> None:
    asked = spec(tmp_path)
    whole = run_study(STUDY, asked, tmp_path / "whole.db")
    aligned, scored = Counting(ALIGNED), 0
    for stop in (7, 12, None):
        unaligned = Counting(UNALIGNED, stop)
        study = replace(STUDY, prepare=lambda *_: Instruments(unaligned))  # type: ignore[arg-type]  # noqa: B023
        try:
            result = run_study(study, asked, tmp_path / "run.db", model=aligned)
        except KeyboardInterrupt:
            assert stored_study(tmp_path / "run.db").status == "interrupted"  # type: ignore[union-attr]
        scored += unaligned.scored
    assert scored == 40
    assert aligned.scored == 42  # the texts in whose middle it was killed are read again
    assert json.dumps(result.to_json()) == json.dumps(whole.to_json())
    assert stored_study(tmp_path / "run.db").to_json() == whole.to_json()  # type: ignore[union-attr]


def test_texts_that_cannot_be_scored_are_counted_and_the_others_go_on(tmp_path: Path) -> None:
    texts = [
        {"prompt": PROMPT, "completion": "so then", "label": 1, "family": "said"},
        {"prompt": PROMPT, "completion": "", "label": 1, "family": "empty"},
        {"prompt": PROMPT, "completion": "Done.", "label": 0},  # neither model can say it
        {"prompt": PROMPT, "completion": "but", "label": 0},
        {"prompt": PROMPT, "completion": "words they do not know", "label": 0},
        {"prompt": PROMPT, "label": 0},
    ]
    result = run_study(STUDY, spec(tmp_path, texts), tmp_path / "run.db")
    assert [reason for _, reason in result.failed.values()][1] == "it has no completion; it has prompt, label."
    assert "does not know the word" in result.failed["5"][1]
    assert result.summary["failures"] == {"item": 2}
    assert result.summary["without_a_reply_score"] == 1
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    stuck = found["tables"]["scores"][2]
    assert (stuck["reply_aligned"], stuck["reply_ratio"], stuck["perplexity"]) == ("-inf", None, "inf")
    empty = by_name(result, "quality", score="reply_ratio", flagged="high", family="empty")
    assert (empty["recall"], empty["missing_1"], empty["auroc"]) == (0.0, 1, 0.25)


def test_the_running_ratio_is_a_line_for_every_token(tmp_path: Path) -> None:
    texts = [{"prompt": PROMPT, "completion": text} for text in ("so then wait,", "", "Done.")]
    result = run_study(STUDY, spec(tmp_path, texts), tmp_path / "run.db")
    assert result.findings.sentences[0] == (
        f"Aligned: {ALIGNED} without a system prompt. Unaligned: {UNALIGNED} without a system prompt."
    )
    assert list(result.findings.tables) == ["scores"]  # no labels, nothing to evaluate
    lines: Iterator[Any] = map(json.loads, running_lines(tmp_path / "run.db"))
    first, second, third, stuck = lines
    assert [line["position"] for line in (first, second, third)] == [1, 2, 3]
    assert third["log_ratio"] == pytest.approx(sum(x["unaligned"] - x["aligned"] for x in (first, second, third)))
    assert third["mean_ratio"] == pytest.approx(result.findings.tables["scores"][0]["reply_ratio"])
    assert (stuck["id"], stuck["aligned"], stuck["log_ratio"]) == ("3", "-inf", None)


def test_the_same_model_on_both_sides_is_refused(tmp_path: Path) -> None:
    same = replace(spec(tmp_path), unaligned=ALIGNED)
    for asked in (same, replace(same, unaligned=None)):
        with pytest.raises(UserError, match="every log ratio is 0"):
            run_study(STUDY, asked, tmp_path / "run.db")
    with pytest.raises(UserError, match="items is 0"):
        replace(same, items=0)
    assert not (tmp_path / "run.db").exists()


def test_texts_of_one_label_have_no_figure(tmp_path: Path) -> None:
    result = run_study(STUDY, spec(tmp_path, rows(2)[:2]), tmp_path / "run.db")
    assert "need texts with label 1 and with label 0" in result.findings.sentences[-1]
    assert not write_figure(result, tmp_path / "early.svg")


def test_where_the_other_models_server_stands_is_not_kept(tmp_path: Path) -> None:
    data = write(tmp_path / "texts.jsonl", [{"prompt": PROMPT, "completion": " so then"}])
    with serving("vllm", toy=UNALIGNED.removeprefix("toy:")) as one, serving("vllm", toy=one.toy) as two:
        first, second = (
            run_study(
                STUDY,
                DetectSpec(str(data), asking=Asking(model=ALIGNED), unaligned=f"{server.url}?patience=5"),
                tmp_path / "run.db",
            )
            for server in (one, two)
        )
        assert any("prompt_logprobs" in body for _, body in one.requests)
        assert not any("prompt_logprobs" in body for _, body in two.requests)  # nothing is scored again
    assert not first.failed
    assert first.to_json() == second.to_json()
    assert str(first.spec["unaligned"]).startswith("server:")
    assert b"127.0.0.1" not in (tmp_path / "run.db").read_bytes()
    assert "Unaligned: server:" in stored_study(tmp_path / "run.db").findings.sentences[0]  # type: ignore[union-attr]


def test_another_probe_or_text_on_the_same_file_is_refused(tmp_path: Path) -> None:
    engine, rng = tiny.engine(), np.random.default_rng(0)
    path = tmp_path / "probe.safetensors"
    texts = [{"prompt": "hello", "completion": f"reply {i}", "label": i % 2} for i in range(4)]
    data = write(tmp_path / "texts.jsonl", texts)
    study = replace(STUDY, prepare=lambda *a: Instruments(tiny.engine("llama", seed=1), STUDY.prepare(*a).probe))

    def scored(seed: int) -> StudyResult:
        x = rng.normal(size=(20, 32))
        save_probe(path, train_probe(x, np.arange(20) % 2, model=engine.name, system=None, layer=2, seed=seed))
        asked = DetectSpec(str(data), asking=Asking(model=ALIGNED), unaligned=UNALIGNED).with_probe(str(path))
        return run_study(study, asked, tmp_path / "run.db", model=engine)

    result = scored(0)
    assert result.status == "complete"
    assert np.isfinite([row["probe_mlp"] for row in result.findings.tables["scores"]]).all()
    with pytest.raises(UserError, match="probe_sha256"):
        scored(1)
    other = DetectSpec(str(data), asking=Asking(model=ALIGNED), unaligned=UNALIGNED).with_probe(str(path))
    with pytest.raises(UserError, match="not on toy:walk"):
        run_study(STUDY, other, tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()


def test_families_from_a_stranger_are_harmless_on_a_terminal_and_in_a_spreadsheet(tmp_path: Path) -> None:
    hostile = ("\x1b[31mred", "=cmd()")
    texts = [{**row, "family": hostile[i % 2]} for i, row in enumerate(rows(4))]
    result = run_study(STUDY, spec(tmp_path, texts), tmp_path / "run.db")
    out = io.StringIO()
    print_study(result, out, width=200)
    assert "\x1b" not in out.getvalue()
    assert "␛[31mred" in out.getvalue()
    write_tables(result, tmp_path / "tables")
    header = (tmp_path / "tables" / "recall.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert "'=cmd()" in header
    assert "=cmd()" not in header


def test_texts_that_cannot_train_a_probe_are_left_out_with_the_reason(tmp_path: Path) -> None:
    texts: list[dict[str, Any]] = [
        {"prompt": "hello", "completion": "yes!" if i % 2 else "no", "label": i % 2} for i in range(24)
    ]
    texts += [{"prompt": "hello", "completion": "?"}, {"prompt": "hello", "label": 1}]
    items = text_items(str(write(tmp_path / "train.jsonl", texts)))
    trained = train_on(items, Side(tiny.engine()), 2)
    assert list(trained.left_out) == ["25", "26"]
    assert "no label" in trained.left_out["25"]
    assert "no completion" in trained.left_out["26"]
    assert trained.probe.report["texts"] == 24
    assert trained.probe.report["auroc_held_out"]["logistic"] == 1.0  # two kinds of texts, all alike
    for side, layer, said in ((Side(open_engine(ALIGNED)), 1, "does not show"), (Side(tiny.engine()), 9, "layers 0")):
        with pytest.raises(UserError, match=said):
            train_on(items, side, layer)
