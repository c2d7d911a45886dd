"""Forward kernels of the families in use ([LKC25], section 2), each with its index set.

    family                          index t              P(Y_t | X)
    TokenTruncation                 0..T tokens removed  keep the first T - t tokens
    PermutedMasking                 0..d masked          mask coordinates in a fixed order, the last to be filled first
    AbsorbingMasking                [0, 1]               mask each coordinate with probability t
    MarkovNoise                     [0, inf]             continuous-time Markov chain with rate matrix Q
    VariancePreserving (OU)         [0, inf]             e^{-t} X + sqrt(1 - e^{-2t}) Z
    VarianceExploding               [0, inf]             X + t Z
    FlowMatching                    [0, 1]               (1 - t) X + t Z

Kernels are the marginal laws of a Markov process: between two times of one trajectory fresh noise is added, not one
shared Z. The three Gaussian families see the same information at noise-to-signal ratios sigma that match,
sigma = t / (1 - t) for flow matching and sigma^2 = e^{2t} - 1 for OU time, so windows carry over by changing time.

To add a family, write a class with ``index`` and ``noise``; nothing else in the project needs to know of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.errors import UserError
from blinkscope.sampler import IndexSet

OU_TIME = IndexSet("time", "OU time")
MASKING = IndexSet("masked", "probability", 0.0, 1.0)


@dataclass(frozen=True)
class TokenTruncation:
    """Y_t is the first T - t tokens of a text; shorter texts are padded after their end to the cap T.

    length: T. padding: the token that stands for "ended"; it is information like any other.
    """

    length: int
    padding: int = -1

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "tokens", 0, self.length, range(self.length + 1))

    def noise(self, rng: np.random.Generator, x: Sequence[int], t: float) -> tuple[int, ...]:
        kept = self.length - int(self.index.check(t))
        if len(x) > self.length:
            raise UserError(f"a text of {len(x)} tokens is longer than the cap of {self.length}.")
        return (*x, *(self.padding,) * (self.length - len(x)))[:kept]


@dataclass(frozen=True)
class PermutedMasking:
    """Y_t hides the last t coordinates of ``order``; the sampler fills them in that order.

    order: a permutation of 0 .. d-1, first filled first. mask: what stands for a hidden coordinate.
    """

    order: tuple[int, ...]
    mask: int = -1

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise UserError(f"order {self.order} is not a permutation of 0 .. {len(self.order) - 1}.")

    @property
    def index(self) -> IndexSet:
        return IndexSet("masked", "coordinates", 0, len(self.order), range(len(self.order) + 1))

    def noise(self, rng: np.random.Generator, x: Int[np.ndarray, " d"], t: float) -> Int[np.ndarray, " d"]:
        if len(x) != len(self.order):
            raise UserError(f"x has {len(x)} coordinates and the order {len(self.order)}; they must agree.")
        y = np.array(x)
        y[list(self.order[len(self.order) - int(self.index.check(t)) :])] = self.mask
        return y


@dataclass(frozen=True)
class AbsorbingMasking:
    """Y_t hides each coordinate independently with probability t; mask: what stands for a hidden one."""

    mask: int = -1
    index: ClassVar[IndexSet] = MASKING

    def noise(self, rng: np.random.Generator, x: Int[np.ndarray, " d"], t: float) -> Int[np.ndarray, " d"]:
        return np.where(rng.random(np.shape(x)) < self.index.check(t), self.mask, x)


@dataclass(frozen=True, eq=False)
class MarkovNoise:
    """Each coordinate runs a continuous-time Markov chain of its own: P(Y_t = b | X = a) = (e^{tQ})_{ab}.

    rates: Q, shape (symbols, symbols); off-diagonal entries not negative, rows summing to 0.
    """

    rates: Float[np.ndarray, "symbols symbols"]
    index: ClassVar[IndexSet] = IndexSet("time", "chain time")

    def __post_init__(self) -> None:
        rates = self.rates
        if rates.ndim != 2 or rates.shape[0] != rates.shape[1] or not np.isfinite(rates).all():
            raise UserError(f"a rate matrix is square and finite; got shape {rates.shape}.")
        if (rates - np.diag(np.diag(rates)) < 0).any() or not np.allclose(rates.sum(axis=1), 0):
            raise UserError("a rate matrix has no negative entry off its diagonal, and rows that sum to 0.")

    @classmethod
    def uniform(cls, symbols: int) -> MarkovNoise:
        """Uniform noise: at rate 1 a coordinate is replaced by a symbol drawn uniformly (possibly itself)."""
        return cls(np.full((symbols, symbols), 1 / symbols) - np.eye(symbols))

    def transition(self, t: float) -> Float[np.ndarray, "symbols symbols"]:
        """e^{tQ}; row a is the law of Y_t given X = a."""
        from scipy.linalg import expm

        return np.maximum(expm(self.index.check(t) * self.rates), 0.0)

    def noise(self, rng: np.random.Generator, x: Int[np.ndarray, " d"], t: float) -> Int[np.ndarray, " d"]:
        steps = np.cumsum(self.transition(t), axis=1)
        uniform = rng.random((*np.shape(x), 1)) * steps[x, -1:]
        return np.asarray((steps[x] <= uniform).sum(axis=-1))


@dataclass(frozen=True)
class VariancePreserving:
    """The Ornstein-Uhlenbeck process: Y_t = e^{-t} X + sqrt(1 - e^{-2t}) Z."""

    index: ClassVar[IndexSet] = OU_TIME

    def noise(self, rng: np.random.Generator, x: Float[np.ndarray, " *size"], t: float) -> Float[np.ndarray, " *size"]:
        decay = math.exp(-self.index.check(t))
        return np.asarray(decay * x + math.sqrt(1 - decay**2) * rng.standard_normal(np.shape(x)))


@dataclass(frozen=True)
class VarianceExploding:
    """Y_t = X + t Z, so that t is the noise-to-signal ratio sigma itself."""

    index: ClassVar[IndexSet] = IndexSet("sigma", "noise-to-signal ratio")

    def noise(self, rng: np.random.Generator, x: Float[np.ndarray, " *size"], t: float) -> Float[np.ndarray, " *size"]:
        return np.asarray(x + self.index.check(t) * rng.standard_normal(np.shape(x)))


@dataclass(frozen=True)
class FlowMatching:
    """The linear interpolant Y_t = (1 - t) X + t Z."""

    index: ClassVar[IndexSet] = IndexSet("time", "interpolation time", 0.0, 1.0)

    def noise(self, rng: np.random.Generator, x: Float[np.ndarray, " *size"], t: float) -> Float[np.ndarray, " *size"]:
        return np.asarray((1 - self.index.check(t)) * x + t * rng.standard_normal(np.shape(x)))


def ou_time_from_sigma(sigma: float) -> float:
    """t_OU = (1/2) ln(1 + sigma^2)."""
    return 0.5 * math.log1p(sigma**2)


def sigma_from_ou_time(t: float) -> float:
    """sigma = sqrt(e^{2t} - 1)."""
    return math.sqrt(math.expm1(2 * t))


def log_snr(times: Float[np.ndarray, ...]) -> Float[np.ndarray, ...]:
    """ln(signal^2 / noise^2) = -ln(e^{2t} - 1) at OU times; infinite at t = 0, -infinite at t = inf."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(-np.log(np.expm1(2 * np.asarray(times))))


def sigma_from_flow_time(t: float) -> float:
    """sigma = t / (1 - t); infinite at t = 1."""
    return t / (1 - t) if t < 1 else math.inf


def flow_time_from_sigma(sigma: float) -> float:
    """t = sigma / (1 + sigma)."""
    return sigma / (1 + sigma) if math.isfinite(sigma) else 1.0
