"""A world: a model in which everything about the label posterior can be computed.

To add one, write a frozen dataclass in a file of its own: its fields are the parameters (names become command-line
options), its docstring states the model in mathematics, and it has the members of ``World``. Then register it in
``worlds/__init__.py``. ``two_gaussians.py`` is the model instance. Windows, bounds, hierarchies and figures follow from
``law`` and ``total_variation`` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Num

from blinkscope.critical import Labels
from blinkscope.divergence import Estimate
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, label_mask
from blinkscope.sampler import IndexSet

MEMORY_LIMIT = 2 * 2**30  # bytes that one array of a world may take
LONGEST = 10**15  # steps
SMALLEST = 1e-100  # scale


@dataclass(frozen=True)
class PaperWindow:
    """A closed form as published, beside the exact window.

    t_after, t_before: as printed; None where the paper gives none or its condition fails.
    certifies: what the published numbers guarantee, which need not be Definition 4's criterion.
    """

    t_after: float | None
    t_before: float | None
    certifies: str


@runtime_checkable
class World(Protocol):
    """A finite mixture p = sum_theta w_theta p^theta, an observation process, and the exact posterior between them.

    Time runs the paper's way: t = low is data, t = high is noise; ``index.check(t)`` refuses a time outside.
    """

    @property
    def name(self) -> str:
        """The name under which the world is registered."""
        ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def weights(self) -> Float[np.ndarray, " labels"]:
        """Prior weights w, positive, summing to one."""
        ...

    @property
    def index(self) -> IndexSet: ...

    @property
    def after(self) -> tuple[str, ...]:
        """S_after of the window shown by default; a proper subset of ``before``."""
        ...

    @property
    def before(self) -> tuple[str, ...]:
        """S_before of the window shown by default."""
        ...

    def sample(self, rng: np.random.Generator, label: str, t: float, n: int) -> Num[np.ndarray, "n ..."]:
        """n draws of Y_t, or of a sufficient statistic of it, given the label; first axis n."""
        ...

    def posterior(self, y: Num[np.ndarray, "n ..."], t: float) -> Float[np.ndarray, "n labels"]:
        """P(theta | Y_t = y), exactly, for each of n observations as ``sample`` returns them."""
        ...

    def law(self, t: float, between: tuple[Labels, Labels] | None = None) -> Posterior:
        """The law of pi_t under p_t: a ``Posterior`` of one row, shape (1, samples, labels), with ``weights``.

        Either every observation (or quadrature node) with its ``mass`` and ``complete=True``, or random draws. Draws
        use the same random numbers at every t, so that curves are smooth in t, and lie where the two label sets
        ``between`` have their mass (``drawn_law`` does both); where all of p_t has its mass by default.
        """
        ...

    def total_variation(self, a: Labels, b: Labels, t: float) -> Estimate:
        """TV(p_t^A, p_t^B): a closed form, or ``mixture_total_variation(self.law(t, (a, b)), a, b)[0]``."""
        ...

    def paper(self, eps: float) -> PaperWindow | None:
        """The paper's closed form for the default window, or None where it has none."""
        ...


def paper_window(world: World, eps: float, after: Labels, before: Labels) -> PaperWindow | None:
    """The paper's closed form, which is for the world's default label sets only."""
    default = (set(after), set(before)) == (set(world.after), set(world.before))
    return world.paper(eps) if default else None


class TextWorld(World, Protocol):
    """A world whose observation is the beginning of a text: Y_{t-1} shows one token more than Y_t.

    Tokens are numbers from 0. Words for them, and so a language model with this law, are in ``engines/toy_worlds.py``.
    """

    def next_token(self, y: np.ndarray, t: float) -> Float[np.ndarray, "n tokens"]:
        """P(token shown next | Y_t = y), for t > 0; zeros where the text of y is over before its time."""
        ...

    def extend(self, y: np.ndarray, t: float, token: Int[np.ndarray, " n"]) -> np.ndarray:
        """Y_{t-1}, which shows what Y_t = y shows and one token more."""
        ...


def drawn_law(world: World, t: float, between: tuple[Labels, Labels] | None, n: int, seed: int) -> Posterior:
    """``World.law`` by Monte Carlo, for worlds that cannot list their observations: n draws with exact posteriors."""
    rng = np.random.default_rng(seed)
    origin = draw_labels(world, between, n, rng)
    y = np.concatenate([world.sample(rng, world.labels[k], t, int(c)) for k, c in enumerate(np.bincount(origin)) if c])
    return importance_law(world, t, between, world.posterior(y, t))


def draw_labels(
    world: World, between: tuple[Labels, Labels] | None, n: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """n labels in order, half from each of two label sets, in proportion to weight as evenly as integers allow."""
    total = np.cumsum(_mean_share(world, between))
    # Systematic sampling: one uniform number for all.
    edges = np.floor(n * total / total[-1] + rng.random())
    return np.repeat(np.arange(len(total)), np.diff(edges, prepend=0.0).astype(int))


def importance_law(
    world: World, t: float, between: tuple[Labels, Labels] | None, posterior: Float[np.ndarray, "n labels"]
) -> Posterior:
    """The law of pi_t from posteriors at observations of labels drawn by ``draw_labels``.

    With Y ~ (p_t^A + p_t^B) / 2 the density of p_t against that law is 2 / (pi(A)/w_A + pi(B)/w_B). Averages over p_t
    of anything that vanishes outside A and B are then unbiased, and the terms of TV(p_t^A, p_t^B) stay below 1.
    """
    drawn = posterior @ (_mean_share(world, between) / world.weights)
    return Posterior(
        np.array([t]), world.labels, posterior[None], weights=world.weights, mass=1 / drawn[None] / len(posterior)
    )


def _share(world: World, chosen: Labels) -> Float[np.ndarray, " labels"]:
    """The label law of p^S: weights restricted to S and renormalised."""
    inside = np.where(label_mask(world.labels, chosen), world.weights, 0.0)
    return np.asarray(inside / inside.sum())


def _mean_share(world: World, between: tuple[Labels, Labels] | None) -> Float[np.ndarray, " labels"]:
    """The label law of (p^A + p^B) / 2; of p where no sets are given."""
    return np.asarray(world.weights if between is None else np.mean([_share(world, s) for s in between], axis=0))


def two_label_factor(world: World, a: Labels, b: Labels) -> float:
    """c in TV(p_t^A, p_t^B) = c TV(p_t^1, p_t^2), for label sets A, B that hold no labels but 1 and 2.

    Both laws are mixtures of the same two components, so their difference is a multiple of p_t^1 - p_t^2.
    """
    share_a, share_b = _share(world, a), _share(world, b)
    first = int(np.argmax(share_a + share_b > 0))
    return abs(float(share_a[first] - share_b[first]))


def check_length(length: int, name: str) -> None:
    """Refuse a number of steps below 1, or one that times could not hold exactly."""
    if not 1 <= length <= LONGEST:
        raise UserError(f"{name} is {length}; it must be at least 1 and at most {LONGEST:.0e}.")


def check_seed(seed: int) -> None:
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be at least 0.")


def check_scale(value: float, name: str) -> None:
    """Refuse what is not a positive number, or one whose square or inverse a computer cannot hold."""
    if not SMALLEST <= value <= 1 / SMALLEST:
        raise UserError(f"{name} is {value}; it must be a positive number, from {SMALLEST:g} to {1 / SMALLEST:g}.")


def check_memory(size: float, what: str) -> None:
    """Refuse what would need more than ``MEMORY_LIMIT`` bytes, saying how much it would need."""
    if size > MEMORY_LIMIT:
        raise UserError(
            f"{what} would need {size / 2**30:.1f} GiB of memory, more than the {MEMORY_LIMIT / 2**30:g} GiB allowed; "
            "choose smaller sizes."
        )
