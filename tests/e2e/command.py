"""Running the command line as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def blinkscope(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, output captured."""
    return subprocess.run(
        [sys.executable, "-m", "blinkscope.cli.main", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )


def result(*arguments: str | Path, cwd: Path) -> dict[str, Any]:
    """The JSON object of a command that succeeds."""
    done = blinkscope(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Two results are equal when they agree in everything but the time they took."""
    return {k: v for k, v in left.items() if k != "timing"} == {k: v for k, v in right.items() if k != "timing"}
