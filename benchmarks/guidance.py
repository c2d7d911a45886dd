"""Guidance where the class is decided, against guidance everywhere and nowhere, on digits.

Every digit is drawn with the same seeds by each way at each scale: without guidance (``never``), with it at every level
(``always``), inside the window of its class only (``window``), and only at the levels above (``before``) or below it
(``after``). The windows are those of a file that ``blinkscope export --to guidance`` wrote from a run of
``blinkscope study diffusion``. There are two networks:

    shipped     the digits model, whose pictures of a class are nearly all read as that class without guidance
    misled      the same UNet trained here, briefly, on scans of which ``MISLED`` have a digit drawn at random, as
                captions are often wrong: given a class it draws that class somewhat more often than others

Numbers are means over the seeds with their standard errors:

    accuracy    share of pictures that the shipped classifier reads as the digit that was asked for
    spread      mean distance of two pictures of one digit, as a multiple of that of two real scans of it
    coverage    share of real scans that have a drawn picture of their digit nearer than their 5th nearest real scan of
                it (Naeem and others, "Reliable fidelity and diversity metrics for generative models", ICML 2020)
    fidelity    share of drawn pictures that are nearer to a real scan of their digit than this is to its 5th nearest

    blinkscope study diffusion --model 'diffusion:digits?steps=25' -o digits.db
    blinkscope export digits.db --to guidance -o guidance.json
    python benchmarks/guidance.py guidance.json            # about six minutes of one core, two of them training
    python benchmarks/guidance.py guidance.json --quick    # one seed, few pictures, hardly any training
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.spatial.distance import cdist, pdist

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.diffusion.digits import LABELS, SHAPE, Digits, load_digits_model, load_scans, new_networks
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.guidance import EVERYWHERE, GuidanceInterval, read_interval
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.diffusion.shipped import seeded_training
from blinkscope.diffusion.train_digits import train_unet

STEPS = 25
NEIGHBOURS = 5
MISLED, TRAINED = 0.6, 800
SCALES = {"shipped": (8.0,), "misled": (3.0, 8.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description="guidance inside the window against always and never")
    parser.add_argument("interval", help="file of blinkscope export --to guidance")
    parser.add_argument("--quick", action="store_true", help="one seed, few pictures, hardly any training")
    asked = parser.parse_args()
    seeds, pictures, trained = (2, 3, 60) if asked.quick else (5, 6, TRAINED)
    shipped = load_digits_model()
    windows = {label: read_interval(asked.interval, label) for label in LABELS}
    rows = []
    for name, model in (("shipped", shipped), ("misled", misled(shipped, trained))):
        for scale in SCALES[name]:
            for way in ("never", "always", "window", "before", "after"):
                if way == "never" and scale != SCALES[name][0]:
                    continue  # the scale does not matter
                found = [measure(model, windows, way, scale, pictures, seed) for seed in range(seeds)]
                row: dict[str, object] = {"network": name, "scale": None if way == "never" else scale, "guided": way}
                row |= {measured: mean_of([one[measured] for one in found]) for measured in found[0]}
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


def misled(model: Digits, steps: int) -> Digits:
    """The digits model with a UNet that learned from classes of which many are wrong."""
    known, _ = load_scans()
    rng = np.random.default_rng(0)
    wrong = rng.random(len(known.digits)) < MISLED
    digits = np.where(wrong, rng.integers(len(LABELS), size=len(known.digits)), known.digits)
    with seeded_training(0):
        unet, _ = new_networks()
        unet = train_unet(unet, replace(known, digits=digits), lambda what, done, of: None, steps)
    return replace(model, unet=unet.eval())


def mean_of(values: list[float]) -> list[float]:
    """Mean and its standard error."""
    return [round(float(np.mean(values)), 3), round(float(np.std(values, ddof=1) / math.sqrt(len(values))), 3)]


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
    """The numbers of one seed, as means over the digits, and network evaluations for each picture."""
    known, _ = load_scans()
    times, evaluations = cosine_times(STEPS), [0]
    right, spread, covered, faithful = [], [], [], []

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
        near = cdist(real, flat) <= np.sort(cdist(real, real), axis=1)[:, NEIGHBOURS, None]
        covered.append(float(near.any(axis=1).mean()))
        faithful.append(float(near.any(axis=0).mean()))
    return {
        "accuracy": float(np.mean(right)),
        "spread": float(np.mean(spread)),
        "coverage": float(np.mean(covered)),
        "fidelity": float(np.mean(faithful)),
        "evaluations": evaluations[0] / (n * len(LABELS)),
    }


if __name__ == "__main__":
    main()
