"""``study structured``: forms are parsed, and the estimate is held against the enumerated law."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.feature import Reply
from blinkscope.language.engine import Engine
from blinkscope.language.sampling import Sampling
from blinkscope.studies import structured
from blinkscope.studies.blanks import Fill, Form, enumerate_fills, form_of, laws_along
from blinkscope.studies.specs import from_toml
from blinkscope.studies.structured import StructuredSpec
from blinkscope.studies.study import run_study
from tests.e2e.command import blinkscope

FORM = Form(("Pirate/Ninja", "Car/Cart/Carpet", "in/inn"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1. Pirate\n2. Cart\n3. inn", "Pirate / Cart / inn"),
        ("1) ninja\n2. (Car)\n3. in.", "Ninja / Car / in"),
        ("1. Pirate, of course\n2. carpet\n 3. IN", "Pirate / Carpet / in"),
        ("1. Pirates\n2. Cart\n3. inn", None),  # an option inside another word
        ("1. (Pirate/Ninja)\n2. Cart\n3. inn", None),  # copied
        ("1. Pirate\n3. inn", None),
        ("I like Pirate and Cart in an inn", None),
        ("1. Pirate\n12. Cart\n3. inn", None),
    ],
)
def test_a_reply_is_parsed_line_by_line(text: str, label: str | None) -> None:
    assert FORM.label(Reply(text, finished=True)) == label


def test_the_last_word_of_a_cut_reply_may_go_on() -> None:
    assert FORM.label(Reply("1. Pirate\n2. Car\n3. in", finished=False)) is None
    assert FORM.label(Reply("1. Pirate\n2. Car\n3. in\n", finished=False)) == "Pirate / Car / in"


@pytest.mark.parametrize("blanks", [(), ("Pirate",), ("Pirate/pirate",), ("Pirate/",)])
def test_a_form_needs_options(blanks: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"blank"):
        Form(blanks)


def test_the_filled_form_is_what_the_parser_reads() -> None:
    for label in FORM.labels:
        assert FORM.label(Reply("1." + FORM.filled(label.split(" / ")), finished=True)) == label


def test_a_form_is_read_from_a_prompt() -> None:
    prompt = "Fill in (one/two) of these:\n1. (Pirate/Ninja)\n 2) ( Car / Cart / Carpet )\n3. (in/inn) \nNot 4. (a/b)\n"
    assert form_of(prompt).options == (("Pirate", "Ninja"), ("Car", "Cart", "Carpet"), ("in", "inn"))
    for none in ("1. Pirate", "2. (a/b)", "1. (a/b)\n3. (c/d)", "1. (a)"):
        with pytest.raises(UserError, match="no form"):
            form_of(none)


def test_a_form_comes_from_a_file_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "form.txt").write_text("Choose one each:\n1. (Pirate/Ninja/Monk)\n2. (Moon/Sea)\n")
    printed = blinkscope("study", "structured", "--form", "form.txt", "--print-spec", cwd=tmp_path).stdout
    assert 'blanks = ["Pirate/Ninja/Monk", "Moon/Sea"]' in printed
    assert "Choose one each" in printed
    for more in (("--blank", "a/b"), ("--prompt", "{lines}")):
        both = blinkscope("study", "structured", "--form", "form.txt", *more, "--print-spec", cwd=tmp_path)
        assert (both.returncode, f"leave {more[0]} out" in both.stderr) == (2, True)
    (tmp_path / "form.txt").write_text("Choose.")
    refused = blinkscope("study", "structured", "--form", "form.txt", "--print-spec", cwd=tmp_path)
    assert (refused.returncode, "holds no form" in refused.stderr) == (2, True)


TALE = Form(("The (Pirate/Ninja) jumped.", "A (Car/Cart) went by", "She likes (tea/teal)"))


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1. The Pirate jumped.\n2. A Cart went by\n3. She likes tea", "Pirate / Cart / tea"),
        ("1) the  ninja jumped!\n2. a car stopped\n3. She likes (teal)", "Ninja / Car / teal"),
        ("1. Pirate\n2. A Cart went by\n3. She likes tea", None),  # without the words before it
        ("1. The (Pirate/Ninja) jumped.\n2. A Cart went by\n3. She likes tea", None),  # copied
        ("1. Then Pirate jumped.\n2. A Cart went by\n3. She likes tea", None),
        ("1. The Pirates jumped.\n2. A Cart went by\n3. She likes tea", None),
        ("1. The old Pirate jumped.\n2. A Cart went by\n3. She likes tea", None),
    ],
)
def test_a_choice_in_a_sentence_is_read_after_the_words_before_it(text: str, label: str | None) -> None:
    assert TALE.label(Reply(text, finished=True)) == label


def test_the_last_choice_in_a_sentence_may_go_on() -> None:
    begun = "1. The Pirate jumped.\n2. A Cart went by\n3. She likes tea"
    assert TALE.label(Reply(begun, finished=False)) is None
    assert TALE.label(Reply(f"{begun} and", finished=False)) == "Pirate / Cart / tea"


def test_sentences_are_shown_filled_and_read_again() -> None:
    assert TALE.lines.splitlines()[0] == "1. The (Pirate/Ninja) jumped."
    assert form_of(f"Fill this in:\n{TALE.lines}\nThank you.") == TALE
    for label in TALE.labels:
        assert TALE.label(Reply("1." + TALE.filled(label.split(" / ")), finished=True)) == label
    with pytest.raises(UserError, match="one choice in parentheses"):
        Form(("The (Pirate/Ninja) met a (dog/cat).",))


def test_the_form_of_the_paper_is_built_in(tmp_path: Path) -> None:
    """Its five two-way choices, in the paper's order."""
    form = form_of(structured.PAPER)
    assert [options[0] for options in form.options] == ["Pirate", "Dog", "River", "Dragon", "Pizza"]
    assert {len(options) for options in form.options} == {2}
    text = (Path(__file__).parents[2] / "docs" / "specs" / "structured.toml").read_text(encoding="utf-8")
    spec = from_toml(text, "structured", StructuredSpec())
    assert structured.STUDY.items(spec)[0].content["prompt"] == structured.PAPER
    printed = blinkscope("study", "structured", "--form", "paper", "--print-spec", cwd=tmp_path).stdout
    assert "The (Pirate/Ninja) leapt" in printed


def test_laws_along_a_way_are_renormalised() -> None:
    fills = (Fill("a", (1, 2), 0.2), Fill("b", (1, 3), 0.3), Fill("c", (4, 5), 0.5))
    np.testing.assert_allclose(laws_along(fills, (1, 3)), [[0.2, 0.3, 0.5], [0.4, 0.6, 0], [0, 1, 0]])


@pytest.mark.model
def test_the_enumerated_law_is_the_models_own(smollm2: Engine) -> None:
    """Probability that the model, held to the options of one line, says them: ratio of the words' probabilities."""
    form = Form(("Moon/Sea",))
    context = smollm2.encode("Name a place. Answer with one word.", prefill="1.")
    fills = enumerate_fills(smollm2, context, Sampling(), form)
    words = [smollm2.encode_reply(context, f" {word}", finished=False) for word in ("Moon", "Sea")]
    p = [float(np.prod(smollm2.score(path, Sampling()).p)) for path in words]
    assert all(len(path.tokens) == 1 for path in words)
    np.testing.assert_allclose([fill.p for fill in fills], np.array(p) / sum(p), rtol=1e-3)


@pytest.mark.model
def test_every_answer_has_its_own_window_and_the_estimate_agrees_with_the_exact_law(
    tmp_path: Path, smollm2: Engine
) -> None:
    spec = replace(StructuredSpec(), blanks=("Pirate/Knight", "Sword/Map"), items=60)
    spec = replace(spec, target=Target(error=0.15, level=1 - 1e-8))
    result = run_study(structured.STUDY, spec, tmp_path / "run.db", model=smollm2)
    tables = result.findings.tables
    law = tables["law"]
    assert sum(row["exact"] for row in law) == pytest.approx(1)
    draws = 60 * 12
    statistic = sum(draws * (row["drawn"] - row["exact"]) ** 2 / row["exact"] for row in law)
    assert chi2.sf(statistic, len(law) - 1) > 1e-7
    for row in tables["same"]:
        # A mean of 60 generations of 12 draws each, of which the spread over generations is at most a half.
        assert abs(row["share"] - row["exact"]) < 5.5 * 0.5 / np.sqrt(60 * 12) + 1e-9
    windows = {row["of"]: row for row in tables["windows"]}
    assert windows["1. Pirate"]["exact_end"] == 1  # the first token of the reply tells them apart
    assert windows["2. Map"]["exact_start"] > 1
    assert result.cost["generated_tokens"] == 0
    assert {row["label"] for row in law} == set(Form(spec.blanks).labels)
