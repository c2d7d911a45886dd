"""Running the command line as a user does."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

KILLED = """
import os, signal, sys
from blinkscope.cli.main import main
from blinkscope.runs.store import Run

left, add = int(sys.argv[1]), Run.add

def counted(run, draws, *generation):
    global left
    batch = list(draws)
    add(run, batch, *generation)
    left -= len(batch)
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)

Run.add = counted
main(sys.argv[2:])
"""


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


def as_a_user() -> None:
    """In a child before its command: root can write where it may not, as long as it has this right."""
    DROP, WRITE_ANYWHERE = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(DROP, WRITE_ANYWHERE, 0, 0, 0):
        raise OSError("the right to write anywhere could not be given up")


def result(*arguments: str | Path, cwd: Path) -> dict[str, Any]:
    """The JSON object of a command that succeeds."""
    done = blinkscope(*arguments, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def begun(
    *arguments: str | Path, cwd: Path, stdout: int = subprocess.DEVNULL, stderr: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """One command in a process of its own, still at work; what it prints goes nowhere if it is not asked for."""
    command = [sys.executable, "-m", "blinkscope.cli.main", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, stdout=stdout, stderr=stderr)


def kill_after(seconds: float, *arguments: str | Path, cwd: Path) -> None:
    """Begin a command and kill it after a while."""
    process = begun(*arguments, cwd=cwd)
    time.sleep(seconds)
    process.kill()
    process.wait()


def kill_once_drawn(draws: int, *arguments: str | Path, cwd: Path) -> None:
    """Run a command that is killed as soon as its run file has that many draws, however busy the machine is."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(draws), *map(str, arguments)], cwd=cwd, check=False)
    assert done.returncode == -signal.SIGKILL


def interrupted(*arguments: str | Path, cwd: Path) -> tuple[str, str]:
    """What a command prints, on stdout and stderr, that gets Ctrl-C once its run file ``run.db`` has a draw."""
    process = begun(*arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        wait_for(1, cwd / "run.db", process)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1, error
    return out.decode(), error.decode()


def wait_for(draws: int, run: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until a run file has that many draws; a process that ends before fails the test."""
    while drawn(run) < draws:
        assert process.poll() is None
        time.sleep(0.02)


def drawn(run: Path) -> int:
    """Draws in a run file; a file that is not there yet, or is being made, has none."""
    if not run.exists():
        return 0
    with closing(sqlite3.connect(f"{run.as_uri()}?mode=ro", uri=True, timeout=10)) as store:
        try:
            return int(store.execute("select count(*) from draw").fetchone()[0])
        except sqlite3.Error:
            return 0


def same(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Two results are equal when they agree in everything but the time they took."""
    return {k: v for k, v in left.items() if k != "timing"} == {k: v for k, v in right.items() if k != "timing"}
