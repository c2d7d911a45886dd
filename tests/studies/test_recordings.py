"""The page of a study of recordings holds what the study found, whatever is asked of its draws."""

from __future__ import annotations

from pathlib import Path

import pytest

from blinkscope.replay_formats import Item, RecordedFork, RecordedToken, Resample, write_rollouts
from blinkscope.report.charts import charts
from blinkscope.report.study_page import study_data, study_page
from blinkscope.studies.recordings import stored_recordings
from blinkscope.studies.replay import study_replay
from blinkscope.studies.survey import stored_survey


def recording(id: str, forked: bool = True) -> Item:
    """Eight tokens of which the fifth decides: before it "a" has probability 0.3, after it all but certain."""
    tokens = tuple(RecordedToken(f" t{s}", 0.3 if s == 4 else 1.0) for s in range(8))
    forks = (RecordedFork(4, " b", 0.7, {"b": 60}, 3.0),) if forked else ()
    free = tuple(Resample(s, {"a": 12, "b": 28} if s <= 4 else {"a": 40}) for s in range(8))
    return Item(id, f"which of {id}?", tokens, "a", forks, free)


@pytest.fixture
def rollouts(tmp_path: Path) -> str:
    write_rollouts([recording("one"), recording("two"), recording("free", forked=False)], tmp_path / "r.jsonl")
    return f"replay:{tmp_path / 'r.jsonl'}"


def test_the_page_holds_what_the_study_found(rollouts: str, tmp_path: Path) -> None:
    survey = study_replay(rollouts, tmp_path / "run.db", error=0.1)
    found = stored_recordings(tmp_path / "run.db")
    assert found is not None
    assert (found.status, found.items, found.waiting, dict(found.failed)) == ("complete", 3, 0, {})
    assert tuple(found.findings.sentences)[:2] == survey.sentences
    assert found.cost["continuations"] == survey.summary["continuations"]
    tables = found.findings.tables
    assert [row["item"] for row in tables["generations"]] == ["one", "two", "free"]
    assert {(row["item"], row["start"], row["end"]) for row in tables["windows"]} == {
        (finding.item, window["start"], window["end"]) for finding in survey.findings for window in finding.windows
    }
    assert ("one", 4, 5) in {(row["item"], row["start"], row["end"]) for row in tables["windows"]}
    shares = [row["share"] for row in tables["curves"] if row["item"] == "one"]
    assert shares[0] == pytest.approx(0.3, abs=0.05)  # the recorded law: all forks lead to the other label
    assert shares[-1] == 1
    data = study_data(found)
    assert [(text["item"], text["prompt"]) for text in data["texts"]] == [
        (item, f"which of {item}?") for item in ("one", "two", "free")
    ]
    assert "".join(piece["text"] for piece in data["texts"][0]["pieces"]) == recording("one").text
    assert data["settings"]["asking.model"] == "replay:r.jsonl"
    assert [len(row) for row in data["charts"]] == [2]
    assert "<main" in study_page(found)


def test_another_delta_reads_the_same_draws_as_show_does(rollouts: str, tmp_path: Path) -> None:
    study_replay(rollouts, tmp_path / "run.db", error=0.1)
    survey, found = (read(tmp_path / "run.db", delta=0.9) for read in (stored_survey, stored_recordings))
    assert survey is not None
    assert found is not None
    assert survey.summary["with_window"] == 0
    assert found.findings.sentences[0] == survey.sentences[0]
    assert not found.findings.tables["windows"]
    assert [len(row) for row in charts(found)] == [1]  # there is no place where windows start


def test_what_failed_and_what_waits_is_said(rollouts: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study_replay(rollouts, tmp_path / "failed.db", method="divergence", error=0.1)
    found = stored_recordings(tmp_path / "failed.db")
    assert found is not None
    assert list(found.failed) == ["free"]
    assert "has no forks" in found.failed["free"][1]
    assert [row["item"] for row in found.findings.tables["generations"]] == ["one", "two"]

    def stop(number: int, items: int, item: Item) -> None:
        if number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study_replay(rollouts, tmp_path / "stopped.db", error=0.1, begin=stop)
    found = stored_recordings(tmp_path / "stopped.db")
    assert found is not None
    assert (found.status, found.waiting) == ("interrupted", 2)
    assert found.standing.startswith("The study is not finished: 1 of 3 items is;")
    assert found.standing in study_page(found)


def test_other_runs_are_none(tmp_path: Path) -> None:
    import blinkscope

    blinkscope.locate("toy:fork", "Which way?", error=0.3, run=tmp_path / "run.db")
    assert stored_recordings(tmp_path / "run.db") is None
