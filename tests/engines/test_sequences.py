"""Which sequence holds which text, against a memory that does what it is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from blinkscope.engines.sequences import Texts

TEXT = st.lists(st.integers(0, 2), min_size=1, max_size=7).map(tuple)


@given(st.integers(1, 4), st.lists(st.tuples(TEXT, st.integers(0, 7)), max_size=25))
def test_what_counts_as_held_is_held(count, asked):
    texts = Texts(10, count)
    memory: dict[int, tuple[int, ...]] = {10 + i: () for i in range(count)}
    for ids, most in asked:
        found = texts.find(ids)
        if found is not None:
            assert memory[found][: len(ids)] == ids
            continue
        reading = texts.plan(ids, most)
        assert reading.sequence in memory
        assert reading.known <= most
        memory[reading.sequence] = (*memory[reading.source][: reading.known], *ids[reading.known :])
        assert memory[reading.sequence] == ids
        texts.hold(reading.sequence, ids)
        assert texts.find(ids) == reading.sequence


def test_a_text_is_taken_over_from_where_most_of_it_is():
    texts = Texts(0, 3)
    for ids in ((1, 2, 3), (1, 2, 4, 5), (9, 9)):
        reading = texts.plan(ids, len(ids))
        texts.hold(reading.sequence, ids)
    whole, longer, other = texts.find((1, 2, 3)), texts.find((1, 2, 4, 5)), texts.find((9, 9))
    assert len({whole, longer, other}) == 3
    reading = texts.plan((1, 2, 4, 6), 4)
    # The other way of going on is kept: the new one takes the place of the least recently used text.
    assert (reading.source, reading.known, reading.sequence) == (longer, 3, whole)


def test_a_text_that_goes_on_stays_where_it_is():
    texts = Texts(0, 2)
    texts.hold(texts.plan((1, 2), 2).sequence, (1, 2))
    reading = texts.plan((1, 2, 3), 3)
    assert (reading.source, reading.sequence, reading.known) == (reading.sequence, reading.sequence, 2)
    texts.hold(reading.sequence, (1, 2, 3))
    assert texts.find((1, 2, 3)) == texts.find((1, 2)) == reading.sequence
    assert texts.find((1, 2, 3, 4)) is None


def test_a_text_that_is_read_once_more_for_its_logits_stays_where_it_is():
    texts = Texts(0, 2)
    held = texts.plan((1, 2, 3, 4), 0).sequence
    texts.hold(held, (1, 2, 3, 4))
    reading = texts.plan((1, 2, 3, 4), 1)
    assert (reading.source, reading.sequence, reading.known) == (held, held, 1)


def test_a_reading_that_was_broken_off_is_not_relied_on():
    texts = Texts(0, 1)
    texts.hold(texts.plan((1, 2, 3), 3).sequence, (1, 2, 3))
    assert texts.plan((1, 2, 5), 3).known == 2
    assert texts.find((1,)) is None
    assert texts.plan((1, 2, 3), 3).known == 0
