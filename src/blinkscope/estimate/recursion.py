"""The divergence decomposition: one generation, every step.

Let p_s be the probability of the path's step s given what came before, q_s = 1 - p_s, pi_s the label law after s kept
steps and gamma_s the label law of a continuation that leaves the path at s. Then exactly

    pi_s = p_s pi_{s+1} + q_s gamma_s,        pi_N known,

so estimates of the gamma_s alone, pushed through this recursion from the end, give the whole curve. With
W_ts = (prod_{t <= r < s} p_r) q_s it reads pi_t = sum_{s >= t} W_ts gamma_s + (prod_{r >= t} p_r) pi_N, and independent
gamma_s of variance v_s give Var pi_t = sum_s W_ts^2 v_s. Every function here is one backward or forward pass over the
steps, so nothing of size steps x steps is ever held.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from blinkscope.errors import UserError


@dataclass(frozen=True, eq=False)
class Recursion:
    """The weights of one path.

    p: probability of each of the N steps; off_path: probability of leaving the path there. They sum to one.
    """

    p: Float[np.ndarray, " steps"]
    off_path: Float[np.ndarray, " steps"]

    def __post_init__(self) -> None:
        if self.p.shape != self.off_path.shape or self.p.ndim != 1:
            raise UserError(f"{self.p.shape} path probabilities do not fit {self.off_path.shape} off-path ones.")
        total = self.p + self.off_path
        if not (np.isfinite(total).all() and (self.p >= 0).all() and (self.off_path >= 0).all()):
            raise UserError("a path probability is negative, NaN or infinite.")
        if len(total) and abs(total - 1).max() > 1e-6:
            raise UserError(f"path and off-path probabilities sum to {total[np.argmax(abs(total - 1))]:.6g}, not to 1.")

    @property
    def steps(self) -> int:
        return len(self.p)

    def curve(
        self, gamma: Float[np.ndarray, "steps *batch labels"], final: Float[np.ndarray, "*batch labels"]
    ) -> Float[np.ndarray, "rows *batch labels"]:
        """The label law at every row 0..N, from the off-path laws and the law at the end.

        Rows of ``gamma`` that hold NaN are positions without an estimate: the row above them is copied, which moves no
        row t by more than the weight of these positions, ``weight_of``.
        """
        out = np.empty((self.steps + 1, *np.broadcast_shapes(gamma.shape[1:], np.shape(final))))
        out[-1] = final
        for s in range(self.steps - 1, -1, -1):
            known = self.off_path[s] > 0 and not np.isnan(gamma[s]).any()
            out[s] = self.p[s] * out[s + 1] + self.off_path[s] * gamma[s] if known else out[s + 1]
        return out

    def variance(self, v: Float[np.ndarray, "steps labels"]) -> Float[np.ndarray, "rows labels"]:
        """Var pi_t(theta) = sum_{s >= t} W_ts^2 v_s(theta) for independent estimates of variance ``v``."""
        out = np.zeros((self.steps + 1, v.shape[1]))
        for s in range(self.steps - 1, -1, -1):
            out[s] = self.p[s] ** 2 * out[s + 1] + self.off_path[s] ** 2 * v[s]
        return out

    def sensitivity(self, weight: Float[np.ndarray, "rows labels"]) -> Float[np.ndarray, "steps labels"]:
        """sum_{t <= s} weight_t W_ts^2: what a unit of variance of gamma_s adds to the curve's weighted variance."""
        out = np.empty((self.steps, weight.shape[1]))
        reach = np.zeros(weight.shape[1])
        for s in range(self.steps):
            reach = reach + weight[s]
            out[s] = self.off_path[s] ** 2 * reach
            reach = self.p[s] ** 2 * reach
        return out

    def weight_of(self, amount: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " rows"]:
        """eta_t = sum_{s >= t} W_ts amount_s: how far row t can move if a share ``amount_s`` of gamma_s is unknown."""
        out = np.zeros(self.steps + 1)
        for s in range(self.steps - 1, -1, -1):
            out[s] = self.p[s] * out[s + 1] + self.off_path[s] * amount[s]
        return out

    def negligible(self, limit: float) -> Bool[np.ndarray, " steps"]:
        """As many positions, least likely forks first, as can be left out while no row moves by more than ``limit``."""
        order = np.argsort(self.off_path, kind="stable")
        low, high = 0, self.steps
        while low < high:
            middle = (low + high + 1) // 2
            left_out = np.zeros(self.steps)
            left_out[order[:middle]] = 1
            low, high = (middle, high) if self.weight_of(left_out).max() <= limit else (low, middle - 1)
        skipped = np.zeros(self.steps, dtype=bool)
        skipped[order[:low]] = True
        return skipped
