import pytest

from blinkscope.errors import UserError
from blinkscope.feature import Reply
from blinkscope.features.patterns import Contains, Pattern


def found(pattern: str, text: str) -> str | None:
    return Pattern(pattern).label(Reply(text, finished=True))


def test_contains():
    dog = Contains("dog")
    assert dog.label(Reply("hotdogs", finished=True)) == "yes"
    assert dog.label(Reply("Dog", finished=True)) == "no"
    assert dog.label(Reply("hotdogs and", finished=False)) == "yes"
    assert dog.label(Reply("hot", finished=False)) is None


@pytest.mark.parametrize(
    ("pattern", "text", "label"),
    [
        (r"choice: (\w+)", "choice: cat, or choice: dog", "dog"),
        (r"\d+", "12 then 345", "345"),
        (r"cat|dog", "a dog and a cat", "cat"),
        (r"(?i)CAT", "the Cat", "cat"),
        (r"\*\*(.*?)\*\*", "**a** and **b**", "b"),
        (r"(?s)begin(.*)end", "begin x\n y end", "x y"),
        (r"^\w+", "first second", "first"),
        (r"\w+$", "first second", "second"),
        (r"(?m)^(\w+)$", "one\ntwo three\nfour\n", "four"),
        (r"is (?P<answer>\w+)", "it is é", None),
        (r"is (?P<answer>\pL+)", "it is é", "é"),
        (r"answer: (?:(\d+)|none)", "answer: 4, answer: none", None),
        (r"answer:(.*)", "answer:  ", None),
        (r"x", "y", None),
        (r"(.+)", "(other)", '"(other)"'),
    ],
)
def test_regex(pattern, text, label):
    assert found(pattern, text) == label


def test_a_pattern_that_is_not_one_is_refused_in_re2s_words(capfd):
    with pytest.raises(UserError, match=r"'\(\\\\w' is not a valid regular expression: missing \): \(\\w\."):
        Pattern(r"(\w")
    with pytest.raises(UserError, match=r"invalid perl operator: \(\?="):
        Pattern(r"a(?=b)")
    with pytest.raises(UserError, match="not a valid regular expression"):
        Pattern("a)(b")  # would be valid inside brackets
    with pytest.raises(UserError, match="not a valid regular expression"):
        Pattern("\ud800")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("pattern", [r"\d*", "x?", "^", "$", r"\b", r"(?:answer: (\d+))?", r"a|\b"])
def test_a_pattern_that_matches_the_empty_text_is_refused(pattern):
    with pytest.raises(UserError, match="at least one character"):
        Pattern(pattern)


def test_nothing_to_look_for_is_refused():
    with pytest.raises(UserError, match="contains:Paris"):
        Contains("")
    with pytest.raises(UserError, match="regex:"):
        Pattern("")
