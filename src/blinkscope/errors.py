"""What can go wrong, said in one plain sentence.

``UserError``    the person can mend it: what is wrong, the value received, what to do. Exit status 2.
``MissingExtra`` an optional dependency is not installed; the message ends with the ``pip install`` line.
``EngineError``  the machine, the model or the server failed. What was drawn is kept. Exit status 1.
"""

from __future__ import annotations


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


def expect(name: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuse, in Python, a value of a kind that makes no sense; True and False are no numbers.

    Raises
    ------
    UserError : ``value`` is none of ``kinds``; ``what`` says what it should be.
    """
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise UserError(f"{name} is {value!r}; it must be {what}.")
