"""Exports of toy runs, read back by the libraries that they are made for."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import blinkscope
from blinkscope.cli.main import main
from blinkscope.errors import UserError
from blinkscope.exports.generations import stored_generations
from blinkscope.exports.preference import Preference, preference_pairs, preference_rows
from blinkscope.feature import RESERVED

MODEL = "toy:fork?agree=8&width=2&length=24"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "walk.db"
    blinkscope.locate(MODEL, "Which way?", seed=1, error=0.06, run=path)
    return path


def test_json_lines_hold_the_result_and_every_draw(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--to", "jsonl", str(run), "-o", str(tmp_path / "out.jsonl")]) == 0
    (row,) = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
    trace = blinkscope.stored(run)
    assert row.pop("item") == "walk"
    assert len(row.pop("draws")) == len(trace.draws) == row["cost"]["continuations"]
    assert row == trace.to_json()


def test_parquet_tables_are_read_back_by_datasets(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "tables"
    assert main(["export", "--to", "parquet", str(run), "-o", str(out)]) == 0
    said = blinkscope.stored(run).to_json()

    def table(name: str) -> Any:
        return datasets.load_dataset(str(out), name, split="train", cache_dir=str(tmp_path / "cache"))

    assert table("tokens")["text"][:] == [token["text"] for token in said["generation"]["tokens"]]
    curve = table("curve")
    mean = np.reshape(curve["mean"][:], (len(said["curve"]["position"]), len(said["labels"])))
    np.testing.assert_array_equal(mean, said["curve"]["mean"])
    (window,) = table("windows")
    assert window["change"] == said["windows"][0]["change"]
    assert {entry["label"]: entry["p"] for entry in window["before"]} == said["windows"][0]["before"]
    assert len(table("draws")) == said["cost"]["continuations"]
    assert table("generations")[0]["final_label"] == said["final_label"]


def test_a_run_without_a_window_has_an_empty_table_with_columns(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    blinkscope.locate("toy:null?length=30", "Why?", seed=1, error=0.3, run=tmp_path / "null.db")
    assert (
        main(["export", "--to", "parquet", str(tmp_path / "null.db"), "-o", str(tmp_path / "out"), "--delta", "0.9"])
        == 0
    )
    windows = parquet.read_table(tmp_path / "out" / "windows" / "train-00000-of-00001.parquet")
    assert windows.num_rows == 0
    assert {"start", "end", "before"} <= set(windows.column_names)


def test_the_two_sides_of_a_pair_were_sampled_and_part_at_one_token(run: Path) -> None:
    (generation,) = stored_generations(run)
    trace = generation.trace
    texts = {str(draw.payload["text"]): draw.label for draw in trace.draws}
    for preferred in trace.labels:
        rows = list(preference_rows(generation, Preference((preferred,))))
        assert rows or preferred != trace.final_label
        for row in rows:
            said = row["metadata"]
            path, other = ("chosen", "rejected") if preferred == trace.final_label else ("rejected", "chosen")
            kept = "".join(step.text for step in trace.steps[: said["position"]])
            assert row["prompt"] == generation.record.context + kept
            assert kept + row[path] == trace.text
            assert texts[row[other]] == said[f"{other}_label"] != trace.final_label
            assert said["chosen_label"] == preferred != said["rejected_label"]
            assert said["window_start"] <= said["position"] < said["window_end"]
            assert row["chosen"].startswith(said["chosen_token"])
            assert row["rejected"].startswith(said["rejected_token"])
            assert said["chosen_token"] != said["rejected_token"]
            assert said["chosen_preferred"] > said["rejected_preferred"]
            for side in ("chosen", "rejected"):
                low, p, high = (said[f"{side}_preferred{end}"] for end in ("_low", "", "_high"))
                assert 0 <= low <= p <= high <= 1


def test_a_share_after_an_alternative_is_that_of_its_continuations(run: Path) -> None:
    (generation,) = stored_generations(run)
    trace = generation.trace
    preferred = next(label for label in trace.labels if label != trace.final_label)
    for row in preference_rows(generation, Preference((preferred,))):
        said = row["metadata"]
        (fork,) = (f for f in trace.forks if (f.position, f.token) == (said["position"], said["chosen_token"]))
        assert said["chosen_continuations"] == fork.continuations
        assert said["chosen_preferred"] == fork.labels.get(preferred, 0) / fork.continuations
        assert said["chosen_token_p"] == fork.p
        curve = trace.curve[said["position"] + 1, trace.labels.index(preferred)]
        assert said["rejected_preferred"] == pytest.approx(curve)


def test_pairs_are_read_back_by_datasets(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    label = blinkscope.stored(run).final_label
    out = tmp_path / "pairs"
    arguments = ["export", "--to", "preference", "--prefer", label, "--single-token", str(run), "-o", str(out)]
    assert main(arguments) == 0
    assert "stop after" in capsys.readouterr().err
    rows = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "chosen", "rejected", "metadata"} == set(rows.column_names)
    for row in rows:
        assert (row["chosen"], row["rejected"]) == tuple(
            row["metadata"][f"{side}_token"] for side in ("chosen", "rejected")
        )


def test_inspect_reads_the_log(run: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    assert main(["export", "--to", "inspect", str(run), "-o", str(tmp_path / "run.eval")]) == 0
    said = blinkscope.stored(run).to_json()
    read = log.read_eval_log(str(tmp_path / "run.eval"))
    assert (read.status, read.eval.model) == ("success", said["model"])
    (sample,) = read.samples
    assert sample.id == "walk"
    assert sample.output.completion == said["generation"]["text"]
    assert sample.messages[0].text == "Which way?"
    score = sample.scores["blinkscope"]
    assert score.value == said["final_label"]
    assert score.metadata["windows"] == said["windows"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "preference"], "--prefer"),
        (["--to", "preference", "--prefer", "(other)"], "no graded outcome"),
        (["--to", "preference", "--prefer", "nobody"], "no outcome"),
        (["--to", "jsonl", "--prefer", "sad"], "--to preference"),
        (["--to", "jsonl", "--item", "other"], "no item"),
        (["--to", "inspect"], ".eval"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], said: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *arguments, str(run), "-o", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_left_alone(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["export", "--to", "parquet", str(run), "-o", str(tmp_path)]) == 2
    assert "empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_every_generation_of_a_study_is_written_and_pairs_need_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rollouts = Path(__file__).parents[1] / "fixtures" / "rollouts.jsonl"
    study = tmp_path / "study.db"
    assert main(["study", "replay", "--model", f"replay:{rollouts}", "--error", "0.2", "-o", str(study)]) == 0
    assert main(["export", "--to", "jsonl", str(study), "-o", str(tmp_path / "out.jsonl")]) == 0
    items = [json.loads(line)["item"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(items) == len(set(items)) > 1
    arguments = ["--to", "preference", "--prefer", "x", str(study), "-o", str(tmp_path / "pairs")]
    assert main(["export", *arguments]) == 2
    assert "no texts" in capsys.readouterr().err


def test_generations_without_the_preferred_outcome_are_passed_over(run: Path) -> None:
    (generation,) = stored_generations(run)
    preferred = next(label for label in generation.trace.labels if label not in RESERVED)
    rows = preference_pairs([generation], Preference((preferred,)))
    trace = generation.trace
    renamed = replace(
        trace,
        final_label="elsewhere" if trace.final_label == preferred else trace.final_label,
        posterior=replace(
            trace.posterior,
            labels=tuple("elsewhere" if label == preferred else label for label in trace.labels),
        ),
    )
    other = replace(generation, item="other", trace=renamed)
    assert rows
    assert preference_pairs([generation, other], Preference((preferred,))) == rows
    with pytest.raises(UserError, match="no outcome of this run; there are"):
        preference_pairs([other], Preference((preferred,)))
    both = preference_pairs([generation], Preference(tuple(x for x in trace.labels if x not in RESERVED)))
    assert both == []  # nothing is better than anything


def test_a_study_of_outcomes_alone_is_pointed_to_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = str(tmp_path / "rep.db"), str(tmp_path / "out")
    asked = [
        "--model",
        "toy:fork?agree=4&width=2&length=16",
        "--word",
        "Each",
        "--times",
        "1",
        "--max-new-tokens",
        "20",
    ]
    assert main(["study", "repeat", *asked, "--error", "0.4", "-o", run]) == 0
    for arguments in (["export", "--to", "jsonl", run, "-o", out], ["show", run, "--item", "Each"]):
        capsys.readouterr()
        assert main(arguments) == 2
        assert "study repeat, which keeps outcomes and no scored generations" in capsys.readouterr().err
