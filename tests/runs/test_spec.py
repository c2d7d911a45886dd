"""What a run says about itself, and how a difference is shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.errors import UserError
from blinkscope.runs.spec import Difference, Spec, differences, identity_difference

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_a_value_never_differs_from_itself(value):
    assert differences(value, value) == []


@given(JSON, JSON)
def test_values_that_differ_are_told_apart(a, b):
    # True == 1 in Python, but not in a spec.
    if a != b:
        assert differences({"k": a}, {"k": b})


def test_only_differing_keys_are_shown_by_their_dotted_path():
    stored = Spec({"prompt": "p", "sampling": {"temperature": 0.6, "top_p": 0.9}, "seed": 1}, {}, {})
    asked = Spec({"prompt": "p", "sampling": {"temperature": 0.7, "top_p": 0.9, "min_p": 0.1}}, {}, {})
    assert identity_difference(stored, asked) == [
        Difference("sampling.min_p", "(absent)", "0.1"),
        Difference("sampling.temperature", "0.6", "0.7"),
        Difference("seed", "1", "(absent)"),
    ]


def test_of_items_on_one_side_alone_the_number_is_said_and_no_digest():
    stored = Spec({"items": {"1": "a" * 64, "2": "b" * 64}, "seed": 1}, {}, {})
    more = Spec({"items": {"1": "a" * 64, "2": "c" * 64, "3": "d" * 64}, "seed": 1}, {}, {})
    number, changed = identity_difference(stored, more)
    assert number == Difference("items", "2 of them", "3 of them")
    assert changed.key == "items.2"
    assert [one.key for one in identity_difference(stored, Spec({"items": {"1": "a" * 64, "3": "b"}}, {}, {}))] == [
        "items.2",
        "items.3",
        "seed",
    ]


def test_whole_and_decimal_spellings_of_a_number_are_the_same_but_true_is_not_one():
    assert differences({"temperature": 1}, {"temperature": 1.0}) == []
    assert differences({"x": True}, {"x": 1}) == [Difference("x", "True", "1")]


def test_long_texts_are_shortened_to_where_they_part():
    start = "once upon a time " * 100
    (difference,) = differences({"prompt": start + "a cat" + "!" * 500}, {"prompt": start + "a dog"})
    assert "cat" in difference.stored
    assert "dog" in difference.asked
    assert len(difference.stored) < 80
    assert len(difference.asked) < 80


def test_what_does_not_print_is_spelled_out():
    hostile = "\x1b[2J\u202eevil\u200b"
    (difference,) = differences({hostile: hostile}, {hostile: "plain"})
    assert str(difference).isprintable()
    assert "\\x1b" in difference.key
    assert "\\u202e" in difference.stored


def test_a_spec_is_plain_json_from_the_start():
    assert Spec({"ids": (1, 2)}, {}, {}).identity == {"ids": [1, 2]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(UserError, match="identity"):
        Spec({"x": value}, {}, {})
