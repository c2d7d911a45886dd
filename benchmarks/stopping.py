"""Does stopping at an asked-for error bias the unbiased curve? The hardest case known, with and without.

    python benchmarks/stopping.py [--runs 600] [--error 0.05]

A path whose first position is left with probability 0.9, and then has the other outcome with probability 0.08, is
followed by 40 positions that are left with probability 0.02, half of them to the other outcome. A run may stop because
the first position's few draws happen to agree. Every run is made twice: it stops at the error, and at a budget of as
many draws as the first kind takes on average. Prints one JSON object: means over the runs of the probability of the
other outcome before the first step, with their standard errors, beside the exact value.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from blinkscope.estimate import loop
from blinkscope.estimate.decomposition import Decomposition
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Target

Q = np.asarray([0.9, *[0.02] * 40])
GAMMA = np.asarray([0.08, *[0.5] * 40])
RECURSION = Recursion(1 - Q, Q)
STRATA = tuple(Stratum(s, 1.0) for s in range(len(Q)))
EXACT = float(RECURSION.curve(np.stack([1 - GAMMA, GAMMA], axis=1), np.asarray([1.0, 0.0]))[0, 1])


class Coins:
    """A source whose outcomes at each position are independent draws of their known law."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def draw(self, orders: Sequence[Order], round_: int, done: Collection[tuple[int, int]]) -> Iterator[Draw]:
        for order in orders:
            for replicate in order.replicates():
                rng = np.random.default_rng((self.seed, order.stratum, replicate))
                label = "other" if rng.random() < GAMMA[order.stratum] else "same"
                yield Draw(stratum=order.stratum, replicate=replicate, label=label, cost=1.0)


def run(seed: int, target: Target) -> tuple[float, int]:
    method = Decomposition(RECURSION, STRATA, "same", limit=2, seed=seed)
    outcome = loop.run(Coins(seed), method, target)
    column = outcome.posterior.labels.index("other") if "other" in outcome.posterior.labels else None
    return 0.0 if column is None else float(outcome.posterior.mean[0, column]), len(outcome.draws)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--error", type=float, default=0.05)
    arguments = parser.parse_args()
    stopped = [run(seed, Target(error=arguments.error)) for seed in range(arguments.runs)]
    budget = round(float(np.mean([draws for _, draws in stopped])))
    fixed = [run(seed, Target(error=1e-6, continuations=budget)) for seed in range(arguments.runs)]
    found: dict[str, object] = {"runs": arguments.runs, "asked_error": arguments.error, "exact": EXACT, "draws": budget}
    for name, runs in (("stopped_at_the_error", stopped), ("stopped_at_the_budget", fixed)):
        values = np.asarray([value for value, _ in runs])
        error = float(values.std(ddof=1) / np.sqrt(len(values)))
        bias = float(values.mean()) - EXACT
        found[name] = {"mean": float(values.mean()), "standard_error": error, "bias": bias, "sd": float(values.std())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
