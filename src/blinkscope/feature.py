"""A feature: from a finished sample to a label.

A feature g: X -> Theta splits the outputs of a model into a finite label set ([LKC25], section 2): right or wrong,
refusal or compliance, the answer itself. Labels are strings. Three are reserved for outcomes that every feature shares.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

from blinkscope.errors import UserError

UNPARSED = "(unparsed)"  # the sample is finished and the feature found nothing in it
TRUNCATED = "(truncated)"  # the sample hit its length cap and the feature found nothing in it
OTHER = "(other)"  # labels beyond the most frequent ones, summed
RESERVED = (UNPARSED, TRUNCATED, OTHER)

SampleT = TypeVar("SampleT", contravariant=True)


@runtime_checkable
class Feature(Protocol[SampleT]):
    """Anything with a name that can be written down in a run file and a function from sample to label."""

    @property
    def name(self) -> str:
        """The spelling that creates this feature again, for instance ``number`` or ``regex:My choice: (\\w+)``."""
        ...

    def label(self, sample: SampleT) -> str | None:
        """The sample's label, or None where the feature finds nothing to read."""
        ...


@runtime_checkable
class Listing(Protocol):
    """A feature that knows all labels it can give, apart from the reserved ones."""

    @property
    def labels(self) -> tuple[str, ...]: ...


@runtime_checkable
class Starting(Protocol):
    """A feature that loads something before its first label, in whose name a user may have made a mistake."""

    def start(self) -> None:
        """Load it now; that it was loaded before changes nothing."""
        ...


@dataclass(frozen=True)
class Reply:
    """A finished reply of a language model, as a feature reads it.

    text: the whole reply, prefill included, without end-of-turn tokens.
    finished: False where the reply was cut by the length cap.
    """

    text: str
    finished: bool


def start(feature: Feature[SampleT]) -> None:
    """Have a mistake in what the feature loads show now, before any work."""
    if isinstance(feature, Starting):
        feature.start()


def label_of(feature: Feature[Reply], reply: Reply) -> str:
    """The label of a reply, with the two reserved outcomes for "nothing found"."""
    label = feature.label(reply)
    if label is None:
        return UNPARSED if reply.finished else TRUNCATED
    if not isinstance(label, str) or not label.strip():
        raise UserError(f"feature {feature.name!r} returned {label!r}; a label is a non-empty string, or None.")
    if label in RESERVED:
        raise UserError(f"feature {feature.name!r} returned the reserved label {label!r}; choose another spelling.")
    return label
