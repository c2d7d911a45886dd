"""What an answer costs for pictures: adaptive noise levels against a uniform grid, on the digits model.

The question is between which reverse steps a scan's digit is decided: the steps at which P(same digit) passes 0.25 and
0.75, read off the isotonic fit to the shares at the levels looked at, linear between them. First every level of some
scans, which the model was not trained on, is denoised many times; these shares then stand for the model, as a law that
is known, so that both ways can be repeated often. The error of a way is the root mean square distance of its ends from
those of the known law, in steps. The uniform grid draws equally often at every level, and is given as many draws as it
needs for the error that the adaptive method makes. Last come the settings of the sampler that are inside and outside
the theory, on two Gaussians.

    python benchmarks/diffusion.py                    # about eight minutes of one core
    python benchmarks/diffusion.py --quick            # fewer levels, scans and draws: half a minute
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import isotonic_regression

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.diffusion.digits import LABELS, SHAPE, Digits, load_digits_model, load_scans
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.levels import NoiseLevels
from blinkscope.diffusion.pictures import locate_sample
from blinkscope.diffusion.schedules import cosine_times, karras_times
from blinkscope.divergence import label_law as posterior_law
from blinkscope.estimate import loop
from blinkscope.estimate.source import Draw, Order, Stratum
from blinkscope.estimate.trace import Target
from blinkscope.worlds.gaussian_mixture import GaussianMixture

ENDS = (0.25, 0.75)
REPEATS = (2, 4, 8, 16, 32, 64, 128)
REPETITIONS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="adaptive noise levels against a uniform grid")
    parser.add_argument("--quick", action="store_true", help="fewer levels, scans and draws")
    quick = parser.parse_args().quick
    steps, scans, draws = (16, (0,), 60) if quick else (64, (0, 2), 200)
    model, (_, tested) = load_digits_model(), load_scans()
    results = []
    for number in scans:
        law = label_law(model, tested.pictures[number], steps, draws)
        same = law[:, int(tested.digits[number])]
        print(f"scan {number}, digit {tested.digits[number]}: P(same) {np.round(same, 2).tolist()}", file=sys.stderr)
        results += [compare(law, int(tested.digits[number]), error) for error in (0.05, 0.1)]
    report = {
        "steps": steps,
        "draws_of_the_known_law": draws,
        "scans": results,
        "overhead": overhead(model),
        "settings": settings(500 if quick else 10_000),
    }
    print(json.dumps(report, indent=2))


def label_law(model: Digits, scan: Pictures, steps: int, draws: int) -> Float[np.ndarray, "steps labels"]:
    """Shares of the digits that a scan becomes after so many steps of noise, position 0 first."""
    diffusion = GaussianDiffusion(model.denoiser(), cosine_times(steps), SHAPE)
    levels = np.repeat(np.arange(steps, 0, -1), draws)
    rngs = [np.random.default_rng([7, i]) for i in range(len(levels))]
    noisy = np.stack([diffusion.noise(rng, scan, int(level)) for rng, level in zip(rngs, levels, strict=True)])
    digits = model.probabilities(diffusion.reverse(noisy, levels, rngs)).argmax(axis=1).reshape(steps, draws)
    return (digits[..., None] == np.arange(len(LABELS))).mean(axis=1)


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


def compare(law: Float[np.ndarray, "steps labels"], digit: int, error: float) -> dict[str, object]:
    """Cost and error of the adaptive method, and of the uniform grid that is as good."""
    steps, rng = len(law), np.random.default_rng(1)
    truth = ends(np.append(law[:, digit], 1.0), np.ones(steps + 1), np.arange(steps + 1))
    found, costs, levels = [], [], []
    for seed in range(REPETITIONS):
        source = KnownLaw(law, seed)
        method = NoiseLevels(source.strata, LABELS[digit], 12, seed, error)
        done = loop.run(source, method, Target(error=error))
        rows = done.posterior.index.astype(int)
        same = np.bincount([draw.stratum for draw in done.draws if draw.label == LABELS[digit]], minlength=steps + 1)
        sizes = np.bincount([draw.stratum for draw in done.draws], minlength=steps + 1)
        same[-1] = sizes[-1] = sizes.sum()
        found.append(ends(same[rows] / sizes[rows], sizes[rows], rows))
        costs.append(sum(draw.cost for draw in done.draws))
        levels.append(len(rows) - 1)
    adaptive = distance(np.array(found), truth)
    everywhere = np.arange(steps + 1)
    uniform = []
    for repeats in REPEATS:
        shares = rng.binomial(repeats, law[:, digit], size=(REPETITIONS, steps)) / repeats
        sizes = np.append(np.full(steps, float(repeats)), steps * repeats)
        uniform.append(distance(np.array([ends(np.append(s, 1.0), sizes, everywhere) for s in shares]), truth))
    needed = float(np.exp(np.interp(-np.log(adaptive), -np.log(uniform), np.log(REPEATS))))
    cost, grid = float(np.mean(costs)), needed * steps * (steps + 1) / 2
    return {
        "digit": digit,
        "asked_error": error,
        "ends": truth.round(2).tolist(),
        "error_of_ends": round(adaptive, 2),
        "levels_looked_at": round(float(np.mean(levels)), 1),
        "network_evaluations": round(cost),
        "uniform": {str(repeats): round(value, 2) for repeats, value in zip(REPEATS, uniform, strict=True)},
        "uniform_repeats_for_the_same_error": round(needed, 1),
        "times_fewer_than_uniform_at_equal_error": round(grid / cost, 2),
        "times_fewer_than_uniform_at_equal_repeats": round(
            steps * (steps + 1) / 2 * np.bincount([d.stratum for d in done.draws]).max() / cost, 2
        ),
    }


def ends(
    share: Float[np.ndarray, " rows"], sizes: Float[np.ndarray, " rows"], rows: Float[np.ndarray, " rows"]
) -> Float[np.ndarray, " ends"]:
    """The positions at which the isotonic fit passes each end; the first row where it starts above it."""
    fit = isotonic_regression(share, weights=np.maximum(sizes, 1e-9)).x
    # Flat stretches get a slope too small to matter, so that a crossing is one place.
    return np.interp(ENDS, fit + 1e-9 * np.arange(len(fit)), rows)


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
