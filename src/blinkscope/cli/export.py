"""``blinkscope export``: a stored run in a form that other tools read."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from blinkscope.cli.common import say_where, target_changes
from blinkscope.errors import UserError
from blinkscope.exports.generations import StoredGeneration, stored_generations
from blinkscope.exports.inspect_log import check_log, write_inspect_log
from blinkscope.exports.preference import SINGLE_TOKEN_WARNING, Preference, preference_pairs
from blinkscope.exports.tables import json_line, tables
from blinkscope.exports.write import LINES, preference_schema, run_schemas, write_dataset, write_jsonl
from blinkscope.outputs import Kind, check_file, check_folder, written
from blinkscope.plurals import counted
from blinkscope.studies.catalogue import stored_study

GUIDANCE = Kind("export", "export for guidance", re.compile(rb'\{\s*"model": .*\s*"eps": '))
README = "Made with `blinkscope export --to {form}` from a run of {model}.\n"


def command(arguments: argparse.Namespace) -> int:
    if arguments.to != "preference" and (arguments.prefer or arguments.single_token):
        raise UserError("--prefer and --single-token belong to --to preference; leave them out.")
    changes = target_changes(arguments)
    out = Path(arguments.output)
    _check(out, arguments.to)
    if arguments.to == "guidance":
        return _guidance(out, arguments, changes)
    generations = list(stored_generations(arguments.run, arguments.item, **changes))
    said = WRITERS[arguments.to](out, generations, arguments)
    print(f"{said} in {out}", file=sys.stderr)
    say_where(out)
    return 0


def _check(out: Path, form: str) -> None:
    """Refuse, before any work, an export that could not be written."""
    if form == "inspect":
        check_log(out)
    elif form in ("parquet", "preference"):
        check_folder(out, "export")
    else:
        check_file(out, {"jsonl": LINES, "guidance": GUIDANCE}[form])


def _guidance(out: Path, arguments: argparse.Namespace, changes: dict[str, Any]) -> int:
    """Where the classes of a diffusion model are decided, for ``blinkscope.diffusion.guidance``."""
    from blinkscope.studies.diffusion import guidance_document

    if arguments.item is not None:
        raise UserError("--to guidance reads a whole run of study diffusion; leave --item out.")
    result = stored_study(arguments.run, **changes)
    if result is None:
        raise UserError(f"--to guidance reads a run of study diffusion, and {arguments.run} holds no study of a model.")
    document = json.dumps(guidance_document(result), indent=2) + "\n"
    with written(out, GUIDANCE) as file:
        file.write(document.encode())
    say_where(out)
    return 0


def _jsonl(out: Path, generations: list[StoredGeneration], arguments: argparse.Namespace) -> str:
    written = write_jsonl(out, map(json_line, generations))
    return counted(written, "generation")


def _parquet(out: Path, generations: list[StoredGeneration], arguments: argparse.Namespace) -> str:
    rows = tables(generations)
    write_dataset(out, rows, run_schemas(), _readme(generations, arguments))
    return ", ".join(f"{name} ({counted(len(table), 'row')})" for name, table in rows.items())


def _preference(out: Path, generations: list[StoredGeneration], arguments: argparse.Namespace) -> str:
    preference = Preference(tuple(arguments.prefer or ()), arguments.single_token)
    rows = preference_pairs(generations, preference)
    if not rows and not any(generation.record.ended for generation in generations):
        raise UserError(
            "there is no pair: the generation was cut off at the length cap, and training on it would teach to stop "
            "there; locate one with a larger --max-new-tokens."
        )
    if not rows:
        raise UserError(
            "there is no pair: no window holds a finished continuation that left the generation there and was graded "
            "differently; draw more (--error), look for smaller changes (--delta), or raise --max-new-tokens."
        )
    write_dataset(out, {"default": rows}, {"default": preference_schema()}, _readme(generations, arguments))
    if preference.single_token:
        print(f"blinkscope: warning: {SINGLE_TOKEN_WARNING}", file=sys.stderr)
    return counted(len(rows), "pair")


def _inspect(out: Path, generations: list[StoredGeneration], arguments: argparse.Namespace) -> str:
    study = stored_study(arguments.run)
    rows = () if study is None else study.findings.tables.get("generations", ())
    write_inspect_log(out, generations, {row["item"]: row for row in rows if "answer" in row})
    return counted(len(generations), "sample")


def _readme(generations: list[StoredGeneration], arguments: argparse.Namespace) -> str:
    return README.format(form=arguments.to, model=generations[0].trace.settings.get("model"))


WRITERS = {"jsonl": _jsonl, "parquet": _parquet, "preference": _preference, "inspect": _inspect}
