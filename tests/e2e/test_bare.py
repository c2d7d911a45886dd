"""A bare environment: the package installed as a wheel, with what it depends on and nothing else.

Needs the package index, as the set-up of the tests does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
LOADED = "; import sys; print(*sorted(m for m in sys.modules if '.' not in m))"
HELP = "import contextlib, blinkscope.cli.main as m\nwith contextlib.suppress(SystemExit): m.main(['--help'])\n0"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds blinkscope without any extra."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    interpreter = folder / "bin" / "python"
    install = [interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", ROOT], check=True)
    return interpreter


def run(python: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    # -P and the folder keep the checkout's own modules out of sight.
    return subprocess.run([python, "-P", *arguments], cwd=cwd, env={}, capture_output=True, text=True, check=False)


def test_torch_is_really_missing(python: Path, tmp_path: Path) -> None:
    assert "No module named 'torch'" in run(python, "-c", "import torch", cwd=tmp_path).stderr


@pytest.mark.parametrize("code", ["import blinkscope", HELP], ids=["import", "help"])
def test_nothing_heavy_is_loaded(python: Path, tmp_path: Path, code: str) -> None:
    done = run(python, "-c", code + LOADED, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "blinkscope" in loaded
    assert loaded.isdisjoint({"scipy", "torch", "transformers", "matplotlib", "rich", "re2"})


def test_a_toy_is_analysed_and_reported(python: Path, tmp_path: Path) -> None:
    words = ["locate", "Which way?", "--model", "toy:fork", "--error", "0.2", "-o", "run.db", "--report", "run.html"]
    done = run(python, "-m", "blinkscope.cli.main", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "uPlot" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_what_is_missing_is_named(python: Path, tmp_path: Path) -> None:
    done = run(python, "-m", "blinkscope.cli.main", "locate", "Hello", "--feature", "number", cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'blinkscope[hf]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("model", ["diffusion:digits", "diffusers:folder"])
def test_what_pictures_need_is_named(python: Path, tmp_path: Path, model: str) -> None:
    done = run(python, "-m", "blinkscope.cli.main", "locate", "--model", model, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'blinkscope[diffusion]'" in done.stderr
    assert done.stderr.count("\n") <= 2
