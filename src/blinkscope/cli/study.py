"""``blinkscope study``: many generations, one run file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from blinkscope.cli.common import check_places, numbers, read_text, target_changes
from blinkscope.cli.locate import recorded_method, refuse_of_other_methods
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.exports.study import check_tables, write_tables
from blinkscope.figure_file import check_figure
from blinkscope.report.progress import progress_display
from blinkscope.report.study import print_study
from blinkscope.report.study_figures import write_figure
from blinkscope.report.survey import print_survey
from blinkscope.studies.blanks import form_of
from blinkscope.studies.catalogue import find_study
from blinkscope.studies.cluster import Cluster
from blinkscope.studies.cot import CotSpec
from blinkscope.studies.ray_session import LOCAL
from blinkscope.studies.replay import study_replay
from blinkscope.studies.specs import from_toml, to_toml
from blinkscope.studies.structured import PAPER
from blinkscope.studies.study import Study, StudyResult, run_study
from blinkscope.studies.survey import Survey
from blinkscope.studies.workers import in_process


def command(arguments: argparse.Namespace) -> int:
    return _replay(arguments) if arguments.study == "replay" else _of_model(arguments)


def _of_model(arguments: argparse.Namespace) -> int:
    study = find_study(arguments.study)
    assert study is not None
    spec = _spec(study, arguments)
    if arguments.print_spec:
        print(to_toml(study.name, spec), end="")
        return 0
    if arguments.output is None:
        raise UserError("a study needs a run file; give it a name with -o RUN.db.")
    check_places(None, arguments.output)
    check_files(arguments)
    places = ("device", "dtype", "batch_bytes", "allow_pickle")
    options = {name: getattr(arguments, name) for name in places if hasattr(arguments, name)}
    with progress_display(sys.stderr, currency=study.currency.rpartition("_")[2].removesuffix("s")) as display:
        begin = lambda number, items, item: display.stage(f"item {number + 1} of {items}: {item}")  # noqa: E731
        if arguments.ray is not None:
            display.stage("joining the Ray cluster" if arguments.ray != LOCAL else "beginning Ray on this machine")
            begin = lambda number, items, item: None  # noqa: E731  # several at a time; the display shows the whole
        else:
            display.stage(f"loading {spec.asking.model}")
        result = run_study(
            study,
            spec,
            arguments.output,
            engine_options=options,
            workers=in_process if arguments.ray is None else Cluster(arguments.ray),
            begin=begin,
            watch=display.update,
        )
    write_result(result, arguments)
    reached = not any(kind == "engine" for kind, _ in result.failed.values())
    if isinstance(spec, CotSpec) and reached and result.items < spec.most_items:
        print(
            f"note: {spec.most_items} items were asked for; the data holds no more than these {result.items}",
            file=sys.stderr,
        )
    print(f"run file: {arguments.output}", file=sys.stderr)
    return result.exit_status


def write_result(result: StudyResult, arguments: argparse.Namespace) -> None:
    """The result on stdout, as text or as one JSON object, and the files that are asked for beside it."""
    if arguments.json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        print_study(result, sys.stdout)
    write_files(result, arguments)


def check_files(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, a figure or tables that could not be written."""
    if arguments.plot:
        check_figure(Path(arguments.plot))
    if arguments.tables:
        check_tables(Path(arguments.tables))


def write_files(result: StudyResult, arguments: argparse.Namespace) -> None:
    """The figure and the tables of a study, where they are asked for."""
    if arguments.plot and not write_figure(result, Path(arguments.plot)):
        yet = "" if result.status == "complete" else " yet"
        print(
            f"note: study {result.study} found nothing{yet} that a figure could show, so {arguments.plot} was not "
            "written; the result stands",
            file=sys.stderr,
        )
    if arguments.tables:
        write_tables(result, Path(arguments.tables))


def write_survey(survey: Survey, arguments: argparse.Namespace) -> None:
    """The survey on stdout, as text or as one JSON object."""
    if arguments.json:
        print(json.dumps(survey.to_json(), allow_nan=False))
    else:
        print_survey(survey, sys.stdout)


def _spec(study: Study, arguments: argparse.Namespace) -> Any:
    """The study's own settings, those of the file, and those of the command line, the later ones first."""
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    words = frozenset(value for value in given.values() if isinstance(value, str))
    spec = study.default
    if arguments.spec is not None:
        spec = from_toml(read_text(arguments.spec), study.name, study.default, repeated=words)
    changes: dict[str, Any] = {}
    if given.get("form") is not None:
        for name, option in (("blanks", "--blank"), ("prompt", "--prompt")):
            if name in given:
                raise UserError(f"--form FILE holds the prompt and its blanks already; leave {option} out.")
        prompt = PAPER if given["form"] == "paper" else read_text(given["form"])
        changes = {"prompt": prompt, "blanks": form_of(prompt).blanks}
    for field in fields(spec):
        if field.name in ("asking", "target"):
            part = getattr(spec, field.name)
            names = {inner.name for inner in fields(part)} & given.keys()
            given_here = {name: _plain(given[name]) for name in names}
            changes[field.name] = (
                part.changed(**given_here) if isinstance(part, Target) else replace(part, **given_here)
            )
        elif field.name in given:
            changes[field.name] = (
                numbers(field.name, given[field.name], NUMBERS[field.name], "write numbers with commas")
                if field.name in NUMBERS
                else _plain(given[field.name])
            )
    spec = replace(spec, **changes)
    if hasattr(spec, "method"):
        refuse_of_other_methods(spec.method, arguments)
    return spec


NUMBERS: Mapping[str, type] = {"times": int, "fractions": float, "temperatures": float}
"""Settings that the command line spells as numbers with commas."""


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _replay(arguments: argparse.Namespace) -> int:
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
    write_survey(survey, arguments)
    print(f"run file: {arguments.output}", file=sys.stderr)
    return survey.exit_status
