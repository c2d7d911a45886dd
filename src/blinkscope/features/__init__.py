"""Features of a text: by name (``open_feature``) or from a function (``feature_of``).

>>> from blinkscope.feature import Reply
>>> open_feature("choice").label(Reply("It barks, so the answer is (B).", finished=True))
'B'
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

from blinkscope.errors import UserError
from blinkscope.feature import Feature, Reply
from blinkscope.features.answers import Exact, Number
from blinkscope.features.choices import Choice
from blinkscope.features.judge import Judge
from blinkscope.features.patterns import Contains, Pattern
from blinkscope.features.python import PythonFunction, feature_of
from blinkscope.features.refusal import Refusal

__all__ = ["FEATURES", "FeatureEntry", "feature_of", "open_feature"]


@dataclass(frozen=True)
class FeatureEntry:
    """A feature that can be opened by name.

    summary: one line on what its labels are.
    example: a spelling that works.
    open: makes the feature from what stands after the colon, for instance ``PATTERN`` of ``regex:PATTERN``.
    takes_text: whether anything may stand after a colon.
    """

    summary: str
    example: str
    open: Callable[[str], Feature[Reply]]
    takes_text: bool = True


def _without_text(make: Callable[[], Feature[Reply]], summary: str, name: str) -> FeatureEntry:
    return FeatureEntry(summary, name, lambda _: make(), takes_text=False)


FEATURES: dict[str, FeatureEntry] = {
    "number": _without_text(Number, "the number given as the answer, else the last number", "number"),
    "choice": _without_text(Choice, "the letter A to J of a multiple-choice answer", "choice"),
    "exact": _without_text(Exact, "the whole reply, white space collapsed", "exact"),
    "refusal": _without_text(Refusal, "refusal or compliance, by a list of phrases", "refusal"),
    "judge": FeatureEntry("a score by StrongREJECT's rubric, from 0 to 1", "judge:strongreject@smollm2", Judge.open),
    "contains": FeatureEntry("yes or no: whether TEXT occurs in the reply", "contains:Paris", Contains),
    "regex": FeatureEntry("group 1 of the last match, else the match", r"regex:(?i)my choice: (\w+)", Pattern),
    "python": FeatureEntry(
        "what your function (str -> str or None) returns", "python:my_module:my_function", PythonFunction.open
    ),
}


def open_feature(spec: str) -> Feature[Reply]:
    """The feature that a user spells, for instance ``number`` or ``regex:(?i)my choice: (\\w+)``.

    Raises
    ------
    UserError : the name is unknown (the message lists the features), or what follows its colon is not usable.
    """
    name, colon, text = spec.partition(":")
    entry = FEATURES.get(name)
    if entry is None:
        close = get_close_matches(name, FEATURES, n=1)
        hint = f" (did you mean {FEATURES[close[0]].example}?)" if close else ""
        raise UserError(f"there is no feature {name!r}{hint}; the features are {_listed()}.")
    if colon and not entry.takes_text:
        raise UserError(f"the feature {name!r} takes nothing after its name, but {spec!r} was given; write {name}.")
    return entry.open(text)


def _listed() -> str:
    return "; ".join(f"{entry.example} ({entry.summary})" for entry in FEATURES.values())
