"""``contains:TEXT`` and ``regex:PATTERN``: the user says what to look for."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blinkscope.errors import UserError
from blinkscope.feature import Reply
from blinkscope.features.reading import as_label, compiled, group_of, last_match, well_formed

# A pattern that matches nothing at all somewhere in here would match nothing at all everywhere.
_PROBE = " a b\n1-A."
_ANY_CASE = re.compile(r"\(\?[a-zA-Z]*i[a-zA-Z]*\)")  # flags for the whole pattern, i among them


@dataclass(frozen=True)
class Contains:
    """Whether a text occurs anywhere in the reply: ``yes`` or ``no``. Capital and small letters differ.

    A reply that was cut before the text occurred gets no label: it might have come later.
    """

    text: str

    def __post_init__(self) -> None:
        if not self.text:
            raise UserError("the feature 'contains:' has no text to look for; write for instance contains:Paris.")

    @property
    def name(self) -> str:
        return f"contains:{self.text}"

    @property
    def labels(self) -> tuple[str, ...]:
        return ("yes", "no")

    def label(self, reply: Reply) -> str | None:
        if self.text in reply.text:
            return "yes"
        return "no" if reply.finished else None


@dataclass(frozen=True)
class Pattern:
    """What an RE2 regular expression catches: its group 1 where it has groups, else the whole match.

    Of several matches the last counts, because a later statement corrects an earlier one. Where group 1 takes no part
    in it, nothing is found. A pattern that begins with ``(?i)`` takes capital and small letters for equal; labels are
    in small letters. RE2 searches in time linear in the text; the price is that it has neither look-around nor
    backreferences.
    """

    pattern: str

    def __post_init__(self) -> None:
        if not self.pattern:
            raise UserError(
                r"the feature 'regex:' has no pattern; write for instance 'regex:(?i)my choice: (\w+)', "
                "whose group 1 is the label."
            )
        import re2

        try:
            empty = any(match.start() == match.end() for match in compiled(self.pattern).finditer(_PROBE))
            last_match(self.pattern, _PROBE)  # the longer pattern that is really searched for compiles too
        except (re2.error, UnicodeEncodeError) as error:
            raise UserError(
                f"the pattern {self.pattern!r} is not a valid regular expression: {_words(error)}."
            ) from None
        if empty:
            raise UserError(
                f"the pattern {self.pattern!r} matches the empty text, so it finds nothing everywhere; "
                r"ask for at least one character, for instance with \d+ in place of \d*."
            )

    @property
    def name(self) -> str:
        return f"regex:{self.pattern}"

    def label(self, reply: Reply) -> str | None:
        match = last_match(self.pattern, well_formed(reply.text))
        if match is None:
            return None
        found = group_of(match, 1) if compiled(self.pattern).groups else match.group(1)
        return as_label(found.lower() if found and _ANY_CASE.match(self.pattern) else found or "")


def _words(error: Exception) -> str:
    """RE2's own words; its exceptions carry bytes."""
    reason = error.args[0] if len(error.args) == 1 else str(error)
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
