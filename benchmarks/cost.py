"""Generated tokens, error and windows: the divergence method beside its peers, on the same cases with a known law.

    python benchmarks/cost.py [--replay FILE] [--labels 2] [--error 0.05] [--runs 2] [--only METHOD ...] [--no-toys]
                              [--threshold 0.2]

Methods: ``unbiased`` and ``pooled`` (the divergence method to the error); ``windows`` (until the windows are known,
pooled); ``resampling`` (100 free continuations at every position); ``grid`` (the paper's ten fractions, 100 each);
``bisect10`` and ``bisect50`` (pivotal token search: split while the ends differ by ``--threshold`` in total variation);
``forking`` (30 continuations of every alternative above 0.05 at every position, read with the divergence recursion,
which is kinder than the published reading).

Of every run: generated tokens; mean squared error over all rows and labels (curves with fewer rows are interpolated
linearly between them); true windows of change 0.6 or more and how many of them overlap a listed one; listed windows
(change 0.5) and how many of them overlap a true one of that change; whether a window was listed at all, for models
that have none. Windows of ``grid`` follow the paper's rule, a rise of 0.5 between consecutive fractions.

``equal_error`` is the cost of resampling every position for a method's own mean squared error, over the method's cost:
n free continuations have mean squared error mean(pi (1 - pi)) / n exactly. ``prediction`` says how far the prediction
made before the first draw was off, and ``after_the_first_look`` the one made after the first round, over the runs that
went on: the median factor, either way, and deciles of what was spent over it. ``coverage`` is the share of 95 % bands
that hold the truth, over (row, label) with truth in (0.02, 0.98), with an interval in which a run counts once. Prints
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.estimate import loop
from blinkscope.estimate.predict import predict
from blinkscope.estimate.resampling import Bisection, Grid, fraction_rows
from blinkscope.estimate.trace import ESTIMATORS, Target
from blinkscope.posterior import Posterior
from blinkscope.window import TokenWindow, rise_windows, token_windows
from calibration import share
from cases import Case, replay_cases, toy_cases

DIVERGENCE = (*ESTIMATORS, "windows")
METHODS = (*DIVERGENCE, "resampling", "grid", "bisect10", "bisect50", "forking")
FRACTIONS = tuple(i / 10 for i in range(10))
FORK_FROM, FORK_DRAWS = 0.05, 30


@dataclass(frozen=True, eq=False)
class Result:
    """What one run of a method gave; ``foreseen`` is what it expected to cost after its first look, if it went on."""

    tokens: float
    posterior: Posterior
    foreseen: float | None = None


def run(case: Case, method: str, error: float, seed: int, threshold: float) -> Result:
    if method == "forking":
        return forking(case, seed)
    if method in DIVERGENCE:
        target = target_of(method, error)
        outcome = loop.run(case.off_path_source(seed), case.divergence(seed, target), target)
    else:
        outcome = loop.run(case.free_source(seed), _free_method(case, method, seed, threshold), Target())
    return Result(sum(draw.cost for draw in outcome.draws), outcome.posterior, outcome.foreseen)


def target_of(method: str, error: float) -> Target:
    """Of the divergence method: an estimator to the error, or pooled until the windows are known."""
    changes = {"until": "windows"} if method == "windows" else {"estimator": method}
    return Target(error=error).changed(**changes)


def _free_method(case: Case, method: str, seed: int, threshold: float) -> Grid | Bisection:
    strata, limit = case.free_strata(), len(case.labels) + 1
    if method.startswith("bisect"):
        return Bisection(strata, int(method.removeprefix("bisect")), case.final_label, limit, seed, threshold)
    rows = tuple(range(case.recursion.steps))
    if method == "grid":
        rows = fraction_rows(case.recursion.steps, FRACTIONS)
    return Grid(strata, rows, 100, case.final_label, limit, seed)


def forking(case: Case, seed: int) -> Result:
    """Every alternative above 0.05 (one at least), 30 times, weighted by its probability among them."""
    rng = np.random.default_rng(seed)
    gamma, tokens = np.full_like(case.gamma, np.nan), 0.0
    for s, forks in case.forks.items():
        kept = [branch for branch in forks if branch.p > FORK_FROM]
        tokens += FORK_DRAWS * sum(branch.cost for branch in kept)
        total = sum(branch.p for branch in kept)
        for i, branch in enumerate(kept):
            share = rng.multinomial(FORK_DRAWS, branch.share(case.labels)) / FORK_DRAWS
            gamma[s] = (0.0 if i == 0 else gamma[s]) + branch.p / total * share
    mean = case.recursion.curve(gamma, case.final)
    return Result(tokens, Posterior(np.arange(len(mean), dtype=float), case.labels, mean))


def squared_error(case: Case, posterior: Posterior) -> float:
    rows = np.arange(case.recursion.steps + 1)
    mean = np.zeros_like(case.truth)
    for column, label in enumerate(case.labels):
        if label in posterior.labels:
            mean[:, column] = np.interp(rows, posterior.index, posterior.mean[:, posterior.labels.index(label)])
    return float(((mean - case.truth) ** 2).mean())


def covered(case: Case, posterior: Posterior) -> tuple[int, int]:
    """Bands that hold the truth, and how many there are where it is undecided; that of a label never seen does not."""
    if posterior.draws is None or len(posterior.index) < len(case.truth):
        return 0, 0
    low, high = posterior.band(0.95)
    undecided = (case.truth > 0.02) & (case.truth < 0.98)
    found = 0
    for column, label in enumerate(case.labels):
        if label in posterior.labels:
            k, truth = posterior.labels.index(label), case.truth[:, column]
            found += int(((low[:, k] <= truth) & (truth <= high[:, k]) & undecided[:, column]).sum())
    return found, int(undecided.sum())


def windows(case: Case, method: str, posterior: Posterior) -> tuple[TokenWindow, ...]:
    if method != "grid":
        return token_windows(posterior, case.final_label, max_width=case.width)
    return rise_windows(posterior, case.final_label)


def overlapping(windows: Sequence[TokenWindow], others: Sequence[TokenWindow]) -> int:
    return sum(any(w.start < o.end and o.start < w.end for o in others) for w in windows)


def measure(case: Case, method: str, error: float, runs: int, threshold: float) -> dict[str, Any]:
    """Averages and counts over the runs of one case."""
    rows = np.arange(case.recursion.steps + 1, dtype=float)
    exact = token_windows(Posterior(rows, case.labels, case.truth), case.final_label, max_width=case.width)
    tokens, squared, bands, looked, found = [], [], [], [], {"true": 0, "hit": 0, "listed": 0, "right": 0, "alarms": 0}
    for seed in range(runs):
        result = run(case, method, error, seed, threshold)
        listed = windows(case, method, result.posterior)
        tokens.append(result.tokens)
        squared.append(squared_error(case, result.posterior))
        bands.append(covered(case, result.posterior))
        if result.foreseen is not None:
            looked.append(result.foreseen / result.tokens)
        found["true"] += len(case.windows)
        found["hit"] += overlapping(case.windows, listed)
        found["listed"] += len(listed)
        found["right"] += overlapping(listed, exact)
        found["alarms"] += case.null and bool(listed)
    spread = float((case.truth * (1 - case.truth)).mean())
    mean_squared = statistics.fmean(squared)
    every = float(case.free_cost.sum())
    # An error of nothing at all has no equal: a question whose outcome nothing can change.
    equal = spread / mean_squared * every / statistics.fmean(tokens) if mean_squared > 1e-9 else None
    predicted = None
    if method in DIVERGENCE:
        predicted = predict(case.recursion, case.strata, target_of(method, error)).generated_tokens
    return {
        "case": case.name,
        "method": method,
        "predicted_tokens": predicted,
        "tokens": round(statistics.fmean(tokens)),
        "rms_error": round(mean_squared**0.5, 4),
        "equal_error": equal and round(equal, 2),
        "bands": bands,
        "predicted_over_spent": [predicted / spent for spent in tokens] if predicted else [],
        "foreseen_over_spent": looked,
        **found,
    }


def summary(rows: Sequence[dict[str, Any]], nulls: int) -> dict[str, Any]:
    """One method over the cases of a group."""
    total = {key: sum(row[key] for row in rows) for key in ("true", "hit", "listed", "right", "alarms")}
    ratios = [row["equal_error"] for row in rows if row["equal_error"] is not None]
    return {
        "median_tokens": round(statistics.median(row["tokens"] for row in rows)),
        "total_tokens": sum(row["tokens"] for row in rows),
        "median_rms_error": round(statistics.median(row["rms_error"] for row in rows), 4),
        "median_equal_error": round(statistics.median(ratios), 2),
        "prediction": off([ratio for row in rows for ratio in row["predicted_over_spent"]]),
        "after_the_first_look": off([ratio for row in rows for ratio in row["foreseen_over_spent"]]),
        "coverage": share(*zip(*(bands for row in rows for bands in row["bands"]), strict=True)),
        "recall": f"{total['hit']}/{total['true']}",
        "precision": f"{total['right']}/{total['listed']}",
        "null_runs_with_a_window": f"{total['alarms']}/{nulls}",
    }


def off(ratios: Sequence[float]) -> dict[str, Any] | None:
    """How far predictions were off, either way, in median; and what was spent over what was predicted."""
    if not ratios:
        return None
    spent = np.quantile([1 / ratio for ratio in ratios], [0.1, 0.5, 0.9])
    factor = statistics.median(max(ratio, 1 / ratio) for ratio in ratios)
    return {"runs": len(ratios), "median_factor": round(factor, 2), "spent_10_50_90": np.round(spent, 2).tolist()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="recorded rollouts; toy models alone without it")
    parser.add_argument("--no-toys", action="store_true")
    parser.add_argument("--labels", type=int, default=2, help="outcomes of recorded rollouts kept apart (default 2)")
    parser.add_argument("--error", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=2, help="runs of each case (default 2)")
    parser.add_argument("--threshold", type=float, default=0.2, help="of the bisection (default 0.2)")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD")
    arguments = parser.parse_args()
    groups = {} if arguments.no_toys else {"toy": toy_cases([0])}
    if arguments.replay:
        groups["replay"] = replay_cases(arguments.replay, arguments.labels)
    result: dict[str, Any] = {
        "error": arguments.error,
        "runs": arguments.runs,
        "labels": arguments.labels,
        "summary": {},
        "rows": [],
    }
    for group, cases in groups.items():
        nulls = arguments.runs * sum(case.null for case in cases)
        for method in arguments.only:
            rows = []
            for case in cases:
                rows.append(measure(case, method, arguments.error, arguments.runs, arguments.threshold))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            result["rows"] += rows
            result["summary"][f"{group} {method}"] = summary(rows, nulls)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
