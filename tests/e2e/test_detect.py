"""``blinkscope detect`` from the command line, on toy models, killed and resumed as a user would."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from tests.detection.toys import ALIGNED, PROMPT, UNALIGNED, rows, write
from tests.e2e.command import blinkscope, kill_after, result

PAIR = ("--aligned", ALIGNED, "--unaligned", UNALIGNED)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write(tmp_path / "texts.jsonl", rows(60))


def test_score_and_evaluate(texts: Path, tmp_path: Path) -> None:
    scored = blinkscope("detect", "score", texts, *PAIR, "-o", "s.db", "--running", "r.jsonl", cwd=tmp_path)
    assert scored.returncode == 0, scored.stderr
    assert "reply ratio" in scored.stdout
    assert "run file: s.db" in scored.stderr
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len({line["id"] for line in lines}) == 120
    files = ("--plot", "early.svg", "--tables", "tables", "--running", "again.jsonl")
    shown = blinkscope("detect", "evaluate", "s.db", *files, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "false positive rate of at most 0.01 among 60 texts" in shown.stdout
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "r.jsonl").read_text()
    assert "AUROC of the ratio" in (tmp_path / "early.svg").read_text(encoding="utf-8")
    with (tmp_path / "tables" / "quality.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert {row["family"] for row in table} == {"odd", "even", "all"}
    found = result("detect", "evaluate", "s.db", cwd=tmp_path)
    assert found == result("show", "s.db", cwd=tmp_path)
    wide, narrow = (
        next(row for row in answer["tables"]["auroc"] if (row["score"], row["flagged"]) == ("reply_ratio", "high"))
        for answer in (found, result("detect", "evaluate", "s.db", "--level", "0.5", cwd=tmp_path))
    )
    assert wide["all"] == narrow["all"] > 0.7
    assert wide["all_low"] < narrow["all_low"] < narrow["all_high"] < wide["all_high"]


def test_killed_scoring_ends_as_if_it_never_was(tmp_path: Path) -> None:
    texts = write(tmp_path / "texts.jsonl", rows(80))
    started = time.monotonic()
    whole = result("detect", "score", texts, *PAIR, "-o", "whole.db", cwd=tmp_path)
    longest = time.monotonic() - started
    for share in (0.5, 0.8):
        kill_after(share * longest, "detect", "score", texts, *PAIR, "-o", "killed.db", cwd=tmp_path)
    assert result("detect", "score", texts, *PAIR, "-o", "killed.db", cwd=tmp_path) == whole


def test_mistakes_are_one_sentence(texts: Path, tmp_path: Path) -> None:
    write(tmp_path / "bare.jsonl", [{"prompt": PROMPT, "completion": "so"}])
    assert blinkscope("detect", "score", "bare.jsonl", *PAIR, "-o", "bare.db", cwd=tmp_path).returncode == 0
    for arguments, said in (
        (("score", texts, "--aligned", ALIGNED, "-o", "run.db"), "every log ratio is 0"),
        (("score", "nothing", *PAIR, "-o", "run.db"), "no data 'nothing'"),
        (("score", texts, *PAIR, "--probe", "nothing", "-o", "run.db"), "no file nothing"),
        (("score", texts, "--aligned", ALIGNED, "--unaligned", "toy:none", "-o", "run.db"), "no toy model 'none'"),
        (("train", texts, "--model", ALIGNED, "--layer", "1", "-o", "p.safetensors"), "does not show its activations"),
        (("train", texts, "--layer", "1", "-o", "no/p.safetensors"), "no folder"),
        (("evaluate", "bare.db"), "no texts of both labels"),
        (("evaluate", "texts.jsonl"), "not a run file"),
    ):
        done = blinkscope("detect", *arguments, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run.db").exists()
    other = ("locate", PROMPT, "--model", "toy:fork", "--error", "0.3", "-o", "other.db")
    assert blinkscope(*other, cwd=tmp_path).returncode == 0
    refused = blinkscope("detect", "evaluate", "other.db", cwd=tmp_path)
    assert (refused.returncode, "holds no scores" in refused.stderr) == (2, True)
