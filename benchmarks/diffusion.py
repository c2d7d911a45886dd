"""What an answer costs for pictures: adaptive noise levels against a uniform grid, on the digits model.

The question is between which reverse steps a scan's digit is decided: the steps at which P(same digit) passes 0.25 and
0.75. The law of the labels is that of the scans' own exact denoiser, so that it is known and all ways can be repeated
often. The error of a way is the root mean square distance of its ends from those of the known law, in steps. ``curve``
aims at every level's posterior and reads its ends by isotonic regression, ``ends`` (``locate --ends``) aims at the ends
alone. The uniform grid draws equally often at every level. It is given

    equal repeats   as many draws at every level as the other way has, on average, at the levels that it looks at
    equal error     as many as it needs for the error that the other way makes, read by isotonic regression, or by the
                    smooth curve of ``diffusion/ends.py``

Then come how the cost grows with the number of steps, of levels asked for, of labels and with the error asked for, and
the share of an answer's time that is not the networks'.

    python benchmarks/diffusion.py                    # about six minutes of one core
    python benchmarks/diffusion.py --quick            # fewer levels, scans and draws: a minute
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import isotonic_regression

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.diffusion.digits import LABELS, SHAPE, Digits, load_digits_model, load_scans
from blinkscope.diffusion.ends import SHARES, ChangeEnds, read_ends
from blinkscope.diffusion.exact import EmpiricalData
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.levels import NoiseLevels
from blinkscope.diffusion.pictures import locate_sample
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Target

STEPS = (50, 100, 250)
SCANS = (0, 9, 3)
CURVES_ASKED = (0.1, 0.05)
ENDS_ASKED = 0.02  # as a share of the steps
REPEATS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SMOOTH_REPEATS = (1, 2, 4, 8, 16, 32)
REPETITIONS, GROWTH_REPETITIONS = 20, 4


def main() -> None:
    parser = argparse.ArgumentParser(description="adaptive noise levels against a uniform grid")
    parser.add_argument("--quick", action="store_true", help="fewer levels, scans and draws")
    quick = parser.parse_args().quick
    counts, scans, draws = ((16,), SCANS[:1], 100) if quick else (STEPS, SCANS, 300)
    model, (known, tested) = load_digits_model(), load_scans()
    data = EmpiricalData(known.pictures, tuple(LABELS[digit] for digit in known.digits))
    results = []
    for number in scans:
        digit = int(tested.digits[number])
        for steps in counts:
            law = label_law(data, tested.pictures[number], steps, draws)
            for target in (*(Target(error=error) for error in CURVES_ASKED), Target(ends=ENDS_ASKED * steps)):
                results.append({"scan": number, "steps": steps, **against_grid(law, digit, target)})
                print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report = {
        "against_grid": results,
        "growth": growth(data, tested.pictures[0], int(tested.digits[0]), counts, draws),
        "overhead": overhead(model),
    }
    print(json.dumps(report, indent=2))


def label_law(data: EmpiricalData, scan: Pictures, steps: int, draws: int) -> Float[np.ndarray, "steps labels"]:
    """The law of the digits that a scan becomes after so many steps of noise, position 0 first; a mean over noise."""
    rows = []
    for t in cosine_times(steps)[:0:-1]:
        rng, signal = np.random.default_rng(7), np.exp(-t)
        noise = rng.standard_normal((draws, *scan.shape))
        rows.append(data.posterior(signal * scan + np.sqrt(1 - signal**2) * noise, float(t)).mean(axis=0))
    return np.array(rows)


@dataclass(frozen=True, eq=False)
class KnownLaw:
    """A source with this label law at each position."""

    law: Float[np.ndarray, "steps labels"]
    seed: int

    @property
    def strata(self) -> tuple[Stratum, ...]:
        return tuple(Stratum(s, float(len(self.law) - s)) for s in range(len(self.law)))

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        for order in orders:
            for replicate in order.replicates():
                rng = np.random.default_rng([self.seed, order.stratum, replicate])
                digit = rng.choice(len(LABELS), p=self.law[order.stratum])
                yield Draw(order.stratum, replicate, LABELS[digit], float(len(self.law) - order.stratum))


def against_grid(law: Float[np.ndarray, "steps labels"], digit: int, target: Target) -> dict[str, object]:
    """Cost and error of one way, and of the uniform grid that is as good, or repeats as often."""
    steps = len(law)
    rows = np.arange(steps + 1)
    truth = isotonic_ends(np.append(law[:, digit], 1.0), np.ones(steps + 1), rows)
    found, stated, costs, looked_at = [], [], [], []
    for seed in range(REPETITIONS):
        source = KnownLaw(law, seed)
        draws = drawn(source, method_of(source, digit, target))
        if target.ends is None:
            found.append(isotonic_ends(*counted(draws, digit, steps)))
        else:
            read = read_ends(draws, LABELS[digit], steps)
            found.append(np.array([end.step for end in read]))
            stated.append([end.sd for end in read])
        costs.append(sum(draw.cost for draw in draws))
        looked_at.append(len(draws) / len({draw.stratum for draw in draws}))
    made, cost, repeats = distance(np.array(found), truth), float(np.mean(costs)), float(np.mean(looked_at))
    grid = {reading: uniform(law[:, digit], reading, truth) for reading in ("isotonic", "smooth")}
    full = steps * (steps + 1) / 2
    needed = {reading: repeats_for(errors, made) for reading, errors in grid.items()}
    return {
        "digit": digit,
        "way": "curve" if target.ends is None else "ends",
        "asked": target.error if target.ends is None else target.ends,
        "ends": truth.round(2).tolist(),
        "error_of_ends": round(made, 2),
        "stated": round(float(np.sqrt(np.mean(np.square(stated)))), 2) if stated else None,
        "network_evaluations": round(cost),
        "equal_repeats": {
            "repeats": round(repeats, 1),
            "times_fewer": round(repeats * full / cost, 1),
            "error_of_uniform": round(error_at(grid["isotonic"], repeats), 2),
        },
        "equal_error": {
            reading: {"repeats": round(count, 1), "times_fewer": round(count * full / cost, 1)}
            for reading, count in needed.items()
        },
    }


def method_of(source: KnownLaw, digit: int, target: Target) -> NoiseLevels | ChangeEnds:
    levels = NoiseLevels(source.strata, LABELS[digit], 12, source.seed, target.error)
    return levels if target.ends is None else ChangeEnds(levels, target.ends)


def drawn(source: KnownLaw, method: NoiseLevels | ChangeEnds) -> list[Draw]:
    """What the loop draws, without the curve that it makes of it at the end."""
    draws: list[Draw] = []
    round_ = 0
    while orders := method.orders(draws, round_):
        draws += sorted(source.draw(orders, round_, ()), key=lambda draw: (draw.stratum, draw.replicate))
        round_ += 1
    return draws


def counted(draws: Sequence[Draw], digit: int, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the digit, how often each row was drawn from, and the rows, the certain last one among them."""
    same = np.bincount([draw.stratum for draw in draws if draw.label == LABELS[digit]], minlength=steps + 1)
    sizes = np.bincount([draw.stratum for draw in draws], minlength=steps + 1)
    same[-1] = sizes[-1] = sizes.sum()
    rows = np.flatnonzero(sizes)
    return same[rows] / sizes[rows], sizes[rows], rows


@cache
def _uniform(law: tuple[float, ...], reading: str, truth: tuple[float, ...]) -> dict[int, float]:
    steps, errors = len(law), {}
    for repeats in REPEATS if reading == "isotonic" else SMOOTH_REPEATS:
        rng = np.random.default_rng(1)
        same = rng.binomial(repeats, law, size=(REPETITIONS, steps))
        if reading == "isotonic":
            sizes = np.append(np.full(steps, float(repeats)), steps * repeats)
            read = [isotonic_ends(np.append(row / repeats, 1.0), sizes, np.arange(steps + 1)) for row in same]
        else:
            read = [np.array([end.step for end in read_ends(_draws(row, repeats), "same", steps)]) for row in same]
        errors[repeats] = distance(np.array(read), np.array(truth))
    return errors


def uniform(law: Float[np.ndarray, " steps"], reading: str, truth: Float[np.ndarray, " ends"]) -> dict[int, float]:
    """The error of the uniform grid for each number of repeats."""
    return _uniform(tuple(law.tolist()), reading, tuple(truth.tolist()))


def _draws(same: Int[np.ndarray, " steps"], repeats: int) -> list[Draw]:
    return [Draw(s, i, "same" if i < count else "other", 1.0) for s, count in enumerate(same) for i in range(repeats)]


def repeats_for(errors: Mapping[int, float], wanted: float) -> float:
    """How often the grid has to be repeated for an error; at the ends of the table, what stands there."""
    return float(np.exp(np.interp(-np.log(wanted), -np.log(list(errors.values())), np.log(list(errors)))))


def error_at(errors: Mapping[int, float], repeats: float) -> float:
    """The error of the grid with so many repeats."""
    return float(np.exp(np.interp(np.log(repeats), np.log(list(errors)), np.log(list(errors.values())))))


def isotonic_ends(
    share: Float[np.ndarray, " rows"], sizes: Float[np.ndarray, " rows"], rows: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " ends"]:
    """The positions at which the isotonic fit passes each end; the first row where it starts above it."""
    fit = isotonic_regression(share, weights=np.maximum(sizes, 1e-9)).x
    # Flat stretches get a slope too small to matter, so that a crossing is one place.
    return np.interp(SHARES, fit + 1e-9 * np.arange(len(fit)), rows)


def distance(found: Float[np.ndarray, "repetitions ends"], truth: Float[np.ndarray, " ends"]) -> float:
    return float(np.sqrt(((found - truth) ** 2).mean()))


def growth(
    data: EmpiricalData, scan: Pictures, digit: int, counts: Sequence[int], draws: int
) -> dict[str, dict[str, object]]:
    """Network evaluations of a curve, and seconds of blinkscope's own work, as one thing changes.

    Where nothing else is said: the first number of steps, error 0.1, ten labels, levels chosen by the method.
    """
    laws = {steps: label_law(data, scan, steps, draws) for steps in counts}
    law = laws[counts[0]]
    others = [k for k in range(len(LABELS)) if k != digit]

    def merged(labels: int) -> Float[np.ndarray, "steps labels"]:
        """The law with all but the first of the other labels taken as one."""
        out = law.copy()
        rest = others[labels - 2 :]
        out[:, rest[0]] = law[:, rest].sum(axis=1)
        out[:, rest[1:]] = 0
        return out

    def levels(count: int) -> tuple[int, ...]:
        return tuple(sorted({round(len(law) * i / count) for i in range(count)}))

    return {
        "steps": {str(steps): cost_of(one, digit, 0.1) for steps, one in laws.items()},
        "error": {str(error): cost_of(law, digit, error) for error in (0.1, 0.05, 0.025)},
        "labels": {str(count): cost_of(merged(count), digit, 0.1) for count in (2, 10)},
        "levels_asked_for": {str(count): cost_of(law, digit, 0.1, levels(count)) for count in (4, 16)},
    }


def cost_of(
    law: Float[np.ndarray, "steps labels"], digit: int, error: float, positions: tuple[int, ...] | None = None
) -> dict[str, object]:
    found = []
    for seed in range(GROWTH_REPETITIONS):
        source = KnownLaw(law, seed)
        method = NoiseLevels(source.strata, LABELS[digit], 12, seed, error, positions=positions)
        started = time.process_time()
        draws = drawn(source, method)
        method.estimate(draws)
        seconds = time.process_time() - started
        found.append((sum(draw.cost for draw in draws), len(draws), len({draw.stratum for draw in draws}), seconds))
    evaluations, continuations, levels, seconds = np.mean(found, axis=0)
    return {
        "network_evaluations": round(evaluations),
        "continuations": round(continuations),
        "levels": round(levels, 1),
        "own_seconds": round(seconds, 2),
    }


def overhead(model: Digits) -> dict[str, float]:
    """Seconds of one whole answer, and the share of them that is not the two networks."""
    spent = [0.0]

    def timed(function: Denoiser) -> Denoiser:
        def call(y: Pictures, t: float) -> Pictures:
            started = time.perf_counter()
            try:
                return function(y, t)
            finally:
                spent[0] += time.perf_counter() - started

        return call

    diffusion = GaussianDiffusion(timed(model.denoiser()), cosine_times(50), SHAPE)
    label = timed(lambda pictures, t: model.probabilities(pictures))
    names = np.array(LABELS)
    started = time.perf_counter()
    trace = locate_sample(
        diffusion,
        lambda pictures: names[label(pictures, 0.0).argmax(axis=1)].tolist(),
        target=Target(error=0.1),
    )
    seconds = time.perf_counter() - started
    return {
        "network_evaluations": trace.cost.network_evaluations,
        "seconds": round(seconds, 2),
        "share_outside_networks": round(1 - spent[0] / seconds, 3),
    }


if __name__ == "__main__":
    main()
