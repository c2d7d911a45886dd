"""``blinkscope locate``."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from blinkscope.cli.common import (
    NOT_GIVEN,
    check_places,
    conclude,
    numbers,
    read_text,
    refuse_options,
    run_file,
    target_changes,
)
from blinkscope.engines import SCHEMES
from blinkscope.errors import UserError
from blinkscope.estimate.predict import USUAL_RANGE, WINDOWS_USUAL_RANGE
from blinkscope.estimate.record import DEFAULT_FRACTIONS, MethodOptions
from blinkscope.estimate.trace import Target
from blinkscope.features import open_feature
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling
from blinkscope.pictured import is_picture_model
from blinkscope.planning import Plan
from blinkscope.plurals import counted
from blinkscope.question import Question, messages, refuse_unused
from blinkscope.report.progress import progress_display
from blinkscope.session import locate, no_feature, open_model, plan

LARGEST_FILE = 10_000_000  # bytes of a transcript or of messages


OF_MODELS = (
    *("prompt", "feature", "ask", "system", "prefill", "messages", "generation", "temperature", "top_p", "top_k"),
    *("min_p", "max_new_tokens", "stop", "device", "dtype", "batch_bytes"),
)
"""What can be asked of a model, but not of a recording."""


def command(arguments: argparse.Namespace) -> int:
    if is_picture_model(arguments.model):
        from blinkscope.cli import picture

        return picture.command(arguments)
    for name in ("image", "times", "ends", "allow_pickle"):
        if getattr(arguments, name) not in NOT_GIVEN:
            option = name.replace("_", "-")
            raise UserError(f"--{option} belongs to pictures; it needs --model diffusion:NAME or diffusers:FOLDER.")
    if arguments.plan and (written := [option for option in ("output", "report") if getattr(arguments, option)]):
        option = {"output": "-o", "report": "--report"}[written[0]]
        raise UserError(f"--plan draws nothing and writes no file; leave {option} out, or --plan.")
    if arguments.model.startswith("replay:"):
        return _recorded(arguments)
    if arguments.item is not None:
        raise UserError("--item names one of several recorded generations; it needs --model replay:FILE.")
    # Everything that can be wrong without a model is looked at before one is loaded.
    target = Target().changed(**target_changes(arguments))
    question = Question(
        _prompt(arguments),
        system=arguments.system,
        prefill=arguments.prefill,
        generation=None if arguments.generation is None else _text(arguments.generation),
        feature=None if arguments.feature is None else open_feature(arguments.feature),
        ask=arguments.ask,
        method=_method(arguments),
        seed=arguments.seed,
        labels=arguments.labels,
    )
    if arguments.feature is None and arguments.model.partition(":")[0] in SCHEMES.keys() - {"toy"}:
        raise no_feature()
    changes = _sampling(arguments)
    options = {"device": arguments.device, "dtype": arguments.dtype, "batch_bytes": arguments.batch_bytes}
    run = run_file(arguments)
    check_places(arguments.report, run)
    with progress_display(sys.stderr) as display:
        display.stage(f"loading {arguments.model}")
        engine = open_model(arguments.model, options)
        display.stage("scoring the generation")
        question = replace(question, sampling=replace(engine.default_sampling, **changes))
        if arguments.plan:
            return _planned(plan(engine, question), arguments)
        trace = locate(engine, question, target=target, run=run, announce=_announce, watch=display.update)
    return conclude(trace, run, arguments)


def _recorded(arguments: argparse.Namespace) -> int:
    why = ", whose prompt, labels and sampling are its own"
    refuse_options(arguments, OF_MODELS, why)
    changes = target_changes(arguments)
    if arguments.plan:
        return _planned(plan(arguments.model, item=arguments.item, seed=arguments.seed, **changes), arguments)
    run = run_file(arguments)
    check_places(arguments.report, run)
    with progress_display(sys.stderr) as display:
        trace = locate(
            arguments.model,
            item=arguments.item,
            method=recorded_method(arguments),
            seed=arguments.seed,
            labels=arguments.labels,
            run=run,
            announce=_announce,
            watch=display.update,
            **changes,
        )
    return conclude(trace, run, arguments)


def recorded_method(arguments: argparse.Namespace) -> MethodOptions | str | None:
    """The method for recorded rollouts; what is not said follows from what was recorded."""
    if arguments.fractions is not None or arguments.resamples is not None:
        return _method(arguments)
    refuse_unused(arguments.method, target_changes(arguments))
    return str(arguments.method) if arguments.method is not None else None


def _sampling(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the command line changes in the model's own settings."""
    names = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.stop:
        changes["stop"] = tuple(arguments.stop)
    Sampling(**changes)  # refuses what makes no sense
    return changes


def _announce(plan: Plan) -> None:
    """What the run will cost, before it costs anything."""
    expected = plan.prediction
    already = f"; {plan.known_draws:,} were drawn before" if plan.known_draws else ""
    each = plan.seconds_per_token
    about = (
        f"expecting about {counted(expected.continuations, 'continuation')} and "
        f"{counted(expected.generated_tokens, 'generated token')}"
    )
    if expected.usual is not None:
        low, high = (int(float(f"{tokens:.2g}")) for tokens in expected.usual)  # a guess is no better
        low, high = min(low, expected.generated_tokens), max(high, expected.generated_tokens)
        about += f" (eight runs in ten: {low:,} to {high:,})"
    print(f"{_places(plan)}; {about}{already}", file=sys.stderr)
    if each is not None:
        time = duration(expected.generated_tokens * each)
        print(f"one by one these would take {time} of the model's time; side by side they take less", file=sys.stderr)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)


def _places(plan: Plan) -> str:
    """How long the text is, and where the divergence method looks at it."""
    tokens = counted(len(plan.record.steps), "token")
    places = f", {len(plan.record.strata):,} of them can decide something"
    return tokens + places if plan.record.method.name == "divergence" else tokens


def _planned(planned: Plan, arguments: argparse.Namespace) -> int:
    """The expected cost of this method to several errors, and of others, on stdout."""
    steps, places = len(planned.record.steps), len(planned.record.strata)
    each = planned.seconds_per_token
    if arguments.json:
        rows = [{"method": cost.method, "error": cost.error, **asdict(cost.expected)} for cost in planned.costs]
        found = {"schema": 1, "tokens": steps, "open": places, "seconds_per_token": each, "costs": rows}
        print(json.dumps({**found, "notes": planned.notes}))
        return 0
    print(f"{_places(planned)}; nothing was drawn\n")
    width = max(len(cost.method) for cost in planned.costs)
    time = f"{'one by one':>12}" if each is not None else ""
    print(f"{'method':<{width}}  {'error':>5}{'continuations':>15}{'tokens':>13}{time}")
    for cost in planned.costs:
        error = "" if cost.error is None else f"{cost.error:g}"
        expected = cost.expected
        time = "" if each is None else f"{duration(expected.generated_tokens * each):>12}"
        counts = f"{expected.continuations:>15,}{expected.generated_tokens:>13,}"
        print(f"{cost.method:<{width}}  {error:>5}{counts}{time}")
    ranges = " and ".join(f"{low:.2g} to {high:.2g} times ({name})" for name, (low, high) in USUAL_RANGE.items())
    low, high = WINDOWS_USUAL_RANGE
    ranges = f"of the tokens of their line,\n{ranges}; until windows are known {low:g} to {high:g} times"
    print(f"\nHow open the outcome is only draws can tell: eight runs in ten take, {ranges}.")
    if each is not None:
        print("Times are those of one continuation at a time, as the generation was written; side by side takes less.")
    for note in planned.notes:
        print(f"Note: {note}")
    return 0


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, in two digits: a prediction is no better."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.2g} {unit}" if seconds < 100 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.2g} s"


def _prompt(arguments: argparse.Namespace) -> str | tuple[Message, ...]:
    if (arguments.prompt is None) == (arguments.messages is None):
        raise UserError("give a prompt, or chat messages with --messages FILE; one of the two.")
    if arguments.messages is None:
        return str(arguments.prompt)
    try:
        items = json.loads(_text(arguments.messages))
    except json.JSONDecodeError as error:
        raise UserError(f"{arguments.messages} is not JSON: {error}.") from None
    except RecursionError:
        raise UserError(f"{arguments.messages} is nested too deeply to be chat messages.") from None
    if not isinstance(items, list):
        raise UserError(
            f"{arguments.messages} holds no list; messages are a JSON list of objects with role and content."
        )
    return messages(items)


def _text(name: str) -> str:
    """A UTF-8 text file, one final line break left out."""
    path = Path(name)
    if path.is_file() and path.stat().st_size > LARGEST_FILE:
        raise UserError(f"{name} has more than {LARGEST_FILE:,} bytes; that is no single transcript.")
    return read_text(name).removesuffix("\n")


def _method(arguments: argparse.Namespace) -> MethodOptions:
    name = arguments.method or MethodOptions.name
    refuse_of_other_methods(name, arguments)
    fractions = DEFAULT_FRACTIONS
    if arguments.fractions is not None:
        fractions = numbers("fractions", arguments.fractions, float, "give numbers from 0 to 1 with commas")
    resamples = arguments.resamples if arguments.resamples is not None else MethodOptions.resamples
    return MethodOptions(name, fractions, resamples)


def refuse_of_other_methods(name: str, arguments: argparse.Namespace) -> None:
    """Refuse options of the command line that the method would not look at."""
    if arguments.fractions is not None and name != "grid":
        raise UserError(f"--fractions is of the method grid, not of {name}; add --method grid, or leave it out.")
    if arguments.resamples is not None and name == "divergence":
        raise UserError(f"--resamples is of the methods grid and bisect, not of {name}; choose one, or leave it out.")
    refuse_unused(name, target_changes(arguments))
