"""Guidance where the class is decided, against guidance everywhere and nowhere, on the digits model.

Every digit is drawn with the same seeds by each way at each scale: without guidance (``never``), with it at every level
(``always``), inside the window of its class only (``window``), and only at the levels above (``before``) or below it
(``after``). The windows are those of a file that ``blinkscope export --to guidance`` wrote from a run of
``blinkscope study diffusion``. Numbers are medians over the seeds, with the least and the most:

    accuracy    share of pictures that the shipped classifier reads as the digit that was asked for
    spread      mean distance of two pictures of one digit, as a multiple of that of two real scans of it
    coverage    share of real scans that have a drawn picture of their digit nearer than their 5th nearest real scan of
                it (Naeem and others, "Reliable fidelity and diversity metrics for generative models", ICML 2020)

    blinkscope study diffusion --model 'diffusion:digits?steps=25' -o digits.db
    blinkscope export digits.db --to guidance -o guidance.json
    python benchmarks/guidance.py guidance.json            # about a minute of one core
    python benchmarks/guidance.py guidance.json --quick    # one seed, few pictures
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist, pdist

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.diffusion.digits import LABELS, SHAPE, Digits, load_digits_model, load_scans
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.guidance import EVERYWHERE, GuidanceInterval, read_interval
from blinkscope.diffusion.schedules import cosine_times

STEPS = 25
NEIGHBOURS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description="guidance inside the window against always and never")
    parser.add_argument("interval", help="file of blinkscope export --to guidance")
    parser.add_argument("--quick", action="store_true", help="one seed, few pictures")
    asked = parser.parse_args()
    seeds, scales, pictures = (1, (3.0,), 3) if asked.quick else (5, (3.0,), 5)
    model = load_digits_model()
    windows = {label: read_interval(asked.interval, label) for label in LABELS}
    rows = []
    for scale in scales:
        for way in ("never", "always", "window", "before", "after"):
            if way == "never" and scale != scales[0]:
                continue  # the scale does not matter
            found = [measure(model, windows, way, scale, pictures, seed) for seed in range(seeds)]
            row: dict[str, object] = {"scale": None if way == "never" else scale, "guided": way}
            row |= {name: spread_of([one[name] for one in found]) for name in found[0]}
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    report = {
        "steps": STEPS,
        "seeds": seeds,
        "pictures_of_each_digit": pictures,
        "windows": {label: interval.to_json() for label, interval in windows.items()},
        "rows": rows,
    }
    print(json.dumps(report, indent=2))


def spread_of(values: list[float]) -> list[float]:
    """Median, least and most."""
    return [round(float(value), 3) for value in (np.median(values), min(values), max(values))]


def parts(window: GuidanceInterval, way: str) -> GuidanceInterval | None:
    """The levels that are guided; None for none."""
    if way == "always":
        return EVERYWHERE
    if way == "before" and window.high < math.inf:
        return GuidanceInterval(math.nextafter(window.high, math.inf), math.inf)
    if way == "after" and window.low > 0:
        return GuidanceInterval(0.0, math.nextafter(window.low, 0.0))
    return window if way == "window" else None


def measure(
    model: Digits, windows: Mapping[str, GuidanceInterval], way: str, scale: float, n: int, seed: int
) -> dict[str, float]:
    """The three numbers of one seed, as means over the digits, and network evaluations for each picture."""
    known, _ = load_scans()
    times, right, spread, covered, evaluations = cosine_times(STEPS), [], [], [], [0]

    def counted(denoise: Denoiser) -> Denoiser:
        def call(y: Pictures, t: float) -> Pictures:
            evaluations[0] += len(y)
            return denoise(y, t)

        return call

    for digit, label in enumerate(LABELS):
        given, free = counted(model.denoiser(digit)), counted(model.denoiser())
        interval = parts(windows[label], way)
        denoise = given if interval is None else interval.denoiser(given, free, scale)
        rngs = [np.random.default_rng([21, seed, digit, i]) for i in range(n)]
        drawn = GaussianDiffusion(denoise, times, SHAPE).sample(rngs)
        right.append(float((model.probabilities(drawn).argmax(axis=1) == digit).mean()))
        flat, real = drawn.reshape(n, -1), known.pictures[known.digits == digit].reshape(-1, 64).astype(float)
        spread.append(float(pdist(flat).mean() / pdist(real).mean()))
        covered.append(coverage(flat, real))
    return {
        "accuracy": float(np.mean(right)),
        "spread": float(np.mean(spread)),
        "coverage": float(np.mean(covered)),
        "evaluations": evaluations[0] / (n * len(LABELS)),
    }


def coverage(drawn: Float[np.ndarray, "n pixels"], real: Float[np.ndarray, "scans pixels"]) -> float:
    radius = np.sort(cdist(real, real), axis=1)[:, NEIGHBOURS]
    return float((cdist(real, drawn).min(axis=1) <= radius).mean())


if __name__ == "__main__":
    main()
