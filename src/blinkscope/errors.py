"""What can go wrong, said in one plain sentence.

``UserError``    the person can mend it: what is wrong, the value received, what to do. Exit status 2.
``MissingExtra`` an optional dependency is not installed; the message ends with the ``pip install`` line.
``EngineError``  the machine, the model or the server failed. What was drawn is kept. Exit status 1.
"""

from __future__ import annotations

from difflib import get_close_matches
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


class BlinkscopeError(Exception):
    """An error whose text is written for a person and needs no traceback."""

    exit_status = 1


class UserError(BlinkscopeError):
    """A mistake in what was asked for."""

    exit_status = 2


class MissingExtra(UserError):
    """A package that this task needs is not installed."""

    def __init__(self, task: str, extra: str) -> None:
        super().__init__(f"{task} needs packages that are not installed; run: pip install 'blinkscope[{extra}]'")


class EngineError(BlinkscopeError):
    """The model, its machine or its server failed while working."""


def expect(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> Any:
    """The value, of one of some kinds; numbers of numpy come back as Python's own. True and False are no numbers.

    Raises
    ------
    UserError : ``value`` is none of ``kinds``; ``what`` says what it should be.
    """
    wanted = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, bool):
        if int in wanted and isinstance(value, Integral):
            return int(value)
        if float in wanted and isinstance(value, Real):
            return float(value)
        if isinstance(value, wanted):
            return value
    raise UserError(f"{name} is {value!r}; it must be {what}.")


def expect_fields(record: object, names: Iterable[str], kinds: type | tuple[type, ...], what: str) -> None:
    """``expect`` of fields of a frozen dataclass, which hold what it returns from then on."""
    for name in names:
        object.__setattr__(record, name, expect(name, getattr(record, name), kinds, what))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about a wrong name: a question where something is spelled nearly so, else a full stop."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else "."
