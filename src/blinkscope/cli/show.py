"""``blinkscope show``: a stored run, read again."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target, Trace
from blinkscope.report.html import check_target, write_report
from blinkscope.report.survey import print_survey
from blinkscope.report.terminal import print_trace
from blinkscope.runs.files import check_place
from blinkscope.session import stored
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.survey import stored_survey


def command(arguments: argparse.Namespace) -> int:
    changes = target_changes(arguments)
    check_places(arguments.report, arguments.run)
    result = stored_study(arguments.run, **changes) if arguments.item is None else None
    if result is not None:
        if arguments.report:
            raise UserError(f"{arguments.run} holds a study; a report shows one generation, chosen with --item ID.")
        from blinkscope.cli.study import write_result

        write_result(result, arguments)
        return 0
    if arguments.plot or arguments.tables:
        raise UserError("--plot and --tables are of studies, and this run is none; leave them out.")
    survey = stored_survey(arguments.run, **changes) if arguments.item is None else None
    if survey is None:
        write(stored(arguments.run, item=arguments.item, **changes), arguments)
        return 0
    if arguments.report:
        raise UserError(f"{arguments.run} holds a study; a report shows one generation, chosen with --item ID.")
    if arguments.json:
        print(json.dumps(survey.to_json(), allow_nan=False))
    else:
        print_survey(survey, sys.stdout)
    return 0


def target_changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ``Target`` that the command line sets."""
    given = {name: getattr(arguments, name) for name in Target.__dataclass_fields__}
    return {name: value for name, value in given.items() if value is not None}


def check_places(report: str | None, run: str | Path) -> None:
    """Refuse, before any work, places where the results could not be written or would destroy each other."""
    check_place(Path(run))
    if report is not None and check_target(report).resolve() == Path(run).resolve():
        raise UserError(f"{report} is the run file and the report too; give the report another name.")


def run_file(arguments: argparse.Namespace) -> Path:
    """The run file to write: the one that was named, or one named after the time in the current folder."""
    return Path(arguments.output or datetime.now().strftime("blinkscope-%Y-%m-%d-%H%M%S.db"))


def write(trace: Trace, arguments: argparse.Namespace) -> None:
    """The result on stdout, as text or as one JSON object, and the report where one is asked for."""
    if arguments.json:
        print(json.dumps(trace.to_json(), allow_nan=False))
    else:
        print_trace(trace, sys.stdout)
    if arguments.report:
        print(f"report: {write_report(trace, Path(arguments.report))}", file=sys.stderr)
