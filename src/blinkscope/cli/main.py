"""Entry point: parse, call the command, turn errors into one sentence and an exit status."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence

from blinkscope.cli.parser import parse
from blinkscope.errors import BlinkscopeError

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
    try:
        status: int = importlib.import_module(COMMANDS[parsed.command]).command(parsed)
    except BlinkscopeError as error:
        print(f"blinkscope: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("blinkscope: interrupted", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader of a pipe has left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    return status


if __name__ == "__main__":
    sys.exit(main())
