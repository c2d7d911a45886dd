"""Permuted masking of a product alphabet ([LKC25], Example 7).

X in {0 .. m-1}^d, and every string is a label. Coordinates are filled in the order sigma_1 .. sigma_d, so Y_t hides the
last t of them and shows the first d - t. With [y] the strings that agree with y where it shows,

    pi_t(x) = w_x 1[x in [y]] / w_[y]
    TV(p_t^A, p_t^B) = (1/2) sum_[y] | w_{A and [y]} / w_A - w_{B and [y]} / w_B |

Strings of one class [y] are indistinguishable at t, those of different classes are never confused: the classes are a
0-mixture tree of depth d, those that v coordinates define having NoiseAmount d - v. From such a class to its part with
one more coordinate the window is [d - v - 1, d - v]: one coordinate, filled in one step (for eps below the share of the
class that lies outside that part). Depth grows linearly with the length, unlike for Gaussian mixtures.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, check_weights, label_mask
from blinkscope.processes import PermutedMasking
from blinkscope.sampler import IndexSet
from blinkscope.tree import MixtureTree, Node
from blinkscope.worlds.world import PaperWindow, check_memory

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
LABEL_BYTES = 100  # about what a label, its weight and its coordinates take


@dataclass(frozen=True, eq=False)
class ProductAlphabet:
    """Strings of d symbols, filled in a fixed order; every string is a label, spelled out.

    coordinates: d, symbols in a string. alphabet: m, different symbols, from 2 to 36.
    order: coordinates in the order in which they are filled, for instance "2,0,1"; as they stand by default.
    prior: weights of the strings in lexicographic order, shape (m^d,); equal by default.
    """

    coordinates: int = 6
    alphabet: int = 3
    order: str = ""
    prior: Float[np.ndarray, " labels"] | None = None

    name: ClassVar = "permuted-masking"

    def __post_init__(self) -> None:
        if self.coordinates < 1 or not 2 <= self.alphabet <= len(DIGITS):
            raise UserError(
                f"coordinates is {self.coordinates} and alphabet {self.alphabet}; it takes at least 1 coordinate, and "
                f"an alphabet of 2 to {len(DIGITS)} symbols."
            )
        size = float(self.alphabet) ** min(self.coordinates, 60)
        check_memory(LABEL_BYTES * size, f"a label for each of {self.alphabet}^{self.coordinates} strings")
        if len(self.process.order) != self.coordinates:
            raise UserError(f"order {self.order!r} names {len(self.process.order)} of {self.coordinates} coordinates.")
        if self.prior is not None:
            check_weights(self.prior, self.labels)

    @cached_property
    def process(self) -> PermutedMasking:
        """The observation process; its ``order`` is sigma."""
        try:
            order = tuple(int(i) for i in self.order.replace(",", " ").split()) or tuple(range(self.coordinates))
        except ValueError:
            raise UserError(
                f'order is {self.order!r}; write the coordinates with commas, for instance "2,0,1".'
            ) from None
        return PermutedMasking(order)

    @property
    def index(self) -> IndexSet:
        return self.process.index

    @cached_property
    def strings(self) -> Int[np.ndarray, "labels d"]:
        """The strings behind the labels."""
        return np.stack(
            np.unravel_index(np.arange(self.alphabet**self.coordinates), (self.alphabet,) * self.coordinates), 1
        )

    @cached_property
    def labels(self) -> tuple[str, ...]:
        return tuple("".join(DIGITS[symbol] for symbol in string) for string in self.strings)

    @cached_property
    def weights(self) -> Float[np.ndarray, " labels"]:
        return np.full(len(self.strings), 1 / len(self.strings)) if self.prior is None else self.prior

    @cached_property
    def after(self) -> tuple[str, ...]:
        """The strings with symbol 0 at the coordinate filled first."""
        return tuple(label for label in self.labels if label[self.process.order[0]] == DIGITS[0])

    @property
    def before(self) -> tuple[str, ...]:
        return self.labels

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Int[np.ndarray, "n d"]:
        """n copies of the string with its last t coordinates masked (-1): nothing in Y_t is random given the label."""
        string = np.array([DIGITS.index(symbol) for symbol in label])
        return np.tile(self.process.noise(rng, string, t), (n, 1))

    def posterior(self, y: Int[np.ndarray, "n d"], t: float) -> Float[np.ndarray, "n labels"]:
        joint = self.weights * (self._classes(y, t)[:, None] == self._classes(self.strings, t))
        return np.asarray(joint / joint.sum(axis=1, keepdims=True))

    def next_token(self, y: Int[np.ndarray, "n d"], t: float) -> Float[np.ndarray, "n symbols"]:
        """The law of the symbol at the coordinate filled next."""
        classes = self._classes(self.strings, t - 1)
        mass = np.bincount(classes, self.weights, minlength=self.alphabet ** self._shown(t - 1))
        symbols = mass.reshape(self.alphabet, -1)[:, self._classes(y, t)].T
        return np.asarray(symbols / symbols.sum(axis=1, keepdims=True))

    def extend(self, y: Int[np.ndarray, "n d"], t: float, token: Int[np.ndarray, " n"]) -> Int[np.ndarray, "n d"]:
        after = y.copy()
        after[:, self.process.order[self._shown(t - 1) - 1]] = token
        return after

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """Every class of strings, with its weight."""
        classes, count = self._classes(self.strings, t), self.alphabet ** self._shown(t)
        check_memory(8.0 * count * len(classes), f"posteriors of {len(classes)} labels at {count} observations")
        mass = np.bincount(classes, self.weights, minlength=count)
        pi = np.zeros((1, count, len(classes)))
        pi[0, classes, np.arange(len(classes))] = self.weights / mass[classes]
        return Posterior(np.array([t]), self.labels, pi, weights=self.weights, mass=mass[None], complete=True)

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        classes = self._classes(self.strings, t)
        inside_a, inside_b = (np.where(label_mask(self.labels, s), self.weights, 0.0) for s in (a, b))
        difference = np.bincount(classes, inside_a / inside_a.sum() - inside_b / inside_b.sum())
        return Estimate(min(1.0, float(np.abs(difference).sum()) / 2))

    def paper(self, eps: float) -> PaperWindow:
        """The first coordinate's step, as in Example 7's tree."""
        return PaperWindow(
            t_after=self.coordinates - 1,
            t_before=self.coordinates,
            certifies="both criteria with eps = 0: a class is hidden wholly or not at all.",
        )

    def tree(self, eps: float) -> MixtureTree:
        """Example 7's tree, valid at every eps: the classes of each level, at the noise that hides all below it."""
        return MixtureTree(eps, self._node(np.arange(len(self.labels)), self.coordinates))

    def _node(self, members: Int[np.ndarray, " members"], t: int) -> Node:
        subset = tuple(self.labels[i] for i in members)
        if t == 0:
            return Node(subset, 0)
        symbols = self.strings[members, self.process.order[self.coordinates - t]]
        return Node(subset, t, tuple(self._node(members[symbols == s], t - 1) for s in range(self.alphabet)))

    def _shown(self, t: float) -> int:
        return self.coordinates - int(self.index.check(t))

    def _classes(self, y: Int[np.ndarray, "n d"], t: float) -> Int[np.ndarray, " n"]:
        """Number of the class [y]: the symbols that Y_t shows, read as digits."""
        shown = self._shown(t)
        place = self.alphabet ** np.arange(shown)
        return np.asarray(y[:, list(self.process.order[:shown])] @ place)
