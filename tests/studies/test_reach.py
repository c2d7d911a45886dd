"""A study of several data sets goes on while one is out of reach, and takes its items in later, in the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.trace import Target
from blinkscope.report.study_page import study_page
from blinkscope.reread import stored
from blinkscope.studies import cot, majority
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import run_study
from tests.studies.counted import Counted
from tests.studies.test_questions import ROWS, _cache, folder

__all__ = ["_cache"]

FORK = "toy:fork?agree=4&width=2&length=16"


def spec_of(place: Path) -> CotSpec:
    return CotSpec(
        data=("everyday", f"gsm8k:{place / 'sums'}", f"mmlu:{place / 'choices'}"),
        items=2,
        ask=False,
        asking=Asking(FORK, seed=1, max_new_tokens=20),
        target=Target(error=0.25),
    )


def test_data_that_comes_into_reach_is_taken_in_and_nothing_is_drawn_twice(tmp_path: Path) -> None:
    spec, run = spec_of(tmp_path), tmp_path / "run.db"
    first = run_study(majority.STUDY, spec, run)
    assert (first.status, first.items) == ("interrupted", 4)  # two questions, and two data sets that are missing
    assert first.standing.startswith("The study is not finished: 2 of 4 items are;")
    assert set(first.failed) == {"gsm8k", "mmlu"}
    kind, why = first.failed["mmlu"]
    assert kind == "engine"
    assert "cannot be read" in why
    assert why.startswith("It was out of reach when it was last tried: the data set ")
    assert why.endswith("The same command tries again, and takes its items in.")
    read = stored_study(run)
    assert read is not None
    assert read.to_json() == first.to_json()

    folder(tmp_path / "choices", [ROWS["mmlu"][0]] * 2)  # the later one first
    counted = Counted(FORK)
    second = run_study(majority.STUDY, spec, run, model=counted)
    assert set(second.failed) == {"gsm8k"}
    assert counted.written
    assert {stream[1] for stream in counted.written} == {2, 3, 2**31 + 2, 2**31 + 3}  # no old item again
    folder(tmp_path / "sums", [ROWS["gsm8k"][0]] * 2)
    third = run_study(majority.STUDY, spec, run)
    assert (third.items, dict(third.failed)) == (6, {})
    items = [row["item"] for row in third.findings.tables["items"]]
    assert items == ["everyday 1", "everyday 2", "mmlu 1", "mmlu 2", "gsm8k 1", "gsm8k 2"]
    assert stored(run, item="gsm8k 2").steps
    assert "gsm8k 2" in study_page(third)
    again = Counted(FORK)
    assert run_study(majority.STUDY, spec, run, model=again).to_json() == third.to_json()
    assert not again.written


def test_data_that_goes_out_of_reach_again_loses_nothing(tmp_path: Path) -> None:
    spec, run = spec_of(tmp_path), tmp_path / "run.db"
    folder(tmp_path / "sums", [ROWS["gsm8k"][0]] * 2)
    folder(tmp_path / "choices", [ROWS["mmlu"][0]] * 2)
    with pytest.raises(KeyboardInterrupt):
        run_study(cot.STUDY, spec, run, model=Counted(FORK, 150))
    begun = stored_study(run)
    assert begun is not None
    assert begun.status == "interrupted"
    (tmp_path / "choices").rename(tmp_path / "away")
    second = run_study(cot.STUDY, spec, run)
    assert second.status == "interrupted"  # questions of mmlu wait
    assert (second.items, set(second.failed)) == (7, {"mmlu"})
    assert "not finished: 4 of 7 items are; the same command goes on" in second.standing
    (tmp_path / "away").rename(tmp_path / "choices")
    third = run_study(cot.STUDY, spec, run)
    assert (third.status, third.items, dict(third.failed), third.standing) == ("complete", 6, {}, "")
    (tmp_path / "choices").rename(tmp_path / "away")
    assert run_study(cot.STUDY, spec, run).to_json() == third.to_json()


def test_what_is_said_of_data_is_what_was_found_when_it_was_last_tried(tmp_path: Path) -> None:
    spec, run = spec_of(tmp_path), tmp_path / "run.db"
    run_study(cot.STUDY, spec, run)
    folder(tmp_path / "choices", [ROWS["mmlu"][0]] * 2)
    (tmp_path / "sums").mkdir()  # there, and empty
    with pytest.raises(KeyboardInterrupt):
        run_study(cot.STUDY, spec, run, model=Counted(FORK, 1))
    shown = stored_study(run)
    assert shown is not None
    assert set(shown.failed) == {"gsm8k"}  # questions of mmlu were read; they wait to be worked on
    assert "no such folder" not in shown.failed["gsm8k"][1]
    assert "not finished: 2 of 5 items are;" in shown.standing
    second = run_study(cot.STUDY, spec, run)
    shown = stored_study(run)
    assert shown is not None
    assert shown.to_json() == second.to_json()
    assert set(second.failed) == {"gsm8k"}


def test_other_questions_are_another_run(tmp_path: Path) -> None:
    spec, run = spec_of(tmp_path), tmp_path / "run.db"
    folder(tmp_path / "sums", [ROWS["gsm8k"][0]])
    run_study(cot.STUDY, spec, run)
    folder(tmp_path / "more", [ROWS["gsm8k"][0]] * 2)
    (tmp_path / "sums").rename(tmp_path / "old")
    (tmp_path / "more").rename(tmp_path / "sums")
    with pytest.raises(UserError, match="holds another run"):
        run_study(cot.STUDY, spec, run)
    with pytest.raises(UserError, match="holds another run"):
        run_study(cot.STUDY, replace(spec, items=1), run)


def test_a_study_of_which_nothing_can_be_reached_says_so(tmp_path: Path) -> None:
    spec = replace(spec_of(tmp_path), data=(f"gsm8k:{tmp_path}/a", f"mmlu:{tmp_path}/b"))
    with pytest.raises(EngineError, match="cannot be read"):
        run_study(cot.STUDY, spec, tmp_path / "run.db")
    assert not (tmp_path / "run.db").exists()
