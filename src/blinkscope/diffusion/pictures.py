"""When was this picture decided? Two experiments on one sample, with noise levels as strata.

    forward-reverse   noise the picture to a level afresh, denoise, read the label. Row t of the curve is the mean of
                      pi_t(Y_t) over Y_t given X = picture: how well the outcome survives that much noise.
    clone             keep the state that one trajectory had at the level and denoise it again and again. Row t is
                      pi_t(Y_t) of that very trajectory, a path's posterior: it moves at random, as a martingale along
                      the sampler, and says at which steps this run was decided.

They differ because a trajectory's noise already leans towards what it became: given the picture, fresh noise is one of
many ways to have come here, and the mean over all of them is smoother than any. A drawn picture is cloned along its own
trajectory; a given picture has none, so one is drawn for it from the forward process, whose law given the picture is,
for an exact model, that of the trajectories that end there.

The same code serves anything with numbered noise levels, pixels or tokens (``LevelSampler``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.levels import NoiseLevels
from blinkscope.errors import UserError
from blinkscope.estimate import loop, streams
from blinkscope.estimate.loop import Outcome, Progress
from blinkscope.estimate.source import JSON, Draw, Order, Stratum
from blinkscope.estimate.trace import Cost, Target, Trace
from blinkscope.feature import UNPARSED

Samples = np.ndarray[Any, Any]
Rngs = Sequence[np.random.Generator]
Labeller = Callable[[Samples], Sequence[str | None]]
"""Labels of finished samples, first axis n; None where there is nothing to read."""

MethodName = Literal["forward-reverse", "clone"]
METHODS: tuple[MethodName, ...] = ("forward-reverse", "clone")
GENERATION = 0


class LevelSampler(Protocol):
    """A diffusion model with numbered noise levels, 0 (the sample) to ``steps``; ``GaussianDiffusion`` is one."""

    @property
    def steps(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample."""
        ...

    @property
    def times(self) -> Float[np.ndarray, " levels"]:
        """What each level is called in the theory."""
        ...

    @property
    def outside_theory(self) -> str | None:
        """Why its samples are no draws from P(X | Y_t); None where they are."""
        ...

    def cost(self, level: int) -> float:
        """Expected network evaluations of denoising one observation from a level."""
        ...

    def noise(self, rng: np.random.Generator, sample: Samples, level: int) -> Samples:
        """One draw of Y at a level given X."""
        ...

    def forward_path(self, rng: np.random.Generator, sample: Samples) -> Samples:
        """One trajectory of the forward process, row i at level i."""
        ...

    def reverse_paths(self, rngs: Rngs) -> Samples:
        """Trajectories of the sampler, level i in [:, i]."""
        ...

    def reverse_batches(
        self, noisy: Samples, levels: Int[np.ndarray, " n"], rngs: Rngs
    ) -> Iterator[tuple[Int[np.ndarray, " batch"], Samples]]:
        """Denoise each observation from its own level: numbers of the rows, and what they became."""
        ...


@dataclass(frozen=True, eq=False)
class LevelSource:
    """Denoisings of one sample as a ``Source``; a stratum's key is the number of reverse steps taken.

    path: the trajectory that is cloned, row i at level i; None to noise the sample afresh for every draw.
    """

    sampler: LevelSampler
    label: Labeller
    sample: Samples
    path: Samples | None
    seed: int
    generation: int = GENERATION

    @property
    def strata(self) -> tuple[Stratum, ...]:
        steps = self.sampler.steps
        return tuple(Stratum(position, self.sampler.cost(steps - position)) for position in range(steps))

    def draw(self, orders: Sequence[Order], round_: int, known: Collection[tuple[int, int]]) -> Iterator[Draw]:
        wanted = [(order.stratum, replicate) for order in orders for replicate in order.replicates()]
        wanted = [pair for pair in wanted if pair not in known]
        if not wanted:
            return
        rngs = [streams.stream(self.seed, streams.FREE, self.generation, *pair) for pair in wanted]
        levels = np.array([self.sampler.steps - position for position, _ in wanted])
        noisy = np.stack([self._noisy(rng, int(level)) for rng, level in zip(rngs, levels, strict=True)])
        for rows, finished in self.sampler.reverse_batches(noisy, levels, rngs):
            for row, label in zip(rows, read(self.label, finished), strict=True):
                position, replicate = wanted[row]
                yield Draw(position, replicate, label, self.sampler.cost(int(levels[row])))

    def _noisy(self, rng: np.random.Generator, level: int) -> Samples:
        return self.sampler.noise(rng, self.sample, level) if self.path is None else self.path[level]


@dataclass(frozen=True, eq=False)
class Experiment:
    """One sample and how it is looked at: everything that the loop needs, and what turns its outcome into a result.

    labels: most frequent labels kept apart. path: see ``LevelSource``. settings: what was asked, for display.
    """

    source: LevelSource
    final_label: str
    labels: int
    drawn_here: bool
    settings: Mapping[str, JSON] = field(default_factory=dict)

    def method_of_loop(self, target: Target) -> NoiseLevels:
        source = self.source
        return NoiseLevels(
            source.strata, self.final_label, self.labels, source.seed, target.error, generation=source.generation
        )

    def trace(self, outcome: Outcome, target: Target, *, seconds: float = 0.0, model_seconds: float = 0.0) -> Trace:
        """The result that the outcome of the loop amounts to."""
        sampler, clone = self.source.sampler, self.source.path is not None
        outside = sampler.outside_theory
        evaluations = sum(draw.cost for draw in outcome.draws) + (sampler.cost(sampler.steps) if self.drawn_here else 0)
        return Trace(
            settings=self.settings,
            text="",
            steps=(),
            final_label=self.final_label,
            posterior=outcome.posterior,
            draws=outcome.draws,
            target=replace(target, estimator="pooled"),  # levels share their data
            status=outcome.status,
            cost=Cost(
                continuations=len(outcome.draws),
                network_evaluations=round(evaluations),
                seconds=seconds,
                model_seconds=model_seconds,
            ),
            notes=() if outside is None else (f"outside the theory: {outside}",),
            kind="path" if clone else "forward-reverse",
            times=sampler.times[sampler.steps - outcome.posterior.index.astype(int)],
        )


def experiment(
    sampler: LevelSampler,
    label: Labeller,
    *,
    sample: Samples | None = None,
    method: MethodName = "forward-reverse",
    seed: int = 0,
    labels: int = 12,
    settings: Mapping[str, JSON] | None = None,
) -> Experiment:
    """Draw a sample, or take the given one, and make ready to look into it.

    Raises
    ------
    UserError : an unknown method, a sample of another shape or with NaN, a label function that returns something else.
    """
    if method not in METHODS:
        raise UserError(f"there is no method {method!r} for noise levels; choose one of {', '.join(METHODS)}.")
    rng = streams.stream(seed, streams.GENERATION, GENERATION)
    if sample is None:
        path = sampler.reverse_paths([rng])[0]
    else:
        given = np.asarray(sample)
        if given.shape != sampler.shape or given.dtype.kind not in "iuf" or not np.isfinite(given).all():
            raise UserError(
                f"the sample is of shape {given.shape} and type {given.dtype}; the model makes finite numbers of shape "
                f"{sampler.shape}."
            )
        path = sampler.forward_path(rng, given)
    source = LevelSource(sampler, label, path[0], path if method == "clone" else None, seed)
    (final,) = read(label, path[:1])
    return Experiment(source, final, labels, sample is None, {"method": method, "seed": seed, **(settings or {})})


def locate_sample(
    sampler: LevelSampler,
    label: Labeller,
    *,
    target: Target | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
    **options: Any,
) -> Trace:
    """Say at which noise levels a sample was decided.

    Parameters
    ----------
    sampler : for instance a ``GaussianDiffusion``.
    label : from finished samples to their labels.
    target : when to stop and what to call a window; ``generated_tokens`` limits network evaluations.
    watch : called with the progress.
    options : ``sample``, ``method``, ``seed``, ``labels`` and ``settings`` of ``experiment``.
    """
    started, target = time.perf_counter(), target or Target()
    prepared = experiment(sampler, label, **options)
    outcome = loop.run(prepared.source, prepared.method_of_loop(target), target, watch=watch)
    return prepared.trace(outcome, target, seconds=time.perf_counter() - started)


def read(label: Labeller, samples: Samples) -> list[str]:
    """One label a sample; what the function finds nothing in is ``(unparsed)``."""
    found = list(label(samples))
    if len(found) != len(samples):
        raise UserError(f"the label function returned {len(found)} labels for {len(samples)} samples; return one each.")
    for name in found:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise UserError(f"the label function returned {name!r}; a label is a non-empty string, or None.")
    return [UNPARSED if name is None else name for name in found]
