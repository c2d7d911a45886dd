"""``study majority`` on toy models, and how votes are counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from blinkscope.estimate.trace import Target
from blinkscope.features import open_feature
from blinkscope.studies import cot, majority
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.majority import most_frequent
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import run_study
from tests.studies.counted import Counted

FORK = "toy:fork?agree=4&width=2&length=16&weight=0.8"


def test_votes_are_counted_without_those_that_say_nothing() -> None:
    assert most_frequent(["b", "a", "a", "(unparsed)", "(unparsed)", "(unparsed)"]) == "a"
    assert most_frequent(["b", "a"]) == "b"
    assert most_frequent(["(truncated)"]) is None


def test_a_vote_is_right_where_the_model_mostly_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model is right with probability 0.8, so a vote of 50 is wrong with probability below 1e-6."""
    feature = open_feature(r"regex:It was (\w+)")
    for module in (cot, majority):
        monkeypatch.setattr(module, "feature_for_grading", lambda grading: feature)
    monkeypatch.setattr(majority, "grade", lambda label, content: label == "happy")
    spec = CotSpec(items=8, ask=False, asking=Asking(FORK, seed=3), target=Target(error=0.03))
    result = run_study(majority.STUDY, spec, tmp_path / "run.db")
    ways = {row["way"]: row for row in result.findings.tables["ways"]}
    assert list(ways) == list(majority.WAYS)
    assert ways["plain_vote"]["accuracy"] == 1
    assert 0 <= ways["single"]["accuracy"] <= 1
    # About as many tokens as the continuations took: the vote's replies are of the generation's length.
    assert ways["plain_vote"]["tokens"] == pytest.approx(ways["fork_majority"]["tokens"], rel=0.25)
    # Read with another error, the votes are those that there are.
    read = stored_study(tmp_path / "run.db", error=0.01)
    assert read is not None
    assert (read.status, read.standing) == ("complete", "")
    assert read.findings.tables["ways"][3] == ways["plain_vote"]
    assert read.findings.sentences[-1] == (
        "The draws are those of a study with error 0.03; one with error 0.01 may end with others."
    )
    engine = Counted(FORK)
    assert run_study(majority.STUDY, spec, tmp_path / "run.db", model=engine).to_json() == result.to_json()
    assert engine.written == []


def test_where_no_way_was_right_none_is_called_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where there are too few questions for an interval, none is to be looked at."""
    monkeypatch.setattr(majority, "transcript_of", lambda item, outcome: None)

    def said(right: float) -> str:
        ways = dict.fromkeys(majority.WAYS, right)
        spent = {"generation": 9, "vote_tokens": 90, "tokens": 80}
        outcome = {"question": "q", "has_window": True, **ways, **spent, "windows": []}
        (sentence,) = majority.STUDY.result(CotSpec(items=1), Target(), [("q.1", outcome)]).sentences
        return sentence

    assert said(0.0) == "None of the ways was right, over 1 generation."
    assert said(1.0).endswith(": single, before window, fork majority, plain vote; too few for an interval.")
