"""Rows of a file or of the data set become texts; what cannot be used says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blinkscope.detection.texts import conversation_of, text_items
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Message
from tests.detection.toys import write

OPEN = "<|start_header_id|>assistant<|end_header_id|>\n\n"


def llama3(*turns: tuple[str, str], prefill: str = "") -> str:
    marked = (f"<|start_header_id|>{role}<|end_header_id|>\n\n{said}<|eot_id|>" for role, said in turns)
    return "<|begin_of_text|>" + "".join(marked) + OPEN + prefill


def contents(tmp_path: Path, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(item.content) for item in text_items(str(write(tmp_path / "texts.jsonl", list(rows))))]


def test_a_row_is_a_prompt_or_messages_with_a_completion(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go"},
    ]
    one, many, bare = contents(
        tmp_path,
        {"prompt": "What?", "completion": "That.", "label": True, "family": "gcg"},
        {"prompt": turns, "completion": "", "label": "benign"},
        {"prompt": "What?", "completion": "This."},
    )
    assert (one["label"], one["family"], conversation_of(one).prompt) == (1, "gcg", "What?")
    assert conversation_of(many).prompt == tuple(Message(t["role"], t["content"]) for t in turns)  # type: ignore[arg-type]
    assert (many["label"], many["completion"]) == (0, "")
    assert (bare["label"], bare["family"]) == (None, "unnamed")


def test_marks_of_llama_3_are_read_by_position(tmp_path: Path) -> None:
    said = "Is a user the assistant's user?\n\nsystem"
    text = llama3(("system", "Be brief."), ("user", said), ("assistant", "No."), ("user", "Why?"), prefill="Because")
    (content,) = contents(tmp_path, {"prompt": text, "completion": " so.", "label": 1})
    conversation = conversation_of(content)
    assert conversation.prompt == (
        Message("system", "Be brief."),
        Message("user", said),
        Message("assistant", "No."),
        Message("user", "Why?"),
    )
    assert conversation.prefill == "Because"
    assert conversation.spelled is not None
    assert conversation.spelled.text == text
    assert [text[start:end] for start, end in conversation.spelled.own] == [said, "No.", "Why?", "Because"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"completion": "x"}, "it has no prompt; it has completion"),
        ({"prompt": "x"}, "it has no completion"),
        ({"prompt": "  ", "completion": "x"}, "prompt is empty"),
        ({"prompt": "x", "completion": 3}, "must be a text"),
        ({"prompt": "x", "completion": "y", "label": 2}, "its label is 2"),
        ({"prompt": "x", "completion": "y", "label": [1]}, "its label is"),
        ({"prompt": "x", "completion": "y", "family": "all"}, "its family is 'all'"),
        ({"prompt": "x", "completion": "y", "family": "gcg_low"}, "nor end in _low"),
        ({"prompt": [{"role": "user"}], "completion": "y"}, "message 1"),
        ({"prompt": llama3(("user", "x")) + "<|eot_id|>between", "completion": "y"}, "from character"),
        ({"prompt": "<|start_header_id|>user<|end_header_id|>\n\nx", "completion": "y"}, "user's and does not end"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_item_that_fails(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    (content,) = contents(tmp_path, row)
    assert said in content["problem"]


def test_items_counts_each_family(tmp_path: Path) -> None:
    rows = [{"prompt": "x", "completion": "y", "label": i % 2, "family": f"f{i % 3}"} for i in range(24)]
    items = text_items(str(write(tmp_path / "texts.jsonl", rows)), 2)
    assert len(items) == 2 * 6
    assert len({item.id for item in items}) == 12


def test_what_is_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data 'nothing'"):
        text_items("nothing")
    with pytest.raises(UserError, match="cannot be read"):
        text_items(str(tmp_path / "missing.jsonl"))
    with pytest.raises(EngineError, match="cannot be read"):
        text_items(f"llama3-jailbreaks:{tmp_path / 'missing'}")


@pytest.fixture
def jailbreaks(tmp_path: Path) -> Path:
    """A folder in the data set's layout, with harmless rows."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = tmp_path / "copy"
    (folder / "data").mkdir(parents=True)
    for split in ("harmful_gcg_test", "harmful_gcg_train", "harmful_prefill", "benign_instructions_test", "notes"):
        rows = [{"prompt": llama3(("user", f"{split} {i}")), "completion": f"Answer {i}."} for i in range(3)]
        parquet.write_table(pa.Table.from_pylist(rows), folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def test_splits_of_the_data_set_are_labels_and_families(jailbreaks: Path) -> None:
    items = text_items(f"llama3-jailbreaks:{jailbreaks}", 2)
    found = {(item.content["label"], item.content["family"]) for item in items}
    assert found == {(1, "gcg"), (1, "prefill"), (0, "instructions")}
    assert len(items) == 6
    assert "harmful_gcg_train" not in json.dumps([item.id for item in items])
    training = text_items(f"llama3-jailbreaks:{jailbreaks}", training=True)
    assert [item.id for item in training] == [f"harmful_gcg_train {i}" for i in (1, 2, 3)]
    assert conversation_of(training[0].content).prompt == (Message("user", "harmful_gcg_train 0"),)
