"""Gaussian diffusion against closed forms: two Gaussians, mixtures in several dimensions, and diffusers' own steps."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from blinkscope.critical import Labels, critical_window
from blinkscope.diffusion.denoisers import coordinates, denoiser_of
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.posteriors import sampled_posterior
from blinkscope.diffusion.schedules import cosine_times, ddpm_times, flow_times, karras_times
from blinkscope.divergence import Estimate, label_law
from blinkscope.errors import EngineError, UserError
from blinkscope.posterior import Posterior
from blinkscope.processes import log_snr
from blinkscope.sampled import sampled_window
from blinkscope.sampler import IndexSet, forward_reverse
from blinkscope.worlds.gaussian_mixture import GaussianMixture

TWO = GaussianMixture(means=np.array([[6.0], [-6.0]]))
UNEQUAL = GaussianMixture(means=np.random.default_rng(5).standard_normal((3, 8)) * 4, prior=np.array([0.6, 0.3, 0.1]))
LINEAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def streams(n: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


class Sign:
    name = "sign"

    def label(self, sample: np.ndarray) -> str:
        return "+" if sample[0] > 0 else "-"


class AtLevels:
    """A world at the times of a schedule only."""

    def __init__(self, world: GaussianMixture, index: IndexSet) -> None:
        self.labels, self.weights, self.index, self._world = world.labels, world.weights, index, world

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        return self._world.total_variation(a, b, t)


def survival(diffusion: GaussianDiffusion, level: int, n: int, seed: int = 1) -> float:
    """Share of n forward-reverse experiments from N(6, 1) that keep the sign."""
    rngs = streams(n, seed)
    start = np.array([diffusion.noise(rng, 6 + rng.standard_normal(1), level) for rng in rngs])
    return float((diffusion.reverse(start, np.full(n, level), rngs) > 0).mean())


def level_at(times: np.ndarray, separation: float) -> int:
    """The level whose |mu| e^{-t} is nearest, for |mu| = 6."""
    return int(np.abs(times - math.log(6 / separation)).argmin())


# --- what a step is ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_a_step_is_the_step_of_diffusers(eta: float) -> None:
    """DDIM with eta, and DDPM for eta = 1, on the same prediction and the same noise."""
    import torch
    from diffusers import DDIMScheduler, DDPMScheduler

    times, n = ddpm_times(LINEAR, 50), 3
    diffusion = GaussianDiffusion(denoiser_of(lambda y, t: 0.3 * y + 0.1 * t, "eps"), times, (2,), eta=eta)
    y = np.random.default_rng(0).standard_normal((n, 2))
    options = {"clip_sample": False, "beta_start": 1e-4, "beta_end": 0.02, "timestep_spacing": "trailing"}
    schedulers = [DDIMScheduler(set_alpha_to_one=True, **options)] + ([DDPMScheduler(**options)] if eta == 1 else [])
    for scheduler in schedulers:
        scheduler.set_timesteps(50)
        for level in (50, 23, 2):
            number = scheduler.timesteps[50 - level]
            noise = np.stack([rng.standard_normal(2) for rng in streams(n)])
            eps = torch.from_numpy(0.3 * y + 0.1 * times[level])
            if isinstance(scheduler, DDIMScheduler):
                extra = {"eta": eta, "variance_noise": torch.from_numpy(noise)} if eta else {}
                theirs = scheduler.step(eps, number, torch.from_numpy(y), **extra).prev_sample.numpy()
            else:
                mean = scheduler.step(eps, number, torch.from_numpy(y), generator=torch.Generator()).prev_sample
                drawn = torch.randn(y.shape, generator=torch.Generator(), dtype=torch.float64)
                spread = float(scheduler._get_variance(number)) ** 0.5
                theirs = (mean - spread * drawn).numpy() + spread * noise
            assert diffusion._step(y, level, streams(n)) == pytest.approx(theirs, abs=2e-5)


@given(
    st.floats(0.01, 4.0),
    st.sampled_from(["x0", "eps", "v"]),
    st.sampled_from(["variance-preserving", "variance-exploding", "flow-matching"]),
)
def test_every_prediction_of_every_family_is_the_same_denoiser(t: float, predicts: str, family: str) -> None:
    """X and Z are given: whatever the network predicts of them, the denoiser returns X."""
    x, z = np.random.default_rng(0).standard_normal((2, 4, 3))
    at = coordinates(family, t)  # type: ignore[arg-type]
    answer = {"x0": x, "eps": z, "v": at.signal_rate * x + at.noise_rate * z}[predicts]
    seen: list[tuple[np.ndarray, float]] = []

    def network(y: np.ndarray, time: float) -> np.ndarray:
        seen.append((y, time))
        return answer

    y = math.exp(-t) * x + math.sqrt(1 - math.exp(-2 * t)) * z
    assert denoiser_of(network, predicts, family)(y, t) == pytest.approx(x, abs=1e-9)  # type: ignore[arg-type]
    assert seen[0][0] == pytest.approx(at.signal * x + at.noise * z, abs=1e-12)
    assert seen[0][1] == pytest.approx(at.time)


def test_derivatives_of_each_family_are_those_of_its_path() -> None:
    """By differences along the angle, sigma and the interpolation time."""
    clocks: dict[str, Callable[[float], float]] = {
        "variance-preserving": lambda t: math.atan(math.sqrt(math.expm1(2 * t))),
        "variance-exploding": lambda t: math.sqrt(math.expm1(2 * t)),
        "flow-matching": lambda t: coordinates("flow-matching", t).time,
    }
    for family, clock in clocks.items():
        low, high = (coordinates(family, t) for t in (0.7 - 1e-6, 0.7 + 1e-6))  # type: ignore[arg-type]
        at, span = coordinates(family, 0.7), clock(0.7 + 1e-6) - clock(0.7 - 1e-6)  # type: ignore[arg-type]
        assert (high.signal - low.signal) / span == pytest.approx(at.signal_rate, abs=1e-8)
        assert (high.noise - low.noise) / span == pytest.approx(at.noise_rate, abs=1e-8)


# --- against the theory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [50, 100, 250])
@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0])
def test_ancestral_sampling_draws_from_the_posterior(separation: float, steps: int) -> None:
    """2,500 experiments on two Gaussians; 5 standard errors (false alarm 6e-7), 0.01 for the step size."""
    times = cosine_times(steps)
    level = level_at(times, separation)
    exact = label_law(TWO.law(float(times[level])), ("0",)).mean[0, 0]
    got = survival(GaussianDiffusion(TWO.denoise, times, (1,)), level, 2500)
    assert abs(got - exact) < 5 * math.sqrt(exact * (1 - exact) / 2500) + 0.01


def test_other_amounts_of_noise_keep_another_share_of_labels() -> None:
    """Less noise than the forward process put in: too many labels survive; more: too few. 5 standard errors each."""
    times, n = karras_times(60, sigma_min=0.02), 4000
    level = level_at(times, 1.0)
    separation = 6 * math.exp(-times[level])
    theory, flow = label_law(TWO.law(float(times[level])), ("0",)).mean[0, 0], norm.cdf(separation)
    share = {}
    for eta, churn in [(1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (0.0, 20.0)]:
        diffusion = GaussianDiffusion(TWO.denoise, times, (1,), eta=eta, churn=churn)
        assert (diffusion.outside_theory is None) == (eta == 1)
        share[eta, churn] = survival(diffusion, level, n)
    error = math.sqrt(0.25 / n)
    assert abs(share[1, 0] - theory) < 5 * error + 0.01
    # The probability flow of two equal Gaussians is odd and rising, so it keeps the sign of Y_t.
    assert abs(share[0, 0] - flow) < 5 * error
    assert share[0.5, 0] > theory + 0.01
    assert share[0, 20] < theory - 10 * error
    assert share[0, 0] > theory + 0.03


def test_what_is_not_a_posterior_draw_is_refused_by_the_theory() -> None:
    times = karras_times(20)
    for eta, churn, message in [
        (0.0, 0.0, "deterministic reverse map"),
        (0.5, 0.0, "eta = 0.5"),
        (0, 5.0, "churn = 5"),
    ]:
        diffusion = GaussianDiffusion(TWO.denoise, times, (1,), eta=eta, churn=churn)
        with pytest.raises(UserError, match=message):
            forward_reverse(diffusion.localization(), Sign(), [np.ones(1)], [times[5]], 2, np.random.default_rng(0))


def test_the_theorys_own_experiment_runs_on_the_levels() -> None:
    """``forward_reverse`` at two levels, against the exact law; Clopper-Pearson at 1 - 1e-7, 0.02 for the step size."""
    times = cosine_times(20)
    diffusion = GaussianDiffusion(TWO.denoise, times, (1,))
    levels = [8, 17]
    start = 6 + np.random.default_rng(2).standard_normal((40, 1))
    counts = forward_reverse(
        diffusion.localization(), Sign(), list(start), times[levels].tolist(), 10, np.random.default_rng(3)
    )
    low, high = counts.interval(1 - 1e-7)
    for row, level in enumerate(levels):
        exact = label_law(TWO.law(float(times[level])), ("0",)).mean[0, 0]
        column = counts.labels.index("+")
        assert low[row, column] - 0.02 <= exact <= high[row, column] + 0.02
    with pytest.raises(UserError, match="outside the index set"):
        forward_reverse(diffusion.localization(), Sign(), list(start), [0.123], 1, np.random.default_rng(3))


def labels_of(world: GaussianMixture, x: np.ndarray) -> np.ndarray:
    return world.posterior(x, 0.0).argmax(axis=1)


def test_label_law_of_unequal_weights_in_eight_dimensions() -> None:
    """Forward-reverse from each component: E[pi(S) pi(b)] / w_S, by Clopper-Pearson at 1 - 1e-8 for 27 shares."""
    times, n = cosine_times(100), 1500  # eight dimensions, of which the span of the means has three
    diffusion = GaussianDiffusion(UNEQUAL.denoise, times, (3,))
    for level in (45, 80, 92):
        t = float(times[level])
        for start in UNEQUAL.labels:
            rngs = streams(n, level)
            clean = UNEQUAL.sample(np.random.default_rng(level), start, 0.0, n)
            noisy = np.array([diffusion.noise(rng, x, level) for rng, x in zip(rngs, clean, strict=True)])
            found = labels_of(UNEQUAL, diffusion.reverse(noisy, np.full(n, level), rngs))
            exact = label_law(UNEQUAL.law(t), (start,))
            for k, count in enumerate(np.bincount(found, minlength=3)):
                slack = 5 * exact.standard_error[0, k] + 0.01
                assert binom.sf(count - 1, n, min(1.0, exact.mean[0, k] + slack)) > 1e-8
                assert binom.cdf(count, n, max(0.0, exact.mean[0, k] - slack)) > 1e-8


WORLDS = {
    "8 dimensions": UNEQUAL,
    "2 dimensions": GaussianMixture(means=np.array([[5.0, 0.0], [-5.0, 1.0]]), prior=np.array([0.25, 0.75])),
    "30 dimensions": GaussianMixture(
        means=np.eye(3, 30) * 8,
        covariances=np.stack([np.diag(np.linspace(low, 1.2, 30)) for low in (0.3, 0.5, 0.8)]),
        prior=np.array([0.5, 0.3, 0.2]),
    ),
}


def measured(
    world: GaussianMixture, diffusion: GaussianDiffusion, levels: np.ndarray, pictures: int = 300, repeats: int = 6
) -> Posterior:
    """Posteriors of noised samples of the world at each level, from so many denoisings each."""
    rng = np.random.default_rng(11)
    classes = rng.choice(len(world.labels), size=pictures, p=world.weights)
    clean = np.concatenate([world.sample(rng, world.labels[k], 0.0, 1) for k in classes])
    return sampled_posterior(
        diffusion,
        lambda x: [world.labels[k] for k in labels_of(world, x)],
        clean,
        levels.tolist(),
        repeats,
        labels=world.labels,
        weights=world.weights,
    )


def ends_at(posterior: Posterior, world: GaussianMixture) -> list[tuple[float, float, float, int]]:
    """Of T_after and T_before: exact value, limits at 1 - 1e-7, and how many of the times lie between these."""
    points = tuple(np.sort(posterior.index).tolist())
    index = IndexSet("time", "OU time", points[0], points[-1], points)
    window = sampled_window(posterior, index, 0.4, ("0",), level=1 - 1e-7)
    exact = critical_window(AtLevels(world, index), 0.4, ("0",))
    out = []
    for truth, interval in ((exact.t_after, window.t_after_interval), (exact.t_before, window.t_before_interval)):
        assert truth is not None
        assert interval is not None
        low = -math.inf if interval[0] is None else interval[0]
        high = math.inf if interval[1] is None else interval[1]
        out.append((truth, low, high, sum(low <= t <= high for t in points)))
    return out


@pytest.mark.parametrize("name", WORLDS)
def test_measured_windows_hold_the_exact_ones(name: str) -> None:
    """Posteriors from 6 denoisings of 300 pictures at each of 9 times; intervals at level 1 - 1e-7."""
    world, levels = WORLDS[name], np.array([16, 28, 38, 44, 48, 52, 55, 58, 59])
    shape = world.sample(np.random.default_rng(0), "0", 0.0, 1).shape[1:]
    posterior = measured(world, GaussianDiffusion(world.denoise, cosine_times(60), shape), levels)
    for truth, low, high, inside in ends_at(posterior, world):
        assert low <= truth <= high
        assert inside <= 6  # it says something: at least a third of the times are ruled out


def test_windows_do_not_depend_on_the_number_of_steps() -> None:
    """The same nine times in 50, 100 and 250 steps: every interval holds the exact end, hence they all overlap.

    Without noise (eta = 0) every posterior is 0 or 1: nothing ever looks mixed, and there is no T_before.
    """
    world, coarse = WORLDS["2 dimensions"], np.array([14, 22, 30, 36, 40, 43, 45, 47, 49])
    for steps in (50, 100, 250):
        diffusion = GaussianDiffusion(world.denoise, cosine_times(steps), (2,))
        posterior = measured(world, diffusion, coarse * (steps // 50), pictures=200, repeats=4)
        for truth, low, high, inside in ends_at(posterior, world):
            assert low <= truth <= high
            assert inside <= 7
    flow = GaussianDiffusion(world.denoise, cosine_times(50), (2,), eta=0)
    posterior = measured(world, flow, coarse, pictures=200, repeats=4)
    assert (posterior.mean.max(axis=-1) == 1).all()
    assert sampled_window(posterior, flow.index, 0.4, ("0",)).t_before is None


# --- streams and batches ----------------------------------------------------------------------------------------------


def test_a_row_does_not_depend_on_its_companions() -> None:
    diffusion = GaussianDiffusion(UNEQUAL.denoise, cosine_times(12), (3,))
    levels = np.array([3, 12, 0, 7])
    noisy = np.random.default_rng(0).standard_normal((4, 3))
    together = diffusion.reverse(noisy, levels, streams(4))
    assert (together[2] == noisy[2]).all()
    for i in range(4):
        alone = diffusion.reverse(noisy[i : i + 1], levels[i : i + 1], streams(4)[i : i + 1])
        assert alone[0] == pytest.approx(together[i], abs=1e-9)


def test_a_row_at_level_i_costs_i_evaluations() -> None:
    seen = []

    def x0(y: np.ndarray, t: float) -> np.ndarray:
        seen.append(len(y))
        return np.zeros_like(y)

    levels = np.arange(1300) % 11
    GaussianDiffusion(x0, cosine_times(10), (1,)).reverse(np.zeros((1300, 1)), levels, streams(1300))
    assert sum(seen) == levels.sum()
    assert max(seen) <= 512


def test_paths_have_the_law_of_the_forward_process() -> None:
    """Variances and neighbouring covariances of X ~ N(2, 1) noised upward, and sampled downward; 6 standard errors."""
    times, n = ddpm_times(LINEAR, 30), 3000
    diffusion = GaussianDiffusion(lambda y, t: (1 - math.exp(-2 * t)) * 2 + math.exp(-t) * y, times, (1,))
    up = np.array([diffusion.forward_path(rng, 2 + rng.standard_normal(1))[:, 0] for rng in streams(n, 1)])
    down = diffusion.reverse_paths(streams(n, 2))[..., 0]
    for path, allowed in ((up, 0.0), (down, 0.05)):
        assert path.shape == (n, 31)
        centred = path - 2 * np.exp(-times)
        assert (np.abs(centred.mean(axis=0)) < 6 / math.sqrt(n) + allowed).all()
        products = (centred[:, 1:] * centred[:, :-1]).mean(axis=0)
        assert (np.abs(products - np.exp(-np.diff(times))) < 6 * math.sqrt(2 / n) + allowed).all()


# --- schedules and bad input ------------------------------------------------------------------------------------------


def test_schedules_name_the_same_levels() -> None:
    sigma = np.sqrt(np.expm1(2 * karras_times(5)))
    assert sigma[[0, 1, -1]] == pytest.approx([0, 0.002, 80])
    assert np.tanh(log_snr(flow_times(4, shift=3.0)) / 4) == pytest.approx(1 - 2 * np.array([0, 0.5, 0.75, 0.9, 1]))
    assert np.exp(-2 * ddpm_times(LINEAR, 4)[1:]) == pytest.approx(LINEAR[[249, 499, 749, 999]])
    assert np.arctan(np.exp(-log_snr(cosine_times(8)) / 2)) == pytest.approx(np.pi / 16 * np.arange(9))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine_times(0), "there are 0 steps; sampling takes from 1 to 10,000"),
        (lambda: cosine_times(10**8), "there are 100,000,000 steps; sampling takes from 1 to 10,000"),
        (lambda: ddpm_times(LINEAR, 1001), "cannot be run in 1001 steps"),
        (lambda: ddpm_times(LINEAR[::-1], 10), "must fall"),
        (lambda: karras_times(5, sigma_min=2, sigma_max=1), "rising"),
        (lambda: flow_times(5, shift=0), "positive"),
        (lambda: denoiser_of(np.copy, "score"), "no prediction 'score'"),  # type: ignore[arg-type]
        (lambda: denoiser_of(np.copy, "x0", "poisson"), "no family 'poisson'"),  # type: ignore[arg-type]
        (lambda: denoiser_of(lambda y, t: y, "eps")(np.zeros((1, 1)), math.inf), "pure noise"),
        (lambda: GaussianDiffusion(TWO.denoise, np.array([1.0, 2.0]), (1,)), "rise from 0"),
        (lambda: GaussianDiffusion(TWO.denoise, cosine_times(5), (1,), eta=2), "between 0"),
        (lambda: GaussianDiffusion(TWO.denoise, karras_times(5), (1,), churn=1), "goes with eta = 0"),
        (lambda: GaussianDiffusion(TWO.denoise, cosine_times(5), (1,), eta=0, churn=1), "karras_times"),
        (lambda: GaussianDiffusion(TWO.denoise, cosine_times(5), (1,)).noise(streams(1)[0], np.zeros(1), 6), "level 6"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("answer", "message"), [(np.zeros((1, 2)), r"shape \(1, 2\)"), (np.full((1, 1), np.nan), "NaN")]
)
def test_a_broken_denoiser_is_named(answer: np.ndarray, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        denoiser_of(lambda y, t: answer, "x0")(np.zeros((1, 1)), 1.0)
