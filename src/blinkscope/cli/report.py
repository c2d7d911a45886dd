"""``blinkscope report``: a stored run as one offline HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from blinkscope.cli.common import target_changes
from blinkscope.report.html import write_report
from blinkscope.reread import stored


def command(arguments: argparse.Namespace) -> int:
    print(write_report(stored(arguments.run, item=arguments.item, **target_changes(arguments)), Path(arguments.output)))
    return 0
