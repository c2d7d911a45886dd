"""The main job against a real server: located, killed on either side, and gone on with."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.command import begun, blinkscope, drawn, kill_once_drawn, result, same, wait_for
from tests.engines.llama import LlamaProcess

pytestmark = pytest.mark.model

QUESTION = (
    *("locate", "Should I get a cat or a dog? Answer in one sentence.", "--feature", r"regex:\b(cat|dog)s?\b"),
    *("--max-new-tokens", "10", "--seed", "4", "--temperature", "0.6", "--top-p", "0.9"),
)


def test_killed_on_either_side_it_goes_on_where_it_was(tmp_path: Path) -> None:
    server = LlamaProcess()
    try:
        asked = (*QUESTION, "--model", f"{server.url}/v1", "--continuations", "32", "-o", "run.db")
        kill_once_drawn(8, *asked, cwd=tmp_path)
        before = drawn(tmp_path / "run.db")
        client = begun(*asked, cwd=tmp_path, stderr=subprocess.PIPE)
        wait_for(before + 4, tmp_path / "run.db", client)
        server.kill()
        server.start()
        assert client.wait(120) == 0, client.stderr.read().decode() if client.stderr else ""
        found = result("show", "run.db", cwd=tmp_path)
        assert found["cost"]["continuations"] == drawn(tmp_path / "run.db") == 32
        assert found["model"].startswith("server:SmolLM2")
        # Neither where the server stands nor the folder of its weights is anybody's business.
        assert all(secret not in (tmp_path / "run.db").read_bytes() for secret in (b"127.0.0.1", b"site-packages"))
        # A server that is gone ends a run with a sentence, and the run goes on once it is back.
        server.kill()
        more = (*asked[:-4], "--continuations", "36", "-o", "run.db")
        gone = blinkscope(*more, cwd=tmp_path)
        assert gone.returncode == 1
        assert "no server answers" in gone.stderr
        server.start()
        assert result(*more, cwd=tmp_path)["cost"]["continuations"] == 36
    finally:
        server.kill()


def test_a_killed_study_of_a_served_model_goes_on(llama_server: LlamaProcess, tmp_path: Path) -> None:
    asked = ("study", "distribution", "--model", f"{llama_server.url}/v1", "--prompt", "Should I get a cat or a dog?")
    asked = (*asked, "--feature", r"regex:\b(cat|dog)s?\b", "--items", "2", "--step", "4", "--max-new-tokens", "8")
    asked = (*asked, "--error", "0.15", "-o", "study.db")
    kill_once_drawn(10, *asked, cwd=tmp_path)
    before = stored_draws(tmp_path / "study.db")
    found = result(*asked, cwd=tmp_path)
    assert found["status"] == "complete"
    assert not found["failed"]
    after = stored_draws(tmp_path / "study.db")
    assert len(after) == found["summary"]["cost"]["continuations"] > len(before) >= 10
    assert before.items() <= after.items()  # nothing is drawn again


def stored_draws(run: Path) -> dict[tuple[int, ...], str]:
    """Label of every draw, by generation, stratum and replicate."""
    with sqlite3.connect(f"file:{run}?mode=ro", uri=True) as store:
        rows = store.execute("select generation, stratum, replicate, label from draw").fetchall()
    return {tuple(key): label for *key, label in rows}


def test_a_study_of_a_served_model(llama_server: LlamaProcess, tmp_path: Path) -> None:
    asked = ("study", "repeat", "--model", f"{llama_server.url}/v1", "--word", "green", "--times", "1,4")
    asked = (*asked, "--max-new-tokens", "4", "--continuations", "24", "-o", "study.db")
    found = result(*asked, cwd=tmp_path)
    assert found["status"] == "complete"
    assert found["spec"]["asking"]["model"].startswith("server:")
    assert same(result("show", "study.db", cwd=tmp_path), found)


def test_a_mistake_is_said_in_the_servers_own_words(llama_server: LlamaProcess, tmp_path: Path) -> None:
    def refused(*arguments: str, status: int = 2) -> str:
        done = blinkscope(*arguments, "-o", "none.db", cwd=tmp_path)
        assert done.returncode == status
        assert "Traceback" not in done.stderr
        assert not os.path.exists(tmp_path / "none.db")
        return done.stderr

    url = llama_server.url
    assert "has no model llama-9; it has" in refused(*QUESTION, "--model", f"{url}/v1#llama-9")
    assert "context window is 512" in refused(*QUESTION, "--model", url, "--max-new-tokens", "600")
    assert "no server answers" in refused(*QUESTION, "--model", "http://127.0.0.1:9/v1", status=1)
    assert "there are llama-server, vllm" in refused(*QUESTION, "--model", f"{url}?dialect=other")
    for kind in ("vllm", "sglang", "completions"):  # its completions route tells no texts of tokens
        assert f"answers, but not like a {kind}" in refused(*QUESTION, "--model", f"{url}?dialect={kind}")
    assert "known here" in refused(*QUESTION, "--model", f"{url}/elsewhere/v1")
    assert "the prompt has" in refused("locate", "word " * 700, "--feature", "exact", "--model", url)
