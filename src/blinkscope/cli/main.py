"""Entry point: parse, call the command, turn errors into one sentence and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import blinkscope
from blinkscope.cli.apart import check_apart
from blinkscope.cli.parser import parse
from blinkscope.errors import BlinkscopeError
from blinkscope.outputs import NO_SPACE

COMMANDS = {
    "locate": "blinkscope.cli.locate",
    "study": "blinkscope.cli.study",
    "detect": "blinkscope.cli.detect",
    "show": "blinkscope.cli.show",
    "report": "blinkscope.cli.report",
    "export": "blinkscope.cli.export",
    "world": "blinkscope.cli.world",
    "worlds": "blinkscope.cli.world",
    "models": "blinkscope.cli.models",
    "features": "blinkscope.cli.features",
    "train": "blinkscope.cli.train",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0 done, 1 the machine failed or was interrupted, 2 a user's mistake."""
    parsed = parse(arguments)
    warnings.formatwarning = _as_sentence
    try:
        check_apart(parsed)
        status: int = importlib.import_module(COMMANDS[parsed.command]).command(parsed)
        if sys.stdout is not None:
            sys.stdout.flush()  # here a failure can still be told
    except BlinkscopeError as error:
        print(f"blinkscope: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print(f"blinkscope: interrupted{_kept(parsed)}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe has left; there is nobody to tell.
        _drop_output()
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        sentence = f"the output could not be written: {error.strerror}; make room and try again."
        print(f"blinkscope: {sentence}", file=sys.stderr)
        _drop_output()
        return 1
    return status


def _drop_output() -> None:
    """Let what is still to be printed go nowhere, so that it does not fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _kept(parsed: argparse.Namespace) -> str:
    """What an interrupted command leaves behind, and how to go on; empty where it writes no run file."""
    if parsed.command not in ("locate", "study") or getattr(parsed, "plan", False):
        return ""
    if not parsed.output:
        return "; what was drawn is in a run file of this folder, and the same command with -o and its name goes on"
    return f"; what was drawn is kept, and the same command with -o {shlex.quote(parsed.output)} goes on from there"


def _as_sentence(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours is for a person: its place in the source says nothing to them."""
    if category is UserWarning and Path(filename).is_relative_to(Path(blinkscope.__file__).parent):
        return f"blinkscope: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


if __name__ == "__main__":
    sys.exit(main())
