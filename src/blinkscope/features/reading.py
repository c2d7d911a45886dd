"""How features read a reply: in time linear in its length, whatever it holds.

A reply is hostile input. Everything here is either one pass of a string method, a ``re`` pattern that cannot backtrack
over more than it has just read, or an RE2 search, which is linear by construction.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from blinkscope.feature import RESERVED, Reply

MAX_LABEL = 200
"""Characters of a label; a longer one is cut there and ends with an ellipsis."""

END_OF_THINKING = "</think>"
_TEX_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathit)\{([^{}]*)\}")
_TEX_DELIMITER = re.compile(r"\\[()\[\]]")
_TEX_BOX = re.compile(r"\\boxed(?![A-Za-z])\s*")
_BRACE = re.compile(r"[{}]")


def as_label(text: str) -> str | None:
    """Found text as a label: white space collapsed, cut at ``MAX_LABEL``; None where nothing is left.

    Text that happens to spell a reserved label is put in quotation marks, so that a reply cannot pose as one.
    """
    label = " ".join(well_formed(text).split())
    if label in RESERVED:
        label = f'"{label}"'
    return cut(label, MAX_LABEL) or None


def cut(text: str, length: int) -> str:
    """The first ``length`` characters, followed by an ellipsis where there are more."""
    return text if len(text) <= length else text[:length] + "…"


def well_formed(text: str) -> str:
    """The text with every lone half of a surrogate pair, which UTF-8 cannot write down, replaced by a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def answer_text(reply: Reply) -> str:
    """What stands after the model's thinking, where the reply marks its end; else the whole reply."""
    return well_formed(reply.text).rpartition(END_OF_THINKING)[2]


def settled_text(reply: Reply) -> str:
    """``answer_text`` without the last word of a reply that was cut: ``12`` may have been the start of ``125``."""
    text = answer_text(reply)
    if reply.finished or not text or text[-1].isspace():
        return text
    words = text.rsplit(maxsplit=1)
    return text[: len(text) - len(words[-1])]


def without_markup(text: str, *, emphasis: str) -> str:
    """Text inside TeX's ``\\text{..}`` and its kin unwrapped, TeX's maths delimiters and Markdown's ``*`` and backtick
    replaced by ``emphasis``."""
    text = _TEX_TEXT.sub(r"\1", text)
    text = _TEX_DELIMITER.sub(" ", text)
    return text.replace("*", emphasis).replace("`", emphasis)


def last_box(text: str) -> tuple[int, str] | None:
    """Position and content of the last ``\\boxed{..}`` or ``\\boxed x``; None where none is closed."""
    start = text.rfind(r"\boxed")
    opening = _TEX_BOX.match(text, start) if start >= 0 else None
    if opening is None:
        return None
    if not text.startswith("{", opening.end()):
        words = text[opening.end() :].split(maxsplit=1)
        return (start, words[0].rstrip("$.,;")) if words else None
    depth = 0
    for brace in _BRACE.finditer(text, opening.end()):
        depth += 1 if brace.group() == "{" else -1
        if depth == 0:
            return start, text[opening.end() + 1 : brace.start()]
    return None


def last_match(pattern: str, text: str, *, passing_over: str | None = None) -> Any | None:
    """The last of the non-overlapping matches of an RE2 pattern, read from left to right, in one linear search.

    Searching again after every match can take quadratic time (``a(.*b)?`` on a row of a's reads to the end each time).
    Here a single search for "something, then the pattern, repeated" walks through the same matches, because its lazy
    prefix stops where the next match starts, and its group keeps what it caught in the last round.

    Parameters
    ----------
    pattern : what to look for; it must not match the empty text.
    passing_over : another pattern, whose matches are stepped over first and never count.

    Returns
    -------
    match : RE2's match object, in which group 1 is the whole match and group 1 + i the pattern's own group i; None
        where there is no match. A group that took no part in the last match may still hold text from an earlier one:
        ``group_of`` knows.
    """
    step = rf"({pattern})" if passing_over is None else rf"(?:{passing_over}|({pattern}))"
    match = compiled(rf"\A(?:(?s:.*?){step})+").search(text)
    return None if match is None or match.group(1) is None else match


def group_of(match: Any, number: int) -> str | None:
    """Text of the pattern's own group in the match that ``last_match`` found; None where it took no part."""
    start, end = match.span(1 + number)
    inside = match.start(1) <= start and end <= match.end(1)
    return str(match.group(1 + number)) if inside else None


@lru_cache(maxsize=256)
def compiled(pattern: str) -> Any:
    """An RE2 pattern. RE2 would write its complaints to stderr itself; the exception says it all."""
    import re2

    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)
