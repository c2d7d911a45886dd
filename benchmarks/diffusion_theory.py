"""Diffusion held against the theory: windows, label laws, the martingale, Theorem 2, the size of steps and their noise.

On Gaussian mixtures everything is exact, so that what is measured can be compared; on the digits model the sampler's
own posteriors are estimated by denoising again. The false-alarm probabilities stand in the tests
(``tests/diffusion/test_gaussian.py``, ``test_exact.py``, ``test_digits.py``); here are the numbers.

    python benchmarks/diffusion_theory.py             # about 25 minutes of one core
    python benchmarks/diffusion_theory.py --quick     # fewer pictures: two minutes
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Interval, critical_window
from blinkscope.diffusion.digits import LABELS, SHAPE, Digits, load_digits_model, load_scans
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.posteriors import sampled_posterior
from blinkscope.diffusion.schedules import cosine_times, karras_times
from blinkscope.divergence import estimated_total_variation, label_law, total_variation
from blinkscope.posterior import Posterior, martingale_check
from blinkscope.sampled import SampledMixture, sampled_window
from blinkscope.sampler import IndexSet
from blinkscope.worlds.gaussian_mixture import GaussianMixture

WORLDS = {
    "2 dimensions, weights 1:3": GaussianMixture(
        means=np.array([[5.0, 0.0], [-5.0, 1.0]]), prior=np.array([0.25, 0.75])
    ),
    "8 dimensions, weights 6:3:1": GaussianMixture(
        means=np.random.default_rng(5).standard_normal((3, 8)) * 4, prior=np.array([0.6, 0.3, 0.1])
    ),
    "30 dimensions, unequal widths, weights 5:3:2": GaussianMixture(
        means=np.eye(3, 30) * 8,
        covariances=np.stack([np.diag(np.linspace(low, 1.2, 30)) for low in (0.3, 0.5, 0.8)]),
        prior=np.array([0.5, 0.3, 0.2]),
    ),
}
EPS, LEVELS = 0.4, 13  # levels are taken among the 50 of the coarsest schedule, which the finer ones share
STEPS = (50, 100, 250)
INIT, TARGET = ("9",), ("3", "9")  # on 8 x 8 pixels threes and nines part late


def main() -> None:
    parser = argparse.ArgumentParser(description="diffusion held against the theory")
    parser.add_argument("--quick", action="store_true", help="fewer pictures")
    quick = parser.parse_args().quick
    pictures, repeats, samples = (100, 4, 120) if quick else (400, 8, 600)
    world, model = WORLDS["2 dimensions, weights 1:3"], load_digits_model()
    report = {
        "windows": {name: windows(each, 100, 1.0, pictures, repeats) for name, each in WORLDS.items()},
        "steps": {
            f"{steps} steps, eta={eta:g}": windows(world, steps, eta, pictures, repeats)
            for steps in STEPS
            for eta in (1.0, 0.0)
        },
        "label_law": law(WORLDS["8 dimensions, weights 6:3:1"], 4 * pictures),
        "martingale": {f"eta={eta:g}": martingale(world, eta, pictures) for eta in (1.0, 0.0)},
        "digits_steps": digits_steps(model, samples),
        "theorem2": theorem2(model, samples, 3 if quick else 4),
        "settings": settings(500 if quick else 10_000),
    }
    print(json.dumps(report, indent=2))


def streams(n: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


def common_levels() -> Int[np.ndarray, " levels"]:
    """Numbers of levels of a schedule of 50 steps, spread over where mixtures mix."""
    return np.linspace(12, 49, LEVELS).round().astype(int)


def windows(world: GaussianMixture, steps: int, eta: float, pictures: int, repeats: int) -> dict[str, object]:
    """Exact and measured T_after and T_before of the first component, among the same times for all schedules."""
    times, levels = cosine_times(steps), common_levels() * (steps // 50)
    rng = np.random.default_rng(11)
    classes = rng.choice(len(world.labels), size=pictures, p=world.weights)
    clean = np.concatenate([world.sample(rng, world.labels[k], 0.0, 1) for k in classes])
    posterior = sampled_posterior(
        GaussianDiffusion(world.denoise, times, clean.shape[1:], eta),
        lambda x: [world.labels[k] for k in world.posterior(x, 0.0).argmax(axis=1)],
        clean,
        levels.tolist(),
        repeats,
        labels=world.labels,
        weights=world.weights,
    )
    points = tuple(float(times[level]) for level in levels)
    index = IndexSet("time", "OU time", points[0], points[-1], points)
    after = world.labels[:1]
    found = sampled_window(posterior, index, EPS, after, level=0.95)
    exact = SampledMixture(exact_posterior(world, times[levels]), index)
    truth = critical_window(exact, EPS, after)
    # An end of an empty set is below all times for T_after, and above them for T_before.
    held = [
        holds(truth.t_after, found.t_after_interval, -math.inf),
        holds(truth.t_before, found.t_before_interval, math.inf),
    ]
    return {
        "exact": [rounded(truth.t_after), rounded(truth.t_before)],
        "measured": [rounded(found.t_after), rounded(found.t_before)],
        "t_after_interval": [rounded(t) for t in found.t_after_interval or ()],
        "t_before_interval": [rounded(t) for t in found.t_before_interval or ()],
        "exact_within": held,
    }


def holds(time: float | None, interval: Interval | None, empty: float) -> bool:
    low, high = interval or (None, None)
    at, low, high = (empty if t is None else t for t in (time, low, high))
    return low <= at <= high


def exact_posterior(world: GaussianMixture, times: Float[np.ndarray, " levels"], n: int = 40_000) -> Posterior:
    """The world's own posteriors at so many observations: total variations to about 0.003."""
    rng = np.random.default_rng(5)
    classes = rng.choice(len(world.labels), size=n, p=world.weights)
    sizes = np.bincount(classes, minlength=len(world.labels))
    mean = []
    for t in times:
        drawn = [world.sample(rng, name, float(t), int(size)) for name, size in zip(world.labels, sizes, strict=True)]
        mean.append(world.posterior(np.concatenate(drawn), float(t)))
    return Posterior(np.asarray(times), world.labels, np.stack(mean), weights=world.weights)


def law(world: GaussianMixture, n: int) -> dict[str, object]:
    """Forward-reverse label laws against E[pi(S) pi(b)] / w_S: z-scores of all shares at three levels."""
    times = cosine_times(100)
    diffusion = GaussianDiffusion(world.denoise, times, (3,))
    scores, differences = [], []
    for level in (45, 80, 92):
        for start in world.labels:
            rngs = streams(n, level)
            clean = world.sample(np.random.default_rng(level), start, 0.0, n)
            noisy = np.array([diffusion.noise(rng, x, level) for rng, x in zip(rngs, clean, strict=True)])
            found = world.posterior(diffusion.reverse(noisy, np.full(n, level), rngs), 0.0).argmax(axis=1)
            exact = label_law(world.law(float(times[level])), (start,)).mean[0]
            share = np.bincount(found, minlength=3) / n
            spread = np.sqrt(exact * (1 - exact) / n)
            differences += np.abs(share - exact).tolist()
            scores += ((share - exact) / spread)[spread > 1e-3].tolist()
    return {
        "draws_each": n,
        "largest_difference": round(max(differences), 4),
        "shares": len(scores),
        "root_mean_square_z": round(float(np.sqrt(np.mean(np.square(scores)))), 2),
    }


def martingale(world: GaussianMixture, eta: float, trajectories: int) -> dict[str, float]:
    """The check of ``posterior.martingale_check`` along reverse trajectories."""
    times, levels = cosine_times(150), np.arange(10, 150, 20)
    paths = GaussianDiffusion(world.denoise, times, (2,), eta=eta).reverse_paths(streams(trajectories, 8))
    mean = np.stack([world.posterior(paths[:, level], float(times[level])) for level in levels])
    return {"p_value": float(f"{martingale_check(Posterior(times[levels], world.labels, mean)).p_value:.2g}")}


def digits_steps(model: Digits, draws: int) -> dict[str, object]:
    """P(same digit) of the first scan that was not trained on, at the same times in 50, 100 and 250 steps."""
    _, tested = load_scans()
    coarse = np.array([18, 24, 30, 36])
    out: dict[str, object] = {"time": [rounded(float(t)) for t in cosine_times(50)[coarse]]}
    for eta in (1.0, 0.0):
        for steps in STEPS:
            diffusion = GaussianDiffusion(model.denoiser(), cosine_times(steps), SHAPE, eta)
            levels = np.repeat(coarse * (steps // 50), draws)
            rngs = streams(len(levels), 3)
            noisy = np.stack(
                [diffusion.noise(rng, tested.pictures[0], int(i)) for rng, i in zip(rngs, levels, strict=True)]
            )
            found = np.array(model.label(diffusion.reverse(noisy, levels, rngs))) == LABELS[int(tested.digits[0])]
            out[f"{steps} steps, eta={eta:g}"] = found.reshape(len(coarse), draws).mean(axis=1).round(3).tolist()
    out["standard_error_at_most"] = round(0.5 / math.sqrt(draws), 3)
    return out


def theorem2(model: Digits, pictures: int, repeats: int, steps: int = 25) -> list[dict[str, object]]:
    """The experiment from S_init on the digits model, beside the certificate and Theorem 2's bound.

    All from the model's own pictures: they are noised, denoised several times and read. ``reached`` is the distance in
    total variation of the labels that the experiment gives from those of p^{S_target}; ``mixing`` is (I), between the
    two estimates that bracket it; ``leaving`` is Lemma 3's E[pi_t(rest)], the share that leaves S_target.
    """
    diffusion = GaussianDiffusion(model.denoiser(), cosine_times(steps), SHAPE)
    clean = diffusion.sample(streams(pictures, 20))
    start = np.array(model.label(clean))
    weights = np.array([(start == name).mean() for name in LABELS])
    levels = (6, 9, 12, 15, 18, 21)
    posterior = sampled_posterior(diffusion, model.label, clean, levels, repeats, labels=LABELS, weights=weights)
    counts = posterior.counts
    assert counts is not None
    target, init = np.isin(LABELS, TARGET), np.isin(start, INIT)
    inside = np.isin(start, TARGET)
    wanted = np.where(target, weights, 0) / weights[target].sum()
    ratio = float(weights[~target].sum() / weights[target].sum())
    mixing = estimated_total_variation(posterior, INIT, TARGET)
    apart = estimated_total_variation(posterior, TARGET, tuple(name for name in LABELS if name not in TARGET))
    out: list[dict[str, object]] = []
    for row, level in enumerate(levels):
        reached = counts[row][init].sum(axis=0) / counts[row][init].sum()
        leaving = float(counts[row][inside][:, ~target].sum() / counts[row][inside].sum())
        # The smallest eps at which both conditions of the theorem hold here.
        eps = max(mixing[row].value, math.sqrt(max(0.0, 1 - apart[row].value)))
        out.append(
            {
                "time": rounded(float(diffusion.times[level])),
                "reached": round(float(total_variation(reached, wanted)), 3),
                "mixing": [round(mixing[row].split, 3), round(mixing[row].plug_in, 3)],
                "leaving": round(leaving, 3),
                "certificate": round(mixing[row].plug_in + leaving, 3),
                "eps": round(eps, 3),
                "theorem2": round(eps * (1 + max(1.0, ratio) / math.sqrt(2)), 3),
                "theorem2_sharper": round(eps * (1 + math.sqrt(ratio / 2)), 3),
            }
        )
    return out


def settings(n: int) -> dict[str, object]:
    """Share of n labels that survive forward-reverse, two Gaussians N(+-6, 1), for settings and numbers of steps.

    At the level of each schedule where |mu| e^{-t} is nearest to 1; ``theory`` is the share by posterior draws there.
    """
    world = GaussianMixture(means=np.array([[6.0], [-6.0]]))
    out: dict[str, object] = {}
    for steps in (50, 100, 250):
        times = karras_times(steps, sigma_min=0.02)
        level = int(np.abs(6 * np.exp(-times) - 1).argmin())
        row = {"theory": round(float(label_law(world.law(float(times[level])), ("0",)).mean[0, 0]), 3)}
        for eta, churn in [(1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (0.0, 20.0)]:
            diffusion = GaussianDiffusion(world.denoise, times, (1,), eta=eta, churn=churn)
            rngs = [np.random.default_rng([9, i]) for i in range(n)]
            noisy = np.stack([diffusion.noise(rng, 6 + rng.standard_normal(1), level) for rng in rngs])
            kept = diffusion.reverse(noisy, np.full(n, level), rngs) > 0
            row[f"eta={eta:g},churn={churn:g}"] = round(float(kept.mean()), 3)
        out[str(steps)] = row
    return out


def rounded(x: float | None) -> float | None:
    return None if x is None else float(f"{x:.3g}")


if __name__ == "__main__":
    main()
