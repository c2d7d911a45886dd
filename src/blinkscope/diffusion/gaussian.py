"""Gaussian diffusion: noise a picture to level i, denoise it from there.

Everything runs in the Ornstein-Uhlenbeck process's scale, Y_t = a X + s Z with a = e^{-t} and s^2 = 1 - a^2, whatever
family the network is of (``denoisers.py``). Level i has OU time times[i]; level 0 is the picture. One reverse step goes
from (a, s) to (a', s') with r = sigma' / sigma, x0 = E[X | Y] and e = (Y - a x0) / s:

    Y' = a' x0 + s' ( sqrt(1 - eta^2 (1 - r^2)) e + eta sqrt(1 - r^2) z ),   z ~ N(0, I)

    eta = 1   ancestral sampling: the law of Y' given Y and X = x0. DDPM (Ho, Jain, Abbeel 2020, with the smaller of
              its two variances) and DDIM with eta = 1 are this same step, as is the exact reverse of flow matching.
    eta = 0   the probability flow: DDIM, and Euler's method for variance-exploding models and flow matching.
    churn     before a step, sigma is raised to (1 + min(churn / N, sqrt 2 - 1)) sigma with fresh noise (Karras and
              others 2022, algorithm 2, first order); used with eta = 0.

**Only eta = 1 without churn is inside the theory.** Every setting has the right law at each level, but the *joint* law
of (Y_t, X') is that of the forward process only if as much noise is put in on the way back as the forward process put
in on the way up. With less, X' follows Y_t too closely, and labels survive more noise than they should; with more, it
forgets Y_t. For the two Gaussians N(+-6, 1) at |mu| e^{-t} = 1 the label survives with probability .775 in theory;
``tests/diffusion/test_gaussian.py`` holds what each setting gives.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.denoisers import Denoiser, Pictures
from blinkscope.errors import UserError
from blinkscope.processes import ou_time_from_sigma, sigma_from_ou_time
from blinkscope.sampler import DeterministicReverse, IndexSet, LocalizationSampler

BATCH = 512  # pictures that are denoised at a time, where they are small
LARGEST_CHURN = math.sqrt(2) - 1
Rngs = Sequence[np.random.Generator]


@dataclass(frozen=True, eq=False)
class GaussianDiffusion:
    """A denoiser with its noise levels and the noise of its reverse steps.

    denoise: E[X | Y_t = y]; see ``denoisers.denoiser_of``.
    times: OU times of the levels, rising from 0; the last may be infinite. See ``schedules``.
    shape: of one picture.
    eta, churn: see the module; (1, 0) is the reverse of the forward process.
    evaluations: of the network, for one picture and step; two where the denoiser is guided.
    caveat: why the denoiser is no posterior mean, where it is none.
    batch: most pictures that are denoised at a time.
    """

    denoise: Denoiser
    times: Float[np.ndarray, " levels"]
    shape: tuple[int, ...]
    eta: float = 1.0
    churn: float = 0.0
    evaluations: int = 1
    caveat: str | None = None
    batch: int = BATCH

    def __post_init__(self) -> None:
        times = np.asarray(self.times, dtype=float)
        if times.ndim != 1 or len(times) < 2 or times[0] != 0 or not (np.diff(times) > 0).all():
            raise UserError("noise levels are OU times that rise from 0, at least two of them.")
        if not 0 <= self.eta <= 1:
            raise UserError(f"eta is {self.eta:g}; it lies between 0 (deterministic) and 1 (ancestral sampling).")
        if self.churn < 0 or (self.churn > 0 and self.eta > 0):
            raise UserError(f"churn is {self.churn:g} with eta {self.eta:g}; churn is positive and goes with eta = 0.")
        if self.churn > 0 and math.isinf(times[-1]):
            raise UserError("churn needs noise levels that end before pure noise; choose karras_times, for instance.")
        object.__setattr__(self, "times", times)

    @property
    def steps(self) -> int:
        """Number N of reverse steps from the noisiest level to the picture."""
        return len(self.times) - 1

    @property
    def index(self) -> IndexSet:
        return IndexSet("time", "OU time", 0.0, float(self.times[-1]), tuple(float(t) for t in self.times))

    @property
    def deterministic(self) -> bool:
        return self.eta == 0 and self.churn == 0

    @property
    def outside_theory(self) -> str | None:
        """Why label laws, Theorem 2 and windows do not describe this sampler; None where they do."""
        reasons = [] if self.caveat is None else [self.caveat]
        if self.deterministic:
            reasons.append("the reverse process is deterministic (eta = 0): its pictures are not draws from P(X | Y_t)")
        elif self.eta < 1:
            noise = f"churn = {self.churn:g}" if self.churn else f"eta = {self.eta:g}"
            reasons.append(f"the reverse process puts in another amount of noise than the forward one ({noise})")
        return "; ".join(reasons) or None

    def level(self, t: float) -> int:
        """The number of a level from its OU time; other times are refused."""
        return int(np.searchsorted(self.times, self.index.check(t)))

    def cost(self, level: int) -> float:
        """Network evaluations of denoising one observation from a level."""
        return float(level * self.evaluations)

    def noise(self, rng: np.random.Generator, picture: Pictures, level: int) -> Pictures:
        """One draw of Y at a level given X."""
        self._check(level)
        return self._forward(picture, 0.0, float(self.times[level]), rng.standard_normal(self.shape))

    def forward_path(self, rng: np.random.Generator, picture: Pictures) -> Pictures:
        """One trajectory of the forward process from a picture, shape (N + 1, ...); row i is level i."""
        path = [np.asarray(picture, dtype=float)]
        for before, after in zip(self.times[:-1], self.times[1:], strict=True):
            path.append(self._forward(path[-1], float(before), float(after), rng.standard_normal(self.shape)))
        return np.stack(path)

    def reverse_paths(self, rngs: Rngs) -> Pictures:
        """Trajectories of the sampler, shape (n, N + 1, ...): level i in [:, i], the pictures in [:, 0]."""
        path = [self._fresh(rngs)]
        for level in range(self.steps, 0, -1):
            path.append(self._step(path[-1], level, rngs))
        return np.stack(path[::-1], axis=1)

    def sample(self, rngs: Rngs) -> Pictures:
        """Pictures from pure noise, each with a random stream of its own."""
        return self.reverse(self._fresh(rngs), np.full(len(rngs), self.steps), rngs)

    def reverse(self, noisy: Pictures, levels: Int[np.ndarray, " n"], rngs: Rngs) -> Pictures:
        """Denoise each of n observations from its own level, with its own random stream."""
        pictures = np.empty(np.shape(noisy))
        for rows, finished in self.reverse_batches(noisy, levels, rngs):
            pictures[rows] = finished
        return pictures

    def reverse_batches(
        self, noisy: Pictures, levels: Int[np.ndarray, " n"], rngs: Rngs
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Pictures]]:
        """The same in batches of similar levels, noisiest first: numbers of the rows, and what they became.

        A row joins its batch when the batch has come down to the row's level, so a row at level i costs i evaluations
        and is never denoised in vain.
        """
        for level in {int(level) for level in levels}:
            self._check(level)
        order = np.argsort(-np.asarray(levels), kind="stable")
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            state, at = np.array(noisy[rows], dtype=float), np.asarray(levels)[rows]
            for level in range(int(at[0]), 0, -1):
                active = int((at >= level).sum())
                state[:active] = self._step(state[:active], level, [rngs[row] for row in rows[:active]])
            yield rows, state

    def localization(self) -> LocalizationSampler:
        """The sampler as the theory sees it; a deterministic one as a map, which ``forward_reverse`` refuses."""
        if self.deterministic:
            return LocalizationSampler(_Levels(self), DeterministicReverse(lambda y, t: self._draws(None, y, t, 1)[0]))
        if self.outside_theory:
            raise UserError(f"there is no posterior to draw from: {self.outside_theory}. Use eta = 1 without churn.")
        return LocalizationSampler(_Levels(self), _Posterior(self))

    def _draws(self, rng: np.random.Generator | None, y: Pictures, t: float, n: int) -> Pictures:
        rngs = [np.random.default_rng(0) if rng is None else rng] * n
        return self.reverse(np.repeat(np.asarray(y)[None], n, axis=0), np.full(n, self.level(t)), rngs)

    def _step(self, y: Pictures, level: int, rngs: Rngs) -> Pictures:
        """From a level to the one below."""
        t, below = float(self.times[level]), float(self.times[level - 1])
        if self.churn:
            gamma = min(self.churn / self.steps, LARGEST_CHURN)
            raised = ou_time_from_sigma((1 + gamma) * sigma_from_ou_time(t))
            y, t = self._forward(y, t, raised, self._fresh(rngs)), raised
        x0 = self.denoise(y, t)
        if below == 0:
            return x0
        signal, noise = self._scale(t)
        signal_below, noise_below = self._scale(below)
        ratio = noise_below * signal / (signal_below * noise)
        fresh = self.eta * math.sqrt(1 - ratio**2)
        direction = math.sqrt(1 - fresh**2) * (y - signal * x0) / noise
        if self.eta:
            direction += fresh * self._fresh(rngs)
        return np.asarray(signal_below * x0 + noise_below * direction)

    def _fresh(self, rngs: Rngs) -> Pictures:
        return np.stack([rng.standard_normal(self.shape) for rng in rngs])

    @staticmethod
    def _scale(t: float) -> tuple[float, float]:
        return math.exp(-t), math.sqrt(-math.expm1(-2 * t))

    @classmethod
    def _forward(cls, y: Pictures, before: float, after: float, z: Pictures) -> Pictures:
        """The forward process from one OU time to a later one."""
        signal, noise = cls._scale(after - before)
        return np.asarray(signal * y + noise * z)

    def _check(self, level: int) -> None:
        if not 0 <= level <= self.steps:
            raise UserError(
                f"there is no noise level {level}; this schedule has levels 0 (the picture) to {self.steps}."
            )


@dataclass(frozen=True, eq=False)
class _Levels:
    """The forward process at the levels of a schedule."""

    diffusion: GaussianDiffusion

    @cached_property
    def index(self) -> IndexSet:
        return self.diffusion.index

    def noise(self, rng: np.random.Generator, x: Pictures, t: float) -> Pictures:
        return self.diffusion.noise(rng, x, self.diffusion.level(t))


@dataclass(frozen=True, eq=False)
class _Posterior:
    """Ancestral sampling as a ``ReverseSampler``."""

    diffusion: GaussianDiffusion

    def sample(self, rng: np.random.Generator, y: Pictures, t: float, n: int) -> list[Pictures]:
        return list(self.diffusion._draws(rng, y, t, n))
