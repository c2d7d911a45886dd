"""``blinkscope study``: many generations, one run file."""

from __future__ import annotations

import argparse
import json
import sys

from blinkscope.cli.locate import recorded_method
from blinkscope.cli.show import target_changes
from blinkscope.report.progress import progress_display
from blinkscope.report.survey import print_survey
from blinkscope.studies.replay import study_replay


def command(arguments: argparse.Namespace) -> int:
    with progress_display(sys.stderr) as display:
        survey = study_replay(
            arguments.model,
            arguments.output,
            begin=lambda number, items, item: display.stage(f"item {number + 1} of {items}: {item.id}"),
            watch=display.update,
            method=recorded_method(arguments),
            seed=arguments.seed,
            labels=arguments.labels,
            **target_changes(arguments),
        )
    if arguments.json:
        print(json.dumps(survey.to_json(), allow_nan=False))
    else:
        print_survey(survey, sys.stdout)
    print(f"run file: {arguments.output}", file=sys.stderr)
    return 1 if survey.status == "interrupted" else 0
