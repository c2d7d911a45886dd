"""How the exact worlds grow with their size, beside plain Monte Carlo at the same error.

    python benchmarks/worlds.py [--only NAME] [--eps 0.1]

For each world and size: seconds of processor time and peak memory for its critical window and, for
``belief-propagation``, for the posteriors of 64 texts of a random hierarchy. ``exponent`` is the slope of log seconds
against log size over the sizes that take at least 0.05 seconds. Averages take fewer draws the larger the world, so that
a window's exponent says less than ``evaluation_exponent``, the one of the seconds for a single posterior.

Plain Monte Carlo draws labels from the prior and observations given them, and averages (1/2) |pi(A)/w_A - pi(B)/w_B| at
T_before; it needs variance / error^2 draws, where error is the standard error of the world's own total variation there,
or 0.001 where that is exact. In sparse regression it goes through the supports one by one. ``ratio`` is its time over
that of the world's own evaluation. Every size runs in a process of its own. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from itertools import chain, combinations
from typing import Any

import numpy as np
from scipy.special import expit, logsumexp

from blinkscope import create_world, critical_window
from blinkscope.posterior import label_mask
from blinkscope.worlds.sparse_regression import SparseRegression
from blinkscope.worlds.world import World

SIZES: dict[str, list[tuple[int, dict[str, int]]]] = {
    "gaussian-mixture": [(k, {"components": k, "dim": 10 * k}) for k in (30, 100, 300, 1000)],
    "sparse-regression": [(math.comb(d, 3), {"dim": d, "sparsity": 3}) for d in (20, 40, 86, 183)],
    "random-walk": [(n, {"length": n}) for n in (1_000, 10_000, 100_000, 1_000_000)],
    "random-hierarchy": [(2**depth, {"depth": depth}) for depth in (6, 8, 10, 12)],
    "belief-propagation": [(2**depth, {"depth": depth}) for depth in (8, 11, 14, 17)],
}
EXACT_ENOUGH = 1e-3
PLAIN_DRAWS = 128
TEXTS = 64


def measured(name: str, parameters: dict[str, int], eps: float) -> dict[str, Any]:
    """One size, in this process."""
    if name == "belief-propagation":
        world = create_world("random-hierarchy", parameters)
        texts = world.sample(np.random.default_rng(0), "0", 0.5, TEXTS)
        started = time.process_time()
        world.posterior(texts, 0.5)
        found: dict[str, Any] = {"seconds": time.process_time() - started}
    else:
        world = create_world(name, parameters)
        started = time.process_time()
        window = critical_window(world, eps, world.after, world.before)
        found = {"seconds": time.process_time() - started, "t_after": window.t_after, "t_before": window.t_before}
        if window.t_before is not None:
            found |= plain(create_world(name, parameters), window.t_before)
    return found | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def plain(world: World, t: float) -> dict[str, float]:
    """Plain Monte Carlo's time over the world's own for one total variation at t, at the same error."""
    world.total_variation(world.after, world.before, world.index.low)  # what is set up once is no part of the time
    started = time.process_time()
    error = max(world.total_variation(world.after, world.before, t).standard_error, EXACT_ENOUGH)
    own = time.process_time() - started
    started = time.process_time()
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(PLAIN_DRAWS, world.weights)
    y = np.concatenate([world.sample(rng, world.labels[k], t, int(n)) for k, n in enumerate(drawn) if n])
    drawing = time.process_time() - started
    started = time.process_time()
    posterior = world.posterior(y, t)
    reading = time.process_time() - started
    found = {"posterior_seconds": reading / PLAIN_DRAWS}
    if isinstance(world, SparseRegression):
        started = time.process_time()
        assert np.allclose(one_by_one(world, y), posterior[:, 0])
        reading = time.process_time() - started
    a, b = (
        posterior[:, mask].sum(axis=1) / world.weights[mask].sum()
        for mask in (label_mask(world.labels, world.after), label_mask(world.labels, world.before))
    )
    needed = float((np.abs(a - b) / 2).var()) / error**2
    seconds = (drawing + reading) / PLAIN_DRAWS * needed
    return found | {"error": error, "own_seconds": own, "plain_seconds": seconds, "ratio": seconds / own}


def one_by_one(world: SparseRegression, y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """pi(signal) by adding up every support's likelihood, from a list of the supports."""
    flat = chain.from_iterable(combinations(range(world.dim), world.sparsity))
    members = np.fromiter(flat, np.intp, world.supports * world.sparsity).reshape(-1, world.sparsity).T
    precision, found = world.noise**-2, []
    for context in y:
        x, answer = context[:, :-1], context[:, -1]
        gram, single = precision * (x.T @ x), precision * (answer @ x)
        score = sum(single[j] - gram[j, j] / 2 for j in members)
        for j, other in combinations(members, 2):
            score = score - gram[j, other]
        gain = precision - 1 / (world.sparsity + world.noise**2)
        null = gain / 2 * (answer @ answer) - len(answer) / 2 * math.log1p(world.sparsity * precision)
        found.append(expit(logsumexp(score) - math.log(world.supports) - null))
    return np.array(found)


def exponent(rows: list[dict[str, Any]], what: str, least: float) -> float | None:
    """Slope of log seconds against log size."""
    slow = [(row["size"], row[what]) for row in rows if row.get(what, 0) >= least]
    if len(slow) < 2:
        return None
    return float(np.polyfit(*np.log(np.asarray(slow)).T, 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SIZES)
    parser.add_argument("--eps", type=float, default=0.1)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # one size, in the process that is measured
    arguments = parser.parse_args()
    if arguments.one:
        name, parameters = json.loads(arguments.one)
        print(json.dumps(measured(name, parameters, arguments.eps)))
        return
    found = {}
    for name in [arguments.only] if arguments.only else SIZES:
        rows: list[dict[str, Any]] = []
        for size, parameters in SIZES[name]:
            command = [sys.executable, __file__, "--eps", str(arguments.eps), "--one", json.dumps([name, parameters])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"size": size, **parameters, **json.loads(done.stdout)})
            print(name, rows[-1], file=sys.stderr, flush=True)
        found[name] = {
            "rows": rows,
            "exponent": exponent(rows, "seconds", 0.05),
            "evaluation_exponent": exponent(rows, "posterior_seconds", 0.0),
        }
    print(json.dumps({"eps": arguments.eps, "worlds": found}, indent=1))


if __name__ == "__main__":
    main()
