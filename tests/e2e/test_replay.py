"""Recorded rollouts from end to end: one generation, all of a file, killed and taken up again."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import blinkscope as package
from blinkscope.replay_formats import Item, RecordedFork, RecordedToken, Resample, write_rollouts
from blinkscope.runs.store import Run
from tests.e2e.command import blinkscope, kill_after, result, same

FIXTURES = Path(__file__).parents[1] / "fixtures"
SENTENCES = ("study", "replay", "--model", "replay:sentences.jsonl", "-o", "run.db")
UMBRELLA = ("locate", "--model", "replay:rollouts.jsonl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the small recorded files, and ``long.jsonl``: three paths of 30 tokens with a decision half-way."""
    for name in ("rollouts.jsonl", "sentences.jsonl", "pivotal_tokens.jsonl"):
        shutil.copy(FIXTURES / name, tmp_path)
    write_rollouts([decided_half_way(f"q{i}", i) for i in range(3)], tmp_path / "long.jsonl")
    return tmp_path


def decided_half_way(id: str, seed: int, steps: int = 30, outcomes: int = 60) -> Item:
    """Two forks at every second token. In the first half they end as "a" with probability 0.3."""
    rng = np.random.default_rng(seed)
    forks = []
    for s in range(0, steps, 2):
        for token, p in (("x", 0.2), ("y", 0.1)):
            a = int(rng.binomial(outcomes, 0.3 if s <= steps // 2 else 1.0))
            counts = {label: n for label, n in (("a", a), ("b", outcomes - a)) if n}
            forks.append(RecordedFork(s, token, p, counts, float(steps - s)))
    tokens = tuple(RecordedToken(f" t{s}", 0.7 if s % 2 == 0 else 1.0) for s in range(steps))
    resamples = tuple(Resample(s, {"a": int(rng.binomial(40, 0.3)) + 1, "b": 20}) for s in (0, 1, 2))
    return Item(id, "which?", tokens, "a", tuple(forks), resamples)


def test_the_first_item_is_analysed_until_its_outcomes_run_out(folder: Path) -> None:
    found = result(*UMBRELLA, "-o", "run.db", "--report", "report.html", cwd=folder)
    row = json.loads((folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (found["model"], found["item"], found["prompt"]) == ("replay:rollouts.jsonl", "umbrella", row["prompt"])
    assert (found["status"], found["truth"], found["schema"]) == ("budget", None, 1)
    assert found["error"]["reached_max"] > 0.05
    assert any("recorded outcomes have run out" in note for note in found["notes"])
    assert found["unrecorded_weight"] == pytest.approx(0.19)
    assert found["skipped_weight"] == 0
    assert "umbrella" in (folder / "report.html").read_text(encoding="utf-8")
    assert same(result("show", "run.db", cwd=folder), found)
    assert same(result("show", "run.db", "--item", "umbrella", cwd=folder), found)
    # No outcome is used twice: never more draws of a fork and label than were recorded.
    recorded = {(fork["position"], fork["token"]): Counter(fork["outcomes"]) for fork in row["forks"]}
    for fork in found["forks"]:
        assert Counter(fork["labels"]) <= recorded[fork["position"], fork["token"]]
    assert found["cost"]["continuations"] <= sum(sum(counts.values()) for counts in recorded.values())


def test_a_larger_error_is_reached_and_a_smaller_one_tops_the_run_up(folder: Path) -> None:
    rough = result(*UMBRELLA, "--error", "0.2", "-o", "run.db", cwd=folder)
    assert rough["status"] == "complete"
    assert not any("run out" in note for note in rough["notes"])
    topped = result(*UMBRELLA, "-o", "run.db", cwd=folder)
    assert same(topped, result(*UMBRELLA, "-o", "fresh.db", cwd=folder))
    assert topped["cost"]["continuations"] > rough["cost"]["continuations"]


def test_python_gives_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    found = result(*UMBRELLA, "--item", "coin", "--seed", "3", "-o", "run.db", cwd=folder)
    trace = package.locate("replay:rollouts.jsonl", item="coin", seed=3)
    assert same(trace.to_json(), found)
    with pytest.raises(package.UserError, match="feature makes no sense with recorded rollouts"):
        package.locate("replay:rollouts.jsonl", feature="number")
    with pytest.raises(package.UserError, match="prompt makes no sense"):
        package.locate("replay:rollouts.jsonl", "Which way?")
    with pytest.raises(package.UserError, match="needs a model replay:FILE"):
        package.locate("toy:fork", "Which way?", item="coin")


def test_forks_are_compared_with_free_continuations(folder: Path) -> None:
    found = result(*UMBRELLA, "-o", "run.db", cwd=folder)["comparison"]
    assert (found["positions"], found["labels"]) == ([0, 2], ["yes", "no", "(unparsed)"])
    # By hand: at row 0 the forks give 14/27 of yes, the resamples 11/20.
    assert found["predicted"][0][0] == pytest.approx(14 / 27)
    assert found["observed"][0][0] == pytest.approx(11 / 20)
    assert found["z"][0][0] == pytest.approx((11 / 20 - 14 / 27) / np.hypot(0.0535, 0.1115), rel=0.002)
    assert 0.9 < found["correlation"] <= 1
    shown = blinkscope("show", "run.db", cwd=folder).stdout
    assert "Forks against free continuations: correlation 0.998" in shown
    assert result(*UMBRELLA, "--item", "coin", "-o", "coin.db", cwd=folder)["comparison"] is None


@pytest.mark.parametrize("question", [("locate",), ("study", "replay")], ids=["locate", "study"])
def test_killed_at_random_moments_a_run_ends_as_if_it_never_was(question: tuple[str, ...], folder: Path) -> None:
    asked = (*question, "--model", "replay:long.jsonl", "--error", "0.08", "--seed", "2")
    started = time.monotonic()
    whole = result(*asked, "-o", "whole.db", cwd=folder)
    longest, moments = time.monotonic() - started, random.Random(5)
    for _ in range(5):
        kill_after(moments.uniform(0.2, longest), *asked, "-o", "killed.db", cwd=folder)
    assert same(result(*asked, "-o", "killed.db", cwd=folder), whole)
    assert same(result("show", "killed.db", cwd=folder), whole)


def test_a_study_holds_all_items_and_each_can_be_looked_at(folder: Path) -> None:
    asked = ("study", "replay", "--model", "replay:rollouts.jsonl", "-o", "run.db")
    study = result(*asked, cwd=folder)
    assert [item["item"] for item in study["items"]] == ["umbrella", "coin", "direct"]
    assert [item["status"] for item in study["items"]] == ["budget", "complete", "complete"]
    assert study["summary"]["items"] == study["summary"]["analysed"] == 3
    assert study["summary"]["failures"] == {}
    assert study["summary"]["continuations"] == sum(item["continuations"] for item in study["items"])
    assert study["comparison"]["compared"] == 5
    # An item of the study draws under its own number, so it is checked against the record and not against locate.
    one = result("show", "run.db", "--item", "umbrella", cwd=folder)
    assert one["cost"]["continuations"] == study["items"][0]["continuations"]
    assert one["comparison"]["compared"] == 5
    assert same(one, result(*UMBRELLA, "-o", "one.db", cwd=folder))
    shown = blinkscope("show", "run.db", cwd=folder).stdout
    assert "of 3 generations have a window" in shown
    assert all(name in shown for name in ("umbrella", "coin", "direct"))
    narrow = blinkscope("show", "run.db", cwd=folder, COLUMNS="40").stdout
    assert "…" not in narrow
    assert "umbrella\n   tokens 5, labels 3, final label yes,\n   windows none, error 0.0" in narrow
    plain = blinkscope("show", "run.db", cwd=folder, COLUMNS="90", PYTHONIOENCODING="ascii").stdout
    wide = blinkscope("show", "run.db", cwd=folder, COLUMNS="90").stdout
    assert plain == wide.replace("·", "-").replace("─", "-")
    wider = result("show", "run.db", "--delta", "0.4", cwd=folder)
    assert wider["summary"]["with_window"] >= study["summary"]["with_window"]
    assert blinkscope("report", "run.db", "--item", "coin", "-o", "coin.html", cwd=folder).returncode == 0
    assert blinkscope("report", "run.db", "-o", "all.html", cwd=folder).returncode == 0
    page = (folder / "all.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("umbrella", "coin", "direct"))
    # Done is done: nothing is drawn or computed again, in whatever order the items are given now.
    lines = (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "rollouts.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8")
    again = blinkscope(*asked, "--json", cwd=folder)
    assert same(json.loads(again.stdout), study)
    assert "item 1" not in again.stderr
    assert [item["item"] for item in result(*asked, "--error", "0.2", cwd=folder)["items"]] == [
        item["item"] for item in study["items"]
    ]


def test_a_plan_predicts_no_more_than_was_recorded(folder: Path) -> None:
    planned = result(*UMBRELLA, "--plan", cwd=folder)
    row = json.loads((folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()[0])
    recorded = sum(sum(fork["outcomes"].values()) * fork["mean_tokens"] for fork in row["forks"])
    drawn = result(*UMBRELLA, "--error", "0.001", "-o", "run.db", cwd=folder)["cost"]["continuations"]  # all there are
    costs = {(row["method"], row["error"]): row for row in planned["costs"]}
    for (method, _), row in costs.items():
        if method.startswith("divergence"):
            assert row["continuations"] <= drawn
            assert max(row["generated_tokens"], *row["usual"]) <= recorded
    most = costs["divergence, unbiased", 0.02]
    assert most["continuations"] == drawn
    assert costs["resampling every token", 0.02]["generated_tokens"] > recorded
    (note,) = planned["notes"]
    assert note.startswith(f"{drawn} continuations of about {most['generated_tokens']} tokens in all can be drawn")
    assert f"Note: {note}" in blinkscope(*UMBRELLA, "--plan", cwd=folder).stdout


def test_an_item_that_cannot_be_read_is_counted_and_the_others_go_on(folder: Path) -> None:
    asked = ("study", "replay", "--model", "replay:rollouts.jsonl", "--method", "divergence", "-o", "run.db")
    study = result(*asked, cwd=folder)
    assert [item["status"] for item in study["items"]] == ["budget", "complete", "failed"]
    (reason,) = study["summary"]["failures"].values()
    assert "item 'direct' has no forks" in reason
    assert study["summary"]["analysed"] == 2
    assert (study["items"][2]["error"], study["items"][2]["tokens"]) == (None, None)
    assert same(result("show", "run.db", cwd=folder), study)
    assert result("show", "run.db", "--error", "0.2", cwd=folder)["items"][2]["status"] == "failed"
    assert "has no forks" in blinkscope("show", "run.db", cwd=folder).stdout
    rows = (folder / "rollouts.jsonl").read_text(encoding="utf-8").splitlines()
    (folder / "none.jsonl").write_text(next(row for row in rows if '"direct"' in row), encoding="utf-8")
    none = blinkscope(*asked[:3], "replay:none.jsonl", *asked[4:-1], "none.db", cwd=folder)
    assert (none.returncode, none.stderr.splitlines()[-1]) == (1, "run file: none.db")


def test_a_study_until_windows_are_known_counts_those_that_are(folder: Path) -> None:
    asked = ("study", "replay", "--model", "replay:rollouts.jsonl", "--until", "windows", "-o", "run.db")
    study = result(*asked, cwd=folder)
    assert [item["status"] for item in study["items"]] == ["complete"] * 3  # the last one by the grid
    assert study["summary"]["failures"] == {}
    assert study["summary"]["windows_known"] == 2
    assert "of 2 the windows are known" in blinkscope("show", "run.db", cwd=folder).stdout
    assert same(result("show", "run.db", cwd=folder), study)
    assert result("show", "run.db", "--item", "direct", cwd=folder)["status"] == "complete"
    plain = result(*asked[:4], "-o", "plain.db", cwd=folder)
    assert same(result("show", "plain.db", "--until", "windows", cwd=folder)["items"][2], plain["items"][2])


def test_an_option_that_some_items_look_at_is_for_those(folder: Path) -> None:
    asked = ("study", "replay", "--model", "replay:rollouts.jsonl", "--error", "0.2", "--max-width", "2")
    study = result(*asked, "-o", "run.db", cwd=folder)
    assert [item["status"] for item in study["items"]] == ["complete"] * 3  # the last one by the grid
    with pytest.raises(package.UserError, match="estimator is of the method divergence; grid, by which"):
        package.locate(f"replay:{folder / 'rollouts.jsonl'}", item="direct", estimator="pooled")


@pytest.mark.parametrize("method", ["grid", "bisect"])
def test_a_method_that_draws_to_no_error_is_said_to_reach_none(folder: Path, method: str) -> None:
    asked = ("study", "replay", "--model", "replay:long.jsonl", "--method", method)
    done = blinkscope(*asked, "-o", "run.db", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "error of 0.05" not in done.stdout
    assert result("show", "run.db", cwd=folder)["summary"]["reached_error"] is None


def test_the_same_draws_have_one_error_in_a_run_and_in_a_study(folder: Path) -> None:
    """All that was recorded is drawn, in whatever order; in the study it is done under another number."""
    tokens, resamples = (RecordedToken(" t", None),) * 2, tuple(Resample(s, {"a": 21 + s, "b": 9 - s}) for s in (0, 1))
    write_rollouts([Item(id, "which?", tokens, "a", (), resamples) for id in ("q0", "q1")], folder / "free.jsonl")
    model = ("--model", "replay:free.jsonl")
    one = result("locate", *model, "--item", "q1", "-o", "one.db", cwd=folder)
    second = result("study", "replay", *model, "-o", "all.db", cwd=folder)["items"][1]
    assert one["cost"]["continuations"] == second["continuations"] == 60
    assert one["error"]["reached_max"] == second["error"] > 0


@pytest.mark.parametrize("of", ["run", "study"])
@pytest.mark.parametrize("option", [("--error", "0.1"), ("--estimator", "pooled"), ("--max-width", "3")])
def test_reading_again_refuses_what_the_method_does_not_look_at(folder: Path, of: str, option: tuple[str, str]) -> None:
    asked = ("locate", "--item", "direct") if of == "run" else ("study", "replay")
    assert (
        blinkscope(*asked, "--model", "replay:rollouts.jsonl", "--method", "grid", "-o", "g.db", cwd=folder).returncode
        == 0
    )
    for command in ("show", "g.db"), ("report", "g.db", "-o", "g.html"):
        done = blinkscope(*command, *option, cwd=folder)
        assert done.returncode == 2
        assert "leave it out" in done.stderr


def test_a_study_read_with_another_error_says_what_it_lacks(folder: Path) -> None:
    asked = ("study", "replay", "--model", "replay:long.jsonl", "--error", "0.2", "-o", "run.db")
    result(*asked, cwd=folder)
    shown = " ".join(blinkscope("show", "run.db", "--error", "0.05", cwd=folder).stdout.split())
    assert "not finished" not in shown
    assert " all the draws that this error and these budgets take; a study with them draws what is missing." in shown
    assert "not finished" not in blinkscope("show", "run.db", cwd=folder).stdout


def test_other_formats_are_told_apart_by_their_fields(folder: Path) -> None:
    sentences = result("locate", "--model", "replay:sentences.jsonl", "-o", "a.db", cwd=folder)
    assert (sentences["method"], sentences["status"], sentences["final_label"]) == ("grid", "complete", "yes")
    assert sentences["curve"]["position"] == [0, 1, 2, 3]
    assert sentences["curve"]["mean"][0][sentences["labels"].index("no")] == pytest.approx(15 / 20)
    pivotal = result("study", "replay", "--model", "replay:pivotal_tokens.jsonl", "-o", "b.db", cwd=folder)
    assert [item["item"] for item in pivotal["items"]] == ["7/1", "7/2", "generation/3"]


def test_a_changed_file_is_refused(folder: Path) -> None:
    result(*UMBRELLA, "-o", "run.db", cwd=folder)
    result(*UMBRELLA, "--item", "coin", "-o", "coin.db", cwd=folder)
    path = folder / "rollouts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"yes": 6, "no": 4', '"yes": 4, "no": 6'), "utf-8")
    refused = blinkscope(*UMBRELLA, "-o", "run.db", cwd=folder)
    assert refused.returncode == 2
    assert "items.umbrella: " in refused.stderr
    assert blinkscope(*UMBRELLA, "--item", "coin", "-o", "coin.db", cwd=folder).returncode == 0


REFUSED = [
    ((*UMBRELLA, "Which way?"), "a prompt makes no sense"),
    ((*UMBRELLA, "--feature", "number"), "--feature makes no sense"),
    ((*UMBRELLA, "--ask", "So?"), "--ask makes no sense"),
    ((*UMBRELLA, "--temperature", "0.5"), "--temperature makes no sense"),
    ((*UMBRELLA, "--generation", "x.txt"), "--generation makes no sense"),
    ((*UMBRELLA, "--device", "cpu"), "--device makes no sense"),
    ((*UMBRELLA, "--item", "rain"), "no item 'rain'; the items are 'umbrella', 'coin', 'direct'"),
    ((*UMBRELLA, "--item", "direct", "--method", "divergence"), "'direct' has no forks"),
    ((*UMBRELLA, "--method", "grid", "--fractions", "0.2"), "no free continuations after 1 tokens"),
    ((*UMBRELLA, "--method", "guess"), "no method 'guess'"),
    ((*UMBRELLA, "--method", "grid", "--error", "0.1"), "error is of the method divergence"),
    ((*UMBRELLA, "--method", "grid", "--max-width", "2"), "max-width is of the methods divergence and bisect"),
    ((*UMBRELLA, "--item", "direct", "--until", "windows"), "until is of the method divergence; grid, by which"),
    ((*UMBRELLA, "--item", "direct", "--error", "0.1"), "error is of the method divergence; grid, by which"),
    ((*UMBRELLA, "--item", "direct", "--estimator", "pooled"), "estimator is of the method divergence; grid, by which"),
    ((*UMBRELLA, "--item", "direct", "--max-width", "3"), "a window of grid, by which recordings without forks are"),
    ((*SENTENCES, "--error", "0.1"), "error is of the method divergence; grid, by which recordings without forks are"),
    ((*SENTENCES, "--until", "windows"), "until is of the method divergence; grid, by which"),
    ((*UMBRELLA, "--labels", "1"), "labels is 1"),
    ((*UMBRELLA, "--item", "direct", "--plan"), "'direct' has no forks, so there is nothing to plan"),
    ((*UMBRELLA, "--plan", "--error", "7"), "error is 7.0"),
    ((*UMBRELLA, "--plan", "-o", "run.db"), "--plan draws nothing and writes no file; leave -o out, or --plan"),
    (("locate", "x", "--model", "toy:fork", "--plan", "--report", "x.html"), "leave --report out, or --plan"),
    (("locate", "--model", "replay:"), "recorded rollouts are named by replay:FILE"),
    (("study", "replay", "--model", "toy:fork", "-o", "run.db"), "the model is 'toy:fork'"),
    (("locate", "--model", "replay:none.jsonl"), "none.jsonl cannot be read"),
    (("locate", "--model", "replay:hostile.jsonl"), "hostile.jsonl, line 1: "),
    (("study", "replay", "--model", "replay:hostile.jsonl", "-o", "run.db"), "hostile.jsonl, line 1: "),
    (("locate", "x", "--model", "toy:fork", "--item", "coin"), "--item names one of several recorded generations"),
]


@pytest.mark.parametrize(("arguments", "named"), REFUSED, ids=[named for _, named in REFUSED])
def test_what_makes_no_sense_is_refused_in_one_sentence(arguments: tuple[str, ...], named: str, folder: Path) -> None:
    (folder / "hostile.jsonl").write_text(
        '{"id": "\\u001b[2J\\u202e", "prompt": "", "tokens": [{"text": "x", "p": 2}], "final_label": "a"}\n'
    )
    before = sorted(folder.iterdir())
    refused = blinkscope(*arguments, cwd=folder)
    assert refused.returncode == 2
    assert named in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert refused.stderr.startswith("blinkscope: ")
    assert "\x1b" not in refused.stderr
    assert sorted(folder.iterdir()) == before


def test_hostile_texts_of_a_sound_file_do_not_reach_the_terminal(folder: Path) -> None:
    item = decided_half_way("\x1b[2J\u202ename", 1, steps=4, outcomes=5)
    write_rollouts([item, decided_half_way("other", 2, steps=4)], folder / "odd.jsonl")
    done = blinkscope("study", "replay", "--model", "replay:odd.jsonl", "--error", "0.3", "-o", "run.db", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert blinkscope("report", "run.db", "-o", "x.html", cwd=folder).returncode == 0
    for text in (done.stdout, done.stderr, (folder / "x.html").read_text(encoding="utf-8")):
        assert "name" in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_no_outcome_is_stored_twice(folder: Path) -> None:
    result("study", "replay", "--model", "replay:long.jsonl", "--error", "0.04", "-o", "run.db", cwd=folder)
    items = [decided_half_way(f"q{i}", i) for i in range(3)]
    with Run.open(folder / "run.db") as run:
        for number, item in enumerate(items):
            recorded = {(fork.position, fork.token): Counter(fork.outcomes) for fork in item.forks}
            used: dict[tuple[int, str], Counter[str]] = {}
            for draw in run.draws(number).values():
                used.setdefault((draw.stratum, draw.fork), Counter())[draw.label] += 1
            assert sum(counts.total() for counts in used.values()) > 200
            assert all(counts <= recorded[place] for place, counts in used.items())
