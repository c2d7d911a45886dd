"""Two runs of a study side by side: differences over shared questions, with intervals over questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.studies.comparison import compare
from blinkscope.studies.study import Findings, StudyResult
from tests.e2e.command import blinkscope, result


def study(rows: list[dict[str, Any]], name: str = "cot", table: str = "generations", model: str = "a") -> StudyResult:
    return StudyResult(name, "complete", {"asking": {"model": model}}, Target(), len(rows), Findings({}, {table: rows}))


def generation(question: int, right: bool | None, windows: int = 0, jump: float = 0.5) -> dict[str, Any]:
    return {"question": question, "right": right, "windows": windows, "largest_jump": jump, "covered": 0.1}


def row_of(comparison: Any, number: str) -> dict[str, Any]:
    (row,) = (row for row in comparison.rows if row["number"] == number)
    return dict(row)


def test_a_paired_difference_is_free_of_how_hard_the_questions_are() -> None:
    """Both runs fail on the same 50 hard questions; the second also fails on 10 easy ones, the first never does.

    The difference is -0.1 exactly; over questions its standard deviation is that of a share of 0.1 of 100, 0.03, far
    below that of two runs on different questions, 0.07.
    """
    first = study([generation(i, i >= 50) for i in range(100)])
    second = study([generation(i, i >= 60) for i in range(100)], model="b")
    found = compare(first, second)
    row = row_of(found, "accuracy")
    assert (row["first"], row["second"]) == (0.5, 0.4)
    assert row["difference"] == pytest.approx(-0.1)
    assert row["difference_high"] - row["difference_low"] == pytest.approx(2 * 1.96 * 0.03, rel=0.2)
    assert row["difference_low"] < -0.1 < row["difference_high"] < 0
    assert found.differing == ("asking.model: 'a' and 'b'",)


def test_generations_of_a_question_are_drawn_together() -> None:
    """Ten equal generations of each question say no more than one: the interval is as wide as before."""
    rng = np.random.default_rng(0)
    rights = rng.random((2, 80)) < [[0.3], [0.6]]
    ends = []
    for copies in (1, 10):
        sides = [study([generation(i, bool(r)) for i, r in enumerate(side) for _ in range(copies)]) for side in rights]
        row = row_of(compare(*sides), "accuracy")
        ends.append((row["difference"], row["difference_low"], row["difference_high"]))
    np.testing.assert_allclose(ends[0], ends[1])


def test_questions_that_one_run_was_not_asked_count_in_its_own_number_only() -> None:
    first = study([generation(i, True) for i in range(10)])
    second = study([generation(i, i >= 10) for i in range(5, 20)])
    found = compare(first, second)
    row = row_of(found, "accuracy")
    assert found.shared == 5
    assert (row["first"], row["second"], row["difference"]) == (1.0, pytest.approx(10 / 15), -1.0)
    assert row["difference_low"] is None  # the same for every choice of questions: nothing is known about its spread


def test_an_empty_group_has_no_difference() -> None:
    rows = [generation(i, i % 2 == 0) for i in range(10)]
    row = row_of(compare(study(rows), study([{**one, "windows": 1} for one in rows])), "dacc")
    assert row["first"] is row["second"] is row["difference"] is None


def test_questions_of_two_data_sets_are_not_taken_for_the_same(tmp_path: Path) -> None:
    """Both data sets count from 1; one question is in both."""
    for name, questions in (("one", "ab"), ("two", "cb")):
        lines = [json.dumps({"question": f"Is it {q}?", "answer": "1"}) for q in questions]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        asked = ("study", "cot", "--model", "toy:fork?agree=4&width=2&length=16", "--from-text", "--error", "0.3")
        done = blinkscope(*asked, "--data", f"{name}.jsonl", "-o", f"{name}.db", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert result("show", "one.db", "--against", "two.db", cwd=tmp_path)["shared"] == 1


def test_what_cannot_be_compared_is_said() -> None:
    rows = [generation(1, True)]
    with pytest.raises(UserError, match="a study cot and a study majority"):
        compare(study(rows), study(rows, "majority"))
    with pytest.raises(UserError, match="study repeat cannot be compared"):
        compare(study(rows, "repeat"), study(rows, "repeat"))
    with pytest.raises(UserError, match="share no question"):
        compare(study(rows), study([generation(2, True)]))


def test_runs_are_compared_and_reported_from_the_command_line(tmp_path: Path) -> None:
    """The shares after each number of tokens prefilled, of two toy models that end happily with 0.2 and 0.8."""
    for name, weight in (("low", "0.2"), ("high", "0.8")):
        model = f"toy:fork?agree=4&width=2&length=16&weight={weight}"
        asked = ("study", "prefill", "--model", model, "--feature", r"regex:It was (\w+)", "--outcome", "happy")
        done = blinkscope(*asked, "--opening", " Each", "--error", "0.1", "-o", f"{name}.db", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    found = result("show", "low.db", "--against", "high.db", cwd=tmp_path)
    assert found["shared"] == 8
    row = found["comparison"][0]
    assert row["number"] == "0 tokens prefilled"
    # 8 prompts, 25 replies each: a standard deviation of 0.04 for the difference of 0.6, of which this is five.
    assert abs(row["difference"] - 0.6) < 0.2
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    said = blinkscope("show", "low.db", "--against", "high.db", cwd=tmp_path)
    assert "differing: asking.model" in said.stdout
    assert blinkscope("report", "low.db", "--against", "high.db", "-o", "page.html", cwd=tmp_path).returncode == 0
    assert "Against" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert blinkscope("report", "low.db", "-o", "low.db", cwd=tmp_path).returncode == 2
    for arguments, why in (
        (("show", "low.db", "--against", "nowhere.db"), "no file"),
        (("show", "low.db", "--against", "high.db", "--plot", "x.svg"), "--plot and --tables are of one run"),
    ):
        refused = blinkscope(*arguments, cwd=tmp_path)
        assert (refused.returncode, why in refused.stderr) == (2, True)
