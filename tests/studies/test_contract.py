"""What every study promises: killed, it goes on without drawing anything again; and it can be read, drawn and shown.

A study that is not listed here fails. Each has a run on the embedded model in a file of its own, or here; ``detect``
draws nothing and has its tests in a folder of its own, ``diffusion`` asks no language model and keeps the same promises
in ``test_diffusion.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.keeper import named
from blinkscope.language.engine import Engine
from blinkscope.report.charts import CHARTS, charts
from blinkscope.report.study_figures import write_figure
from blinkscope.report.study_page import study_page
from blinkscope.reread import LOOKED_INTO
from blinkscope.runs.store import Run
from blinkscope.studies import structured
from blinkscope.studies.catalogue import STUDIES, find_study, stored_study
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.distribution import DistributionSpec
from blinkscope.studies.prefill import PrefillSpec
from blinkscope.studies.repeat import RepeatSpec
from blinkscope.studies.specs import Asking, from_toml
from blinkscope.studies.structured import StructuredSpec
from blinkscope.studies.study import Study, run_study
from tests.e2e.command import blinkscope
from tests.studies.counted import Counted

FORK = "toy:fork?agree=4&width=2&length=16"
TOY = Asking(FORK, seed=1, max_new_tokens=20)
COARSE = Target(error=0.25)
COT = CotSpec(items=3, ask=False, asking=TOY, target=COARSE)
SPECS: dict[str, Any] = {
    "prefill": PrefillSpec(
        items=3, opening=" Each", feature="contains:happy", outcome="yes", asking=TOY, target=COARSE
    ),
    "repeat": RepeatSpec(words=("Each", "Every"), times=(1, 2, 3), asking=TOY, target=COARSE),
    "distribution": DistributionSpec(prompt="What?", items=5, step=5, asking=TOY, target=COARSE),
    "cot": COT,
    "temperature": replace(COT, items=2, temperatures=(0.5, 1.0)),
    "majority": COT,
}
"""Those that draw from a toy model; a form has no answer there."""


def study_of(name: str) -> Study:
    study = find_study(name)
    assert study is not None
    return study


def test_every_study_is_listed() -> None:
    assert {*SPECS, "structured", "diffusion", "detect"} == set(STUDIES) == set(CHARTS) - {"replay"}


@pytest.mark.parametrize("name", SPECS)
def test_a_killed_study_goes_on_and_can_be_read_drawn_and_shown(name: str, tmp_path: Path) -> None:
    study, spec = study_of(name), SPECS[name]
    counting = Counted(FORK)
    whole = run_study(study, spec, tmp_path / "whole.db", model=counting)
    assert whole.status == "complete"
    drawn = len(counting.written)
    streams: list[tuple[int, ...]] = []
    for stop_after in (drawn // 5, drawn // 3, None):
        engine = Counted(FORK, stop_after)
        try:
            resumed = run_study(study, spec, tmp_path / "killed.db", model=engine)
        except KeyboardInterrupt:
            assert stop_after is not None
        # The generation itself, stream (0, ...), is written again where it was cut before it was scored.
        streams += [stream for stream in engine.written if stream[0] != 0 or name == "distribution"]
    assert len(streams) == len(set(streams))
    assert resumed.to_json() == whole.to_json()
    stored = stored_study(tmp_path / "killed.db")
    assert stored is not None
    assert stored.to_json() == whole.to_json()
    json.dumps(whole.to_json(), allow_nan=False)
    assert charts(whole)
    with Run.open(tmp_path / "whole.db") as run:
        assert (run.document(named("path", 0)) is not None) == (name in LOOKED_INTO)
    assert write_figure(whole, tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()
    assert "<main" in study_page(whole)


@pytest.mark.parametrize("plot", ["figure.txt", "nowhere/figure.svg"])
def test_a_figure_that_could_not_be_written_is_refused_before_any_work(plot: str, tmp_path: Path) -> None:
    refused = blinkscope("study", "repeat", "--model", FORK, "-o", "run.db", "--plot", plot, cwd=tmp_path)
    assert (refused.returncode, "figure" in refused.stderr) == (2, True)
    assert not (tmp_path / "run.db").exists()


def test_tables_that_could_not_be_written_are_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "kept.csv").write_text("mine")
    refused = blinkscope("study", "repeat", "--model", FORK, "-o", "run.db", "--tables", "tables", cwd=tmp_path)
    assert (refused.returncode, "not an empty folder" in refused.stderr) == (2, True)
    assert not (tmp_path / "run.db").exists()


@pytest.mark.model
def test_a_killed_form_goes_on(tmp_path: Path, smollm2: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(StructuredSpec(), blanks=("Moon/Sea", "Sword/Map"), items=6, target=COARSE)
    whole = run_study(structured.STUDY, spec, tmp_path / "whole.db", model=smollm2)
    made: list[int] = []
    work: Callable[..., Any] = structured._held_path

    def killed(desk: Any, fills: Any, number: int, places: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(number)
        return work(desk, fills, number, places)

    monkeypatch.setattr(structured, "_held_path", killed)
    with pytest.raises(KeyboardInterrupt):
        run_study(structured.STUDY, spec, tmp_path / "killed.db", model=smollm2)
    monkeypatch.setattr(structured, "_held_path", work)
    resumed = run_study(structured.STUDY, spec, tmp_path / "killed.db", model=smollm2)
    assert resumed.to_json() == whole.to_json()
    assert "<main" in study_page(resumed)


@pytest.mark.model
@pytest.mark.parametrize("name", ["temperature", "majority"])
def test_the_embedded_model(name: str, tmp_path: Path, smollm2: Engine) -> None:
    study = study_of(name)
    temperatures = (0.3, 1.0) if name == "temperature" else ()
    spec = CotSpec(items=1, temperatures=temperatures, target=Target(error=0.35, continuations=6))
    spec = replace(spec, asking=replace(spec.asking, max_new_tokens=10))
    found = run_study(study, spec, tmp_path / "run.db", model=smollm2)
    assert found.status == "complete"
    assert not found.failed
    assert 0 < found.cost["generated_tokens"] < 5000  # type: ignore[operator]
    rows = found.findings.tables["table" if temperatures else "ways"]
    assert len(rows) == (2 if temperatures else 4)


SHIPPED = sorted((Path(__file__).parents[2] / "docs" / "specs").glob("*.toml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_specs_of_the_documents_are_read(path: Path) -> None:
    study = study_of(path.stem)
    spec = from_toml(path.read_text(encoding="utf-8"), path.stem, study.default)
    assert spec.asking.model.startswith("hf:")
    assert spec != study.default


def test_every_study_has_a_spec_of_full_size() -> None:
    assert {path.stem for path in SHIPPED} == {*SPECS, "structured"}
    cot = next(path for path in SHIPPED if path.stem == "cot").read_text(encoding="utf-8")
    spec = from_toml(cot, "cot", study_of("cot").default)
    assert (len(spec.data), spec.items, spec.method, spec.resamples) == (7, 400, "grid", 100)
    with pytest.raises(UserError, match="not one of study majority"):
        from_toml(cot, "majority", study_of("majority").default)
