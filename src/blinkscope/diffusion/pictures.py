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
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.autoencoder import Autoencoder
from blinkscope.diffusion.record import PictureRecord, Samples, compact, small, thumbnail
from blinkscope.errors import UserError
from blinkscope.estimate import loop, streams
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.source import JSON, Draw, Order, Stratum
from blinkscope.estimate.trace import Target, Trace
from blinkscope.feature import UNPARSED
from blinkscope.sampler import IndexSet

Rngs = Sequence[np.random.Generator]
Labeller = Callable[[Samples], Sequence[str | None]]
"""Labels of finished samples, first axis n (their pictures, for latents); None where there is nothing to read."""

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
    def index(self) -> IndexSet:
        """What the times of the levels are: OU times, or masking probabilities."""
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
class PictureModel:
    """A diffusion model, ready to use.

    name: as results and run files spell it.
    sampler: its noise levels, and how they are reached and left.
    label: from pictures to the model's own labels; None where it brings none.
    digest: of its weights or data, so that a changed model under the same name is noticed.
    autoencoder: between its samples and pictures; None where samples are pictures.
    prompt: what it draws, where that was asked for in words.
    notes: what a reader should know about how it is run.
    """

    name: str
    sampler: LevelSampler
    label: Labeller | None = None
    digest: str = ""
    autoencoder: Autoencoder | None = None
    prompt: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class LevelSource:
    """Denoisings of one sample as a ``Source``; a stratum's key is the number of reverse steps taken.

    path: the trajectory that is cloned, row i at level i; None to noise the sample afresh for every draw.
    autoencoder: what makes pictures of samples; None where they are pictures.
    """

    sampler: LevelSampler
    label: Labeller
    sample: Samples
    path: Samples | None
    seed: int
    generation: int = GENERATION
    autoencoder: Autoencoder | None = None

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
            pictures = pictures_of(finished, self.autoencoder)
            for row, label, picture in zip(rows, read(self.label, pictures), pictures, strict=True):
                position, replicate = wanted[row]
                cost = self.sampler.cost(int(levels[row]))
                yield Draw(position, replicate, label, cost, payload=small(picture))

    def _noisy(self, rng: np.random.Generator, level: int) -> Samples:
        return self.sampler.noise(rng, self.sample, level) if self.path is None else self.path[level]


def experiment(
    model: PictureModel,
    *,
    sample: Samples | None = None,
    method: MethodName = "forward-reverse",
    seed: int = 0,
    labels: int = 12,
    times: Sequence[float] | None = None,
    settings: Mapping[str, JSON] | None = None,
    generation: int = GENERATION,
) -> PictureRecord:
    """Draw a sample, or take the given one, and make ready to look into it; ``source_of`` is what is drawn from then.

    Parameters
    ----------
    model : with labels.
    labels : most frequent labels kept apart.
    times : look at the levels nearest to these times only; None lets the method choose.
    settings : what was asked, for display.
    generation : number of the sample among those that a run holds.

    Raises
    ------
    UserError : an unknown method, a sample of another shape or with NaN, a time outside the schedule, a label function
        that returns something else.
    """
    if method not in METHODS:
        raise UserError(f"there is no method {method!r} for noise levels; choose one of {', '.join(METHODS)}.")
    sampler, autoencoder = model.sampler, model.autoencoder
    positions = None if times is None else positions_of(sampler, times)
    rng = streams.stream(seed, streams.GENERATION, generation)
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
    path = compact(path)
    (final,) = read(_labels(model), pictures_of(path[:1], autoencoder))
    return PictureRecord(
        settings={"method": method, "seed": seed, **(settings or {})},
        path=path,
        clone=method == "clone",
        final_label=final,
        labels=labels,
        seed=seed,
        times=tuple(float(t) for t in sampler.times),
        costs=tuple(float(sampler.cost(level)) for level in range(sampler.steps + 1)),
        drawn_here=sample is None,
        unit=sampler.index.unit,
        positions=positions,
        outside=sampler.outside_theory,
        generation=generation,
        thumbnails=None if autoencoder is None else tuple(map(thumbnail, autoencoder.decode(path))),
        notes=model.notes,
    )


def source_of(record: PictureRecord, model: PictureModel) -> LevelSource:
    """What the draws of a record come from."""
    path = record.path if record.clone else None
    return LevelSource(
        model.sampler, _labels(model), record.path[0], path, record.seed, record.generation, model.autoencoder
    )


def _labels(model: PictureModel) -> Labeller:
    if model.label is None:
        raise UserError(f"{model.name} brings no labels; say how its pictures are told apart.")
    return model.label


def pictures_of(samples: Samples, autoencoder: Autoencoder | None) -> Samples:
    """The pictures of samples, which they are themselves where there is no autoencoder."""
    return samples if autoencoder is None else autoencoder.decode(samples)


def positions_of(sampler: LevelSampler, times: Sequence[float]) -> tuple[int, ...]:
    """Numbers of reverse steps after which the sampler is at the levels nearest to these times."""
    known = np.asarray(sampler.times, dtype=float)
    if not len(times):
        raise UserError("there are no times to look at; give at least one, or leave them out.")
    for t in times:
        if not known[1] <= t <= known[-1]:
            raise UserError(
                f"time {t:g} is outside the schedule, whose noise levels lie between {known[1]:.4g} and {known[-1]:g}."
            )
    # Nearest in e^{-t}, the share of the signal: far out, where all levels are as good as pure noise, that decides.
    nearest = [int(np.argmin(np.abs(np.exp(-known[1:]) - np.exp(-t)))) + 1 for t in times]
    return tuple(sorted({sampler.steps - level for level in nearest}))


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
    options : of ``experiment``.
    """
    started, target = time.perf_counter(), target or Target()
    model = PictureModel("this sampler", sampler, label)
    record = experiment(model, **options)
    outcome = loop.run(source_of(record, model), record.method_of_loop(target), target, watch=watch)
    return record.trace(outcome, target, seconds=time.perf_counter() - started)


def read(label: Labeller, samples: Samples) -> list[str]:
    """One label a sample; what the function finds nothing in is ``(unparsed)``."""
    found = list(label(samples))
    if len(found) != len(samples):
        raise UserError(f"the label function returned {len(found)} labels for {len(samples)} samples; return one each.")
    for name in found:
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise UserError(f"the label function returned {name!r}; a label is a non-empty string, or None.")
    return [UNPARSED if name is None else name for name in found]
