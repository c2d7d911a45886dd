"""The command line from end to end on toy models, whose exact curve is known."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from tests.e2e.command import begun, blinkscope, interrupted, kill_after, result, same, wait_for

FORK = ("locate", "Which way?", "--model", "toy:fork?agree=8&width=2&length=24", "--seed", "1")
ENDLESS = ("locate", "Where to?", "--model", "toy:maze?length=150", "--error", "0.0005", "-o", "run.db")
"""A run of about a hundred minutes."""


def test_a_window_is_found_where_the_model_decides(tmp_path: Path) -> None:
    found = result(*FORK, "--error", "0.05", "-o", "run.db", "--report", "report.html", cwd=tmp_path)
    assert found["schema"] == 1
    assert found["status"] == "complete"
    positions = found["curve"]["position"]
    assert positions == list(range(len(found["generation"]["tokens"]) + 1))
    truth, mean = np.asarray(found["truth"]["mean"]), np.asarray(found["curve"]["mean"])
    assert np.abs(truth - mean).max() < 0.3  # six of the asked-for standard deviations
    assert mean[-1, found["labels"].index(found["final_label"])] == 1
    assert found["error"]["reached_max"] <= 0.05
    skipped = found["curve"]["skipped"]
    assert len(skipped) == len(positions)
    assert 0 == skipped[-1] <= max(skipped) == found["skipped_weight"] <= 0.01
    for window in found["windows"]:
        exact = 0.5 * np.abs(truth[window["end"]] - truth[window["start"]]).sum()
        assert exact > 0.3
        assert window["text"] == "".join(
            t["text"] for t in found["generation"]["tokens"][window["start"] : window["end"]]
        )
    assert (tmp_path / "report.html").stat().st_size > 50_000
    assert not list(tmp_path.glob("run.db-*"))
    assert same(result("show", "run.db", cwd=tmp_path), found)


def test_show_reads_the_same_draws_with_another_delta(tmp_path: Path) -> None:
    found = result(*FORK, "--error", "0.1", "-o", "run.db", cwd=tmp_path)
    wide = result("show", "run.db", "--delta", "0.1", "--level", "0.5", cwd=tmp_path)
    assert wide["curve"]["mean"] == found["curve"]["mean"]
    assert np.all(np.asarray(wide["curve"]["low"]) >= np.asarray(found["curve"]["low"]))
    assert len(wide["windows"]) >= len(found["windows"])


@pytest.mark.parametrize("method", [("grid", "--fractions", "0,0.25,0.5,0.75"), ("bisect",)])
def test_other_methods_give_the_same_kind_of_result(method: tuple[str, ...], tmp_path: Path) -> None:
    found = result(*FORK, "--method", *method, "--resamples", "60", "-o", "run.db", cwd=tmp_path)
    truth, mean = np.asarray(found["truth"]["mean"]), np.asarray(found["curve"]["mean"])
    # Every row is a share of 60 draws: standard deviation at most 0.065, six of them are 0.39.
    assert np.abs(truth - mean).max() < 0.39
    assert found["curve"]["position"][-1] == len(found["generation"]["tokens"])
    assert found["cost"]["continuations"] == 60 * (len(found["curve"]["position"]) - 1)
    assert same(result("show", "run.db", cwd=tmp_path), found)


def test_a_run_is_topped_up_and_another_question_is_refused(tmp_path: Path) -> None:
    result(*FORK, "--continuations", "50", "-o", "run.db", cwd=tmp_path)
    topped = result(*FORK, "--error", "0.1", "-o", "run.db", cwd=tmp_path)
    assert same(topped, result(*FORK, "--error", "0.1", "-o", "fresh.db", cwd=tmp_path))
    before = (tmp_path / "run.db").read_bytes()
    refused = blinkscope(*FORK[:-1], "2", "-o", "run.db", cwd=tmp_path)
    assert refused.returncode == 2
    assert "seed" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (tmp_path / "run.db").read_bytes() == before


def test_killed_at_20_random_moments_a_run_ends_as_if_it_never_was(tmp_path: Path) -> None:
    question = ("locate", "Where to?", "--model", "toy:maze?length=40&labels=3", "--seed", "4", "--error", "0.06")
    started = time.monotonic()
    whole = result(*question, "-o", "whole.db", cwd=tmp_path)
    longest = time.monotonic() - started
    moments = random.Random(7)
    for _ in range(20):
        kill_after(moments.uniform(0.2, longest), *question, "-o", "killed.db", cwd=tmp_path)
    assert same(result(*question, "-o", "killed.db", cwd=tmp_path), whole)


def test_ctrl_c_keeps_what_there_is_and_reports_it(tmp_path: Path) -> None:
    out, error = interrupted(*ENDLESS, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert found["status"] == "interrupted"
    assert found["cost"]["continuations"] > 0
    assert "Traceback" not in error
    assert f"interrupted; {found['cost']['continuations']:,} continuation" in error
    assert "the same command with -o run.db goes on from there" in error


def test_an_interrupted_study_says_how_to_go_on(tmp_path: Path) -> None:
    study = ("study", "distribution", "--model", "toy:fork?length=200", "--items", "400", "--step", "1", "-o", "run.db")
    _, error = interrupted(*study, cwd=tmp_path)
    assert error.splitlines()[-1] == (
        "blinkscope: interrupted; what was drawn is kept, and the same command with -o run.db goes on from there"
    )


def test_two_processes_cannot_work_on_one_run(tmp_path: Path) -> None:
    first = begun(*ENDLESS, cwd=tmp_path)
    try:
        wait_for(1, tmp_path / "run.db", first)
        second = blinkscope(*ENDLESS, cwd=tmp_path)
        assert second.returncode == 2
        assert "process" in second.stderr
    finally:
        first.kill()
        first.wait()


def test_a_world_is_analysed_beside_its_own_curve(tmp_path: Path) -> None:
    listed = blinkscope("models", cwd=tmp_path).stdout
    model = next(line for line in listed.splitlines() if line.startswith("toy:random-hierarchy?"))
    found = result("locate", "Which one?", "--model", model, "--error", "0.1", "-o", "run.db", cwd=tmp_path)
    assert found["model"] == model
    truth, mean = np.asarray(found["truth"]["mean"]), np.asarray(found["curve"]["mean"])
    assert truth.sum(axis=1) == pytest.approx(1)
    assert np.abs(truth - mean).max() < 0.6  # six of the asked-for standard deviations
    assert same(result("show", "run.db", cwd=tmp_path), found)


BAD_INPUT = [
    (("locate", ""), "empty"),
    (("locate",), "prompt"),
    (("locate", "x", "--model", "gpt-9"), "gpt-9"),
    (("locate", "x", "--model", "toy:nothing"), "nothing"),
    (("locate", "x", "--model", "toy:fork?leek=1"), "leek"),
    (("locate", "x", "--model", "toy:random-walk?barrier=3"), "barrier"),
    (("locate", "x", "--model", "toy:critical-token?length=5"), "agree = 40"),
    (("locate", "x", "--model", "toy:fork", "--feature", "colour"), "colour"),
    (("locate", "x", "--model", "toy:fork", "--feature", "regex:("), "regular expression"),
    (("locate", "x", "--model", "toy:fork", "--method", "guess"), "guess"),
    (("locate", "x", "--model", "toy:fork", "--temperature", "-1"), "temperature"),
    (("locate", "x", "--model", "toy:fork", "--top-p", "0"), "top-p"),
    (("locate", "x", "--model", "toy:fork", "--top-p", "1.5"), "top-p"),
    (("locate", "x", "--model", "toy:fork", "--delta", "0"), "delta"),
    (("locate", "x", "--model", "toy:fork", "--delta", "1.2"), "delta"),
    (("locate", "x", "--model", "toy:fork", "--error", "nan"), "error"),
    (("locate", "x", "--model", "toy:fork", "--labels", "1"), "labels"),
    (("locate", "x", "--model", "toy:fork", "--fractions", "0,2", "--method", "grid"), "fractions"),
    (("locate", "x", "--model", "toy:fork", "--fractions", "0,0.5"), "of the method grid"),
    (("locate", "x", "--model", "toy:fork", "--resamples", "30"), "of the methods grid and bisect"),
    (("locate", "x", "--model", "toy:fork", "--error", "0.1", "--method", "grid"), "error is of the method divergence"),
    (("locate", "x", "--model", "toy:fork", "--max-width", "3", "--method", "grid"), "max-width is of the methods"),
    (("locate", "x", "--model", "toy:fork", "--estimator", "pooled", "--method", "bisect"), "estimator is of the"),
    (("locate", "x", "--model", "toy:fork", "--until", "windows", "--method", "grid"), "until is of the method"),
    (("locate", "x", "--model", "toy:fork", "--until", "windows", "--error", "0.1"), "give error or until, not both"),
    (("locate", "x", "--model", "toy:fork", "--until", "windows", "--estimator", "unbiased"), "estimator pooled"),
    (("locate", "x", "--model", "toy:fork", "--until", "dawn"), "choose one of error, windows"),
    (("locate", "--model", "diffusion:digits", "--until", "windows"), "with diffusion:digits, a diffusion model"),
    (("locate", "x", "--model", "toy:fork", "--report", "x.db"), "a run file's name"),
    (("locate", "x", "--model", "toy:fork", "--messages", "none.json"), "one of the two"),
    (("locate", "--model", "toy:fork", "--messages", "none.json"), "none.json"),
    (("locate", "x", "--model", "toy:fork", "--generation", "none.txt"), "none.txt"),
    (("locate", "x", "--model", "toy:fork", "--estimator", "best"), "best"),
    (("locate", "x", "--model", "toy:fork", "--method", "grid", "--fractions", "1"), "whole text"),
    (("locate", "x", "--model", "toy:fork", "--report", "nowhere/x.html"), "no folder nowhere"),
    (("locate", "x", "--model", "toy:fork", "--report", "."), "folder"),
    (("locate", "x", "--model", "toy:fork", "-o", "."), "folder"),
    (("locate", "x", "--model", "toy:fork", "-o", ""), "the run file has no name"),
    (("locate", "x", "--model", "nope", "--feature", "number"), "diffusion:NAME, diffusers:FOLDER, or replay:FILE."),
    (("locate", "x", "--model", "replay:none.jsonl"), "no sense with replay:none.jsonl, whose prompt, labels"),
    (("study", "distribution", "--model", "toy:fork", "--items", "0"), "items is 0; there must be at least 2"),
    (("study", "distribution", "--model", "toy:fork", "--step", "0"), "step is 0; between two cuts"),
    (("locate", "x", "--model", "toy:fork", "--report", "x.html", "-o", "x.html"), "another name"),
    (("locate", "x", "--model", "toy:fork", "--device", "cpu"), "belong to models with weights in this process"),
    (("locate", "x", "--model", "smollm2"), "told apart with a feature"),  # before the model is loaded
    (("show", "none.db"), "none.db"),
    (("report", "none.db", "-o", "x.html"), "none.db"),
    (("locate", "x", "--model", "toy:fork", "--unknown"), "--unknown"),
]


@pytest.mark.parametrize(
    ("arguments", "named"), BAD_INPUT, ids=lambda x: " ".join(x)[:60] if isinstance(x, tuple) else ""
)
def test_bad_input_gets_one_sentence_and_status_2(arguments: tuple[str, ...], named: str, tmp_path: Path) -> None:
    refused = blinkscope(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert named in refused.stderr
    *before, sentence = refused.stderr.strip().splitlines()
    assert sentence.startswith("blinkscope")
    assert before in ([], [f"loading {arguments[arguments.index('--model') + 1]}"] if "--model" in arguments else [])
    assert not list(tmp_path.iterdir())


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    run, script, page = tmp_path / "run.db", tmp_path / "feature.py", tmp_path / "page.html"
    script.write_text("def label(text): ...\n")
    assert blinkscope(*FORK, "--error", "0.3", "-o", run, "--report", page, cwd=tmp_path).returncode == 0
    before = {path: path.read_bytes() for path in (run, script)}
    for command in (("locate", *FORK[1:]), ("show", run), ("report", run)):
        option = "-o" if command[0] == "report" else "--report"
        for target in (run, script):
            refused = blinkscope(*command, option, target, cwd=tmp_path)
            assert refused.returncode == 2, refused.stderr
            assert refused.stdout == ""
            why = "is no HTML page, so the report does not replace it"
            if target == run:
                why = "is a run file's name" if command[0] == "locate" else "is read by this command"
            assert f"{target.name} {why}" in refused.stderr
    assert {path: path.read_bytes() for path in (run, script)} == before
    assert blinkscope("report", run, "-o", page, cwd=tmp_path).returncode == 0
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    refused = blinkscope("locate", "--model", "toy:fork", "--messages", deep, cwd=tmp_path)
    assert refused.returncode == 2
    assert "nested too deeply" in refused.stderr


def test_a_plan_says_what_methods_would_cost_and_leaves_no_file(tmp_path: Path) -> None:
    planned = result(*FORK, "--plan", cwd=tmp_path)
    said = blinkscope(*FORK, "--plan", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert not list(tmp_path.iterdir())
    tokens = {(row["method"], row["error"]): row["generated_tokens"] for row in planned["costs"]}
    assert all(f"{number:,}" in said.stdout for number in tokens.values())
    # 24 tokens, and a free continuation at row t costs 24 - t of them.
    assert tokens["resampling every token 100 times", None] == 100 * 24 * 25 / 2
    assert tokens["resampling every token", 0.05] == 67 * 24 * 25 / 2
    for estimator in ("unbiased", "pooled"):
        costs = [tokens[f"divergence, {estimator}", error] for error in (0.1, 0.05, 0.02)]
        assert costs == sorted(costs)
    found = result(*FORK, "--error", "0.05", "-o", "run.db", cwd=tmp_path)
    assert found["cost"]["predicted_tokens"] == tokens["divergence, unbiased", 0.05]
    assert planned["open"] == len({fork["position"] for fork in found["forks"]})


@pytest.mark.parametrize(
    "mistake", [("--feature", "python:nowhere:f"), ("--generation", "words.txt")], ids=["feature", "generation"]
)
def test_a_mistake_before_the_first_draw_leaves_the_name_free(mistake: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("words that nobody knows")
    refused = blinkscope(*FORK, *mistake, "-o", "run.db", cwd=tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["words.txt"]
    assert blinkscope(*FORK, "--error", "0.3", "-o", "run.db", cwd=tmp_path).returncode == 0


def test_draws_that_another_estimator_would_not_have_ordered_are_counted(tmp_path: Path) -> None:
    found = result(*FORK, "--error", "0.1", "--estimator", "pooled", "-o", "run.db", cwd=tmp_path)
    assert not [note for note in found["notes"] if "stored draws" in note]
    other = result("show", "run.db", "--estimator", "unbiased", cwd=tmp_path)
    read, stored = other["cost"]["continuations"], found["cost"]["continuations"]
    assert read < stored
    assert f"{read:,} of the {stored:,} stored draws are read" in other["notes"][-1]


def test_a_run_until_its_windows_are_known_says_how_sure_they_are_and_can_be_topped_up(tmp_path: Path) -> None:
    maze = ("locate", "Where to?", "--model", "toy:maze?seed=0&length=80&labels=2", "-o", "run.db")
    found = result(*maze, "--until", "windows", cwd=tmp_path)
    assert (found["status"], found["until"], found["estimator"]) == ("complete", "windows", "pooled")
    undecided = found["undecided"]
    assert undecided["probability"] <= undecided["asked"] == 0.1
    assert (undecided["clear"], undecided["least"]) == (0.6, 0.4)
    assert found["error"]["asked"] is None
    assert [(w["start"], w["end"]) for w in found["windows"]] == [(68, 69)]  # as the exact curve has it
    planned = result(*maze[:-2], "--plan", cwd=tmp_path)["costs"]
    (expected,) = (cost for cost in planned if "until windows" in cost["method"])
    assert found["cost"]["predicted_tokens"] == expected["generated_tokens"]
    shown = blinkscope("show", "run.db", cwd=tmp_path).stdout
    assert f"has probability {undecided['probability']:.2f}, asked for 0.1" in " ".join(shown.split())
    again = result("show", "run.db", cwd=tmp_path)
    assert {**again, "timing": None} == {**found, "timing": None}
    smaller = result("show", "run.db", "--delta", "0.3", cwd=tmp_path)
    assert (smaller["cost"], smaller["curve"], smaller["undecided"]) == (found["cost"], found["curve"], None)
    assert result("show", "run.db", "--error", "0.3", cwd=tmp_path)["until"] == "error"
    fine = result(*maze, "--error", "0.08", "--estimator", "pooled", cwd=tmp_path)
    assert (fine["until"], fine["undecided"]) == ("error", None)
    assert fine["error"]["reached_max"] <= 0.08
    assert any("stored draws are read" in note for note in fine["notes"])
    assert result("show", "run.db", cwd=tmp_path)["notes"] == fine["notes"]


def test_a_greedy_sampler_cannot_fork(tmp_path: Path) -> None:
    done = blinkscope(*FORK, "--temperature", "0", "-o", "run.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "cannot fork" in done.stdout


def test_a_feature_with_one_label_has_nothing_to_decide(tmp_path: Path) -> None:
    done = blinkscope(*FORK, "--feature", "contains:zebra", "-o", "run.db", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "othing to decide" in done.stdout


def test_a_word_that_the_sampler_could_not_have_said_is_pointed_out(tmp_path: Path) -> None:
    said = result(*FORK, "--error", "0.2", "-o", "run.db", cwd=tmp_path)["generation"]["text"].split()
    said[3], said[-1] = said[-1], said[3]
    (tmp_path / "odd.txt").write_text(" " + " ".join(said), encoding="utf-8")
    found = result(*FORK, "--error", "0.2", "--generation", "odd.txt", "-o", "odd.db", cwd=tmp_path)
    assert 0.0 in [token["p"] for token in found["generation"]["tokens"]]
    assert any("could not have produced" in note for note in found["notes"])
    truth, mean = np.asarray(found["truth"]["mean"]), np.asarray(found["curve"]["mean"])
    assert np.abs(truth - mean).max() < 1.0
