"""``blinkscope show``: a stored run, read again."""

from __future__ import annotations

import argparse
import json
import sys

from blinkscope.cli.common import check_places, target_changes, write
from blinkscope.cli.study import check_files, write_result, write_survey
from blinkscope.errors import UserError
from blinkscope.report.study import print_comparison
from blinkscope.reread import stored
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.comparison import Comparison, compare
from blinkscope.studies.study import StudyResult
from blinkscope.studies.survey import stored_survey


def command(arguments: argparse.Namespace) -> int:
    changes = target_changes(arguments)
    check_places(arguments.report, arguments.run)
    check_files(arguments)
    result = survey = None
    if arguments.item is None:
        result = stored_study(arguments.run, **changes)
        survey = stored_survey(arguments.run, **changes) if result is None else None
    if arguments.report and (result is not None or survey is not None):
        raise UserError(f"{arguments.run} holds a study; its report is written by 'blinkscope report'.")
    if arguments.against:
        return _compared(result, arguments)
    if result is None and (arguments.plot or arguments.tables):
        if arguments.item is not None:
            raise UserError("--plot and --tables are of whole studies; leave --item out.")
        raise UserError("--plot and --tables are of studies, and this run is none; leave them out.")
    if result is not None:
        write_result(result, arguments)
    elif survey is not None:
        write_survey(survey, arguments)
    else:
        write(stored(arguments.run, item=arguments.item, **changes), arguments)
    return 0


def _compared(result: StudyResult | None, arguments: argparse.Namespace) -> int:
    """Two runs of a study side by side."""
    comparison = compare_with(result, arguments)
    if arguments.plot or arguments.tables:
        raise UserError("--plot and --tables are of one run; leave them out, or leave --against out.")
    if arguments.json:
        print(json.dumps(comparison.to_json(), allow_nan=False))
    else:
        print_comparison(comparison, sys.stdout)
    return 0


def compare_with(result: StudyResult | None, arguments: argparse.Namespace) -> Comparison:
    """The comparison with the run that ``--against`` names, read in the same way."""
    if result is None:
        raise UserError("--against compares two runs of a study; give the run files of two, without --item.")
    other = stored_study(arguments.against, **target_changes(arguments))
    if other is None:
        raise UserError(f"{arguments.against} holds no study, so {arguments.run} cannot be compared with it.")
    return compare(result, other)
