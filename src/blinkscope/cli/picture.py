"""``blinkscope locate`` for diffusion models."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blinkscope.cli.common import check_places, conclude, numbers, refuse_options, run_file, target_changes
from blinkscope.diffusion.folders import SCHEME as PIPELINES
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.pictured import PicturePlan, locate_picture
from blinkscope.plurals import counted
from blinkscope.report.progress import progress_display

if TYPE_CHECKING:
    from pathlib import Path

    from blinkscope.estimate.loop import Progress

OF_TEXTS = (
    *("item", "ask", "system", "prefill", "messages", "generation", "temperature", "top_p", "top_k", "min_p"),
    *("max_new_tokens", "stop", "fractions", "resamples", "estimator", "until"),
)
"""What can be asked of a text, but not of a picture."""
OF_LOADING = ("device", "dtype", "batch_bytes", "allow_pickle")
OF_PIPELINES = ("prompt", *OF_LOADING)
"""What can be asked of a pipeline that is loaded, but not of the models that ship with the package."""


def command(arguments: argparse.Namespace) -> int:
    pipeline = arguments.model.startswith(PIPELINES)
    refuse_options(arguments, OF_TEXTS if pipeline else (*OF_TEXTS, *OF_PIPELINES), ", a diffusion model")
    if arguments.plan:
        raise UserError(
            "there is no plan for diffusion models: which noise levels are looked at depends on what is drawn. Limit "
            "it with --continuations instead."
        )
    options: dict[str, Any] = {
        "prompt": arguments.prompt,
        "image": arguments.image,
        "feature": arguments.feature,
        "times": None if arguments.times is None else _times(arguments.times),
        "seed": arguments.seed,
        "labels": arguments.labels,
        **({} if arguments.method is None else {"method": arguments.method}),
    }
    if pipeline:
        options["engine_options"] = {name: getattr(arguments, name) for name in OF_LOADING}
    target = Target().changed(**target_changes(arguments))
    run: Path = run_file(arguments)
    check_places(arguments.report, run)
    with progress_display(sys.stderr, currency="evaluation") as display:
        display.stage(f"loading {arguments.model}")

        def watch(progress: Progress) -> None:
            # Ends are no matter of the curve's error.
            display.update(progress if target.ends is None else replace(progress, error=math.nan, asked=math.nan))

        trace = locate_picture(arguments.model, target=target, run=run, announce=_announce, watch=watch, **options)
    return conclude(trace, run, arguments)


def _times(text: str) -> tuple[float, ...]:
    return numbers("times", text, float, "give numbers with commas, for instance 0.5,1,2")


def _announce(plan: PicturePlan) -> None:
    """What the run can cost, before it costs anything."""
    already = f", {plan.known_draws:,} of them drawn before" if plan.known_draws else ""
    each = "as many continuations as the ends take"
    if plan.most_draws is not None:
        each = f"at most about {counted(plan.most_draws, 'continuation')} for each that is looked at"
    evaluations = counted(plan.largest, "network evaluation")
    print(
        f"{counted(plan.record.steps, 'noise level')}; {each}{already}, of {evaluations} or fewer",
        file=sys.stderr,
    )
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
