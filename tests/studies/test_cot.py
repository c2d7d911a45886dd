"""``study cot``: the paper's numbers from rows, the study on toy models, and the embedded model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blinkscope.cli.main import main
from blinkscope.errors import UserError
from blinkscope.estimate.record import PathRecord
from blinkscope.estimate.trace import Target
from blinkscope.features import open_feature
from blinkscope.language.engine import Engine, Job
from blinkscope.language.engine import Path as TokenPath
from blinkscope.language.sampling import Sampling
from blinkscope.runs.store import Run
from blinkscope.studies import cot
from blinkscope.studies.accuracy import place_rows, table_one
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.cot import CotSpec, question_list
from blinkscope.studies.intervals import clustered_interval
from blinkscope.studies.questions import question_items
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import BESIDE, run_study
from tests.e2e.command import blinkscope, result
from tests.engines import tiny
from tests.studies.counted import Counted

FORK = "toy:fork?agree=4&width=2&length=16"
SPEC = CotSpec(items=4, ask=False, asking=Asking(FORK, seed=1), target=Target(error=0.1))


def rows_of(right_with: int, wrong_with: int, right_without: int, wrong_without: int) -> list[dict[str, Any]]:
    groups = [(True, 1, right_with), (False, 2, wrong_with), (True, 0, right_without), (False, 0, wrong_without)]
    made = [{"right": right, "windows": windows} for right, windows, count in groups for _ in range(count)]
    return [{**row, "question": i, "largest_jump": 0.5, "covered": 0.1} for i, row in enumerate(made)]


def test_the_numbers_of_table_one() -> None:
    line = table_one([*rows_of(10, 30, 40, 20), {**rows_of(0, 1, 0, 0)[0], "right": None, "question": "?"}], 0.95)
    assert line["generations"] == 101
    assert line["ungraded"] == 1
    assert line["share_with_window"] == pytest.approx(41 / 101)
    assert line["accuracy"] == 0.5
    assert line["accuracy_with"] == 0.25
    assert line["dacc"] == pytest.approx(40 / 60 - 10 / 40)
    assert line["dcw"] == pytest.approx(30 / 50 - 10 / 50)  # positive: windows go with failure
    for name in ("dacc", "dcw"):
        assert 0 < line[f"{name}_low"] < line[name] < line[f"{name}_high"] < 1


def test_differences_without_a_group_are_not_defined() -> None:
    line = table_one(rows_of(0, 0, 3, 3), 0.95)
    assert line["dacc"] is None is line["dacc_low"]
    assert line["dcw"] == 0
    assert table_one(rows_of(2, 0, 2, 0), 0.95)["dcw"] is None


def test_clusters_widen_an_interval_as_they_should() -> None:
    """100 questions whose 10 generations agree: the interval is that of 100 observations, not of 1,000."""
    values = np.repeat(np.arange(100) % 2, 10).astype(float)
    together = clustered_interval(np.repeat(np.arange(100), 10).tolist(), lambda i: float(values[i].mean()), 0.95)
    apart = clustered_interval(range(1000), lambda i: float(values[i].mean()), 0.95)
    assert together is not None
    assert apart is not None
    ratio = (together[1] - together[0]) / (apart[1] - apart[0])
    assert ratio == pytest.approx(np.sqrt(10), rel=0.15)


def test_windows_are_placed_in_tenths() -> None:
    rows = place_rows([{"start": 0, "tokens": 10}, {"start": 9, "tokens": 10}, {"start": 95, "tokens": 100}])
    assert [row["windows"] for row in rows] == [1, 0, 0, 0, 0, 0, 0, 0, 0, 2]


@pytest.fixture
def _happy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A toy model knows no numbers: it is right when its text ends happily."""
    monkeypatch.setattr(cot, "feature_for_grading", lambda grading: open_feature(r"regex:It was (\w+)"))
    monkeypatch.setattr(cot, "grade", lambda label, content: label == "happy")


@pytest.mark.usefixtures("_happy")
def test_a_study_is_resumed_read_again_and_shown_item_by_item(tmp_path: Path) -> None:
    whole = run_study(cot.STUDY, SPEC, tmp_path / "whole.db")
    streams: list[tuple[int, ...]] = []
    for stop_after in (3, 40, 100, None):
        engine = Counted(FORK, stop_after)
        try:
            resumed = run_study(cot.STUDY, SPEC, tmp_path / "killed.db", model=engine)
        except KeyboardInterrupt:
            assert stop_after is not None
        streams += [stream for stream in engine.written if stream[0] != 0]  # a generation that was cut is written again
    assert len(streams) == len(set(streams))
    assert resumed.to_json() == whole.to_json()
    rows = whole.findings.tables["generations"]
    assert len(rows) == 4
    assert all(row["right"] is (row["label"] == "happy") for row in rows)
    # The two words that tell stand at tokens 4 and 5, where the outcome is decided.
    assert all(3 <= w["start"] < w["end"] <= 7 for w in whole.findings.tables["windows"])
    assert 0 < whole.findings.summary["share_with_window"] <= 1  # type: ignore[operator]
    wide = stored_study(tmp_path / "whole.db", delta=0.9)
    assert wide is not None
    assert len(wide.findings.tables["windows"]) <= len(whole.findings.tables["windows"])
    shown = result("show", "whole.db", "--item", "2", cwd=tmp_path)
    assert shown["final_label"] == rows[1]["label"]
    assert blinkscope("report", "whole.db", "--item", "2", "-o", "r.html", cwd=tmp_path).returncode == 0
    assert blinkscope("export", "--to", "jsonl", "whole.db", "-o", "x.jsonl", cwd=tmp_path).returncode == 0
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 4


@pytest.mark.usefixtures("_happy")
def test_an_exported_log_can_be_asked_again(tmp_path: Path) -> None:
    """Inspect's log of a study, its wrong generations picked and looked into as they stand."""
    first = run_study(cot.STUDY, SPEC, tmp_path / "run.db").findings.tables["generations"]
    assert blinkscope("export", "--to", "inspect", "run.db", "-o", "x.eval", cwd=tmp_path).returncode == 0
    wrong = [row for row in first if not row["right"]]
    assert 0 < len(wrong) < 4
    spec = replace(SPEC, data=(str(tmp_path / "x.eval"),), score="grade=I")
    again = run_study(cot.STUDY, spec, tmp_path / "again.db").findings.tables["generations"]
    assert [(row["item"], row["label"], row["answer"]) for row in again] == [
        (row["item"], row["label"], row["answer"]) for row in wrong
    ]


@pytest.mark.usefixtures("_happy")
def test_temperatures_are_told_apart(tmp_path: Path) -> None:
    spec = replace(SPEC, items=2, temperatures=(0.1, 1.0), target=Target(error=0.2))
    rows = run_study(cot.TEMPERATURE, spec, tmp_path / "run.db").findings.tables["table"]
    assert [row["temperature"] for row in rows] == [0.1, 1.0]
    assert all(row["generations"] == 2 for row in rows)


def test_direct_answers_are_those_of_prompts_of_their_own_from_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every number of tokens: what the model says to the text so far and the question, at temperature 0."""
    monkeypatch.setattr(cot, "feature_for_grading", lambda grading: open_feature("exact"))
    monkeypatch.setattr(cot, "grade", lambda label, content: False)
    engine = tiny.engine()
    asking = Asking("tiny", temperature=1.0, max_new_tokens=8, seed=2)
    spec = CotSpec(items=1, direct=True, asking=asking, target=Target(error=0.4, continuations=2))
    passes: list[int] = []
    read = engine._pass_over
    monkeypatch.setattr(engine, "_pass_over", lambda path, law: passes.append(len(path.tokens)) or read(path, law))
    run_study(cot.STUDY, spec, tmp_path / "run.db", model=engine)
    assert len(passes) <= 4  # the bare prompt, the text twice at most, and the question with nothing kept
    with Run.open(tmp_path / "run.db") as run:
        kept = {key[0]: draw for key, draw in run.draws(BESIDE).items()}
        tokens = PathRecord.from_json(run.document("path")).tokens
    question = question_items(("everyday",), 1, 1, 0)[0].content["prompt"]
    context = engine.encode(f"{question}{cot.THINK}")
    ids = engine.follow_up(TokenPath(context, ()), cot.ASK["number"])
    places = [
        place for place in range(len(tokens) + 1) if engine.decode(tokens[place - 1 : place]) or place < len(tokens)
    ]
    assert sorted(kept) == places
    sampling = Sampling(temperature=0.0, max_new_tokens=cot.ANSWER_TOKENS)
    for place in places:
        alone = TokenPath(replace(context, ids=(*context.ids, *tokens[:place], *ids)), ())
        (done,) = engine.continue_([Job((), alone, 0)], sampling, 0)
        assert kept[place].payload.get("answer", kept[place].payload["text"]) == engine.decode(done.tokens)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="no method"):
        CotSpec(method="guess")
    with pytest.raises(UserError, match="samples"):
        CotSpec(samples=0)
    with pytest.raises(UserError, match=r"temperature is -1\.0; it must be 0 \(greedy\) or a positive number"):
        CotSpec(temperatures=(0.5, -1.0))
    with pytest.raises(UserError, match=r"temperature is -1\.0; it must be 0 \(greedy\) or a positive number"):
        Asking(temperature=-1.0)
    with pytest.raises(UserError, match=r"at each of the temperatures 0\.5, 1"):
        question_list(CotSpec(temperatures=(0.5, 1.0), asking=Asking(temperature=0.2)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("cot",), "In a study that is --from-text"),
        (("cot", "--from-text", "--direct"), "--from-text, without --direct"),
        (("majority",), "In a study that is --from-text"),
        (("cot", "--method", "grid", "--error", "0.2"), "error is of the method divergence"),
        (("cot", "--method", "grid", "--max-width", "4"), "max-width is of the methods divergence and bisect"),
        (("temperature", "--method", "bisect", "--estimator", "pooled"), "estimator is of the method divergence"),
        (("majority", "--method", "grid", "--until", "windows"), "until is of the method divergence"),
        (("repeat", "--until", "windows"), "--until"),
        (("repeat", "--spec", "until.toml"), "looks into no single generation"),
        (("cot", "--resamples", "5"), "--resamples is of the methods grid and bisect"),
        (("cot", "--method", "bisect", "--fractions", "0.5"), "--fractions is of the method grid"),
        (("majority", "--direct"), "--direct"),
        (("majority", "--spec", "direct.toml"), "leave direct out"),
        (("cot", "--data", "everyday", "--data", "everyday"), "2 of the data sets are called 'everyday'"),
    ],
)
def test_what_would_be_ignored_or_fail_at_every_item_is_refused_first(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("direct.toml").write_text("direct = true\n")
    Path("until.toml").write_text('[target]\nuntil = "windows"\nestimator = "pooled"\n')
    try:
        status = main(["study", *arguments, "--model", FORK, "-o", "run.db"])
    except SystemExit as stopped:  # no such option
        status = stopped.code  # type: ignore[assignment]
    assert (status, said in capsys.readouterr().err) == (2, True)
    assert not Path("run.db").exists()


def test_fewer_questions_than_asked_for_and_the_item_of_a_study_are_told(tmp_path: Path, capsys: Any) -> None:
    run = str(tmp_path / "run.db")
    (tmp_path / "own.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n')
    asked = ["study", "cot", "--model", FORK, "--from-text", "--error", "0.3", "--data", str(tmp_path / "own.jsonl")]
    assert main([*asked, "--items", "3", "-o", run]) == 0
    assert "3 items were asked for; the data holds no more than these 1" in capsys.readouterr().err
    assert main(["show", run, "--item", "1", "--plot", str(tmp_path / "x.svg")]) == 2
    assert "leave --item out" in capsys.readouterr().err


def test_the_command_line_makes_figure_tables_and_summary(tmp_path: Path) -> None:
    """A toy model gives no number: every answer is unparsed, wrong, and decided from the start."""
    arguments = ("study", "cot", "--model", FORK, "--from-text", "--items", "2", "--error", "0.3", "-o", "run.db")
    done = blinkscope(*arguments, "--json", "--plot", "cot.svg", "--tables", "tables", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["summary"]["accuracy"] == 0
    assert found["summary"]["share_with_window"] == 0
    assert found["summary"]["dacc"] is None
    assert {file.name for file in (tmp_path / "tables").iterdir()} >= {"table.csv", "table.parquet", "curves.csv"}
    assert "<svg" in (tmp_path / "cot.svg").read_text()
    assert json.loads(blinkscope("show", "run.db", "--json", cwd=tmp_path).stdout) == found


@pytest.mark.model
def test_the_embedded_model(tmp_path: Path, smollm2: Engine) -> None:
    spec = CotSpec(items=1, direct=True, target=Target(error=0.3, continuations=10))
    spec = replace(spec, asking=replace(spec.asking, max_new_tokens=16))
    found = run_study(cot.STUDY, spec, tmp_path / "run.db", model=smollm2)
    (row,) = found.findings.tables["generations"]
    assert row["answer"] == "7"
    assert 1 <= row["tokens"] <= 16
    # One direct answer after every number of tokens, beside the continuations.
    assert found.cost["continuations"] <= 10 + 17
    curve = [point["direct"] for point in found.findings.tables["curves"]]
    assert set(curve) <= {0.0, 1.0}
    # Asked after the whole text, the model is asked what its own label comes from, at temperature 0.
    assert curve[-1] == 1.0
    assert found.cost["generated_tokens"] < 5000
