"""``blinkscope detect``: train a probe, score texts under two models, and say how well each score tells them apart."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blinkscope.cli.common import check_places
from blinkscope.cli.study import check_files, write_files
from blinkscope.detection.probe import PROBE, save_probe
from blinkscope.detection.reading import Side
from blinkscope.detection.study import RUNNING, STUDY, DetectSpec, running_lines
from blinkscope.detection.texts import text_items
from blinkscope.detection.training import train_on
from blinkscope.errors import MissingExtra, UserError
from blinkscope.outputs import check_file, written
from blinkscope.report.progress import Display, progress_display
from blinkscope.report.study import print_study
from blinkscope.report.text import visible
from blinkscope.session import open_model
from blinkscope.studies.catalogue import stored_study
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import StudyResult, run_study

BRIEF = ("id", "label", "family", "tokens", "prompt_ratio", "reply_ratio", "reply_running_max")
"""What a terminal shows of a text's scores."""


def command(arguments: argparse.Namespace) -> int:
    return {"train": _train, "score": _score, "evaluate": _evaluate}[arguments.detect](arguments)


def _train(arguments: argparse.Namespace) -> int:
    out = Path(arguments.output)
    check_file(out, PROBE)
    if find_spec("sklearn") is None:
        raise MissingExtra("training a probe", "detect")
    items = text_items(arguments.data, arguments.items, training=True)
    with progress_display(sys.stderr) as display:
        display.stage(f"loading {arguments.model}")
        side = Side(open_model(arguments.model, _options(arguments)), arguments.system)
        trained = train_on(
            items,
            side,
            arguments.layer,
            seed=arguments.seed,
            begin=lambda number, items: _tell(display, number, items),
        )
    save_probe(out, trained.probe)
    for id_, reason in trained.left_out.items():
        print(visible(f"left out: {id_}: {reason}", keep=""), file=sys.stderr)
    print(json.dumps({"schema": 1, "model": side.engine.name, "layer": arguments.layer, **trained.probe.report}))
    return 0


def _score(arguments: argparse.Namespace) -> int:
    spec = DetectSpec(
        data=arguments.data,
        items=arguments.items,
        asking=Asking(model=arguments.aligned, system=arguments.aligned_system),
        unaligned=arguments.unaligned,
        unaligned_system=arguments.unaligned_system,
    )
    if arguments.probe:
        spec = spec.with_probe(arguments.probe)
    check_places(None, arguments.output)
    _check(arguments)
    with progress_display(sys.stderr) as display:
        display.stage(f"loading {spec.asking.model}")
        result = run_study(
            STUDY,
            spec,
            arguments.output,
            engine_options=_options(arguments),
            begin=lambda number, items, item: _tell(display, number + 1, items),
        )
    scored = result.findings.tables.get("scores", ())
    brief = [{name: row[name] for name in BRIEF} for row in scored]
    _write(result, replace(result, findings=replace(result.findings, tables={"scores": brief})), arguments)
    print(f"run file: {arguments.output}", file=sys.stderr)
    return result.exit_status


def _evaluate(arguments: argparse.Namespace) -> int:
    _check(arguments)
    changes = {"level": arguments.level} if arguments.level is not None else {}
    result = stored_study(arguments.run, **changes)
    if result is None or result.study != STUDY.name:
        raise UserError(f"{arguments.run} holds no scores; make some with blinkscope detect score.")
    if "quality" not in result.findings.tables:
        raise UserError(
            f"{arguments.run} holds no texts of both labels that could be scored; to evaluate, there must be some with "
            "label 1 and some with label 0."
        )
    _write(result, result, arguments)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Refuse, before any work, files beside the result that could not be written."""
    check_files(arguments)
    if arguments.running:
        check_file(arguments.running, RUNNING)


def _write(result: StudyResult, shown: StudyResult, arguments: argparse.Namespace) -> None:
    """The result as one JSON object, or what is shown of it as text, and the files that are asked for beside it."""
    if arguments.json:
        print(json.dumps(result.to_json(), allow_nan=False))
    else:
        print_study(shown, sys.stdout)
    write_files(result, arguments)
    if arguments.running:
        run = arguments.output if arguments.detect == "score" else arguments.run
        with written(arguments.running, RUNNING) as file:
            file.writelines(line.encode() + b"\n" for line in running_lines(Path(run)))


def _tell(display: Display, number: int, items: int) -> None:
    """How far it is, some twenty times on the way."""
    if (number - 1) % max(1, items // 20) == 0:
        display.stage(f"text {number:,} of {items:,}")


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    return {"device": arguments.device, "dtype": arguments.dtype, "batch_bytes": arguments.batch_bytes}
