"""``number`` and ``exact``: the answer itself is the label."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blinkscope.feature import Reply
from blinkscope.features.reading import (
    answer_text,
    as_label,
    group_of,
    last_box,
    last_match,
    settled_text,
    without_markup,
)

# A number as people write it. RE2 reads \d as 0 to 9.
_SIGN = r"[-−+]?[$€£¥₹]?[-−+]?"
_DIGITS = r"\d[\d,]*(?:\.\d+)*(?:[eE][-+]?\d+)?(?:/\d+)?"
_NUMBER = rf"{_SIGN}(?:{_DIGITS}|\.\d+)"

# A number of the text: a digit inside a word (H2O, x1) is not one, a hyphen after a digit or a letter is not a sign.
_ANYWHERE = rf"(?:\A|[^\pL\pN_.])({_SIGN}\.\d+)|(?:\A|[^\pL\pN_])({_SIGN}{_DIGITS})"

# "The final answer to this is therefore: x = 10 - 4 = 6", "Answer: $5".
_CONNECTION = r"(?:\s+to\s[^.\n:]*?)?\s*(?:\b(?i:is|was|are|equals|would be|should be|must be|will be)\b|[:=])[\s:=≈~]*"
_FILLING = (
    r"(?:(?i:about|approximately|around|roughly|exactly|therefore|thus|simply|just|only|equal to|a total of)[\s:]+)*"
)
_EQUATION = r"(?:(?:[\d \t,+\-−/×÷·()^%$€£¥₹]|\.\d|\b\pL\b)+[=≈][ \t]*)*"
_ANSWER = rf"\b(?i:answer)\b{_CONNECTION}{_FILLING}{_EQUATION}[(\[\"]*({_NUMBER})"
# The line that ends a GSM8K solution. "#### 3. Then we" is a heading.
_HASHES = rf"(?m:^)#### *({_NUMBER})[ .]*(?m:$)"
_EXPLICIT = rf"{_ANSWER}|{_HASHES}"

# TeX that stands inside or beside a number.
_TEX_SPELLINGS = (
    (r"{,}", ","),
    (r"\,", ""),
    (r"\!", ""),
    (r"\$", "$"),
    (r"\%", "%"),
    (r"^\circ", "°"),
    (r"^{\circ}", "°"),
)
_TEX_FRACTION = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")

# What a box may hold around its number: words before it, a unit after it, nothing that calculates.
_BOXED = rf"(?:[\pL ,.:]*[ :])?\(?({_NUMBER})\)?(?: ?[%°]| [\pL /.²³]+|\pL\pL+)* *\.?"

_WRITTEN = re.compile(r"([-−+$€£¥₹]*)([0-9,.]+)(?:[eE]([-+]?)([0-9]+))?(?:/([0-9]+))?")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")


@dataclass(frozen=True)
class Number:
    """The number that the reply gives as its answer, in one spelling.

    What is said in so many words counts first: ``answer is 5``, ``\\boxed{5}``, a line ``#### 5``; of several the last.
    Failing that it is the last number of the text, but only of a finished reply: the last number of a reply that was
    cut is a number on the way. A last ``\\boxed`` that holds no number (a formula) is an answer that is not a number.

    Currency and percent signs, thousands commas, a plus, leading zeros and trailing zeros after the point are dropped:
    ``$12,000.00`` is ``12000``. A fraction stays one. Digits inside a word (``H2O``) are no number.
    """

    @property
    def name(self) -> str:
        return "number"

    def label(self, reply: Reply) -> str | None:
        text = without_markup(settled_text(reply), emphasis=" ")
        for written, plain in _TEX_SPELLINGS:
            text = text.replace(written, plain)
        text = _TEX_FRACTION.sub(r"\1/\2", text)

        explicit, box = last_match(_EXPLICIT, text), last_box(text)
        boxed = _number_in_box(box[1]) if box is not None else None
        if box is not None and boxed and (explicit is None or box[0] > explicit.start(1)):
            return _label(boxed)
        if explicit is not None:
            return _label(group_of(explicit, 1) or group_of(explicit, 2))
        if box is not None or not reply.finished:
            return None
        last = last_match(_ANYWHERE, text)
        return None if last is None else _label(group_of(last, 1) or group_of(last, 2))


@dataclass(frozen=True)
class Exact:
    """The whole reply, its white space collapsed and its case kept; what follows ``</think>`` where there is one.

    A reply that was cut is labelled by what there is of it.
    """

    @property
    def name(self) -> str:
        return "exact"

    def label(self, reply: Reply) -> str | None:
        return as_label(answer_text(reply))


def _number_in_box(content: str) -> str | None:
    """The one number that the content of a box, or its right-hand side, amounts to."""
    value = content.rpartition("=")[2].strip(" $")
    match = last_match(rf"\A{_BOXED}\z", value)
    return None if match is None else group_of(match, 1)


def _label(written: str | None) -> str | None:
    """One spelling for a number: ``12,000`` and ``$12000.00`` are ``12000``."""
    parts = _WRITTEN.fullmatch(written or "")
    if parts is None:
        return None
    sign, body, exponent_sign, exponent, denominator = parts.groups()
    number = _without_zeros(body)
    if exponent is not None:
        number += f"e{'-' * (exponent_sign == '-')}{exponent.lstrip('0') or '0'}"
    if denominator is not None:
        number += f"/{denominator.lstrip('0') or '0'}"
    negative = ("-" in sign or "−" in sign) and number != "0"
    return as_label("-" + number if negative else number)


def _without_zeros(body: str) -> str:
    if body.count(".") > 1:
        return body  # a version or a date: kept as it is written
    whole, _, decimals = body.partition(".")
    whole = whole.rstrip(",")
    # Commas that do not part thousands part a list, whose last entry is meant.
    whole = whole.replace(",", "") if _THOUSANDS.fullmatch(whole) else whole.rpartition(",")[2]
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    return f"{whole}.{decimals}" if decimals else whole
