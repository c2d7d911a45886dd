"""``choice``: the letter of a multiple-choice answer."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blinkscope.feature import Reply
from blinkscope.features.reading import group_of, last_box, last_match, settled_text, without_markup

# A letter that stands for an option. In brackets or quotation marks any letter does. Bare, it must not be a word of the
# sentence: "a" and "I" are words, so a capital A or I needs a stop or a word such as "because" after it, and a small
# letter a stop.
_STOP = r"(?:[.,;:!?)\]]+(?:\s|\z)|\s*\z|[ \t]*\n)"
_BRACKETED = r"""[(\["'“‘] ?([A-Ja-j]) ?[.,]?[)\]"'”’]"""
_LETTER = (
    rf"(?:{_BRACKETED}"
    rf"|([B-HJ])(?:{_STOP}|[ \t]+[^\s=+/^])"
    rf"|([AI])(?:{_STOP}|[ \t]+(?:because|since|as|which|due|for|and|or|is|[-–—(]))"
    rf"|([a-j]){_STOP})"
)

# "The correct answer to this is clearly the second one, (B)", "My choice: B".
_IS = r"\s*(?:\b(?i:is|was|would be|should be|must be|will be|has to be)\b|[:=–—-])[\s:]*"
_ADVERB = r"(?:(?i:therefore|thus|then|hence|clearly|definitely|probably|likely|most likely|simply|indeed|still)[, ]+)*"
_NOUN = r"(?i:(?:the\s+)?(?:\pL+\s+)?(?:one|option|choice|answer|letter|statement)[,:]?\s+)?"
_STATED = rf"\b(?i:answer|choice|option)\b(?:\s+to\s[^.\n:]*?)?{_IS}{_ADVERB}{_NOUN}{_LETTER}"
# "Answer (B)". "Option (B)" only mentions it.
_NAMED = rf"\b(?i:answer)\s*{_BRACKETED}"
_CHOOSE = r"(?i:choose|chose|pick|picked|select|selected|go with|going with|went with|opt for)\s+"
_CHOSEN = rf"\b{_CHOOSE}{_NOUN}{_LETTER}"
_CORRECT = r"\b([A-J])[)\]]?\s+is\s+(?:the\s+)?(?i:correct|right|best)\b"
_EXPLICIT = rf"{_STATED}|{_NAMED}|{_CHOSEN}|{_CORRECT}"
_GROUPS = range(1, 11)
_NOT_CHOSEN = rf"(?i:\bnot|n['’]t|\bnever|\bcannot)\s+(?:\pL+\s+)?{_CHOOSE}"

# "B or C", "(B) and (C)": two options are not one of them.
_SECOND_OPTION = re.compile(r"[)\]]?\s*(?:/|(?:or|and|&)\s)\s*(?:[(\[][A-J][)\]]|[B-HJ]\b|[AI](?:[.,;:!?)]|\s*\Z))")

_LONE_LETTER = re.compile(r"[(\[]?([A-Ja-j])[)\].:!]*")
_OPTION_LINE = re.compile(r"(?:[(\[]?([A-Ja-j])[)\]][.:]?|([A-HJa-hj])[.:])\s+\S.*")
_LAST_WORD = re.compile(
    r"(?:(?P<several>\b(?:or|and|nor|not)\s+|/)?[(\[](?P<bracketed>[A-J])[)\]]"
    r"|(?:\b(?:is|be|so|therefore|thus|hence)|['’]s|:)[,:]?\s+(?P<bare>[A-J]))[.!]*",
    re.IGNORECASE,
)
_TAIL = 60  # characters in which the last words of a reply are looked for

_IN_BOX = re.compile(r"[(\[]?\s*([A-Ja-j])\s*(?:[)\].:].*)?", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """The letter, A to J, that the reply gives as its answer.

    What is said in so many words counts first: ``answer is (B)``, ``My choice: B``, ``I choose option B``, ``B is
    correct``, ``\\boxed{B}``; of several the last, because it corrects the others. Failing that, in a finished reply: a
    first or last line that is the letter or the option itself (``B``, ``B) a dog``; not where several options are
    listed), then a lone letter at the very end (``..., (B).``). Two options (``B or C``) are no answer. An article
    (``A dog``) and a pronoun (``I think``) are not options.
    """

    @property
    def name(self) -> str:
        return "choice"

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple("ABCDEFGHIJ")

    def label(self, reply: Reply) -> str | None:
        text = without_markup(settled_text(reply), emphasis="").replace("$", "")
        explicit, box = last_match(_EXPLICIT, text, passing_over=_NOT_CHOSEN), last_box(text)
        boxed = _IN_BOX.fullmatch(box[1].strip()) if box is not None else None
        if box is not None and boxed is not None and (explicit is None or box[0] > explicit.start(1)):
            return boxed.group(1).upper()
        if explicit is not None:
            group = next(group for group in _GROUPS if group_of(explicit, group))
            several = _SECOND_OPTION.match(text, explicit.end(1 + group))
            return None if several else (group_of(explicit, group) or "").upper()
        return _lone_letter(text) if reply.finished else None


def _lone_letter(text: str) -> str | None:
    """The letter of a reply that says little else."""
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    at_the_ends = {letter.upper() for line in (*lines[:1], *lines[-1:]) if (letter := _option(line))}
    if len(at_the_ends) == 1 and not any(map(_option, lines[1:-1])):
        return at_the_ends.pop()
    tail = text.rstrip()[-_TAIL:]
    last = next((m for m in _LAST_WORD.finditer(tail) if m.end() == len(tail)), None)
    if last is None or last["several"]:
        return None
    letter = str(last["bracketed"] or last["bare"])
    return letter if letter.isupper() else None


def _option(line: str) -> str | None:
    match = _LONE_LETTER.fullmatch(line) or _OPTION_LINE.fullmatch(line)
    return str(match[match.lastindex or 1]) if match else None
