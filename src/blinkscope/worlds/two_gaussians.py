"""Two Gaussians ([LKC25], Example 1).

X ~ (1/2) N(+mu, I) + (1/2) N(-mu, I) in any dimension, noised by the Ornstein-Uhlenbeck process,

    Y_t = e^{-t} X + sqrt(1 - e^{-2t}) Z,   so   Y_t | +- ~ N(+-e^{-t} mu, I).

Only the coordinate along mu, written y below, tells the labels apart. With m = |mu| e^{-t}:

    pi_t(+) = 1 / (1 + e^{-2 m y})
    TV(p_t^+, p_t^-) = 2 Phi(m) - 1
    T_before = ln|mu| - ln Phi^{-1}(1/2 + eps)      (eps < 1/2; from there on the start of the index set)
    T_after  = ln|mu| - ln Phi^{-1}(1 - eps^2/2)

Nothing depends on the dimension.
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
from blinkscope.processes import OU_TIME
from blinkscope.worlds.world import PaperWindow, two_label_factor

PANELS, NODES, REACH = 24, 16, 9.0  # composite Gauss-Legendre rule on each side of 0; N(0, 1) holds 1e-19 beyond 9


@dataclass(frozen=True)
class TwoGaussians:
    """N(+mu, I) and N(-mu, I) with equal weights under the OU process.

    mean_norm: |mu|, positive.
    """

    mean_norm: float = 10.0

    name: ClassVar = "two-gaussians"
    labels: ClassVar = ("+", "-")
    weights: ClassVar = np.array([0.5, 0.5])
    index: ClassVar = OU_TIME
    after: ClassVar = ("+",)
    before: ClassVar = ("+", "-")

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean_norm) and self.mean_norm > 0):
            raise UserError(f"mean-norm is {self.mean_norm}; it must be a positive number.")

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Float[np.ndarray, " n"]:
        """n draws of the coordinate of Y_t along mu."""
        sign = 1 if label == "+" else -1
        return sign * self.separation(t) + rng.standard_normal(n)

    def posterior(self, y: Float[np.ndarray, " n"], t: float) -> Float[np.ndarray, "n labels"]:
        from scipy.special import expit

        plus = expit(2 * self.separation(t) * y)
        return np.stack([plus, expit(-2 * self.separation(t) * y)], axis=-1)

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Quadrature nodes on both sides of y = 0, where |pi(+) - pi(-)| has its kink."""
        m = self.separation(t)
        nodes, rule = np.polynomial.legendre.leggauss(NODES)
        edges = np.linspace(0.0, m + REACH, PANELS + 1)
        half = np.diff(edges)[:, None] / 2
        y = (edges[:-1, None] + half * (nodes + 1)).ravel()
        density = (np.exp(-((y - m) ** 2) / 2) + np.exp(-((y + m) ** 2) / 2)) / math.sqrt(8 * math.pi)
        mass = (half * rule).ravel() * density
        y, mass = np.concatenate([-y, y]), np.concatenate([mass, mass])
        return Posterior(
            np.array([t]), self.labels, self.posterior(y, t)[None], weights=self.weights, mass=mass[None], complete=True
        )

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """2 Phi(m) - 1 between the two components, half of that between one of them and both."""
        from scipy.special import erf

        return Estimate(two_label_factor(self, a, b) * float(erf(self.separation(t) / math.sqrt(2))))

    def paper(self, eps: float) -> PaperWindow:
        """As printed in Example 1.

        (!) Its T_after does not solve the paper's own inequality e^{-m^2} <= 2 eps^2, which gives
        ln|mu| - (1/2) ln ln(1/(2 eps^2)). There BC = e^{-m^2/2} = sqrt 2 eps, so (II) <= eps / sqrt 2 by Lemma 7; that
        is not TV >= 1 - eps^2. The printed form lies before this formula for eps < (2 e)^{-1/2} = .429 and before the
        exact T_after for eps < .3056; it is undefined from eps = 1 / sqrt 2 on.
        """
        log_norm, inner = math.log(self.mean_norm), math.log(1 / (2 * eps**2))
        return PaperWindow(
            t_after=log_norm - math.log(inner) if inner > 0 else None,
            t_before=log_norm + math.log(2) + math.log(1 / eps),
            certifies=(
                "t_before: TV <= eps. t_after: the error term (II) <= eps / sqrt 2 for eps < 0.429; TV >= 1 - eps^2 "
                "for eps < 0.3056 only."
            ),
        )

    def separation(self, t: float) -> float:
        """m = |mu| e^{-t}: half the distance between the two means at time t, in standard deviations."""
        return self.mean_norm * math.exp(-self.index.check(t))
