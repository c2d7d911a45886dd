"""Loaders of questions: the real ``datasets`` calls on local folders in each data set's columns, and other sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from blinkscope.errors import EngineError, UserError
from blinkscope.feature import Reply
from blinkscope.studies.grading import feature_for_grading, grade
from blinkscope.studies.prompts import prompt_items
from blinkscope.studies.questions import DATA_SETS, GYM, MATH_SUBJECTS, question_items

ROWS: dict[str, tuple[dict[str, Any], str, str]] = {
    "arc-challenge": (
        {
            "id": "q1",
            "question": "Which one floats?",
            "choices": {"text": ["a stone", "a cork"], "label": ["1", "2"]},
            "answerKey": "2",
        },
        "Which one floats?\n(A) a stone\n(B) a cork",
        "B",
    ),
    "arc-easy": (
        {
            "id": "q1",
            "question": "Which one flies?",
            "choices": {"text": ["an owl", "a cow"], "label": ["A", "B"]},
            "answerKey": "A",
        },
        "Which one flies?\n(A) an owl\n(B) a cow",
        "A",
    ),
    "aqua": (
        {"question": "3 * 7?", "options": ["A)21", "B)20", "C)24"], "rationale": "", "correct": "A"},
        "3 * 7?\n(A) 21\n(B) 20\n(C) 24",
        "A",
    ),
    "logiqa": (
        {
            "query": "Q: Who is right? Answer Choices: (A)he (B)she\nA: Among A through D, the answer is",
            "choices": ["(A)he", "(B)she"],
            "gold": [1],
        },
        "Who is right?\n(A) he\n(B) she",
        "B",
    ),
    "mmlu": (
        {"question": "Capital of France?", "subject": "geography", "choices": ["Rome", "Paris", "Oslo"], "answer": 1},
        "Capital of France?\n(A) Rome\n(B) Paris\n(C) Oslo",
        "B",
    ),
    "gsm8k": (
        {"question": "How many?", "answer": "First 1,000 and 200.\n#### 1,200"},
        "How many?",
        "1200",
    ),
    "math500": (
        {"problem": "1/2?", "solution": "\\boxed{9}", "answer": "\\frac{1}{2}", "subject": "x", "level": 1},
        "1/2?",
        "\\frac{1}{2}",
    ),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def folder(place: Path, rows: list[dict[str, Any]], split: str = "test") -> Path:
    """A local copy of a data set in the layout of the hub."""
    (place / "data").mkdir(parents=True)
    parquet.write_table(pa.Table.from_pylist(rows), place / "data" / f"{split}-00000-of-00001.parquet")
    return place


@pytest.mark.parametrize("name", ROWS)
def test_rows_in_the_published_columns_become_questions(name: str, tmp_path: Path) -> None:
    row, text, answer = ROWS[name]
    (item,) = question_items([f"{name}:{folder(tmp_path / 'data set', [row])}"], 5, 1, 0)
    assert item.content["prompt"] == text
    assert item.content["answer"] == answer


def test_the_options_of_truthfulqa_are_shuffled_by_the_seed(tmp_path: Path) -> None:
    """The right option stands first in the data; over 40 questions of 4 options it must not stay there."""
    targets = {"choices": ["right", "w1", "w2", "w3"], "labels": [1, 0, 0, 0]}
    rows = [{"question": f"Number {i}?", "mc1_targets": targets, "mc2_targets": targets} for i in range(40)]
    place = folder(tmp_path / "data set", rows, "validation")
    items = question_items([f"truthfulqa:{place}"], 40, 1, 0)
    for item in items:
        lines = str(item.content["prompt"]).splitlines()
        assert f"({item.content['answer']}) right" in lines
    answers = [item.content["answer"] for item in items]
    assert all(answers.count(letter) < 30 for letter in "ABCD")  # each has 10 on average, 7 standard deviations to 30
    assert [item.content for item in question_items([f"truthfulqa:{place}"], 40, 1, 0)] == [i.content for i in items]
    assert [i.content["answer"] for i in question_items([f"truthfulqa:{place}"], 40, 1, 1)] != answers


def test_all_subjects_of_math_are_read(tmp_path: Path) -> None:
    for subject in MATH_SUBJECTS:
        row = {"problem": subject, "level": "1", "type": subject, "solution": "so \\boxed{\\frac{a}{b^{2}}}."}
        folder(tmp_path / "math" / subject, [row])
    items = question_items([f"math:{tmp_path / 'math'}"], 10, 1, 0)
    assert [item.content["prompt"] for item in items] == list(MATH_SUBJECTS)
    assert {item.content["answer"] for item in items} == {"\\frac{a}{b^{2}}"}


@pytest.mark.parametrize("name", ["arc-easy", "aqua", "gsm8k", "mmlu", "truthfulqa"])
def test_a_copy_of_the_hub_with_its_configurations_is_read(name: str, tmp_path: Path) -> None:
    """Every configuration in a folder of its own, named in the front matter, as the hub has it."""
    source = DATA_SETS[name]
    targets = {"choices": ["right", "wrong"], "labels": [1, 0]}
    truthful = {"question": "Is it?", "mc1_targets": targets, "mc2_targets": targets}
    row = truthful if name == "truthfulqa" else ROWS[name][0]
    (configuration,) = source.configurations
    place, listed = tmp_path / "copy", ["---", "configs:"]
    for other in ("another", str(configuration)):
        (place / other).mkdir(parents=True)
        rows = [row] if other == configuration else [{"question": "of another configuration"}]
        file = f"{other}/{source.split}-00000-of-00001.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), place / file)
        listed += [f"- config_name: {other}", "  data_files:", f"  - split: {source.split}", f"    path: {file}"]
    (place / "README.md").write_text("\n".join([*listed, "---", ""]))
    (item,) = question_items([f"{name}:{place}"], 5, 1, 0)
    assert "problem" not in item.content
    assert str(item.content["prompt"]).startswith(str(row["question"]))


@pytest.mark.parametrize("name", ROWS)
def test_arrow_folders_are_read(name: str, tmp_path: Path) -> None:
    import datasets

    row, text, answer = ROWS[name]
    datasets.DatasetDict({"test": datasets.Dataset.from_list([row])}).save_to_disk(str(tmp_path / "saved"))
    (item,) = question_items([f"{name}:{tmp_path / 'saved'}"], 5, 1, 0)
    assert (item.content["prompt"], item.content["answer"]) == (text, answer)


def test_truthfulqa_keeps_its_right_option_where_there_are_too_many(tmp_path: Path) -> None:
    targets = {"choices": ["right", *(f"w{i}" for i in range(12))], "labels": [1] + [0] * 12}
    rows = [{"question": f"Number {i}?", "mc1_targets": targets, "mc2_targets": targets} for i in range(20)]
    place = folder(tmp_path / "data set", rows, "validation")
    for item in question_items([f"truthfulqa:{place}"], 20, 1, 0):
        lines = str(item.content["prompt"]).splitlines()[1:]
        assert len(lines) == 10
        assert f"({item.content['answer']}) right" in lines


def test_several_data_sets_share_a_study_and_one_that_cannot_be_had_fails_alone(tmp_path: Path) -> None:
    place = folder(tmp_path / "data set", [ROWS["gsm8k"][0]])
    items = question_items([f"gsm8k:{place}", f"mmlu:{tmp_path / 'nowhere'}", "everyday"], 2, 1, 0)
    assert [item.id for item in items] == ["gsm8k 1", "mmlu", "everyday 1", "everyday 2"]
    assert [item.content["data"] for item in items] == ["gsm8k", "mmlu", "everyday", "everyday"]
    assert "cannot be read" in str(items[1].content["unreached"])
    assert items[2].content["question"] == "everyday 1"


def test_every_data_set_has_a_fixture() -> None:
    assert set(DATA_SETS) == {*ROWS, "truthfulqa", "math"}


@pytest.mark.parametrize(("name", "columns"), [("jailbreakbench", "Goal Category"), ("xstest", "prompt type")])
def test_data_sets_of_requests_are_read(name: str, columns: str, tmp_path: Path) -> None:
    prompt, category = columns.split()
    place = tmp_path / "requests"
    (place / "data").mkdir(parents=True)
    for split in ("harmful", "benign") if name == "jailbreakbench" else ("test",):
        table = pa.Table.from_pylist([{prompt: f"{split} request", category: "kind", "Index": 1}])
        parquet.write_table(table, place / "data" / f"{split}-00000-of-00001.parquet")
    items = prompt_items(f"{name}:{place}", None)
    assert len(items) == (2 if name == "jailbreakbench" else 1)
    assert str(items[0].content["category"]).endswith("kind")


def test_a_missing_column_fails_its_own_question_only(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    lines = [
        {"id": "a", "question": "2 + 2?", "answer": "4"},
        {"id": "b", "question": "And?"},
        {"id": "c", "question": "Which?", "options": ["x", "y"], "answer": "B"},
        {"id": "d", "question": "Which?", "options": ["x", "y"], "answer": "Z"},
        {"id": "e", "question": "Which?", "options": ["x", "y"], "answer": "AB"},
        {"id": "f", "question": "Which?", "options": ["x", "y"], "answer": "E"},
    ]
    file.write_text("\n".join(map(json.dumps, lines)))
    items = question_items([str(file)], 10, 2, 0)
    assert [item.id for item in items[:2]] == ["a #1", "a #2"]
    problems = {item.content["question"]: item.content.get("problem") for item in items}
    assert problems["a"] is problems["c"] is None
    assert problems["b"] == "question b has no column 'answer'; it has id, question."
    assert "question d cannot be read: the right option is 'Z'" in str(problems["d"])
    assert "the right option is 'AB'" in str(problems["e"])
    assert "the right option is E, but there are only A to B" in str(problems["f"])


def test_data_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data 'nothing'"):
        question_items(["nothing"], 1, 1, 0)
    with pytest.raises(EngineError, match="cannot be read"):
        question_items([f"gsm8k:{tmp_path / 'nowhere'}"], 1, 1, 0)
    with pytest.raises(UserError, match="cannot be read"):
        question_items([str(tmp_path / "nowhere.jsonl")], 1, 1, 0)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(UserError, match="holds no question"):
        question_items([str(tmp_path / "empty.jsonl"), "everyday"], 1, 1, 0)
    with pytest.raises(UserError, match="holds no rows"):
        prompt_items(str(tmp_path / "empty.jsonl"), None)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    (item,) = prompt_items(str(tmp_path / "other.csv"), None)
    assert str(item.content["problem"]).endswith("has no forbidden_prompt; it has a, b.")


def test_reasoning_gym_grades_its_own_questions() -> None:
    (item, _) = question_items([f"{GYM}chain_sum"], 2, 1, 3)
    assert grade(str(item.content["answer"]), item.content) is True
    assert grade("99999999", item.content) is False
    assert grade("(unparsed)", item.content) is False
    with pytest.raises(UserError, match="no generator"):
        question_items([f"{GYM}no_such_thing"], 1, 1, 0)


@pytest.mark.parametrize(
    ("answer", "label", "right"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("\\frac{a}{b^{2}}", "\\frac{a}{b}", False),
        ("12", "13", False),
        ("12", "(truncated)", False),
    ],
)
def test_formulas_are_compared_as_mathematics(answer: str, label: str, right: bool) -> None:
    assert grade(label, {"grading": "math", "answer": answer}) is right


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("So it is so. The answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
        ("The answer is 4. No: the answer is 5.", "5"),
        ("Hence \\boxed{\\frac{a}{b^{2}}}.", "\\frac{a}{b^{2}}"),
        ("I do not know.", None),
    ],
)
def test_the_final_answer_is_read(text: str, label: str | None) -> None:
    assert feature_for_grading("math").label(Reply(text, finished=True)) == label


def test_numbers_are_compared_in_one_spelling() -> None:
    assert grade("1200", {"grading": "number", "answer": "$1,200.00"})
    assert not grade("120", {"grading": "number", "answer": "1200"})
    assert grade("B", {"grading": "letter", "answer": "B"})
