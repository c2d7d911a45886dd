import re2
from hypothesis import assume, given
from hypothesis import strategies as st

from blinkscope.feature import RESERVED, Reply
from blinkscope.features.reading import (
    MAX_LABEL,
    answer_text,
    as_label,
    group_of,
    last_box,
    last_match,
    settled_text,
    well_formed,
)


def _patterns() -> st.SearchStrategy[str]:
    """Expressions over a, b and a space: sequences, alternatives, repetitions (greedy and lazy), groups."""
    atoms = st.sampled_from(["a", "b", " ", "[ab]", ".", r"\b", "^", "$"])
    return st.recursive(
        atoms,
        lambda inner: st.one_of(
            st.lists(inner, min_size=2, max_size=3).map("".join),
            st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
            st.tuples(inner, st.sampled_from(["*", "+", "?", "*?", "+?", "??", "{2,3}"])).map(
                lambda pair: f"(?:{pair[0]}){pair[1]}"
            ),
            inner.map(lambda pattern: f"({pattern})"),
        ),
        max_leaves=6,
    )


@given(_patterns(), st.text("ab \n", max_size=14))
def test_the_single_search_finds_what_searching_again_and_again_finds(pattern, text):
    every = list(re2.compile(f"({pattern})").finditer(text))
    assume(all(match.start() < match.end() for match in every))
    assume(all(match.start() < match.end() for match in re2.compile(pattern).finditer(" a\nb")))
    found = last_match(pattern, text)
    if not every:
        assert found is None
        return
    assert found.span(1) == every[-1].span(1)
    if re2.compile(pattern).groups:
        assert group_of(found, 1) == every[-1].group(2)


def test_a_group_does_not_remember_an_earlier_match():
    found = last_match(r"(a)|b", "a b")
    assert found.group(1) == "b"
    assert group_of(found, 1) is None


def test_what_is_passed_over_never_counts():
    assert last_match("pick (\\w)", "pick A, not pick B", passing_over="not pick").group(2) == "A"
    assert last_match("pick (\\w)", "not pick B", passing_over="not pick") is None


def test_labels_are_short_visible_and_not_reserved():
    assert as_label(" two \n words ") == "two words"
    assert as_label(" \t\n") is None
    assert as_label("x" * MAX_LABEL) == "x" * MAX_LABEL
    assert as_label("x" * (MAX_LABEL + 1)) == "x" * MAX_LABEL + "…"
    for reserved in RESERVED:
        assert as_label(reserved) == f'"{reserved}"'


@given(st.text(st.characters()))
def test_well_formed_text_can_be_written_down(text):
    assert len(well_formed(text)) == len(text)
    well_formed(text).encode()


def test_half_a_surrogate_pair_becomes_a_question_mark():
    assert well_formed("é\ud83dx") == "é?x"


def test_thinking_is_left_out():
    assert answer_text(Reply("<think>5</think> or <think>6</think> 7", finished=True)) == " 7"
    assert answer_text(Reply("no thinking", finished=True)) == "no thinking"


def test_the_last_word_of_a_cut_reply_is_left_out():
    assert settled_text(Reply("the answer is 12", finished=False)) == "the answer is "
    assert settled_text(Reply("the answer is 12 ", finished=False)) == "the answer is 12 "
    assert settled_text(Reply("the answer is 12", finished=True)) == "the answer is 12"
    assert settled_text(Reply("12", finished=False)) == ""
    assert settled_text(Reply("", finished=False)) == ""


def test_the_last_box_is_read_to_its_own_closing_brace():
    assert last_box(r"\boxed{1} and \boxed{\frac{a}{b^{2}}} or {3}") == (14, r"\frac{a}{b^{2}}")
    assert last_box(r"$\boxed 7$, as said") == (1, "7")
    assert last_box(r"\boxed{ 7") is None
    assert last_box(r"\boxedx{7}") is None
    assert last_box(r"\boxed") is None
    assert last_box("7") is None
