"""What several commands share: where results go, what was asked for, and how it is refused."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target, Trace
from blinkscope.outputs import check_file, is_stdout
from blinkscope.plurals import counted
from blinkscope.report.html import PAGE, write_report
from blinkscope.report.terminal import print_trace
from blinkscope.runs.files import check_place

NOT_GIVEN = (None, "", "auto")
"""What an option is where the command line does not name it."""
NumberT = TypeVar("NumberT", int, float)


def target_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``Target`` that the command line sets."""
    given = {name: getattr(arguments, name, None) for name in Target.__dataclass_fields__}
    return {name: value for name, value in given.items() if value is not None}


def refuse_options(arguments: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Refuse options that make no sense with this model; ``why`` goes on after its name."""
    for name in names:
        if getattr(arguments, name) not in NOT_GIVEN:
            option = "a prompt" if name == "prompt" else f"--{name.replace('_', '-')}"
            raise UserError(f"{option} makes no sense with {arguments.model}{why}; leave it out.")


def numbers(option: str, text: str, kind: Callable[[str], NumberT], hint: str) -> tuple[NumberT, ...]:
    """The numbers that an option spells with commas; ``hint`` says how to where it does not."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{option} is {text!r}; {hint}.") from None


def read_text(name: str) -> str:
    """A file of UTF-8 text."""
    try:
        return Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{name} is not UTF-8 text.") from None
    except OSError as error:
        raise UserError(f"{name} cannot be read: {error.strerror}.") from None


def check_places(report: str | None, run: str | Path) -> None:
    """Refuse, before any work, places where the run file or the report could not be written."""
    check_place(Path(run))
    if report is not None:
        check_file(report, PAGE)


def run_file(arguments: argparse.Namespace) -> Path:
    """The run file to write: the one that was named, or one named after the time in the current folder."""
    if arguments.output == "":
        raise UserError("the run file has no name; give one, for instance run.db, or leave -o out.")
    return Path(arguments.output or datetime.now().strftime("blinkscope-%Y-%m-%d-%H%M%S.db"))


def say_where(path: Path) -> None:
    """Where something was written, on stdout, unless that is where it went."""
    if not is_stdout(path):
        print(path)


def write(trace: Trace, arguments: argparse.Namespace) -> None:
    """The result on stdout, as text or as one JSON object, and the report where one is asked for."""
    if arguments.json:
        print(json.dumps(trace.to_json(), allow_nan=False))
    else:
        print_trace(trace, sys.stdout)
    if arguments.report:
        print(f"report: {write_report(trace, Path(arguments.report))}", file=sys.stderr)


def conclude(trace: Trace, run: Path, arguments: argparse.Namespace) -> int:
    """Write the result of a run, say where the run is, and return the exit status."""
    write(trace, arguments)
    print(f"run file: {run}", file=sys.stderr)
    if trace.status == "interrupted":
        kept = counted(trace.cost.continuations, "continuation")
        print(
            f"interrupted; {kept} kept, and the same command with -o {shlex.quote(str(run))} goes on from there",
            file=sys.stderr,
        )
        return 1
    return 0
