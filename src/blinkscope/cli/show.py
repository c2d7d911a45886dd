"""``blinkscope show``: a stored run, read again."""

from __future__ import annotations

import argparse

from blinkscope.cli.common import check_places, target_changes, write
from blinkscope.cli.study import write_result, write_survey
from blinkscope.errors import UserError
from blinkscope.reread import stored
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.survey import stored_survey


def command(arguments: argparse.Namespace) -> int:
    changes = target_changes(arguments)
    check_places(arguments.report, arguments.run)
    result = survey = None
    if arguments.item is None:
        result = stored_study(arguments.run, **changes)
        survey = stored_survey(arguments.run, **changes) if result is None else None
    if arguments.report and (result is not None or survey is not None):
        raise UserError(f"{arguments.run} holds a study; a report shows one generation, chosen with --item ID.")
    if result is None and (arguments.plot or arguments.tables):
        raise UserError("--plot and --tables are of studies, and this run is none; leave them out.")
    if result is not None:
        write_result(result, arguments)
    elif survey is not None:
        write_survey(survey, arguments)
    else:
        write(stored(arguments.run, item=arguments.item, **changes), arguments)
    return 0
