"""The analysis of a picture: what ``session`` does for a text, for ``diffusion:NAME`` and ``diffusers:FOLDER``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.diffusion.folders import SCHEME as PIPELINES
from blinkscope.diffusion.folders import Loading, open_pipeline
from blinkscope.diffusion.images import read_image
from blinkscope.diffusion.levels import PILOT
from blinkscope.diffusion.models import SCHEME as SHIPPED
from blinkscope.diffusion.models import open_pictures
from blinkscope.diffusion.pictures import (
    Labeller,
    LevelSampler,
    MethodName,
    PictureModel,
    Rngs,
    experiment,
    source_of,
)
from blinkscope.diffusion.record import PictureRecord, Samples, check_aim
from blinkscope.errors import MissingExtra, UserError, expect
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target, Trace
from blinkscope.keeper import keeping, named, provenance, read_again
from blinkscope.language.strata import Stopwatch
from blinkscope.question import check_labels_and_seed, sort_options
from blinkscope.runs.spec import Spec
from blinkscope.runs.store import Run
from blinkscope.sampler import IndexSet

SCHEMES = (SHIPPED, PIPELINES)
DOCUMENT = "picture"
"""Name of a picture's record in a run file."""
OWN_LABELS = "class"


@dataclass(frozen=True)
class PictureQuestion:
    """What is asked of a diffusion model: the identity of a run, apart from the model itself.

    prompt: of text-to-image pipelines, what to draw.
    image: file of the picture to look into, or its array; None draws one.
    feature: ``class`` for the model's own labels, ``python:MODULE:FUNCTION``, or a function from pictures, shape
        (n, ...), to their labels.
    times: the only times (OU time, or masking probability) to look at; None lets the method choose.
    """

    prompt: str | None = None
    image: str | Path | Samples | None = None
    feature: str | Labeller | None = None
    method: MethodName = "forward-reverse"
    seed: int = 0
    labels: int = 12
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        expect("prompt", self.prompt, (str, type(None)), "what to draw, or None")
        check_labels_and_seed(self)
        if self.times is not None:
            expect("times", self.times, (tuple, list, np.ndarray), "numbers, such as (0.5, 1.0)")
            times = tuple(expect("one of times", t, (int, float), "a number") for t in self.times)
            object.__setattr__(self, "times", times)


@dataclass(frozen=True)
class PicturePlan:
    """What is known before the first draw.

    largest: network evaluations of one draw from pure noise.
    most_draws: how many a level takes at most, were it read by itself: 1 / (4 error^2), and those of its first round
        at least. None where ends are asked for.
    """

    record: PictureRecord
    largest: float
    most_draws: int | None
    known_draws: int
    notes: tuple[str, ...] = ()


def is_picture_model(model: object) -> bool:
    """Whether a model names, or is, one of pictures."""
    return isinstance(model, PictureModel) or (isinstance(model, str) and model.startswith(SCHEMES))


def locate_picture(
    model: str | PictureModel,
    *,
    target: Target | None = None,
    run: str | Path | None = None,
    announce: Callable[[PicturePlan], None] = lambda plan: None,
    watch: Callable[[Progress], None] = lambda progress: None,
    engine_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trace:
    """Say at which noise levels a picture was decided; see ``locate``.

    Parameters
    ----------
    model : ``diffusion:NAME?key=value``, ``diffusers:FOLDER?key=value``, or a ``PictureModel``.
    engine_options : ``device``, ``dtype``, ``batch_bytes`` and ``allow_pickle`` of a pipeline of diffusers.
    options : fields of ``PictureQuestion`` and of ``Target``; ``generated_tokens`` limits network evaluations.
    """
    question, target = _split(target, options)
    check_aim(target, clone=question.method == "clone", positions=question.times)
    opened = open_model(model, question.prompt, engine_options or {})
    if target.ends is not None and opened.sampler.steps == 1:
        raise UserError("the ends of a change lie between steps, and this schedule has a single one; give it more.")
    stopwatch = Stopwatch()
    label, feature = labeller(question, opened)
    sample = _sample(question, opened)
    timed = replace(opened, sampler=_Timed(opened.sampler, stopwatch), label=label)
    spec = _spec(question, opened, feature, sample, target)
    with keeping(run, spec, lambda: stopwatch.seconds) as keeper:
        document = keeper.document(DOCUMENT)
        if document is None:
            settings = {
                key: spec.identity[key] for key in ("model", "prompt", "feature", "image") if key in spec.identity
            }
            record = experiment(
                timed,
                sample=sample,
                method=question.method,
                seed=question.seed,
                labels=question.labels,
                times=question.times,
                settings=settings,
            )
            keeper.put_document(DOCUMENT, record.to_json())
        else:
            record = PictureRecord.from_json(document)
        most = max(2 * PILOT, int(np.ceil(0.25 / target.error**2))) if target.ends is None else None
        announce(PicturePlan(record, record.costs[-1], most, len(keeper.known), keeper.notes))
        trace = keeper.analyse(record, source_of(record, timed), target, watch)
        keeper.finish(trace.status)
    return trace


def open_model(model: str | PictureModel, prompt: str | None, options: Mapping[str, Any]) -> PictureModel:
    """The model that a spelling names, or the model itself, which was told when it was made what to draw."""
    if isinstance(model, str) and model.startswith(PIPELINES):
        return _open_pipeline(model, prompt, options)
    name = model if isinstance(model, str) else model.name
    if prompt is not None:
        raise UserError(f"a prompt makes no sense with {name}; leave it out.")
    if options:
        raise UserError(f"{next(iter(options))} makes no sense with {name}, which needs no loading; leave it out.")
    return open_pictures(model) if isinstance(model, str) else model


def _open_pipeline(spec: str, prompt: str | None, options: Mapping[str, Any]) -> PictureModel:
    """Where and how it is loaded has the names that it has for a language model."""
    known = ("device", "dtype", "batch_bytes", "allow_pickle")
    if unknown := sorted(set(options) - set(known)):
        raise UserError(f"there is no option {unknown[0]!r} of a pipeline; there are {', '.join(known)}.")
    try:
        from blinkscope.engines.loading import Placement, quiet
    except ImportError as error:
        raise MissingExtra("a pipeline of diffusers", "diffusion") from error
    placement = Placement.of(options.get("device", "auto"), options.get("dtype", "auto"))
    loading = Loading(
        placement.device,
        None if placement.dtype == "auto" else placement.dtype,
        bool(options.get("allow_pickle")),
        options.get("batch_bytes"),
    )
    with quiet():
        return open_pipeline(spec, prompt, loading)


def stored_picture(run: Run, generation: int, target: Target) -> Trace | None:
    """The result for a picture in an open run; None where this generation is no picture."""
    document = run.document(named(DOCUMENT, generation))
    if document is None:
        return None
    return read_again(run, generation, PictureRecord.from_json(document), target)


def labeller(question: PictureQuestion, model: PictureModel) -> tuple[Labeller, str]:
    """What labels finished pictures, and its name."""
    asked = question.feature
    if asked is None or asked == OWN_LABELS:
        if model.label is None:
            raise UserError(
                f"{model.name} brings no labels; say how its pictures are told apart with python:MODULE:FUNCTION, a "
                "function from an array of shape (channels, height, width) to a label."
            )
        return model.label, OWN_LABELS
    if isinstance(asked, str):
        from blinkscope.features.python import PythonFunction

        scheme, _, rest = asked.partition(":")
        if scheme != "python":
            raise UserError(f"there is no feature {asked!r} of pictures; use class or python:MODULE:FUNCTION.")
        function = PythonFunction.open(rest)
        function.start()
        return lambda pictures: [function.label_array(picture) for picture in pictures], function.name
    return asked, f"callable:{getattr(asked, '__qualname__', type(asked).__qualname__)}"


def _split(target: Target | None, options: Mapping[str, Any]) -> tuple[PictureQuestion, Target]:
    of_question, target = sort_options(
        PictureQuestion,
        target,
        options,
        lambda name, known: (
            f"{name} makes no sense with a diffusion model; leave it out. There are {', '.join(known)}."
        ),
    )
    return PictureQuestion(**of_question), target


def _sample(question: PictureQuestion, model: PictureModel) -> Samples | None:
    """The sample to look into: the given picture, or what an autoencoder makes of it; None to draw one."""
    image, autoencoder = question.image, model.autoencoder
    if isinstance(image, (str, Path)):
        image = read_image(Path(image), model.sampler.shape if autoencoder is None else autoencoder.shape)
    if image is None or autoencoder is None:
        return image
    if np.shape(image) != autoencoder.shape:
        raise UserError(
            f"the picture is of shape {np.shape(image)}; the model makes pictures of shape {autoencoder.shape}."
        )
    return autoencoder.encode(np.asarray(image))


def _spec(question: PictureQuestion, model: PictureModel, feature: str, sample: Samples | None, target: Target) -> Spec:
    image: JSON = None
    if sample is not None:
        image = Path(question.image).name if isinstance(question.image, (str, Path)) else "an array"
    content = None if sample is None else hashlib.sha256(np.ascontiguousarray(sample, dtype=float).tobytes())
    identity: dict[str, JSON] = {
        **({} if model.prompt is None else {"prompt": model.prompt}),
        "model": model.name,
        "weights": model.digest,
        "feature": feature,
        "image": image,
        "image_digest": content.hexdigest() if content else None,
        "method": question.method,
        "seed": question.seed,
        "labels": question.labels,
        "times": None if question.times is None else [str(float(t)) for t in question.times],
    }
    return Spec(identity=identity, target=asdict(target), provenance=provenance())


@dataclass(frozen=True, eq=False)
class _Timed:
    """A sampler whose work is timed; labels and the store are not part of it."""

    sampler: LevelSampler
    stopwatch: Stopwatch

    @property
    def steps(self) -> int:
        return self.sampler.steps

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sampler.shape

    @property
    def index(self) -> IndexSet:
        return self.sampler.index

    @property
    def times(self) -> np.ndarray:
        return self.sampler.times

    @property
    def outside_theory(self) -> str | None:
        return self.sampler.outside_theory

    def cost(self, level: int) -> float:
        return self.sampler.cost(level)

    def noise(self, rng: np.random.Generator, sample: Samples, level: int) -> Samples:
        return self.sampler.noise(rng, sample, level)

    def forward_path(self, rng: np.random.Generator, sample: Samples) -> Samples:
        return self.sampler.forward_path(rng, sample)

    def reverse_paths(self, rngs: Rngs) -> Samples:
        return self.stopwatch.once(lambda: self.sampler.reverse_paths(rngs))

    def reverse_batches(self, noisy: Samples, levels: np.ndarray, rngs: Rngs) -> Iterator[tuple[np.ndarray, Samples]]:
        return self.stopwatch.over(self.sampler.reverse_batches(noisy, levels, rngs))
