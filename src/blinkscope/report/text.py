"""Text from a model, a data set or a stranger's file, made safe to look at.

Some characters act instead of showing: they move the cursor, turn the reading direction round or stand for nothing at
all. A reader must see that they are there, and a terminal must not obey them.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

# Characters that act or do not show: controls, format characters (Unicode category Cf, among them the marks that turn
# the direction of reading, but not the few Arabic and Indic signs of that category that are drawn), line and paragraph
# separators, halves of surrogate pairs, variation selectors and the fillers that Unicode lists as default-ignorable.
HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ud800-\udfff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
BLANKS = {" ": "␣", "\n": "↵", "\t": "⇥"}
NOTHING = "∅"
JOINER, EMOJI_STYLE = "\u200d", "\ufe0f"
FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def visible(text: str, *, keep: str = "\n\t") -> str:
    """The text with every character that acts or hides spelled out.

    Control characters become their pictures (``␛`` for escape), all others ``⟨U+202E⟩``. Emoji keep the joiners and
    style marks that belong to them.

    Parameters
    ----------
    keep : control characters to leave alone; give ``""`` for a text that must stay on one line.
    """

    def spelled(match: re.Match[str]) -> str:
        character = match.group()
        return character if character in keep or _joins_emoji(text, match.start()) else _spelled(character)

    return HIDDEN.sub(spelled, text)


def shortened(text: str, width: int) -> str:
    """One visible line of at most ``width`` characters, cut in the middle where it is longer.

    White space is closed up; a text that is nothing else is spelled out: ``␣`` for a space, ``↵`` for a line break.
    """
    line = visible(" ".join(text.split()), keep="") or blanks(text)
    if len(line) <= width:
        return line
    head = (width - 1) * 2 // 3
    return f"{line[:head]}…{line[len(line) - (width - 1 - head) :]}"


@lru_cache(maxsize=64)
def told_apart(texts: tuple[str, ...], width: int) -> Mapping[str, str]:
    """Texts by what is shown of them: ``shortened``, but different texts stay different.

    Of those that would look alike, what is shown goes on where they differ; where even that is alike (they differ in
    white space, say) a number follows.
    """
    lines = {text: shortened(text, max(width, len(text) * len("⟨U+10FFFF⟩"))) for text in texts}
    shown = {text: shortened(text, width) for text in lines}
    alike = [list(lines)]
    while alike:
        groups: dict[str, list[str]] = {}
        for text in alike.pop():
            groups.setdefault(shown[text], []).append(text)
        for group in groups.values():
            start = _alike_until([lines[text] for text in group])
            if len({lines[text] for text in group}) == 1:
                continue
            for text in group:
                shown[text] = _from(lines[text], start, width)
            alike.append(group)
    times: Counter[str] = Counter()
    for text, line in shown.items():
        times[line] += 1
        if times[line] > 1:
            shown[text] = f"{line} ({times[line]})"
    return shown


def _alike_until(lines: Sequence[str]) -> int:
    """The place of the first character in which lines differ, or at which one of them ends."""
    differs = (i for i, characters in enumerate(zip(*lines, strict=False)) if len(set(characters)) > 1)
    return next(differs, min(map(len, lines)))


def _from(line: str, start: int, width: int) -> str:
    """A line whose middle begins at ``start``, between its own beginning and, if there is more, a dot for it."""
    head = min(width // 3, start)
    rest = line[start:]
    room = width - head - 1
    return f"{line[:head]}…{rest}" if len(rest) <= room else f"{line[:head]}…{rest[: room - 1]}…"


def sentence(words: str) -> str:
    """A note as a sentence of its own: with a capital, unless it begins with a name that has none."""
    first, *_ = words.split(maxsplit=1) or [""]
    return words[:1].upper() + words[1:] if first.rstrip(",:;").isalpha() else words


def blanks(text: str) -> str:
    """White space, each character as a sign that can be seen."""
    return "".join(BLANKS.get(character) or _spelled(character) for character in text)


def csv_cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula: an apostrophe goes before what could start one."""
    return f"'{text}" if text.startswith(FORMULA) else text


def _spelled(character: str) -> str:
    """The picture of a control character; any other by its number."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"


def _joins_emoji(text: str, at: int) -> bool:
    """Whether the character at ``at`` is a joiner or style mark inside an emoji."""
    if not 0 < at < len(text) or text[at] not in (JOINER, EMOJI_STYLE):
        return False
    before = text[at - 1]
    if text[at] == EMOJI_STYLE:
        return unicodedata.category(before) == "So"
    after = text[at + 1 : at + 2]
    # A style mark or a skin tone may stand between the picture and the joiner.
    return (before == EMOJI_STYLE or unicodedata.category(before) in ("So", "Sk")) and (
        after != "" and unicodedata.category(after) == "So"
    )
