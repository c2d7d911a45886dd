"""Everything about one sample that its analysis needs, in the form in which a run file keeps it.

With a ``PictureRecord`` and the stored draws a result can be computed again, with another window, level or error,
without the model; and a run that was stopped goes on with the very sample, and the very trajectory, that it began with.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from blinkscope.diffusion.ends import ChangeEnds, read_ends
from blinkscope.diffusion.levels import NoiseLevels
from blinkscope.errors import UserError
from blinkscope.estimate.loop import Method, Outcome
from blinkscope.estimate.source import JSON, Stratum
from blinkscope.estimate.trace import Cost, Target, Trace
from blinkscope.processes import OU_TIME
from blinkscope.symbols import is_text, spelled

Samples = np.ndarray[Any, Any]
STORED_TYPES = ("float32", "int64")
LARGEST_THUMBNAIL = 32  # pixels a side


@dataclass(frozen=True, eq=False)
class PictureRecord:
    """One sample and how it is looked at.

    settings: what was asked, for display; see ``Trace``.
    path: the sample's trajectory, row i at level i, row 0 the sample; cloned, or (forward-reverse) only shown.
    clone: whether draws start from ``path`` rather than from fresh noise.
    labels: most frequent labels kept apart.
    times: what each level is called in the theory, level 0 first, in ``unit``: OU time, or probability of a mask.
    costs: network evaluations of a draw from each level.
    drawn_here: whether the sample was drawn for this analysis, and has a cost.
    positions: the only numbers of reverse steps to look at; None lets the method choose.
    outside: why the sampler is outside the theory; None where it is not.
    thumbnails: small pictures of ``path``, where its samples are no pictures; None where they are.
    notes: what else a reader should know.
    """

    settings: Mapping[str, JSON]
    path: Samples
    clone: bool
    final_label: str
    labels: int
    seed: int
    times: tuple[float, ...]
    costs: tuple[float, ...]
    drawn_here: bool
    positions: tuple[int, ...] | None = None
    outside: str | None = None
    generation: int = 0
    unit: str = OU_TIME.unit
    thumbnails: tuple[Mapping[str, JSON], ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return len(self.times) - 1

    @property
    def strata(self) -> tuple[Stratum, ...]:
        """One for every number of reverse steps taken."""
        return tuple(Stratum(position, self.costs[self.steps - position]) for position in range(self.steps))

    def method_of_loop(self, target: Target) -> Method:
        check_aim(target, clone=self.clone, positions=self.positions)
        levels = NoiseLevels(
            self.strata,
            self.final_label,
            self.labels,
            self.seed,
            target.error,
            generation=self.generation,
            positions=self.positions,
        )
        if target.ends is None:
            return levels
        return ChangeEnds(levels, target.ends)

    def trace(self, outcome: Outcome, target: Target, *, seconds: float = 0.0, model_seconds: float = 0.0) -> Trace:
        """The result that the outcome of the loop amounts to."""
        evaluations = sum(draw.cost for draw in outcome.draws) + (self.costs[-1] if self.drawn_here else 0)
        levels = self.steps - outcome.posterior.index.astype(int)
        return Trace(
            settings=self.settings,
            text="",
            steps=(),
            final_label=self.final_label,
            posterior=outcome.posterior,
            draws=outcome.draws,
            # Levels share their data, and a class is decided over a good part of the steps.
            target=replace(target, estimator="pooled", max_width=target.max_width or max(3, self.steps // 2)),
            status=outcome.status,
            cost=Cost(
                continuations=len(outcome.draws),
                network_evaluations=round(evaluations),
                seconds=seconds,
                model_seconds=model_seconds,
            ),
            notes=(*(() if self.outside is None else (f"outside the theory: {self.outside}",)), *self.notes),
            kind="path" if self.clone else "forward-reverse",
            times=np.asarray(self.times)[levels],
            unit=self.unit,
            ends=() if self.clone else read_ends(outcome.draws, self.final_label, self.steps),
            states=self.path[levels],
            thumbnails=None if self.thumbnails is None else tuple(self.thumbnails[level] for level in levels),
        )

    def to_json(self) -> dict[str, JSON]:
        return {
            "settings": dict(self.settings),
            "path": _array_to_json(self.path),
            "clone": self.clone,
            "final_label": self.final_label,
            "labels": self.labels,
            "seed": self.seed,
            "times": [t if math.isfinite(t) else "inf" for t in self.times],
            "unit": self.unit,
            "costs": list(self.costs),
            "drawn_here": self.drawn_here,
            "positions": None if self.positions is None else list(self.positions),
            "outside": self.outside,
            "generation": self.generation,
            "notes": list(self.notes),
            **({} if self.thumbnails is None else {"thumbnails": [dict(small) for small in self.thumbnails]}),
        }

    @classmethod
    def from_json(cls, document: Any) -> PictureRecord:
        """The record that ``to_json`` wrote; a document of another form is refused."""
        try:
            positions = document["positions"]
            record = cls(
                **{
                    **document,
                    "path": _array_from_json(document["path"]),
                    "times": tuple(float(t) for t in document["times"]),
                    "costs": tuple(float(cost) for cost in document["costs"]),
                    "positions": None if positions is None else tuple(int(position) for position in positions),
                    "thumbnails": None if (small := document.get("thumbnails")) is None else tuple(map(dict, small)),
                    "notes": tuple(str(note) for note in document.get("notes", ())),
                }
            )
            levels = len(record.path)
            if levels < 2 or len(record.times) != levels or len(record.costs) != levels:
                raise ValueError(f"{levels} states, {len(record.times)} times and {len(record.costs)} costs")
            if record.thumbnails is not None and len(record.thumbnails) != levels:
                raise ValueError(f"{levels} states and {len(record.thumbnails)} small pictures")
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise UserError(f"the run file's record of its picture cannot be read ({error}).") from None
        return record


def check_aim(target: Target, *, clone: bool, positions: Sequence[float] | None) -> None:
    """Refuse a target that a picture has not, or that this way of looking into one has not.

    positions: the levels that were chosen, by whatever name; None where the method chooses.
    """
    if target.until != "error":
        raise UserError("until is of texts; of a picture ask for an error, or for the ends of its change.")
    if target.ends is None:
        return
    if clone:
        raise UserError("ends are those of method forward-reverse: a trajectory's own posterior goes up and down.")
    if positions is not None:
        raise UserError("ends choose their own noise levels; leave the times out.")


def compact(samples: Samples) -> Samples:
    """Samples in the type in which they are stored, so that a run that is taken up again sees the same numbers."""
    return samples.astype(np.float32 if samples.dtype.kind == "f" else np.int64)


def thumbnail(picture: Samples) -> dict[str, JSON]:
    """A picture with pixels in [-1, 1], shape (1 or 3, height, width), as a page shows it: at most 32 bytes a side.

    What is no such picture, such as the latents of an autoencoder, has nothing to show: an empty object.
    """
    if picture.ndim != 3 or picture.shape[0] not in (1, 3) or 0 in picture.shape:
        return {}
    block = math.ceil(max(picture.shape[1:]) / LARGEST_THUMBNAIL)
    if block > 1:
        starts = [np.arange(0, size, block) for size in picture.shape[1:]]
        sums = np.add.reduceat(np.add.reduceat(picture, starts[0], axis=1), starts[1], axis=2)
        sizes = [np.diff([*start, size]) for start, size in zip(starts, picture.shape[1:], strict=True)]
        picture = sums / np.outer(*sizes)
    pixels = np.clip(np.round((np.nan_to_num(picture) + 1) * 127.5), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    height, width, channels = pixels.shape
    shape: list[JSON] = [height, width, channels]
    return {"shape": shape, "pixels": base64.b64encode(pixels.tobytes()).decode("ascii")}


def small(sample: Samples) -> dict[str, JSON]:
    """What a page shows of a finished sample: the symbols of a text, or a small picture."""
    return {"symbols": spelled(sample)} if is_text(sample) else thumbnail(sample)


def _array_to_json(array: Samples) -> dict[str, JSON]:
    kind = str(array.dtype)
    content = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return {"type": kind, "shape": list(array.shape), "bytes": base64.b64encode(content).decode("ascii")}


def _array_from_json(document: Any) -> Samples:
    if document["type"] not in STORED_TYPES:
        raise ValueError(f"numbers of type {document['type']!r}")
    content = base64.b64decode(document["bytes"], validate=True)
    found = np.frombuffer(content, dtype=np.dtype(document["type"]).newbyteorder("<"))
    array = found.astype(document["type"]).reshape([int(size) for size in document["shape"]])
    if not np.isfinite(array).all():
        raise ValueError("numbers that are not finite")
    return array
