"""``blinkscope report``: a stored run as one offline HTML file."""

from __future__ import annotations

import argparse

from blinkscope.cli.common import say_where, target_changes
from blinkscope.cli.show import compare_with
from blinkscope.outputs import check_file
from blinkscope.report.html import PAGE, write_page, write_report
from blinkscope.report.study_page import study_page
from blinkscope.reread import stored
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.recordings import stored_recordings


def command(arguments: argparse.Namespace) -> int:
    changes = target_changes(arguments)
    check_file(arguments.output, PAGE)
    result = stored_study(arguments.run, **changes) if arguments.item is None else None
    comparison = compare_with(result, arguments) if arguments.against else None
    if result is None and arguments.item is None:
        result = stored_recordings(arguments.run, **changes)
    if result is None:
        say_where(write_report(stored(arguments.run, item=arguments.item, **changes), arguments.output))
    else:
        say_where(write_page(study_page(result, comparison), arguments.output))
    return 0
