"""Hostile text is shown for what it is."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blinkscope.report.text import csv_cell, sentence, shortened, told_apart, visible

# Signs that are drawn over or around what follows, though Unicode calls them format characters.
DRAWN = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}


def acts(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs") and ord(character) not in DRAWN


def test_every_character_that_acts_or_hides_is_spelled_out():
    """All of Unicode as this Python knows it, one by one."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        shown = visible(f"a{character}b", keep="")
        if acts(character):
            assert character not in shown, hex(code)
            assert shown.isprintable(), hex(code)
        elif character.isalnum() and code not in (0x115F, 0x1160, 0x3164, 0xFFA0):  # letters that are drawn as nothing
            assert shown == f"a{character}b", hex(code)


@given(st.text())
def test_nothing_that_acts_gets_through(text):
    shown = visible(text, keep="")
    assert not any(acts(c) for c in shown if c != "\u200d")
    assert visible(shown, keep="") == shown


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "␛[31mred␛[0m"),
        ("\x1b]8;;http://x\x07link", "␛]8;;http://x␇link"),
        ("\x9b31m", "⟨U+009B⟩31m"),
        ("back\x08\x08", "back␈␈"),
        ("over\rwritten", "over␍written"),
        ("\x7f", "␡"),
        ("user\u202egnp.exe", "user⟨U+202E⟩gnp.exe"),
        ("a\u200bb\ufeff", "a⟨U+200B⟩b⟨U+FEFF⟩"),
        ("\u2066iso\u2069", "⟨U+2066⟩iso⟨U+2069⟩"),
        ("tag\U000e0041", "tag⟨U+E0041⟩"),
        ("hidden\ufe00\U000e0100", "hidden⟨U+FE00⟩⟨U+E0100⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("a\u200db", "a⟨U+200D⟩b"),
        ("plain words, naïve 猫 שלום 🐶", "plain words, naïve 猫 שלום 🐶"),
        ("👩‍🔬 👍🏽 ❤️ 🏳️‍🌈", "👩‍🔬 👍🏽 ❤️ 🏳️‍🌈"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_it_looks_like(hostile, shown):
    assert visible(hostile) == shown


def test_line_breaks_and_tabs_are_kept_only_where_asked():
    assert visible("a\nb\tc", keep="\n") == "a\nb␉c"
    assert visible("a\nb\tc", keep="") == "a␊b␉c"


@given(st.text(), st.integers(8, 40))
def test_a_shortened_text_is_one_short_line(text, width):
    line = shortened(text, width)
    assert len(line) <= width
    assert "\n" not in line


def test_a_shortened_text_shows_both_ends():
    assert shortened("the first words and then very many more until the last", 20) == "the first wo…he last"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" ", "␣"),
        ("\n\n", "↵↵"),
        (" \t\r\n", "␣⇥␍↵"),
        ("\u00a0", "⟨U+00A0⟩"),
        ("", ""),
        (" a \n", "a"),
        (" " * 99, "␣" * 5),
    ],
)
def test_white_space_is_spelled_out_where_there_is_nothing_else(text, shown):
    assert shortened(text, 99).startswith(shown)
    assert bool(shown) == bool(shortened(text, 20))
    assert shortened(f"{text}|", 99).endswith("|")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1", '=HYPERLINK("x")'])
def test_no_cell_starts_a_formula(text):
    file = io.StringIO()
    csv.writer(file).writerow([csv_cell(text)])
    (cell,) = next(csv.reader(io.StringIO(file.getvalue(), newline="")))
    assert cell == "'" + text


@pytest.mark.parametrize("text", ["", "dog", "1 - 1", "a=b", "'quoted"])
def test_other_cells_stay_as_they_are(text):
    assert csv_cell(text) == text


@given(st.lists(st.text(alphabet="ab \u202e", min_size=1, max_size=60), min_size=1, max_size=12, unique=True))
def test_different_labels_stay_different(texts: list[str]) -> None:
    shown = told_apart(tuple(texts), 12)
    assert list(shown) == texts
    assert len(set(shown.values())) == len(texts)
    assert all(len(line) <= 12 + len(" (12)") for line in shown.values())


def test_labels_that_look_alike_are_shown_where_they_differ() -> None:
    long = [f"the answer number {k}{'x' * 20}" for k in (1, 2, 12)]
    assert list(told_apart(tuple(long), 24).values()) == [
        "the answ…1xxxxxxxxxxxxx…",
        "the answ…2xxxxxxxxxxxxx…",
        "the answ…12xxxxxxxxxxxx…",
    ]
    other = "quite another long answer of 36 signs"
    assert told_apart((long[0], other, "no"), 24) == {text: shortened(text, 24) for text in (long[0], other, "no")}


def test_a_note_becomes_a_sentence_unless_it_begins_with_a_name() -> None:
    assert sentence("outside the theory: churn") == "Outside the theory: churn"
    assert sentence("smollm2 has no such mark") == "smollm2 has no such mark"
    assert sentence("'x' is read") == "'x' is read"
    assert sentence("") == ""
