"""Studies of a model from the command line, killed and resumed as a user would."""

from __future__ import annotations

import time
from pathlib import Path

from tests.e2e.command import blinkscope, kill_after, result

STUDY = (
    *("study", "distribution", "--model", "toy:critical-token?length=12&agree=4&width=2", "--prompt", "What next?"),
    *("--items", "30", "--step", "2", "--max-new-tokens", "16", "--error", "0.1"),
)


def test_a_killed_study_ends_as_if_it_never_was(tmp_path: Path) -> None:
    started = time.monotonic()
    whole = result(*STUDY, "-o", "whole.db", cwd=tmp_path)
    longest = time.monotonic() - started
    for share in (0.3, 0.5, 0.6, 0.7):
        kill_after(share * longest, *STUDY, "-o", "killed.db", cwd=tmp_path)
    assert result(*STUDY, "-o", "killed.db", cwd=tmp_path) == whole
    assert result("show", "killed.db", cwd=tmp_path) == whole


def test_a_printed_spec_asks_the_same_and_another_one_is_refused(tmp_path: Path) -> None:
    printed = blinkscope(*STUDY, "--print-spec", cwd=tmp_path)
    assert printed.returncode == 0
    (tmp_path / "spec.toml").write_text(printed.stdout.replace("items = 30", "items = 3").replace("0.1", "0.3"))
    asked = ("study", "distribution", "--spec", "spec.toml", "-o", "run.db")
    found = result(*asked, cwd=tmp_path)
    assert found["summary"]["analysed"] == 3
    refused = blinkscope(*asked, "--eps", "0.2", cwd=tmp_path)
    assert refused.returncode == 2
    assert "spec.eps" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    for arguments, said in (
        (("study", "cot", "--data", "nothing", "-o", "run.db"), "no data 'nothing'"),
        (("study", "prefill"), "-o RUN.db"),
        (("study", "repeat", "--times", "1,x", "-o", "run.db"), "numbers with commas"),
        (("study", "structured", "--blank", "one", "-o", "run.db"), "two different options"),
    ):
        done = blinkscope(*arguments, cwd=tmp_path)
        assert done.returncode in (1, 2)
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "run.db").exists()
