"""What an answer costs for pictures: adaptive noise levels against a uniform grid, on the digits model.

The question is between which reverse steps a scan's digit is decided: the steps at which P(same digit) passes 0.25 and
0.75. The law of the labels is that of the scans' own exact denoiser, so that it is known and all ways can be repeated
often. The error of a way is the root mean square distance of its ends from those of the known law, in steps. The
uniform grid draws equally often at every level, is read by isotonic regression or by the smooth curve of
``diffusion/ends.py``, and is given as many draws as it needs for the error that the other way makes. ``curve`` aims at
every level's posterior and reads its ends by isotonic regression, ``ends`` (``locate --ends``) aims at the ends alone.
Last come the share of an answer's time that is not the networks', and the settings of the sampler that are inside and
outside the theory, on two Gaussians.

    python benchmarks/diffusion.py                    # about eight minutes of one core
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
from blinkscope.diffusion.schedules import cosine_times, karras_times
from blinkscope.divergence import label_law as posterior_law
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Target
from blinkscope.worlds.gaussian_mixture import GaussianMixture

ENDS_ASKED = (3.0, 2.0, 1.0)
REPEATS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SMOOTH_REPEATS = (1, 2, 4, 8, 16, 32)
REPETITIONS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="adaptive noise levels against a uniform grid")
    parser.add_argument("--quick", action="store_true", help="fewer levels, scans and draws")
    quick = parser.parse_args().quick
    steps, scans, draws = (16, (0,), 100) if quick else (64, (0, 9), 1000)
    model, (known, tested) = load_digits_model(), load_scans()
    data = EmpiricalData(known.pictures, tuple(LABELS[digit] for digit in known.digits))
    results = []
    for number in scans:
        law = label_law(data, tested.pictures[number], steps, draws)
        same = law[:, int(tested.digits[number])]
        print(f"scan {number}, digit {tested.digits[number]}: P(same) {np.round(same, 2).tolist()}", file=sys.stderr)
        digit = int(tested.digits[number])
        results += [against_grid(law, digit, "curve", Target(error=error)) for error in (0.05, 0.1)]
        results += [against_grid(law, digit, "ends", Target(ends=ends)) for ends in ENDS_ASKED]
    report = {
        "steps": steps,
        "scans": results,
        "overhead": overhead(model),
        "settings": settings(500 if quick else 10_000),
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


def against_grid(law: Float[np.ndarray, "steps labels"], digit: int, way: str, target: Target) -> dict[str, object]:
    """Cost and error of one way, and of the uniform grid that is as good."""
    steps = len(law)
    rows = np.arange(steps + 1)
    truth = isotonic_ends(np.append(law[:, digit], 1.0), np.ones(steps + 1), rows)
    found, stated, costs = [], [], []
    for seed in range(REPETITIONS):
        source = KnownLaw(law, seed)
        levels = NoiseLevels(source.strata, LABELS[digit], 12, seed, target.error)
        method = levels if target.ends is None else ChangeEnds(levels, target.ends)
        draws = drawn(source, method)
        if target.ends is None:
            found.append(isotonic_ends(*counted(draws, digit, steps)))
        else:
            read = read_ends(draws, LABELS[digit], steps)
            found.append(np.array([end.step for end in read]))
            stated.append([end.sd for end in read])
        costs.append(sum(draw.cost for draw in draws))
    made, cost = distance(np.array(found), truth), float(np.mean(costs))
    grid = {reading: uniform(law[:, digit], reading, truth) for reading in ("isotonic", "smooth")}
    full = steps * (steps + 1) / 2
    return {
        "digit": digit,
        "way": way,
        "asked": target.error if target.ends is None else target.ends,
        "ends": truth.round(2).tolist(),
        "error_of_ends": round(made, 2),
        "stated": round(float(np.sqrt(np.mean(np.square(stated)))), 2) if stated else None,
        "network_evaluations": round(cost),
        "times_fewer_than_uniform": {
            reading: round(repeats_for(errors, made) * full / cost, 2) for reading, errors in grid.items()
        },
        "error_of_uniform": {
            reading: {str(repeats): round(error, 2) for repeats, error in errors.items()}
            for reading, errors in grid.items()
        },
    }


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


def isotonic_ends(
    share: Float[np.ndarray, " rows"], sizes: Float[np.ndarray, " rows"], rows: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " ends"]:
    """The positions at which the isotonic fit passes each end; the first row where it starts above it."""
    fit = isotonic_regression(share, weights=np.maximum(sizes, 1e-9)).x
    # Flat stretches get a slope too small to matter, so that a crossing is one place.
    return np.interp(SHARES, fit + 1e-9 * np.arange(len(fit)), rows)


def distance(found: Float[np.ndarray, "repetitions ends"], truth: Float[np.ndarray, " ends"]) -> float:
    return float(np.sqrt(((found - truth) ** 2).mean()))


def settings(n: int) -> dict[str, object]:
    """Share of n labels that survive forward-reverse, two Gaussians N(+-6, 1), for settings and numbers of steps.

    At the level of each schedule where |mu| e^{-t} is nearest to 1; ``theory`` is the share by posterior draws there.
    """
    world = GaussianMixture(means=np.array([[6.0], [-6.0]]))
    out: dict[str, object] = {}
    for steps in (50, 100, 250):
        times = karras_times(steps, sigma_min=0.02)
        level = int(np.abs(6 * np.exp(-times) - 1).argmin())
        row = {"theory": round(float(posterior_law(world.law(float(times[level])), ("0",)).mean[0, 0]), 3)}
        for eta, churn in [(1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (0.0, 20.0)]:
            diffusion = GaussianDiffusion(world.denoise, times, (1,), eta=eta, churn=churn)
            rngs = [np.random.default_rng([9, i]) for i in range(n)]
            noisy = np.stack([diffusion.noise(rng, 6 + rng.standard_normal(1), level) for rng in rngs])
            kept = diffusion.reverse(noisy, np.full(n, level), rngs) > 0
            row[f"eta={eta:g},churn={churn:g}"] = round(float(kept.mean()), 3)
        out[str(steps)] = row
    return out


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
