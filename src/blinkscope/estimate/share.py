"""One share along the path: likelihoods forwards on a grid, draws backwards from the end.

A share x_s in [0, 1] (of one label, or of one label among some) follows the recursion
x_s = p_s x_{s+1} + q_s g_s. Given x_{s+1}, the share g_s among continuations that leave the path at s is, by the kind
of the step,

    copy        x_{s+1} itself: the step decides nothing;
    small move  Beta(kappa m, kappa (1 - m)) with m = 0.97 x_{s+1} + 0.03 a, the smaller the larger its kappa;
    anything    Beta(1.5 a, 1.5 (1 - a)),

a being the path's average. How well a row fits the labels counted at all positions before it is its likelihood

    L_{s+1}(x) = sum_kind w_kind E[ g^n (1 - g)^m L_s(p_s x + q_s g) | x, kind ],    L_0 = 1,

n and m being the counts at s. log L_s is kept at nodes equally spaced in arcsin sqrt x, where binomial likelihoods are
nearly parabolas, and read off between them by cubic interpolation. The exact ends 0 and 1, where an outcome is settled
and stays so, are nodes of their own. From the last row on, kind and g_s are then drawn position by position, in
proportion to what L says: independent draws of the whole path, up to the width of a grid cell, in time linear in its
length. (Forward likelihoods: Baum, Petrie, Soules and Weiss 1970. Drawing backwards: Carter and Kohn 1994.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

NODES, CELLS = 36, 56
KAPPA = (6.0, 25.0, 120.0)
LEAN = 0.03  # part of the path's average in the mean of a small move, so that what has vanished can come back
MASS = 1.5  # of the law that can be anything
COPY, ANYTHING = 0, len(KAPPA) + 1
KINDS = len(KAPPA) + 2
TINY = 1e-300

_NODE = np.concatenate([np.sin((np.arange(NODES) + 0.5) * (np.pi / 2 / NODES)) ** 2, [0.0, 1.0]])
_EDGE = np.sin(np.arange(CELLS + 1) * (np.pi / 2 / CELLS)) ** 2
_CELL = np.sin((np.arange(CELLS) + 0.5) * (np.pi / 2 / CELLS)) ** 2
ZERO, ONE = NODES, NODES + 1


@dataclass(frozen=True, eq=False)
class Share:
    """One share: the labels counted for and against it at every position, and its average along the path."""

    counts: Float[np.ndarray, "steps 2"]
    average: float

    @cached_property
    def moves(self) -> Float[np.ndarray, "moves nodes cells"]:
        """Probability of every cell of g given every node of x, for every kind but the copy."""
        from scipy.special import betainc

        mean = (1 - LEAN) * _NODE + LEAN * self.average
        small = [betainc((kappa * mean)[:, None], (kappa * (1 - mean))[:, None], _EDGE) for kappa in KAPPA]
        anything = betainc(MASS * self.average, MASS * (1 - self.average), _EDGE)
        return np.diff(np.stack([*small, np.broadcast_to(anything, small[0].shape)]), axis=2)

    @cached_property
    def _fit(self) -> Float[np.ndarray, "steps cells"]:
        """log( g^n (1 - g)^m ) in every cell."""
        return self.counts @ np.log([_CELL, 1 - _CELL])

    def _copied(self, s: int, x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """log( x^n (1 - x)^m ) of the counts at s."""
        return np.asarray(self.counts[s] @ np.log(np.maximum([x, 1 - x], TINY)))

    def likelihoods(
        self,
        p: Float[np.ndarray, " steps"],
        q: Float[np.ndarray, " steps"],
        weights: Float[np.ndarray, "steps settings kinds"],
    ) -> Float[np.ndarray, "rows settings nodes"]:
        """log L at every row, for several settings of the kinds' weights, which may differ from step to step."""
        steps, settings, _ = weights.shape
        out = np.zeros((steps + 1, settings, len(_NODE)))
        moves = self.moves.reshape(len(self.moves), -1)
        for s in range(steps):
            before = _interpolation(p[s] * _NODE[:, None] + q[s] * _CELL)
            fit = before.read(out[s]) + self._fit[s]
            top = fit.max(axis=(1, 2))
            weight = (weights[s, :, 1:] @ moves).reshape(fit.shape)
            moved = np.einsum("hgc,hgc->hg", weight, np.exp(fit - top[:, None, None]))
            stayed = _log(weights[s, :, :1]) + self._copied(s, _NODE) + out[s]
            out[s + 1] = np.logaddexp(stayed, _log(moved) + top[:, None])
        return out

    def draw(
        self,
        p: Float[np.ndarray, "steps draws"],
        q: Float[np.ndarray, "steps draws"],
        weights: Float[np.ndarray, "steps draws kinds"],
        likelihoods: Float[np.ndarray, "rows draws nodes"],
        last: Float[np.ndarray, " draws"],
        rng: np.random.Generator,
    ) -> Drawn:
        """Paths drawn backwards from the ``last`` row.

        ``likelihoods`` may be those of other p, q and weights than a draw's own: then its log_weight says by how much
        the draw was drawn too seldom.
        """
        steps, size = p.shape
        row = last.copy()
        rows, gamma = np.empty((steps + 1, size)), np.empty((steps, size))
        rows[-1] = row
        log_weight = np.zeros(size)
        for s in reversed(range(steps)):
            log_weight = log_weight - at(likelihoods[s + 1], row)
            before = _interpolation(p[s, :, None] * row[:, None] + q[s, :, None] * _CELL)
            fit = before.read_own(likelihoods[s]) + self._fit[s]
            stayed = _log(weights[s, :, COPY]) + self._copied(s, row) + at(likelihoods[s], row)
            top = np.maximum(fit.max(axis=1), stayed)
            moves = np.einsum("kdc,dk->dc", self.moves[:, _some_node(row, rng)], weights[s, :, 1:])
            moved = np.cumsum(moves * np.exp(fit - top[:, None]), axis=1)
            stay = np.exp(stayed - top)
            total = moved[:, -1] + stay
            log_weight = log_weight + top + _log(total)
            point = rng.random(size) * total
            goes = point >= stay
            cell = np.minimum((moved < (point - stay)[:, None]).sum(axis=1), CELLS - 1)
            gamma[s] = np.where(goes, _CELL[cell], row)
            row = np.where(goes, p[s] * row + q[s] * gamma[s], row)
            rows[s] = row
        return Drawn(rows, gamma, log_weight)


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn paths of a share: its rows, the shares off the path, and the log weights of the draws."""

    rows: Float[np.ndarray, "rows draws"]
    gamma: Float[np.ndarray, "steps draws"]
    log_weight: Float[np.ndarray, " draws"]


@dataclass(frozen=True, eq=False)
class _Interpolation:
    """Cubic interpolation between nodes: of four nodes from ``first`` on, with these coefficients."""

    first: Int[np.ndarray, " *shape"]
    coefficients: tuple[Float[np.ndarray, " *shape"], ...]

    def read(self, values: Float[np.ndarray, "settings nodes"]) -> Float[np.ndarray, " settings *shape"]:
        """All points read off every one of some functions."""
        matrix = np.zeros((NODES, self.first.size))
        column = np.arange(self.first.size)
        for i, coefficient in enumerate(self.coefficients):
            matrix[self.first.ravel() + i, column] = coefficient.ravel()
        return (values[:, :NODES] @ matrix).reshape(-1, *self.first.shape)

    def read_own(self, values: Float[np.ndarray, "n nodes"]) -> Float[np.ndarray, "n ..."]:
        """Each row of points read off its own function."""
        base = (np.arange(len(values)) * values.shape[1]).reshape(-1, *(1,) * (self.first.ndim - 1)) + self.first
        flat = values.ravel()
        return np.asarray(sum(c * flat.take(base + i) for i, c in enumerate(self.coefficients)))


def _place(x: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """Where x stands among the inner nodes, 0 .. NODES - 1."""
    return np.clip(np.arcsin(np.sqrt(np.clip(x, 0, 1))) * (2 * NODES / np.pi) - 0.5, 0, NODES - 1)


def _interpolation(x: Float[np.ndarray, " *shape"]) -> _Interpolation:
    place = _place(x)
    first = np.clip(place.astype(np.int64) - 1, 0, NODES - 4)
    t = place - first
    a, b, c = t - 1, t - 2, t - 3
    return _Interpolation(first, (-a * b * c / 6, t * b * c / 2, -t * a * c / 2, t * a * b / 6))


def at(values: Float[np.ndarray, "n nodes"], x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Functions given at the nodes, each at its own point, which may be an end."""
    between = _interpolation(x).read_own(values)
    return np.where(x >= 1, values[:, ONE], np.where(x <= 0, values[:, ZERO], between))


def _some_node(x: Float[np.ndarray, " n"], rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """One of the two nodes next to x, with probability in proportion to its nearness."""
    place = (_place(x) + rng.random(len(x))).astype(np.int64)
    return np.where(x >= 1, ONE, np.where(x <= 0, ZERO, np.minimum(place, NODES - 1)))


def _log(x: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    return np.log(np.maximum(x, TINY))
