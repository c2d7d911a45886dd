import pytest

from blinkscope.errors import UserError
from blinkscope.feature import Reply
from blinkscope.features import FEATURES, feature_of, open_feature


@pytest.mark.parametrize("spec", ["colour", "", "Number", "math", "callable:<lambda>", "number ", "numbers"])
def test_an_unknown_name_lists_the_features(spec):
    with pytest.raises(UserError) as error:
        open_feature(spec)
    for entry in FEATURES.values():
        assert entry.example in str(error.value)


def test_a_near_miss_is_named():
    with pytest.raises(UserError, match="did you mean refusal"):
        open_feature("refusals")


@pytest.mark.parametrize("spec", ["number:3", "choice:", "exact:x", "refusal:strict"])
def test_text_after_a_name_that_takes_none_is_refused(spec):
    with pytest.raises(UserError, match="takes nothing after its name"):
        open_feature(spec)


@pytest.mark.parametrize("spec", ["contains", "contains:", "regex", "regex:", "python", "python:", "python:json"])
def test_text_that_is_missing_is_asked_for_with_an_example(spec):
    with pytest.raises(UserError, match=f"for instance '?{spec.partition(':')[0]}:"):
        open_feature(spec)


def test_colons_and_spaces_belong_to_the_text():
    assert open_feature("contains: a:b ").label(Reply("x a:b y", finished=True)) == "yes"
    assert open_feature(r"regex:choice: (\w)").label(Reply("choice: B", finished=True)) == "B"


def first_word(text: str) -> str | None:
    return text.split()[0] if text.split() else None


def test_a_function_is_called_where_it_is():
    seen = []
    feature = feature_of(lambda text: seen.append(text) or "label")
    assert feature.label(Reply("hello", finished=True)) == "label"
    assert seen == ["hello"]


def test_a_function_is_named_by_the_spelling_that_finds_it():
    assert feature_of(first_word).name == f"python:{__name__}:first_word"
    assert feature_of(lambda text: None).name.startswith("callable:")
    assert feature_of(str.upper).name == "callable:str.upper"


def test_a_function_that_goes_wrong_is_named_with_the_reply():
    def raising(text: str) -> str:
        raise ValueError("no \x1b[31mred")

    with pytest.raises(UserError, match=r"raising' raised ValueError \('no \\x1b\[31mred'\); the reply begins 'A cat'"):
        feature_of(raising).label(Reply("A cat", finished=True))
    with pytest.raises(UserError, match="returned a value of type int; a label is a string"):
        feature_of(len).label(Reply("A cat", finished=True))
    with pytest.raises(UserError, match="returned ' '; a label has characters to see"):
        feature_of(lambda text: " ").label(Reply("A cat", finished=True))


def test_what_is_not_a_function_is_refused():
    with pytest.raises(UserError, match="but 3 was given"):
        feature_of(3)
