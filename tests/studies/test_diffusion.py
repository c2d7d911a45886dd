"""``study diffusion`` against a Gaussian mixture whose total variations and windows are exact."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from blinkscope import stored
from blinkscope.cli.main import main
from blinkscope.critical import critical_window
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.guidance import read_interval
from blinkscope.diffusion.levels import evenly
from blinkscope.diffusion.pictures import PictureModel
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.report.study_page import study_page
from blinkscope.report.trees import study_tree
from blinkscope.studies import diffusion
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.diffusion import DiffusionSpec, Drawing, guidance_document, guidance_interval
from blinkscope.studies.study import StudyResult, run_study
from blinkscope.worlds.gaussian_mixture import GaussianMixture

MEANS = np.array([[6.0, 0.0], [-6.0, 0.0], [-6.0, 5.0]])
WORLD = GaussianMixture(means=MEANS, prior=np.array([0.5, 0.3, 0.2]))
STEPS = 24
TIMES = np.linspace(0, 4, STEPS + 1)
SPEC = DiffusionSpec(
    items=60, levels=5, eps=0.35, asking=Drawing("three", seed=3), target=Target(error=0.18, level=1 - 1e-8)
)


@dataclass(eq=False)
class Nearest:
    """Names the nearest mean; after so many samples it is interrupted as a kill would."""

    stop_after: float = math.inf
    read: int = 0

    def __call__(self, samples: np.ndarray) -> Sequence[str]:
        self.read += len(samples)
        if self.read > self.stop_after:
            raise KeyboardInterrupt
        return [str(k) for k in ((samples[:, None] - MEANS) ** 2).sum(axis=2).argmin(axis=1)]


def model(label: Nearest) -> PictureModel:
    return PictureModel("three", GaussianDiffusion(WORLD.denoise, TIMES, (2,)), label)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyResult]:
    path = tmp_path_factory.mktemp("study") / "run.db"
    return path, run_study(diffusion.STUDY, SPEC, path, model=model(Nearest()))


def test_it_equals_the_exact_world(found: tuple[Path, StudyResult]) -> None:
    """Limits are at level 1 - 1e-8, with 0.03 for the steps of 1/6: 15 of them miss with probability below 1e-6."""
    tables = found[1].findings.tables
    for row in tables["total_variation"]:
        if row["kept"] < STEPS:
            assert row["time"] == pytest.approx(TIMES[STEPS - row["kept"]])
            rest = tuple(label for label in WORLD.labels if label != row["of"])
            exact = WORLD.total_variation((row["of"],), rest, row["time"]).value
            assert row["low"] - 0.03 <= exact <= row["high"] + 0.03
            # 60 samples and 8 draws each: five standard deviations of the midpoint.
            assert abs(row["share"] - exact) < 0.4
    for row in tables["windows"]:
        window = critical_window(WORLD, SPEC.eps, (row["of"],))
        for name, time in (("start", window.t_before), ("end", window.t_after)):
            assert time is not None
            # The study sees the levels that it looks at alone, so an end may be off by the steps between two of them.
            steps, apart = STEPS * (1 - time / 4), STEPS // SPEC.levels
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            assert low is None or low - apart <= steps
            assert high is None or steps <= high + apart
    weights = found[1].findings.summary["weights"]
    assert isinstance(weights, dict)
    # 480 draws from about pure noise: 0.15 is six standard deviations.
    assert all(abs(weights[k] - w) < 0.15 for k, w in zip("012", WORLD.weights, strict=True))


def test_near_means_part_last(found: tuple[Path, StudyResult]) -> None:
    """Means 1 and 2 are 5 apart, the others 12 and 13: by 2 Phi(d e^-t / 2) - 1 they merge at OU time 1.7 and 2.6."""
    pairs = found[1].findings.tables["pairs"]
    assert pairs[0]["of"] == "1, 2"
    assert {row["of"] for row in pairs} == {f"{a}, {b}" for a, b in combinations("012", 2)}
    for row in pairs:
        assert row["merged_low"] is None or row["merged_low"] <= row["merged"]
        assert row["merged"] <= row["merged_high"]
        assert row["merged"] < row["apart"] <= STEPS
        assert row["t_apart"] == TIMES[STEPS - row["apart"]]
        distance = float(np.linalg.norm(MEANS[int(row["of"][0])] - MEANS[int(row["of"][-1])]))
        exact = {
            "merged": math.log(distance / 2 / norm.ppf((1 + SPEC.eps) / 2)),
            "apart": math.log(distance / 2 / norm.ppf(1 - SPEC.eps**2 / 2)),
        }
        for name, time in exact.items():
            apart = STEPS // SPEC.levels + 1
            assert row[f"{name}_low"] is None or row[f"{name}_low"] - apart <= STEPS * (1 - time / 4)
            assert row[f"{name}_high"] is None or STEPS * (1 - time / 4) <= row[f"{name}_high"] + apart
    (root, *nodes) = found[1].findings.tables["tree"]
    assert root["labels"] == "0, 1, 2"
    assert all(node["kept"] > root["kept"] for node in nodes)


def test_the_regimes_of_theorem_2(found: tuple[Path, StudyResult]) -> None:
    """T_start of a label is the T_after of its window; from a label to all of them T_end is its T_before; with times.

    Where the theorem speaks, the label law is no further from the target's than its bound says.
    """
    rows = found[1].findings.tables["theorem2"]
    ends = {row["of"]: row for row in found[1].findings.tables["windows"]}
    every = ", ".join(WORLD.labels)
    assert {(row["from"], row["target"]) for row in rows} >= {(a, b) for a in WORLD.labels for b in (a, every)}
    for row in rows:
        if row["target"] == row["from"]:
            assert row["start"] == ends[row["from"]]["end"]
            assert row["t_start"] == ends[row["from"]]["t_after"]
        elif row["target"] == every:
            assert (row["end"], row["t_end"]) == (ends[row["from"]]["start"], ends[row["from"]]["t_before"])
        if row["moved"] is not None:
            assert row["moved"] <= row["sharper"] <= row["published"]


def test_forward_reverse_and_certificate(found: tuple[Path, StudyResult]) -> None:
    """The label law starts at the prior and ends at the label, and beyond T_after a label is left as seldom as said."""
    rows = {(row["kept"], row["from"], row["label"]): row["p"] for row in found[1].findings.tables["forward_reverse"]}
    assert abs(rows[0, "0", "0"] - 0.5) < 0.25
    assert rows[STEPS, "0", "0"] == pytest.approx(1, abs=0.25)  # over the estimated weight of the label
    assert rows[STEPS, "0", "1"] == 0
    for row in found[1].findings.tables["windows"]:
        if row["end"] is not None:
            assert 0 <= row["certificate"] <= row["theorem2"]


def test_the_interval_of_guidance_is_the_windows(found: tuple[Path, StudyResult], tmp_path: Path) -> None:
    windows = found[1].findings.tables["windows"]
    every = guidance_interval(windows)
    one = guidance_interval(windows, "0")
    row = next(row for row in windows if row["of"] == "0")
    assert (one.low, one.high) == (row["t_after"], row["t_before"])
    assert every.low == min(row["t_after"] for row in windows)
    assert every.high == max(row["t_before"] for row in windows)
    with pytest.raises(UserError, match="'7' is not decided between two"):
        guidance_interval(windows, "7")
    out = tmp_path / "guidance.json"
    assert main(["export", str(found[0]), "--to", "guidance", "-o", str(out)]) == 0
    assert json.loads(out.read_text()) == guidance_document(found[1])
    assert read_interval(out) == every
    assert read_interval(out, "0") == one


def test_where_nothing_is_decided_there_is_nothing_to_guide() -> None:
    """T_before is None in pure noise and T_after where a class is never settled; inverted windows have none between."""
    row = {"of": "a", "outcome": "window", "t_before": 2.0, "t_after": 1.0}
    inverted = {"of": "b", "outcome": "inverted", "t_before": 0.5, "t_after": 3.0}
    never = {"of": "c", "outcome": "no-after", "t_before": 0.0, "t_after": None}
    every = guidance_interval([row, inverted, never])
    assert (every.low, every.high) == (1.0, 2.0)
    open_ = guidance_interval([{**row, "t_before": None, "t_after": None}])
    assert (open_.low, open_.high) == (0.0, math.inf)
    with pytest.raises(UserError, match="no class is decided between two"):
        guidance_interval([inverted, never])
    with pytest.raises(UserError, match="'b' is not decided"):
        guidance_interval([row, inverted], "b")


def test_it_is_read_again_without_the_model(found: tuple[Path, StudyResult]) -> None:
    again = stored_study(found[0])
    assert again is not None
    assert again.to_json() == found[1].to_json()
    assert "<main" in study_page(again)
    tree = study_tree(again)
    assert tree is not None
    assert tree.root.name == "0, 1, 2"
    assert [again.findings.summary["outside"], *again.findings.sentences].count(None) == 1
    assert again.cost["network_evaluations"] == sum(8 * (STEPS - kept) for kept in evenly(STEPS, 5)) * 60
    trace = stored(found[0], item="7")
    assert trace.kind == "path"
    assert trace.posterior.index.tolist() == [*evenly(STEPS, 5), STEPS]


def test_a_killed_study_goes_on_with_the_same_samples(tmp_path: Path) -> None:
    spec = replace(SPEC, items=5, levels=3, target=Target(error=0.2))
    whole = run_study(diffusion.STUDY, spec, tmp_path / "whole.db", model=model(Nearest())).to_json()
    read = 0
    for stop_after in (0.0, 20.0, 30.0, 1.0, math.inf):
        label = Nearest(stop_after)
        try:
            resumed = run_study(diffusion.STUDY, spec, tmp_path / "killed.db", model=model(label)).to_json()
        except KeyboardInterrupt:
            assert stop_after < math.inf
        read += label.read
    assert resumed == whole
    other = replace(spec, eps=0.2)
    with pytest.raises(UserError, match=r"spec\.eps"):
        run_study(diffusion.STUDY, other, tmp_path / "killed.db", model=model(Nearest()))


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, figure, tables = (str(tmp_path / name) for name in ("run.db", "study.svg", "tables"))
    asked = ["study", "diffusion", "--model", "diffusion:scans?steps=6", "--items", "12", "--levels", "3"]
    asked += ["--error", "0.25", "--seed", "1", "--eps", "0.5"]
    assert main([*asked, "-o", run, "--plot", figure, "--tables", tables]) == 0
    printed = capsys.readouterr()
    assert "Last to stand apart" in printed.out
    assert "network evaluations" in printed.out
    assert "item 12 of 12" in printed.err
    assert Path(figure).read_text().startswith("<?xml")
    assert {path.name for path in Path(tables).iterdir()} >= {"windows.csv", "pairs.csv", "total_variation.parquet"}
    assert main([*asked[:2], "--print-spec"]) == 0
    assert 'model = "diffusion:digits"' in capsys.readouterr().out
    assert main(["show", run, "--item", "3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["curve"]["kind"] == "path"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("study", "diffusion", "--model", "diffusion:cats"), "no diffusion model 'cats'"),
        (("study", "diffusion", "--model", "diffusion:scans", "--levels", "1"), "at least 2 of each"),
        (
            ("study", "diffusion", "--model", "diffusion:scans", "--feature", "number"),
            "no feature 'number' of pictures",
        ),
        (("study", "distribution", "--model", "diffusion:digits"), "study diffusion"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "-o", str(tmp_path / "run.db")]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert not (tmp_path / "run.db").exists()


def test_only_its_own_runs_have_an_interval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "run.db")
    assert main(["locate", "--model", "diffusion:scans?steps=6", "--error", "0.3", "-o", run]) == 0
    assert main(["export", run, "--to", "guidance", "-o", str(tmp_path / "out.json")]) == 2
    assert "study diffusion" in capsys.readouterr().err
