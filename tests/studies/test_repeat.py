"""``study repeat``: what counts as the word again, and the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.feature import Reply
from blinkscope.language.engine import Engine
from blinkscope.studies import repeat
from blinkscope.studies.repeat import NextWord, RepeatSpec
from blinkscope.studies.study import run_study


@pytest.mark.parametrize(
    ("text", "finished", "label"),
    [
        (" apple apple", True, "again"),
        (", apple and", True, "again"),
        ("\nApple.", True, "again"),
        (" apples", True, "another"),
        ("s apple", True, "another"),  # the last word became apples
        (" pear apple", True, "another"),
        (" apple", True, "again"),
        (" apple", False, None),  # it may have been the start of apples
        ("", True, "another"),
        (" ,", False, None),
    ],
)
def test_only_the_next_word_of_the_reply_itself_counts(text: str, finished: bool, label: str | None) -> None:
    assert NextWord("apple").label(Reply(text, finished)) == label


@pytest.mark.parametrize("changes", [{"words": ("two words",)}, {"times": ()}, {"times": (2, 2)}, {"times": (0, 1)}])
def test_what_cannot_be_repeated_is_refused(changes: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(UserError, match=r"word|times"):
        RepeatSpec(**changes)  # type: ignore[arg-type]


@pytest.mark.model
def test_the_embedded_model_goes_on_repeating_what_was_said_often(tmp_path: Path, smollm2: Engine) -> None:
    spec = RepeatSpec(words=("apple",), times=(1, 16), target=Target(error=0.13))
    result = run_study(repeat.STUDY, spec, tmp_path / "run.db", model=smollm2)
    once, often = result.findings.tables["curve"]
    assert once["share"] < 0.5 < often["share"]
    assert result.findings.summary["half_from"] == {"apple": 16}
    assert result.cost["continuations"] == 2 * 15
