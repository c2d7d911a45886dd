"""What a person sees in a terminal, in a pipe, in 60 columns, and while waiting."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np
import pytest

from blinkscope import locate
from blinkscope.cli.locate import _announce
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.predict import Prediction
from blinkscope.estimate.record import MethodOptions
from blinkscope.estimate.trace import Cost, Target, Trace
from blinkscope.plurals import counted, share_of
from blinkscope.report import study, summary
from blinkscope.report.html import finding
from blinkscope.report.legends import legends
from blinkscope.report.notebook import notebook_html
from blinkscope.report.progress import Display, filled, progress_display, standing
from blinkscope.report.terminal import print_trace
from blinkscope.studies.whole import Whole
from tests.report.sample import HOSTILE, blank, decided, hostile, long, realistic, undecided


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Ascii(io.StringIO):
    encoding = "ascii"


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def printed(trace: Trace, width: int = 120, file: io.StringIO | None = None) -> str:
    file = io.StringIO() if file is None else file
    print_trace(trace, file, width=width)
    return file.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def test_a_pipe_gets_brackets_and_numbers_in_place_of_colour():
    text = printed(realistic())
    assert "temperament. ⟦Dogs⟧¹ are loyal" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(("text", "shown"), [(" ", "␣"), ("\n\n", "↵↵"), ("", "∅")], ids=["space", "breaks", "nothing"])
def test_a_window_of_white_space_is_seen(text, shown):
    trace = blank(text)
    table = printed(trace)
    assert f"temperament.⟦{shown}⟧¹" in table
    (row,) = [line for line in table.splitlines() if "12 → 13" in line]
    assert words(row).startswith(f"1 {shown} 12 → 13 ")
    assert f"1. {shown}  (tokens kept 12 → 13)" in printed(trace, width=80)
    assert re.search(rf"\x1b\[1;30;43m{shown}\x1b", printed(trace, file=Terminal()))
    assert f"“{shown}” (token 13)" in finding(trace)
    page = notebook_html(trace)
    assert f">{shown}</span>" in page
    assert f">{shown}</td>" in page


def test_a_terminal_gets_colour_and_no_brackets():
    text = printed(realistic(), file=Terminal())
    assert re.search(r"\x1b\[1;30;43mDogs\x1b\[0m\x1b\[1m¹\x1b\[0m are loyal", text)
    assert "⟦" not in text


def test_no_color_is_obeyed(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(realistic(), file=Terminal())
    assert "⟦Dogs⟧" in text
    assert not re.search(r"\x1b\[[\d;]*(3|4|9|10)[0-8]", text)


def test_the_table_tells_what_the_window_did():
    trace = realistic()
    (window,) = trace.windows()
    (row,) = [line for line in printed(trace).splitlines() if "12 → 13" in line]
    expected = (
        f"1 Dogs 12 → 13 {window.change:.2f} [{window.low:.2f}, {window.high:.2f}] {window.probability:.2f} towards Dog"
    )
    assert words(row).startswith(expected)
    before, after = window.before, window.after
    assert row.endswith(
        f"Cat {before['Cat']:.2f}, Dog {before['Dog']:.2f} → Dog {after['Dog']:.2f}, Cat {after['Cat']:.2f}"
    )


def test_a_direction_that_cannot_be_told_is_not_laid_to_other_labels():
    trace = realistic()
    window = trace.windows()[0]
    rest = next(label for label in trace.labels if label != trace.final_label)
    turned = replace(window, direction=0, change=1.0, before={rest: 1.0}, after={trace.final_label: 1.0})
    assert summary.direction(trace, turned) == "direction not certain"
    shares = dict.fromkeys(trace.labels, 0.0)
    assert summary.direction(trace, replace(turned, before=shares, after=shares)) == "other labels"


def test_the_page_says_where_it_began_how_it_ended_and_what_it_cost():
    trace = replace(realistic(), target=Target(), cost=Cost(1412, 19694, 45, 17724, seconds=71.3, model_seconds=68.94))
    text = words(printed(trace))
    cat = trace.labels.index("Cat")
    low, high = (side[0, cat] for side in trace.band)
    assert f"Before the first token: Cat {trace.curve[0, cat]:.2f} [{low:.2f}, {high:.2f}], Dog 0." in text
    assert "This text ended with: Dog" in text
    assert (
        "1,412 continuations, 19,694 generated tokens (17,724 predicted), 45 scored; 71.3 s, 68.9 s of it in the model."
        in text
    )
    looked = replace(trace, cost=replace(trace.cost, foreseen_tokens=20_100))
    assert "(17,724 predicted, 20,100 after the first look), 45 scored" in words(printed(looked))
    assert "asked for 0.05" in text
    assert "Note: Four positions were left out" in text
    assert "smollm2 · choice · divergence, unbiased · temperature 0.6, top-p 0.9 · seed 0" in text


def test_a_run_until_its_windows_are_known_says_how_sure_they_are():
    trace = replace(realistic(), target=Target().changed(until="windows"), undecided=0.034)
    text = words(printed(trace))
    assert "That a change of 0.6 is not listed, or that a listed one is less than 0.4, has probability 0.03" in text
    assert "asked for 0.05." not in text
    assert "Positions without a draw are read from their neighbours (skipped weight 0.0041)." in text


@pytest.mark.parametrize("width", [40, 60, 80, 99, 100, 200])
@pytest.mark.parametrize("trace", [realistic(), long(300, 300)], ids=["realistic", "long"])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(trace, width):
    text = printed(trace, width)
    assert max(map(len, text.splitlines())) <= width
    shown = words(text)
    for window in trace.windows():
        assert f"{window.start} → {window.end}" in shown
        assert f"{window.change:.2f} [{window.low:.2f}, {window.high:.2f}]" in shown


def test_several_windows_are_numbered_in_order():
    trace = long(300, 300)
    text = printed(trace)
    assert len(trace.windows()) >= 3
    marks = re.findall(r"⟦[^⟧]+⟧([¹²³⁴⁵⁶⁷⁸⁹⁰]+)", text)
    assert "".join(marks) == "¹²³⁴⁵⁶⁷⁸⁹"[: len(marks)]
    assert len(marks) == len(trace.windows())


def test_no_window_is_an_answer():
    trace = undecided()
    text = words(printed(trace))
    width = 4  # a tenth of 40 tokens
    a, b, change = summary.largest_change(trace, width)
    assert (
        f"No window: the outcome never moves by 0.50 within {width} tokens; "
        f"its largest move is {change:.2f} (tokens kept {a} to {b})." in text
    )


def test_the_grid_has_windows_where_the_outcome_rises_from_row_to_row():
    grid = locate("toy:fork", "Which way?", method=MethodOptions("grid", (0.0, 0.5), 20), delta=0.99)
    rises = np.diff(grid.curve[:, grid.labels.index(grid.final_label)])
    a = int(rises.argmax())
    rows = [0, 30, 60]
    assert (
        f"No window: P({grid.final_label}) never rises by more than 0.99 from one row to the next; "
        f"its largest rise is {rises[a]:.2f} (tokens kept {rows[a]} to {rows[a + 1]})." in words(printed(grid))
    )


def test_the_usual_range_of_a_cost_holds_the_cost(capsys: pytest.CaptureFixture[str]):
    """The limits are rounded to two digits, the prediction is not."""
    for tokens, said in (((35, 105), "35 to 105"), ((108, 220), "105 to 220")):
        seen = []
        locate("toy:fork", "x", announce=seen.append, continuations=1)
        _announce(replace(seen[0], prediction=Prediction(30, 105, tokens)))
        assert f"105 generated tokens (eight runs in ten: {said})" in capsys.readouterr().err


def test_a_sampler_that_cannot_fork_is_an_answer():
    assert "No window: this sampler cannot fork." in printed(decided())


def test_nothing_to_decide_is_an_answer():
    trace = realistic()
    same = tuple(replace(draw, label="Dog") for draw in trace.draws)
    certain = replace(trace.posterior, labels=("Dog",), mean=np.ones((46, 1)), draws=np.ones((5, 46, 1)))
    text = printed(replace(trace, draws=same, posterior=certain))
    assert f"Nothing to decide: all {len(same):,} continuations ended as this text did, with Dog." in text
    assert "Before the first token: Dog 1.00\n" in text
    drawn = replace(trace, draws=same, posterior=certain)
    for short in (
        replace(drawn, status="budget"),
        replace(drawn, status="interrupted"),
        replace(drawn, skipped=np.full(46, 0.98)),
    ):
        for said in (words(printed(short)), finding(short), notebook_html(short)):
            assert f"Not enough was drawn to tell: so far all {len(same):,} continuations ended" in said
            assert "Nothing to decide" not in said


def test_a_window_that_positions_left_out_may_hide_is_not_denied():
    trace = replace(undecided(), skipped=np.full(41, 0.7))
    for said in (words(printed(trace)), finding(trace), notebook_html(trace)):
        assert "no window was found, but positions left out may move the outcome by 0.70." in said
        assert "never moves" not in said


def test_nothing_drawn_yet_is_said():
    trace = realistic()
    flat = replace(trace.posterior, mean=np.tile([0.0, 1.0, 0.0], (46, 1)), draws=np.tile([0.0, 1.0, 0.0], (5, 46, 1)))
    text = printed(replace(trace, draws=(), posterior=flat, status="interrupted"))
    assert "No window can be told: nothing was drawn." in text
    assert "These are the draws so far: locate goes on from them." in words(text)


def test_an_unconfirmed_window_is_said():
    """The mean moves by 0.6 at a step, but only a quarter of the joint draws agree."""
    trace = undecided()
    mean = np.zeros((41, 2))
    mean[:, 0] = np.where(np.arange(41) < 20, 0.4, 1.0)
    mean[:, 1] = 1 - mean[:, 0]
    draws = np.repeat(np.tile([0.9, 0.1], (41, 1))[None], 100, axis=0)
    draws[:25] = mean
    text = words(printed(replace(trace, posterior=replace(trace.posterior, mean=mean, draws=draws))))
    assert "No window is likely enough to list" in text
    assert "0.60 (tokens kept 19 to 20)" in text


def test_the_largest_change_is_that_of_all_pairs():
    trace = replace(realistic(), target=Target(max_width=4))
    found = summary.largest_change(trace, 4)
    pairs = [
        (0.5 * np.abs(trace.curve[b] - trace.curve[a]).sum(), a, b)
        for a in range(45)
        for b in range(a + 1, min(a + 5, 46))
    ]
    change, a, b = max(pairs)
    assert found == (a, b, pytest.approx(change))


def test_hostile_text_neither_acts_nor_poses_as_our_own():
    trace = hostile()
    forged = replace(
        trace, steps=(replace(trace.steps[0], text="[bold]x[/bold] ⟦fake⟧¹ [link=http://x]y"), *trace.steps[1:])
    )
    text = printed(forged)
    assert "[bold]x[/bold] [fake]¹ [link=http://x]y" in text
    assert all(character.isprintable() or character in "\n\u200d" for character in text)
    for width in (60, 120):
        coloured = printed(trace, width, Terminal())
        bare = re.sub(r"\x1b\[[\d;]*m", "", coloured)
        assert "\x1b" not in bare, "rich's own colours and nothing else"
    assert any("\x1b" in text for text in HOSTILE)


def test_a_file_that_cannot_hold_all_characters_gets_them_spelled_out():
    text = printed(realistic(), file=Ascii())
    assert "[[Dogs]]1" in text
    text.encode("ascii")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ([{"role": "user", "content": "first"}, {"role": "user", "content": "last"}], "last"),
        ([{"role": "user", "content": "asked"}, {"role": "assistant", "content": "answered"}], "asked"),
        ("plain", "plain"),
        (None, ""),
        ([], ""),
        ([3], ""),
    ],
)
def test_the_prompt_is_what_the_user_said_last(said, shown):
    trace = realistic()
    assert summary.question(replace(trace, settings={**trace.settings, "prompt": said})) == shown


# ---------------------------------------------------------------- progress


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (counted(0, "token"), "0 tokens"),
        (counted(1, "generated token"), "1 generated token"),
        (counted(1.0, "step"), "1 step"),
        (counted(0.8, "step"), "0.8 steps"),
        (counted(1_234_567, "continuation"), "1,234,567 continuations"),
        (counted(float("inf"), "token"), "inf tokens"),
        (counted(1, "reply", "replies"), "1 reply"),
        (counted(2, "reply", "replies"), "2 replies"),
        (share_of(1, 3, "item"), "1 of 3 items is"),
        (share_of(0, 1, "item"), "0 of 1 item is"),
        (standing(Progress(0, 1, 1.0, 0.3, 0.05)), "round 1: 1 continuation, 1 token, error 0.300, asked 0.05"),
        (standing(Progress(0, 1, 0.6, 0.3, 0.05), "evaluation"), "round 1: 1 continuation, 1 evaluation, error"),
        (standing(Whole(1, 0, 1, 1, 1, 1.0)), "0 of 1 item, 1 at work by 1: 1 continuation, 1 token"),
    ],
)
def test_numbers_and_their_nouns_agree(said: str, expected: str) -> None:
    assert said.startswith(expected)


def test_one_continuation_is_one_everywhere() -> None:
    trace = realistic()
    assert summary.cost(replace(trace, cost=replace(trace.cost, continuations=1, generated_tokens=1))).startswith(
        "1 continuation, 1 generated token ("
    )
    one = replace(trace.draws[0], label=trace.final_label)
    said = summary.answer(replace(trace, draws=(one,), status="budget"), ())
    assert "so far the only continuation ended as this text did" in said


def at(round_: int, continuations: int, error: float, asked: float = 0.05) -> Progress:
    return Progress(round_, continuations, continuations * 20.0, error, asked)


def test_a_log_gets_ever_fewer_lines():
    now = [0.0]
    file = io.StringIO()
    with progress_display(file, clock=lambda: now[0]) as display:
        display.stage("scoring 133 tokens\x1b[2J")
        for second in range(3600):
            now[0] = float(second)
            display.update(at(3, second, 0.1))
    lines = file.getvalue().splitlines()
    assert lines[0] == "scoring 133 tokens␛[2J"
    assert lines[1] == "round 4: 5 continuations, 100 tokens, error 0.100, asked 0.05"
    assert 10 < len(lines) < 25


def test_a_study_whose_items_are_worked_on_side_by_side_is_shown_as_a_whole():
    now = [0.0]
    file = io.StringIO()
    whole = Whole(400, 3, 8, 8, 5120, 81_000.0)
    with progress_display(file, clock=lambda: now[0]) as display:
        display.update(whole)
        now[0] = 6.0
        display.update(whole)
        display.update(Whole(400, 400, 0, 8, 700_000, 9e6))  # the last one is always shown
    assert file.getvalue().splitlines() == [
        "3 of 400 items, 8 at work by 8: 5,120 continuations, 81,000 tokens",
        "400 of 400 items, 0 at work by 8: 700,000 continuations, 9,000,000 tokens",
    ]
    assert filled(whole) == 3 / 400


def test_what_a_run_will_cost_is_said_in_two_digits_in_a_line_of_80_columns():
    line = standing(replace(at(3, 1412, 0.0612), foreseen=61_234.5))
    assert line == "round 4: 1,412 continuations, 28,240 of ~61,000 tokens, error 0.061, asked 0.05"
    assert len(line) <= 80


def test_quiet_says_nothing():
    file = Terminal()
    with progress_display(file, quiet=True) as display:
        display.stage("loading")
        display.update(at(0, 1, 0.1))
    assert file.getvalue() == ""


def test_a_terminal_gets_a_line_that_moves_and_goes_away():
    file = Terminal()
    with progress_display(file) as display:
        display.stage("loading [bold]x[/bold]\x1b[2J")
        display.update(at(2, 1412, 0.0612))
    text = file.getvalue()
    bare = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)
    assert "round 3: 1,412 continuations, 28,240 tokens, error 0.061, asked 0.05" in bare
    assert text.rstrip().endswith(("\x1b[2K", "\x1b[?25h", "\r")), "the line is wiped and the cursor is back"
    assert "\x1b[?25h" in text


def test_a_terminal_without_cursor_control_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    file = Terminal()
    with progress_display(file) as display:
        display.stage("loading")
    assert file.getvalue() == "loading\n"


def test_an_interruption_leaves_the_terminal_in_order():
    file = Terminal()

    def interrupted(display: Display) -> None:
        display.update(at(0, 1, float("nan")))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress_display(file) as display:
        interrupted(display)
    assert file.getvalue().rfind("\x1b[?25h") > file.getvalue().rfind("\x1b[?25l")


def test_the_bar_follows_the_variance():
    assert filled(at(0, 0, float("nan"))) == 0
    assert filled(at(0, 0, 0.1)) == pytest.approx(0.25)
    assert filled(at(0, 0, 0.04)) == 1
    assert "error" not in standing(at(0, 7, float("nan")))
    assert standing(replace(at(0, 7, float("nan")), asked=float("nan")), "evaluation").endswith(" evaluations")


STUDY_ROWS = [
    {"of": of, "outcome": "window", "start": 4, "start_low": None, "start_high": 20, "certificate": None, "theorem2": x}
    | {"exact_outcome": "window"}
    for of, x in (("1. Pirate", 0.5), ("2. Moon", 0.25))
]


def study_rows(width: int) -> str:
    from rich.console import Console

    file = io.StringIO()
    console = Console(file=file, width=width)
    for part in study._listed(STUDY_ROWS, console):
        console.print(part)
    return file.getvalue()


@pytest.mark.parametrize("width", [*range(40, 90, 3), 200])
def test_no_cell_of_a_study_is_broken_however_narrow_the_screen(width):
    text = study_rows(width)
    assert max(map(len, text.splitlines())) <= width
    for cell in ("1. Pirate", "2. Moon", "4 [-, 20]", "0.500", "0.250"):
        assert cell in text
    assert text.count("window") >= 4
    assert ("start 4 [-, 20]" in text) == (width < 70)


def test_short_names_and_open_limits_are_explained_where_they_stand():
    text = words(study_rows(200))
    for said in legends(STUDY_ROWS):
        assert said in text
    assert [said.split()[0] for said in legends(STUDY_ROWS)] == ["certificate:", "theorem2:", "-"]
    assert legends([{"of": "a", "share": 0.5, "share_low": 0.1, "share_high": 0.9}]) == []
    assert legends([{"number": "dcw", "first": 1.0}])[0].startswith("dcw: ")
