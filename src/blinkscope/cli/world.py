"""``blinkscope world NAME`` and ``blinkscope worlds``: models in which everything is exact."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from textwrap import fill

from blinkscope.figure_file import check_figure
from blinkscope.worlds import WORLDS, create_world, described, parameter_meanings
from blinkscope.worlds.figure import write_plot
from blinkscope.worlds.report import table_markdown, world_json, worlds_table
from blinkscope.worlds.words import world_text

WIDTH = 100  # columns of running text


def command(arguments: argparse.Namespace) -> int:
    if arguments.command == "worlds":
        return _worlds(arguments)
    world = create_world(arguments.name, arguments.parameters)
    if arguments.plot:
        check_figure(Path(arguments.plot))
    after, before = (None if text is None else text.split(",") for text in (arguments.after, arguments.before))
    result = world_json(world, arguments.eps, after, before)
    if arguments.plot:
        write_plot(world, arguments.eps, Path(arguments.plot), after, before)
        print(f"figure: {arguments.plot}", file=sys.stderr)
    if arguments.json:
        print(json.dumps(result, allow_nan=False))
    else:
        print("\n".join(fill(line, WIDTH, subsequent_indent="    ") for line in world_text(result)))
    return 0


def parameters_help(name: str) -> str:
    """What a world is and what its parameters mean, for ``world NAME --help``."""
    what, spelled = described(name)
    lines = ["", f"{name}: {what}", ""]
    for option, meaning in zip(spelled, parameter_meanings(name).values(), strict=True):
        lines.append(fill(f"{option}: {meaning}", WIDTH, initial_indent="  ", subsequent_indent="      "))
    return "\n".join(lines) + "\n"


def _worlds(arguments: argparse.Namespace) -> int:
    if arguments.table:
        print(table_markdown(worlds_table()), end="")
        return 0
    for name in WORLDS:
        what, parameters = described(name)
        print(f"{name:<19}{what}")
        print(fill("  ".join(parameters), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4))
    return 0
