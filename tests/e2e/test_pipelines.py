"""``diffusers:FOLDER`` on the command line, with pipelines of random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blinkscope import locate, stored
from blinkscope.cli.main import main
from blinkscope.diffusion.models import Parameters
from blinkscope.diffusion.pipelines import pipeline_model
from blinkscope.errors import UserError
from tests.diffusion import tiny_pipelines as tiny

FEATURES = """
def bright(picture):
    assert picture.ndim == 3
    return "bright" if picture.mean() > 0.02 else "dark"

def halves(picture):
    left, right = picture[:, :, : picture.shape[2] // 2], picture[:, :, picture.shape[2] // 2 :]
    return f"{'left' if left.mean() > right.mean() else 'right'} {picture.shape[2]}"

def sometimes(picture):
    if picture.mean() > 0.02:
        raise ValueError("too bright")
    return "dark"
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_all(tmp_path_factory.mktemp("pipelines"))


@pytest.fixture
def here(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with features and the pipelines in it."""
    (tmp_path / "features.py").write_text(FEATURES)
    for kind in tiny.KINDS:
        (tmp_path / kind).symlink_to(folders / kind)
    monkeypatch.chdir(tmp_path)
    return tmp_path


ASKED = ("--feature", "python:features:bright", "--error", "0.3", "--seed", "1")


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.mark.parametrize(
    ("model", "prompt", "note"),
    [
        ("unconditional?steps=6", (), None),
        ("unconditional?steps=6&eta=0", (), "deterministic"),
        ("of_classes?steps=6&class=1&null=3&guidance=2", (), "guidance = 2"),
        ("transformer?steps=6&class=2", (), None),
        ("stable_diffusion?steps=6&guidance=3", ("a cat",), "guidance = 3"),
    ],
)
@pytest.mark.parametrize("method", ["forward-reverse", "clone"])
def test_a_pipeline_is_looked_into(
    here: Path, capsys: pytest.CaptureFixture[str], model: str, prompt: tuple[str, ...], note: str | None, method: str
) -> None:
    command = ("locate", *prompt, "--model", f"diffusers:{model}", *ASKED, "--method", method, "-o", "run.db")
    result = found(capsys, *command)
    assert result["status"] == "complete"
    assert set(result["labels"]) <= {"bright", "dark"}
    assert result["curve"]["kind"] == ("path" if method == "clone" else "forward-reverse")
    assert result["curve"]["position"] == sorted(result["curve"]["position"])
    assert result["curve"]["time"] == sorted(result["curve"]["time"], reverse=True)
    assert result.get("prompt") == (prompt[0] if prompt else None)
    assert any(note in said for said in result["notes"]) if note else not any("theory" in n for n in result["notes"])
    each = 2 if "guidance" in model else 1
    assert result["cost"]["network_evaluations"] % each == 0
    again = found(capsys, "show", "run.db")
    assert {**again, "timing": None} == {**result, "timing": None}
    assert main(["report", "run.db", "-o", "run.html"]) == 0
    page = Path("run.html").read_text(encoding="utf-8")
    assert page.count('"pixels"') > len(result["curve"]["position"])


@pytest.mark.parametrize(
    ("model", "prompt", "outside"),
    [
        ("unconditional?steps=6", (), None),
        ("of_classes?steps=6&class=1&null=3&guidance=2", (), "guidance = 2"),
        ("transformer?steps=6&class=2&eta=0", (), "deterministic"),
        ("stable_diffusion?steps=6", ("--prompt", "a cat"), None),
    ],
)
def test_all_that_a_pipeline_draws(
    here: Path, capsys: pytest.CaptureFixture[str], model: str, prompt: tuple[str, ...], outside: str | None
) -> None:
    """Labels are those of pictures: latents are decoded first, and their size stands in the label."""
    command = ("study", "diffusion", "--model", f"diffusers:{model}", *prompt, "--items", "4", "--levels", "3")
    command += ("--feature", "python:features:halves", "--error", "0.3", "--eps", "0.5", "-o", "run.db")
    result = found(capsys, *command)
    side = tiny.SIDE * (2 if "transformer" in model or "stable" in model else 1)
    assert set(result["summary"]["weights"]) == {f"left {side}", f"right {side}"}
    assert (outside or "None") in str(result["summary"]["outside"])
    assert result["summary"]["cost"]["continuations"] == 4 * 3 * 3
    assert {row["of"] for row in result["tables"]["windows"]} == set(result["summary"]["weights"])
    assert main(["show", "run.db"]) == 0
    assert ("Outside the theory" in capsys.readouterr().out) == (outside is not None)
    assert main(["report", "run.db", "-o", "run.html"]) == 0
    assert main(["report", "run.db", "--item", "2", "-o", "item.html"]) == 0
    assert Path("item.html").read_text(encoding="utf-8").count('"pixels"') > 3


def test_pickled_weights_can_be_insisted_on_in_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch
    from safetensors.torch import load_file

    shutil.copytree("unconditional", "pickled")
    weights = next(Path("pickled/unet").glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    command = ["study", "diffusion", "--model", "diffusers:pickled?steps=3", "--items", "3", "--levels", "2"]
    command += ["--feature", "python:features:halves", "--error", "0.3", "-o", "run.db"]
    assert main(command) == 2
    assert "give --allow-pickle where you trust the file" in capsys.readouterr().err
    assert main([*command, "--allow-pickle"]) == 0


def test_a_given_picture_goes_through_the_autoencoder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    side = 2 * tiny.SIDE
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("mine.png")
    result = found(
        capsys,
        *("locate", "a cat", "--model", "diffusers:stable_diffusion?steps=6", "--image", "mine.png", *ASKED),
        *("--times", "0.2,0.8", "-o", "mine.db"),
    )
    assert result["generation"] == {"file": "mine.png", "shape": [4, tiny.SIDE, tiny.SIDE]}
    assert len(result["curve"]["time"]) == 3
    trace = stored("mine.db")
    assert trace.thumbnails is not None
    assert trace.thumbnails[-1]["shape"] == [side, side, 3]
    options = {"feature": "python:features:bright", "times": (0.2, 0.8), "error": 0.3, "seed": 1}
    model = "diffusers:stable_diffusion?steps=6"
    of_array = locate(model, "a cat", image=pixels.transpose(2, 0, 1) / 127.5 - 1, **options)
    assert (of_array.curve == trace.curve).all()
    with pytest.raises(UserError, match=r"of shape \(3, 8, 8\); the model makes pictures of shape \(3, 16, 16\)"):
        locate(model, "a cat", image=np.zeros((3, 8, 8)), **options)


def test_a_pipeline_in_memory(here: Path) -> None:
    """The same pictures as from its folder."""
    of_folder = locate("diffusers:unconditional?steps=5", feature="python:features:bright", error=0.3)
    model = pipeline_model(tiny.unconditional(), Parameters(steps=5))
    in_memory = locate(model, feature="python:features:bright", error=0.3)
    assert in_memory.posterior.index.tolist() == of_folder.posterior.index.tolist()
    assert in_memory.states == pytest.approx(of_folder.states, abs=1e-4)


def test_a_feature_that_fails_on_some_pictures(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was labelled before stays in the run file, and the command goes on once the function is mended."""
    command = ["locate", "--model", "diffusers:unconditional?steps=6", "--error", "0.2", "--seed", "3", "-o", "run.db"]
    assert main([*command, "--feature", "python:features:sometimes"]) == 2
    said = capsys.readouterr().err
    assert "feature 'python:features:sometimes' raised ValueError ('too bright')" in said
    assert "it was given an array of shape (3, 8, 8)" in said
    Path("features.py").write_text(FEATURES.replace("raise ValueError", "return str"))
    result = found(capsys, *command, "--feature", "python:features:sometimes")
    assert set(result["labels"]) == {"dark", "too bright"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "diffusers:nowhere"), "there is no folder 'nowhere'"),
        (("--model", "diffusers:features.py"), "is a file; give the folder of a pipeline"),
        (("--model", "diffusers:of_classes?steps=2"), "say which one, from 0 to 3, with ?class=0"),
        (("--model", "diffusers:stable_diffusion?steps=2"), "draws what a prompt asks for"),
        (("a cat", "--model", "diffusers:unconditional?steps=2"), "takes no prompt"),
        (("--model", "diffusers:unconditional?speed=2"), "no parameter 'speed'; it takes steps, eta, churn, class"),
        (("--model", "diffusers:unconditional?steps=5000"), "cannot be run in 5000 steps"),
        (("--model", "diffusers:unconditional?eta=7"), "eta is 7"),
        (("--model", "diffusers:pickled?steps=2"), "are pickled"),
        (("--model", "diffusers:partial?steps=2"), "lacks a part: there is no folder partial/unet"),
        (("--feature", "class"), "brings no labels; say how its pictures are told apart with python:MODULE:FUNCTION"),
        (("--temperature", "1"), "--temperature makes no sense with diffusers:unconditional"),
        (("--times", "0.3,900"), "time 900 is outside the schedule"),
        (("--image", "features.py"), "features.py is no image that can be read"),
        (("--image", "large.png"), "has 9 x 8 pixels; the model makes pictures of 8 x 8"),
        (("--device", "nothing"), "device 'nothing' cannot be used here"),
        (("--dtype", "float8"), "dtype is 'float8'"),
    ],
)
def test_bad_input_is_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    Image.new("L", (9, 8)).save("large.png")
    shutil.copytree("unconditional", "partial")
    shutil.rmtree("partial/unet")
    shutil.copytree("unconditional", "pickled")
    weights = next(Path("pickled/unet").glob("*.safetensors"))
    weights.rename(weights.with_suffix(".bin"))
    model = () if "--model" in arguments else ("--model", "diffusers:unconditional?steps=2")
    feature = () if "--feature" in arguments else ("--feature", "python:features:bright")
    assert main(["locate", *model, *feature, *arguments, "-o", "run.db"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.splitlines()[-1].startswith("blinkscope: ")
    assert "Traceback" not in said
    assert not Path("run.db").exists()


def test_pickled_weights_belong_to_pipelines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locate", "--model", "toy:fork", "x", "--allow-pickle"]) == 2
    assert "--allow-pickle belongs to pictures" in capsys.readouterr().err
    assert main(["locate", "--model", "diffusion:scans", "--allow-pickle"]) == 2
    assert "--allow-pickle makes no sense with diffusion:scans" in capsys.readouterr().err
