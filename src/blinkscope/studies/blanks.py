"""Fill-in-the-blank forms: the label of a reply that fills one in, and the law of a model that is held to its options.

A form is numbered lines of which each offers some options, alone or in a sentence; a reply is read line by line, so an
option that stands inside another word, or another option's first letters, cannot be mistaken for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError
from blinkscope.feature import Reply

JOINED = " / "
_NUMBERED = r"(?m)^[ \t]*(\d+)[.)][ \t]*"
_CHOICE = r"\(([^()\n]*/[^()\n]*)\)"


@dataclass(frozen=True)
class Line:
    """One line of a form: what its sentence says before and after the choice, and the options."""

    before: str
    options: tuple[str, ...]
    after: str

    @classmethod
    def of(cls, blank: str) -> Line:
        """The line that ``Pirate/Ninja`` or ``The (Pirate/Ninja) jumped.`` spells."""
        parts = re.split(_CHOICE, blank) if "(" in blank else ["", blank, ""]
        if len(parts) != 3:
            raise UserError(
                f"the blank {blank!r} must offer one choice in parentheses, as in: The (Pirate/Ninja) is here."
            )
        before, choice, after = parts
        options = tuple(option.strip() for option in choice.split("/"))
        if len(options) < 2 or not all(options) or len({o.casefold() for o in options}) < len(options):
            raise UserError(f"the blank {blank!r} must offer at least two different options, with / between them.")
        return cls(before.lstrip(), options, after.rstrip())

    @property
    def shown(self) -> str:
        """The line as a prompt shows it."""
        return f"{self.before}({'/'.join(self.options)}){self.after}"

    def filled(self, option: str) -> str:
        return f"{self.before}{option}{self.after}"

    def option(self, said: str) -> str | None:
        """The option that a filled line holds after the words before it, as whole words; the longest that fits."""
        start, text = " ".join(self.before.split()).casefold(), " ".join(said.split()).casefold()
        if not text.startswith(start):
            return None
        text = text[len(start) :]
        if self.before.endswith((" ", "\t")) and text[:1].isalnum():
            return None  # the last word before the choice goes on
        text = text.lstrip(" ([*\"'")
        for option in sorted(self.options, key=len, reverse=True):
            rest = text[len(option) :]
            if text.startswith(option.casefold()) and not (rest[:1].isalnum() or rest[:1] in ("_", "-", "/")):
                return option
        return None


@dataclass(frozen=True)
class Form:
    """The lines of a form, each with its options: ``Pirate/Ninja``, or in a sentence ``The (Pirate/Ninja) jumped.``."""

    blanks: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.blanks:
            raise UserError(
                "a form without blanks has nothing to fill in; give at least one, for instance Pirate/Ninja."
            )
        self.parts  # noqa: B018  # refuses what there is not

    @cached_property
    def parts(self) -> tuple[Line, ...]:
        return tuple(Line.of(blank) for blank in self.blanks)

    @property
    def options(self) -> tuple[tuple[str, ...], ...]:
        return tuple(line.options for line in self.parts)

    @property
    def name(self) -> str:
        return f"blanks:{'; '.join(self.blanks)}"

    @property
    def lines(self) -> str:
        """The form as a prompt shows it."""
        return "\n".join(f"{i}. {line.shown}" for i, line in enumerate(self.parts, 1))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(JOINED.join(choice) for choice in product(*self.options))

    def chosen(self, line: int, option: str) -> tuple[str, ...]:
        """The labels in which a line is filled with an option."""
        return tuple(JOINED.join(c) for c in product(*self.options) if c[line] == option)

    def filled(self, choice: Sequence[str]) -> str:
        """The reply that fills the form in, after the prefilled ``1.``."""
        lines = [line.filled(word) for line, word in zip(self.parts, choice, strict=True)]
        return "".join(f"\n{i}. {line}" if i > 1 else f" {line}" for i, line in enumerate(lines, 1))

    def label(self, sample: Reply) -> str | None:
        """The tuple of choices; None unless every line holds one of its options, and nothing that goes on with it."""
        found = []
        for number, line in enumerate(self.parts, 1):
            match = re.search(rf"(?m)^[ \t]*{number}[.)][ \t]*([^\n]*)", sample.text)
            said = "" if match is None else match.group(1)
            last = match is not None and match.end() == len(sample.text)
            option = line.option(said)
            if option is None or (last and not sample.finished and said.casefold().endswith(option.casefold())):
                return None  # a cut reply may have gone on inside its last word
            found.append(option)
        return JOINED.join(found)


def form_of(prompt: str) -> Form:
    """The form in a prompt: its lines ``1. (Pirate/Ninja)`` or ``1. The (Pirate/Ninja) jumped.``.

    They are numbered from 1 on, each with any number of options.

    Raises
    ------
    UserError : there is no such line, or their numbers are not 1, 2, 3 ...
    """
    found = re.findall(rf"{_NUMBERED}([^()\n]*{_CHOICE}[^()\n]*)$", prompt)
    numbers, lines = [number for number, *_ in found], [line.strip() for _, line, _ in found]
    if numbers != [str(i) for i in range(1, len(found) + 1)] or not found:
        raise UserError("the prompt holds no form; its lines are 1. (Pirate/Ninja), 2. (Sea/Moon) and so on.")
    return Form(tuple(line.strip("()") if line[0] == "(" and line[-1] == ")" else line for line in lines))


@dataclass(frozen=True, eq=False)
class Fill:
    """One way to fill a form in: its label, its tokens, and its probability under a model held to the options."""

    label: str
    tokens: tuple[int, ...]
    p: float


def enumerate_fills(engine: Any, context: Any, sampling: Any, form: Form) -> tuple[Fill, ...]:
    """Every way to fill the form in, with its exact probability where each token is held to those that lead to one.

    The tokens of all ways make a tree; at each of its nodes the model's probabilities of the branches are renormalised.
    Where the branches together have probability 0 under the sampling distribution, they share it equally.

    Raises
    ------
    UserError : two ways have the same tokens, or one's tokens begin another's.
    """
    paths = [
        (JOINED.join(c), engine.encode_reply(context, form.filled(c), finished=False)) for c in product(*form.options)
    ]
    raw: dict[tuple[int, ...], dict[int, float]] = {}
    for _, path in paths:
        for s, (token, p) in enumerate(zip(path.tokens, engine.score(path, sampling).p, strict=True)):
            raw.setdefault(path.tokens[:s], {})[token] = float(p)
    if any(path.tokens in raw for _, path in paths) or len({path.tokens for _, path in paths}) < len(paths):
        raise UserError("one way to fill the form in begins with another one's tokens; choose other options.")
    return tuple(Fill(label, path.tokens, float(np.prod([*_held(raw, path.tokens)]))) for label, path in paths)


def _held(raw: Mapping[tuple[int, ...], Mapping[int, float]], tokens: tuple[int, ...]) -> Iterator[float]:
    for s, token in enumerate(tokens):
        branches = raw[tokens[:s]]
        total = sum(branches.values())
        yield branches[token] / total if total > 0 else 1 / len(branches)


def laws_along(fills: Sequence[Fill], tokens: tuple[int, ...]) -> Float[np.ndarray, "rows fills"]:
    """Exact law of the fills given the first 0, 1 ... tokens of one of them."""
    p = np.array([fill.p for fill in fills])
    rows = [p * [fill.tokens[:s] == tokens[:s] for fill in fills] for s in range(len(tokens) + 1)]
    return np.array([row / row.sum() for row in rows])
