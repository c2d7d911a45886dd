"""How near does the loop come to the cheapest allocation there is?

    python benchmarks/allocation.py [--replay FILE] [--labels 2] [--errors 0.1 0.05 0.02] [--runs 3]

For each case, with every off-path law known, the cheapest counts that bring the largest standard deviation over rows
and labels down to the error (a convex problem, solved within 0.5 %; ``cheapest_counts``), and the same in whole numbers
(each count rounded up). Beside it what the loop spends with the unbiased estimator, which knows nothing beforehand:

- ``spent``: its tokens over the cheapest at the error asked for;
- ``true_error``: the largest standard deviation that its counts amount to under the true laws;
- ``at_true_error``: its tokens over the cheapest at that true error, the loss to the allocation alone;
- ``pilot``: the share of the pilot in what it spent.

Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.estimate import loop
from blinkscope.estimate.allocation import cheapest_counts
from blinkscope.estimate.evidence import inverse_counts
from blinkscope.estimate.pilot import PILOT
from blinkscope.estimate.trace import Target
from cases import Case, replay_cases, toy_cases


def compare(case: Case, error: float, seed: int) -> dict[str, Any] | None:
    """One run beside the optimum; None where nothing can be decided."""
    spread, cost = np.zeros_like(case.gamma), np.ones(case.recursion.steps)
    for stratum in case.strata:
        spread[stratum.key] = np.clip(case.gamma[stratum.key] * (1 - case.gamma[stratum.key]), 0, None)
        cost[stratum.key] = stratum.cost
    best = cheapest_counts(case.recursion, spread, cost, error)
    if best.cost < 1:  # token
        return None
    target = Target(error=error)
    outcome = loop.run(case.off_path_source(seed), case.divergence(seed, target), target)
    drawn = np.zeros((case.recursion.steps, 2))
    for draw in outcome.draws:
        drawn[draw.stratum, draw.replicate % 2] += 1
    spent = float((drawn.sum(axis=1) * cost).sum())
    reached = float(np.sqrt(case.recursion.variance(spread * inverse_counts(drawn)[:, None]).max()))
    return {
        "case": case.name,
        "error": error,
        "cheapest": best.cost,
        "gap": best.cost / best.least - 1,
        "whole_numbers": float((np.ceil(best.counts) * cost).sum()) / best.cost,
        "spent": spent / best.cost,
        "true_error": reached / error,
        "at_true_error": spent / best.cost * (reached / error) ** 2,
        "pilot": 2 * PILOT * sum(stratum.cost for stratum in case.strata) / spent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", type=Path, metavar="FILE", help="recorded rollouts; toy models alone without it")
    parser.add_argument("--labels", type=int, default=2, help="outcomes of recorded rollouts kept apart (default 2)")
    parser.add_argument("--errors", type=float, nargs="+", default=[0.1, 0.05, 0.02])
    parser.add_argument("--runs", type=int, default=3, help="runs of each case (default 3)")
    arguments = parser.parse_args()
    groups = {"toy": toy_cases([0])}
    if arguments.replay:
        groups["replay"] = replay_cases(arguments.replay, arguments.labels)
    result: dict[str, Any] = {"runs": arguments.runs, "labels": arguments.labels, "median": {}, "rows": []}
    for group, cases in groups.items():
        for error in arguments.errors:
            rows = []
            for case in cases:
                found = [row for seed in range(arguments.runs) if (row := compare(case, error, seed))]
                if found:
                    averages = {key: statistics.fmean(row[key] for row in found) for key in list(found[0])[2:]}
                    rows.append({"case": case.name, "error": error, **{k: round(v, 3) for k, v in averages.items()}})
                    print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
            result["rows"] += rows
            keys = ("whole_numbers", "spent", "true_error", "at_true_error", "pilot")
            result["median"][f"{group} {error:g}"] = {
                "cases": len(rows),
                **{key: round(statistics.median(row[key] for row in rows), 3) for key in keys},
            }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
