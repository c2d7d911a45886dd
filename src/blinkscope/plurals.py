"""Numbers with their nouns, as every line that a person reads spells them."""

from __future__ import annotations


def counted(count: float, noun: str, several: str = "") -> str:
    """``1 token``, ``2,000 generated tokens``; ``several`` is the plural that is not the noun with an s."""
    number = f"{count:,.0f}" if float(count).is_integer() else f"{count:,g}"
    return f"{number} {noun if count == 1 else several or f'{noun}s'}"


def share_of(part: int, whole: int, noun: str, verbs: tuple[str, str] = ("is", "are")) -> str:
    """A part of so many with the verb that goes with it: ``1 of 3 items is``, ``2 of 3 items are``."""
    return f"{part:,} of {counted(whole, noun)} {verbs[0 if 1 in (part, whole) else 1]}"
