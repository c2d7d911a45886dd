"""Pictures on the command line: ``diffusion:scans`` needs no network, ``diffusion:digits`` is the one that ships."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blinkscope import locate, stored
from blinkscope.cli.main import main
from blinkscope.diffusion.digits import load_scans
from blinkscope.errors import UserError
from blinkscope.exports.generations import stored_generations
from tests.e2e.command import blinkscope, drawn, kill_once_drawn, result, same

SCANS = ("locate", "--model", "diffusion:scans?steps=16", "--seed", "2")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A three that the model has not seen, as an image file."""
    _, tested = load_scans()
    picture = tested.pictures[list(tested.digits).index(3), 0]
    path = tmp_path_factory.mktemp("scan") / "three.png"
    Image.fromarray(np.round((picture + 1) * 127.5).astype(np.uint8)).save(path)
    return path


def test_a_run_is_stored_shown_and_gone_on_with(tmp_path: Path) -> None:
    coarse = result(*SCANS, "--error", "0.2", "-o", "run.db", cwd=tmp_path)
    assert coarse["status"] == "complete"
    assert coarse["curve"]["kind"] == "forward-reverse"
    assert coarse["curve"]["time"][0] == "inf"
    assert coarse["generation"] == {"file": None, "shape": [1, 8, 8]}
    assert coarse["cost"]["network_evaluations"] > coarse["cost"]["continuations"] > 0
    assert same(result("show", "run.db", cwd=tmp_path), coarse)
    fine = result(*SCANS, "--error", "0.1", "-o", "run.db", cwd=tmp_path)
    assert fine["cost"]["continuations"] > coarse["cost"]["continuations"]
    at_once = result(*SCANS, "--error", "0.1", "-o", "again.db", cwd=tmp_path)
    assert same({**at_once, "notes": fine["notes"]}, fine)
    (unread,) = set(fine["notes"]) - set(at_once["notes"])  # the coarse run drew some that this one does without
    assert f"{fine['cost']['continuations']:,} of the " in unread
    other = blinkscope(*SCANS[:-1], "3", "-o", "run.db", cwd=tmp_path)
    assert other.returncode == 2
    assert "seed: 2 in the file, 3 now" in other.stderr
    shown = blinkscope("show", "run.db", "--max-width", "16", cwd=tmp_path)
    assert "The picture is read as" in shown.stdout
    assert "Decided between steps" in shown.stdout


def test_ends_are_asked_for_topped_up_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*SCANS, "-o", "ends.db"]
    assert main([*command, "--ends", "1.5", "--json"]) == 0
    coarse = json.loads(capsys.readouterr().out)
    assert [end["share"] for end in coarse["ends"]] == [0.25, 0.75]
    assert all(end["sd"] <= 1.5 for end in coarse["ends"])
    assert main([*command, "--ends", "0.8"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "passes 0.25" in said
    assert "(one standard deviation; asked for 0.8 steps)" in said
    fine = stored(tmp_path / "ends.db")
    assert fine.cost.continuations > coarse["cost"]["continuations"]
    assert all(end.sd <= 0.8 for end in fine.ends)
    assert main([*command, "--ends", "0"]) == 2
    assert "ends is 0.0; it is a standard deviation in steps" in capsys.readouterr().err
    assert main(["locate", "x", "--model", "toy:fork", "--ends", "1"]) == 2
    assert "--ends belongs to pictures" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("steps", "aim"),
    [*((steps, ("--error", "0.2")) for steps in (1, 2, 3, 4)), *((steps, ("--ends", "1")) for steps in (2, 3, 4))],
)
def test_schedules_of_fewer_steps_than_the_first_round_looks_at(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    steps: int,
    aim: tuple[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["locate", "--model", f"diffusion:scans?steps={steps}", *aim, "--continuations", "200", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["curve"]["position"] == [*range(steps + 1)]


def test_what_is_refused_is_refused_before_anything_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model of a refused question is not even opened."""
    monkeypatch.setattr("blinkscope.pictured.open_pictures", lambda spec: pytest.fail("opened"))
    with pytest.raises(UserError, match="ends are those of method forward-reverse"):
        locate("diffusion:scans", method="clone", ends=1.0)


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    command = (*SCANS, "--method", "clone", "--error", "0.04")
    whole = result(*command, "-o", "whole.db", cwd=tmp_path)
    kill_once_drawn(1, *command, "-o", "killed.db", cwd=tmp_path)
    assert 0 < drawn(tmp_path / "killed.db") < whole["cost"]["continuations"]
    again = result(*command, "-o", "killed.db", cwd=tmp_path)
    assert same(again, whole)
    assert again["curve"]["kind"] == "path"


def test_a_given_picture_at_given_times_with_a_feature_of_ones_own(tmp_path: Path, scan: Path) -> None:
    (tmp_path / "ink.py").write_text("def much(picture):\n    return 'dark' if picture.mean() > -0.3 else 'light'\n")
    found = result(
        *(*SCANS, "--image", scan, "--times", "0.05,0.3,1", "--error", "0.2", "--feature", "python:ink:much"),
        cwd=tmp_path,
    )
    assert found["generation"]["file"] == "three.png"
    assert len(found["curve"]["time"]) == 4
    assert np.allclose(found["curve"]["time"][:3], [1, 0.3, 0.05], atol=0.15)
    assert set(found["labels"]) <= {"dark", "light"}


def test_the_digits_model_from_python(tmp_path: Path, scan: Path) -> None:
    trace = locate("diffusion:digits?steps=12", image=scan, error=0.2, run=tmp_path / "run.db")
    assert trace.final_label == "3"
    assert trace.states is not None
    assert trace.states.shape == (len(trace.posterior.index), 1, 8, 8)
    assert trace.cost.model_seconds > 0
    again = stored(tmp_path / "run.db", delta=0.3)
    assert (again.curve == trace.curve).all()
    assert again.target.delta == 0.3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "diffusion:cats"), "no diffusion model 'cats'; there are diffusion:digits"),
        (("--model", "diffusion:scans?speed=2"), "no parameter 'speed'; it takes steps, eta"),
        (("--model", "diffusion:scans?steps=many"), "steps is 'many'; it must be a number"),
        (("--model", "diffusion:scans?eta=2"), "eta is 2"),
        (("--times", "0.5,99999,-1"), "time -1 is outside the schedule"),
        (("--times", "soon"), "give numbers with commas"),
        (("--temperature", "0.5"), "--temperature makes no sense with diffusion:scans"),
        (("a prompt",), "a prompt makes no sense"),
        (("--plan",), "there is no plan for diffusion models"),
        (("--method", "grid"), "no method 'grid' for noise levels"),
        (("--feature", "number"), "no feature 'number' of pictures"),
        (("--method", "clone", "--ends", "1"), "ends are those of method forward-reverse"),
        (("--times", "0.5,1", "--ends", "1"), "ends choose their own noise levels; leave the times out"),
        (("--model", "diffusion:grammar?steps=100000000"), "there are 100,000,000 steps; sampling takes from 1 to"),
        (("--model", "diffusion:scans?steps=1", "--ends", "1"), "this schedule has a single one; give it more"),
        (("--image", "missing.png"), "the picture missing.png cannot be read: No such file"),
        (("--image", "large.png"), "has 9 x 8 pixels; the model makes pictures of 8 x 8"),
        (("--image", "text.png"), "text.png is no image that can be read"),
        (("--image", "flat.npy"), r"is of shape (8, 8); the model makes pictures of shape (1, 8, 8)"),
        (("--image", "bright.npy"), "has values outside [-1, 1]"),
        (("--image", "objects.npy"), "holds no array of numbers"),
        (("--feature", "python:broken:sometimes"), "raised ValueError ('too light'); it was given an array of shape"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (9, 8)).save("large.png")
    Path("text.png").write_text("no image")
    np.save("flat.npy", np.zeros((8, 8)))
    np.save("bright.npy", np.full((1, 8, 8), 255.0))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("broken.py").write_text("def sometimes(picture):\n    raise ValueError('too light')\n")
    model = () if arguments[0] == "--model" else ("--model", "diffusion:scans?steps=4")
    assert main(["locate", *model, *arguments, "-o", "run.db"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") <= 3
    assert not Path("run.db").exists()


def test_pictures_are_not_asked_of_texts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "--model", "toy:fork", "x", "--image", "a.png"]) == 2
    assert "--image belongs to pictures" in capsys.readouterr().err
    with pytest.raises(UserError, match="a prompt makes no sense with diffusion:scans"):
        locate("diffusion:scans", "a prompt")


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    locate(SCANS[2], error=0.3, run=tmp_path / "run.db")
    with pytest.raises(UserError, match="holds a picture"):
        list(stored_generations(tmp_path / "run.db"))
    for change in ({"times": [0]}, {"path": {"type": "object", "shape": [1], "bytes": ""}}, {"costs": None}):
        document = {**json.loads(json.dumps(record(tmp_path / "run.db"))), **change}
        with closing(sqlite3.connect(tmp_path / "run.db")) as connection, connection:
            connection.execute("UPDATE document SET content = ?", (json.dumps(document),))
        with pytest.raises(UserError, match="record of its picture cannot be read"):
            stored(tmp_path / "run.db")


def record(path: Path) -> object:
    from blinkscope.runs.store import Run

    with Run.open(path) as run:
        return run.document("picture")
