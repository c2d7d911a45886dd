"""Topic drift ([LKC25], Theorem 9).

A discourse vector C runs the reverse Ornstein-Uhlenbeck process towards N(0, I + alpha theta theta^T), where the topic
theta is one of two unit vectors u, v with <u, v> = c. At OU times T-1, ..., 1, 0 it emits words W_s ~ N(C_s, I), one
for each unit of time; Y_t keeps the T - t words emitted until time t. Given theta,

    W_s = sqrt(alpha) e^{-s} g theta + B_s,   g ~ N(0, 1),   Cov(B_r, B_s) = (e^{-|r-s|} + 1[r = s]) I =: K_rs I

so with a_s = sqrt(alpha) e^{-s} over the words kept, the vector B = a^T K^{-1} W / sqrt(kappa) is sufficient:

    B ~ N(0, I + kappa theta theta^T),   kappa_t = a^T K^{-1} a

By the symmetry of u and v only the product z of its coordinates along u + v and u - v matters, scaled as below. Then

    BC(p_t^u, p_t^v) = sqrt(1 - rho^2),   1 - rho^2 = (1 + kappa) / ((1 + kappa (1+c)/2) (1 + kappa (1-c)/2))
    log pi_t(u) / pi_t(v) = 2 rho z,      z has density sqrt(1 - rho^2) e^{+-rho z} K_0(|z|) / pi given u (+), v (-)
    TV(p_t^u, p_t^v) = (2/pi) arcsin rho = (2/pi) arccos BC

with K_0 the modified Bessel function. All of this is exact, and nothing depends on the dimension.

The paper looks at the last word alone, kappa = x/2 with x = alpha e^{-2t}, where BC^2 = 2 phi(x),
phi(x) = (2 + x) / ((2 + x(1+c)/2)(2 + x(1-c)/2)). (!) Its T_after, phi(x) = eps^2, certifies 1 - TV <= BC = sqrt 2 eps
for that word, not TV >= 1 - eps^2; it is below 0 unless alpha is large (about 4 / (eps^2 (1-c^2))). Its sampler starts
from N(0, I) at time T instead of the process's own law, which moves any law here by at most ``start_error`` in TV.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior
from blinkscope.sampler import IndexSet
from blinkscope.worlds.world import PaperWindow, check_length, check_scale, two_label_factor

STEP = 0.125  # of the trapezoidal rule in ln |z|; its error falls like exp(-pi^2 / STEP)
WORDS = 64  # nearest the data that are worked with; those further on add less than e^{-WORDS} of the information
TAIL = 45.0  # the rule ends where the density has fallen by e^{-TAIL}


@dataclass(frozen=True)
class TopicDrift:
    """Two topics in a drifting discourse; labels ``u`` and ``v``, equal weights.

    alpha: strength of the topic, positive. cosine: c = <u, v>, in (-1, 1).
    length: T, the number of words and the OU time at which the discourse starts.
    """

    alpha: float = 20.0
    cosine: float = 0.3
    length: int = 12

    name: ClassVar = "topic-drift"
    labels: ClassVar = ("u", "v")
    weights: ClassVar = np.array([0.5, 0.5])
    after: ClassVar = ("u",)
    before: ClassVar = ("u", "v")

    def __post_init__(self) -> None:
        check_scale(self.alpha, "alpha")
        if not -1 < self.cosine < 1:
            raise UserError(f"cosine is {self.cosine}; two different topics have a cosine strictly between -1 and 1.")
        check_length(self.length, "length")

    @property
    def index(self) -> IndexSet:
        return IndexSet("removed", "words", 0, self.length, range(self.length + 1))

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Float[np.ndarray, " n"]:
        """n draws of z."""
        rho, rest = self._correlation(t)
        first, second = rng.standard_normal((2, n))
        along, across = first, rho * first + math.sqrt(rest) * second  # coordinates of B, each scaled to variance 1
        return (1 if label == "u" else -1) * along * across / rest

    def posterior(self, y: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n labels"]:
        from scipy.special import expit

        log_ratio = 2 * self._correlation(t)[0] * y
        return np.stack([expit(log_ratio), expit(-log_ratio)], axis=-1)

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Quadrature nodes on both sides of z = 0, evenly spaced in ln |z|."""
        from scipy.special import k0e

        rho, rest = self._correlation(t)
        slow, fast = rest / (1 + rho), 1 + rho  # e^{-z} cosh(rho z) = (e^{-slow z} + e^{-fast z}) / 2
        z = np.exp(np.arange(-TAIL, math.log(TAIL / slow), STEP))
        mass = STEP * z * math.sqrt(rest) / math.pi * k0e(z) * (np.exp(-slow * z) + np.exp(-fast * z)) / 2
        z, mass = np.concatenate([-z, z]), np.concatenate([mass, mass])
        return Posterior(
            np.array([t]), self.labels, self.posterior(z, t)[None], weights=self.weights, mass=mass[None], complete=True
        )

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """(2/pi) arcsin rho between the two topics."""
        rho, rest = self._correlation(t)
        return Estimate(two_label_factor(self, a, b) * 2 / math.pi * math.atan2(rho, math.sqrt(rest)))

    def paper(self, eps: float) -> PaperWindow:
        """As printed in Theorem 9, up to its constants; the condition behind T_before is ``start_error`` <= eps / 2."""
        e, s = eps**2, 1 - self.cosine**2
        t_after = None
        if e < 0.5:  # phi falls from 1/2 at x = 0; phi(x) = e is a quadratic equation
            root = (1 - 2 * e + math.sqrt((1 - 2 * e) * (1 - 2 * e + 2 * e * s))) / (e * s / 2)
            t_after = math.log(self.alpha / root) / 2
        return PaperWindow(
            t_after=t_after,
            t_before=math.log(self.alpha * math.sqrt(1 + self.alpha**2) * math.sqrt(s) / eps) / 2,
            certifies=(
                "t_after: BC = sqrt(2) eps for the last word alone, so 1 - TV <= sqrt(2) eps, not eps^2. "
                "t_before: TV <= eps up to constants, for a discourse long enough that the start is forgotten."
            ),
        )

    @property
    def start_error(self) -> float:
        """e^{-T} sqrt(alpha - ln(1 + alpha)) / 2: the TV that starting from N(0, I) at time T costs at most.

        By Pinsker's inequality from KL(N(0, I + x theta theta^T) || N(0, I)) = (x - ln(1 + x)) / 2, which at
        x = alpha e^{-2T} is at most e^{-2T} times its value at x = alpha.
        """
        return math.exp(-self.length) * math.sqrt(self.alpha - math.log1p(self.alpha)) / 2

    def information(self, t: float) -> float:
        """kappa_t of the T - t words kept; 0 where there are none."""
        from scipy.linalg import solve_toeplitz

        first = int(self.index.check(t))
        if first == self.length:
            return 0.0
        lags = np.arange(min(self.length - first, WORDS))
        covariance = np.exp(-lags.astype(float))
        covariance[0] = 2.0
        signal = math.sqrt(self.alpha) * np.exp(-(first + lags.astype(float)))
        return float(signal @ solve_toeplitz(covariance, signal))

    def _correlation(self, t: float) -> tuple[float, float]:
        """rho, and 1 - rho^2 without loss of digits."""
        kappa, c = self.information(t), self.cosine
        scale = (1 + kappa * (1 + c) / 2) * (1 + kappa * (1 - c) / 2)
        return kappa * math.sqrt(1 - c**2) / 2 / math.sqrt(scale), (1 + kappa) / scale
