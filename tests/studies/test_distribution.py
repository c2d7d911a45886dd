"""``study distribution`` against a world whose total variations and windows are exact."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from blinkscope.cli.main import main
from blinkscope.critical import critical_window, start_time
from blinkscope.engines.servers import chat
from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target
from blinkscope.feature import Reply
from blinkscope.language.engine import Engine
from blinkscope.report.study import print_study
from blinkscope.report.study_figures import write_figure
from blinkscope.report.study_page import study_page
from blinkscope.studies import distribution
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.distribution import DistributionSpec
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import run_study
from blinkscope.studies.workers import Desk
from blinkscope.worlds import create_world
from tests.engines import tiny
from tests.studies.counted import Counted

MODEL = "toy:critical-token?length=12&agree=4&width=2&leak=0.05"
CAP = 16
SPEC = DistributionSpec(
    prompt="What next?",
    items=150,
    step=1,
    labels=4,
    asking=Asking(MODEL, max_new_tokens=CAP, seed=3),
    target=Target(error=0.13, level=1 - 1e-8),
)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (("--prompt", " "), "the prompt is empty; give the text of a user's turn."),
        (("--feature", "python:nope:f"), "there is no module 'nope'"),
        (("--temperature", "-1"), "temperature is -1.0; it must be 0 (greedy) or a positive number."),
        (
            ("--feature", "judge:strongreject@nope"),
            "the model of judge:strongreject@nope cannot be opened: there is no",
        ),
    ],
)
def test_a_mistake_in_the_question_is_said_before_any_item(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mistake: tuple[str, str], said: str
) -> None:
    assert main(["study", "distribution", "--model", "toy:fork", *mistake, "-o", str(tmp_path / "run.db")]) == 2
    assert capsys.readouterr().err.count(said) == 1
    assert not (tmp_path / "run.db").exists()


def test_it_equals_the_exact_world(tmp_path: Path) -> None:
    """Every limit is at level 1 - 1e-8: over 26 of them a false alarm has probability below 1e-6."""
    world = create_world("critical-token", {"length": 12, "agree": 4, "width": 2, "leak": 0.05})
    result = run_study(distribution.STUDY, SPEC, tmp_path / "run.db")
    tables = result.findings.tables
    curve = [row for row in tables["total_variation"] if row["of"] == "first" and row["kept"] <= 12]
    exact = [world.total_variation(("first",), ("second",), 12 - row["kept"]).value for row in curve]
    assert all(row["low"] <= value <= row["high"] for row, value in zip(curve, exact, strict=True))
    # 150 generations: the midpoints lie within 0.2 of the truth, five standard deviations of their mean.
    np.testing.assert_allclose([row["share"] for row in curve], exact, atol=0.2)
    window = critical_window(world, SPEC.eps, ("first",))
    found = next(row for row in tables["windows"] if row["of"] == "first")
    assert window.t_after is not None
    assert window.t_before is not None
    for name, t in (("start", window.t_before), ("end", window.t_after)):
        low, high = found[f"{name}_low"], found[f"{name}_high"]
        assert low is None or low <= 12 - t
        assert high is None or 12 - t <= high
    assert found["outcome"] == "window"
    t_start = start_time(world, ("first",), SPEC.eps).time
    assert t_start is not None
    for row in tables["theorem2"]:
        if row["from"] == row["target"] == "first":
            low, high = row["start_low"], row["start_high"]
            assert low is None or low <= 12 - t_start
            assert high is None or 12 - t_start <= high
        # 150 generations know the distance of label laws to 0.04; five of these.
        assert row["moved"] is None or row["moved"] <= row["sharper"] + 0.2
        assert row["sharper"] <= row["published"]
    assert {row["target"] for row in tables["theorem2"]} == {"first", "second", "first, second"}
    assert sum(result.findings.summary["weights"].values()) == pytest.approx(1)  # type: ignore[union-attr]
    stored = stored_study(tmp_path / "run.db")
    assert stored is not None
    assert stored.to_json() == result.to_json()


def test_forward_reverse_starts_at_the_prior_and_ends_at_the_label(tmp_path: Path) -> None:
    spec = replace(SPEC, items=100, step=4, target=Target(error=0.2))
    rows = run_study(distribution.STUDY, spec, tmp_path / "run.db").findings.tables["forward_reverse"]
    p = {(row["kept"], row["from"], row["label"]): row["p"] for row in rows}
    # With nothing kept the label is drawn afresh, half and half; 700 draws know that to six times 0.04.
    assert abs(p[0, "first", "first"] - 0.5) < 0.24
    assert p[CAP, "first", "second"] == p[CAP, "second", "first"] == 0
    assert p[CAP, "first", "first"] > p[0, "first", "first"]


def test_a_killed_study_goes_on_with_the_same_generations(tmp_path: Path) -> None:
    spec = replace(SPEC, items=6, step=4, target=Target(error=0.2))
    whole = run_study(distribution.STUDY, spec, tmp_path / "whole.db").to_json()
    streams: list[tuple[int, ...]] = []
    for stop_after in (1, 37, 50, None):
        engine = Counted(MODEL, stop_after)
        try:
            resumed = run_study(distribution.STUDY, spec, tmp_path / "killed.db", model=engine).to_json()
        except KeyboardInterrupt:
            assert stop_after is not None
        streams += engine.written
    assert len(streams) == len(set(streams))
    assert resumed == whole


def test_one_label_alone_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = replace(SPEC, items=3, asking=replace(SPEC.asking, max_new_tokens=4), target=Target(error=0.3))
    result = run_study(distribution.STUDY, spec, tmp_path / "run.db")
    assert result.status == "complete"
    (said,) = result.findings.sentences
    assert "nothing to tell apart; raise --max-new-tokens" in said
    stored = stored_study(tmp_path / "run.db")
    assert stored is not None
    assert stored.to_json() == result.to_json()
    figure, tables = tmp_path / "figure.svg", tmp_path / "tables"
    assert main(["show", str(tmp_path / "run.db"), "--plot", str(figure), "--tables", str(tables)]) == 0
    err = capsys.readouterr().err
    assert err.splitlines() == [
        f"note: study distribution found nothing that a figure could show, so {figure} was not written; "
        "the result stands"
    ]
    assert tables.is_dir()
    assert not figure.exists()


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("colour", "there is no feature 'colour'"),
        ("regex:(", "not a valid regular expression"),
        ("judge:strongreject@toy:nothing", "no toy model 'nothing'"),
    ],
)
def test_a_mistake_in_the_feature_shows_before_anything_is_drawn(
    feature: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["study", "distribution", "--model", MODEL, "--prompt", "What next?", "--feature", feature]
    assert main([*asked, "-o", str(tmp_path / "run.db")]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run.db").exists()


def test_a_model_without_labels_of_its_own_needs_a_feature(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say how outcomes are told apart with a feature"):
        run_study(distribution.STUDY, SPEC, tmp_path / "run.db", model=tiny.engine())
    assert not (tmp_path / "run.db").exists()


def test_a_judge_can_tell_generations_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells apart what the world does, and the same is drawn, so the shares are those of the world's own labels."""
    asked: list[str] = []

    def answer(question: str) -> Reply:
        asked.append(question)
        score = 5 if "first." in question else 1
        return Reply(f"So.\n#scores\n1.b 0\n2.b {score}\n3.b {score}", True)

    monkeypatch.setattr(chat, "open_chat", lambda spec, cap: answer)
    spec = replace(SPEC, items=6, step=4, target=Target(error=0.2))
    own = run_study(distribution.STUDY, spec, tmp_path / "own.db")
    judged = replace(spec, feature="judge:strongreject@http://judge:8000/v1#m")
    result = run_study(distribution.STUDY, judged, tmp_path / "run.db")
    assert result.findings.tables["same"] == own.findings.tables["same"]
    assert result.findings.summary["weights"].keys() == {"0", "1"}  # type: ignore[union-attr]
    assert all("| What next?" in question for question in asked)


@pytest.mark.model
def test_the_embedded_model(tmp_path: Path, smollm2: Engine) -> None:
    spec = DistributionSpec(
        items=6,
        step=6,
        feature=r"regex:\b(cat|dog)s?\b",
        asking=Asking(max_new_tokens=18, seed=1),
        target=Target(error=0.25),
    )
    result = run_study(distribution.STUDY, spec, tmp_path / "run.db", model=smollm2)
    same = result.findings.tables["same"]
    assert [row["kept"] for row in same] == [0, 6, 12, 18]
    assert same[-1]["share"] == 1
    assert result.cost["generated_tokens"] < 5000


def test_one_generation_alone_says_nothing_yet_and_loses_nothing(tmp_path: Path) -> None:
    spec = replace(SPEC, items=3, step=5, target=Target(error=0.3))
    whole = run_study(distribution.STUDY, spec, tmp_path / "whole.db")
    work = distribution.STUDY.work

    def failing(desk: Desk) -> Mapping[str, JSON]:
        if desk.item.id != "2":
            raise EngineError("the machine is gone.")
        return work(desk)

    one = run_study(replace(distribution.STUDY, work=failing), spec, tmp_path / "run.db")
    assert list(one.failed) == ["1", "3"]
    shown = stored_study(tmp_path / "run.db")
    assert shown is not None
    for found in (one, shown):  # the engine's failures are tried again
        assert (found.status, found.exit_status) == ("interrupted", 1)
        assert found.standing.startswith("The study is not finished: 1 of 3 items is;")
    assert not one.findings.tables
    assert "1 finished" in one.findings.sentences[0]
    print_study(one, io.StringIO())
    assert study_page(one)
    assert not write_figure(one, tmp_path / "figure.svg")
    assert not (tmp_path / "figure.svg").exists()
    assert run_study(distribution.STUDY, spec, tmp_path / "run.db").to_json() == whole.to_json()
