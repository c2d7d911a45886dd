"""The divergence decomposition: one generation, every step.

Let p_s be the probability of the path's step s given what came before, q_s = 1 - p_s, pi_s the label law after s kept
steps and gamma_s the label law of a continuation that leaves the path at s. Then exactly

    pi_s = p_s pi_{s+1} + q_s gamma_s,        pi_N known,

so estimates of the gamma_s alone, pushed through this recursion from the end, give the whole curve. With
W_ts = (prod_{t <= r < s} p_r) q_s it reads pi_t = sum_{s >= t} W_ts gamma_s + (prod_{r >= t} p_r) pi_N, and independent
gamma_s of variance v_s give Var pi_t = sum_s W_ts^2 v_s. Every function here is one pass over the steps, so
nothing of size steps x steps is ever held.
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
        known = (self.off_path > 0) & ~np.isnan(gamma).reshape(self.steps, -1).any(axis=1)
        shape = np.broadcast_shapes(gamma.shape[1:], np.shape(final))
        out = np.zeros((self.steps + 1, *shape))
        wide = (slice(None), *(None,) * len(shape))
        out[:-1] = np.where(known[wide], self.off_path[wide] * gamma, 0.0)
        out[-1] = final
        return backward(np.where(known, self.p, 1.0), out)

    def variance(self, v: Float[np.ndarray, "steps labels"]) -> Float[np.ndarray, "rows labels"]:
        """Var pi_t(theta) = sum_{s >= t} W_ts^2 v_s(theta) for independent estimates of variance ``v``."""
        out = np.zeros((self.steps + 1, v.shape[1]))
        out[:-1] = self.off_path[:, None] ** 2 * v
        return backward(self.p**2, out)

    def sensitivity(self, weight: Float[np.ndarray, "rows labels"]) -> Float[np.ndarray, "steps labels"]:
        """sum_{t <= s} weight_t W_ts^2: what a unit of variance of gamma_s adds to the curve's weighted variance."""
        # reach_s = weight_s + p_{s-1}^2 reach_{s-1} is the same recursion, run from the other end.
        reach = backward(self.p[-2::-1] ** 2, weight[-2::-1])[::-1] if self.steps else weight[:0]
        return np.asarray(self.off_path[:, None] ** 2 * reach)

    def weight_of(self, amount: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " rows"]:
        """eta_t = sum_{s >= t} W_ts amount_s: how far row t can move if a share ``amount_s`` of gamma_s is unknown."""
        return backward(self.p, np.append(self.off_path * amount, 0.0)[:, None])[:, 0]

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


def backward(
    p: Float[np.ndarray, " steps"], added: Float[np.ndarray, " rows *batch"]
) -> Float[np.ndarray, " rows *batch"]:
    """x_s = p_s x_{s+1} + added_s from the last row to the first: a bidiagonal system, solved by substitution."""
    from scipy.linalg.lapack import dtbtrs

    bands = np.ones((2, len(added)))
    bands[0, 1:] = -p
    solved, _ = dtbtrs(bands, added.reshape(len(added), -1), uplo="U", diag="U")
    return np.asarray(solved).reshape(added.shape)
