"""What one command line names: what it writes is nothing that it reads, and nothing that it writes twice."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from itertools import combinations
from typing import Any

from blinkscope.errors import BlinkscopeError, UserError
from blinkscope.outputs import same_file

OPTIONS = {"output": "-o", "report": "--report", "plot": "--plot", "running": "--running", "tables": "--tables"}
"""Where a command writes."""


def check_apart(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, to write over a file that the command reads, or that the stored run was made from.

    Raises
    ------
    UserError : two options name the same file, or one of them names a file that is read.
    """
    given = vars(arguments)
    places = {name: str(given[name]) for name in OPTIONS if given.get(name)}
    for one, other in combinations(places, 2):
        if same_file(places[one], places[other]):
            raise UserError(
                f"{OPTIONS[one]} and {OPTIONS[other]} name the same file, {places[other]}; "
                "give one of them another name."
            )
    if given["command"] in ("locate", "study") or given.get("detect") == "score":
        places.pop("output", None)  # the run file, which is gone on with
    existing = [place for place in places.values() if os.path.isfile(place)]
    read = _names({name: value for name, value in given.items() if name not in OPTIONS})
    for name in read if existing else ():
        for place in existing:
            if same_file(place, name):
                raise UserError(f"{place} is read by this command, so nothing is written over it; choose another name.")
    for name in _made_from(given.get("run")) if existing else ():
        for place in existing:
            if same_file(place, name):
                raise UserError(
                    f"{place} is what {given['run']} was made from, so nothing is written over it; choose another name."
                )


def _made_from(run: str | None) -> Iterator[str]:
    """The files that the spec of a run names: data, recorded rollouts, a probe."""
    if run is None:
        return
    from blinkscope.runs.store import Run

    with contextlib.suppress(BlinkscopeError), Run.open(run) as stored:  # what is wrong with it, the command says
        yield from _names(stored.spec.identity)


def _names(value: Any) -> Iterator[str]:
    """Every text in a value that could name a file: as it stands, after ``replay:``, between ``python:`` and ``:``."""
    if isinstance(value, str) and value:
        rest = value.partition(":")[2]
        yield from filter(None, (value, rest, rest.rpartition(":")[0]))
    elif isinstance(value, dict):
        for part in value.values():
            yield from _names(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _names(part)
