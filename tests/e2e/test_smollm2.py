"""The main job on the embedded model, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.e2e.command import blinkscope, kill_after, result, same

pytestmark = pytest.mark.model

QUESTION = (
    *("locate", "Should I get a cat or a dog for a small flat? Answer in one sentence."),
    *("--feature", r"regex:\b(cat|dog)s?\b", "--max-new-tokens", "16", "--seed", "4"),
)


def test_it_locates_reports_and_shows(tmp_path: Path) -> None:
    found = result(*QUESTION, "--error", "0.2", "-o", "run.db", "--report", "report.html", cwd=tmp_path)
    tokens = found["generation"]["tokens"]
    assert found["model"].startswith("smollm2")
    assert found["sampling"]["temperature"] == 0.6
    assert len(found["curve"]["mean"]) == len(tokens) + 1 <= 17
    np.testing.assert_allclose(np.sum(found["curve"]["mean"], axis=1), 1)
    assert all(abs(token["p"] + token["off_path"] - 1) < 1e-9 and token["p"] > 0 for token in tokens)
    # Where the token was certain the curve cannot move (divergence decomposition).
    for s, token in enumerate(tokens):
        if token["off_path"] == 0:
            assert found["curve"]["mean"][s] == found["curve"]["mean"][s + 1]
    assert found["skipped_weight"] <= 0.01
    assert found["unrecorded_weight"] == 0
    assert found["cost"]["generated_tokens"] > 0
    assert same(result("show", "run.db", cwd=tmp_path), found)
    assert "report.html" in {path.name for path in tmp_path.iterdir()}


def test_a_transcript_is_analysed_and_an_asked_answer_is_labelled(tmp_path: Path) -> None:
    (tmp_path / "said.txt").write_text("A cat is a great choice for a small flat.", encoding="utf-8")
    found = result(
        *("locate", "Should I get a cat or a dog for a small flat?", "--generation", "said.txt"),
        *("--ask", "So which one, a cat or a dog? Answer with one word.", "--feature", r"regex:(?i)\b(cat|dog)s?\b"),
        *("--max-new-tokens", "24", "--continuations", "12", "-o", "run.db"),
        cwd=tmp_path,
    )
    assert found["generation"]["text"] == "A cat is a great choice for a small flat."
    assert found["status"] == "budget"
    assert found["cost"]["continuations"] == 12


def test_killed_and_started_again_nothing_is_drawn_twice(tmp_path: Path) -> None:
    for seconds in (7.0, 9.0):
        kill_after(seconds, *QUESTION, "--error", "0.2", "-o", "run.db", cwd=tmp_path)
    found = result(*QUESTION, "--error", "0.2", "-o", "run.db", cwd=tmp_path)
    assert found["error"]["reached_max"] <= 0.2
    again = result(*QUESTION, "--error", "0.2", "-o", "run.db", cwd=tmp_path)
    assert same(again, found)


@pytest.mark.parametrize(
    ("extra", "named"),
    [(("--max-new-tokens", "100000"), "context"), (("--device", "toaster"), "toaster"), (("--dtype", "int3"), "int3")],
)
def test_what_the_model_cannot_do_is_said(extra: tuple[str, ...], named: str, tmp_path: Path) -> None:
    refused = blinkscope(*QUESTION, *extra, "-o", "run.db", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert named in refused.stderr
    assert "Traceback" not in refused.stderr
