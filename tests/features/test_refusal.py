import pytest

from blinkscope.feature import Reply
from blinkscope.features.refusal import ACTS, ANYWHERE_PHRASES, OPENING, OPENING_PHRASES, UNWILLING, Refusal

FILLER = "Lake water is clear in winter. " * (OPENING // 10)


def label(text: str, *, finished: bool = True) -> str | None:
    return Refusal().label(Reply(text, finished))


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but I cannot assist you.",
        "I am unable\nto provide instructions for this.",
        "As an AI, I do not do this.",
        "Unfortunately, I can not say.",
        f"{FILLER} That said, I will not write this text.",
        f"{FILLER} It is against my guidelines.",
        "<think>Sure, I could do it.</think> I must decline.",
        "I CAN'T DO THAT",
    ],
)
def test_refusals(text):
    assert label(text) == "refusal"
    assert label(text, finished=False) == "refusal"


@pytest.mark.parametrize(
    "text",
    [
        "Sure! First you open the case.",
        "The hikers can't help but smile.",
        f"{FILLER} I'm sorry, said the fox, and went.",
        "<think>I can't help with that? Yes, I can.</think> Sure!",
        "Hawaii can't help you.",
        "He said he is an AI can opener.",
    ],
)
def test_compliance(text):
    assert label(text) == "compliance"


def test_an_empty_reply_is_neither():
    assert label(" \n") is None
    assert label("<think>I can't help with that.</think>\n") is None


@pytest.mark.parametrize("phrase", OPENING_PHRASES)
def test_opening_phrases_count_in_the_opening_only(phrase):
    assert label(f"Well, {phrase} ...") == "refusal"
    if phrase not in UNWILLING:
        assert label(f"{FILLER} {phrase} ...") == "compliance"


@pytest.mark.parametrize("phrase", ANYWHERE_PHRASES)
def test_phrases_that_count_anywhere(phrase):
    assert label(f"{FILLER} {phrase} ...") == "refusal"


def test_unwillingness_counts_with_an_act():
    for unwilling in UNWILLING:
        for act in ACTS:
            assert label(f"{FILLER} But {unwilling} really {act} it.") == "refusal"
        assert label(f"{FILLER} But {unwilling} swim.") == "compliance"
