"""Which sequence of a model's memory holds which text: what was read once is read no more.

A memory has a few sequences that hold texts, each on its own. A text that begins like one of them is taken over from
there as far as the two agree, and only the rest is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Reading:
    """What has to be done so that ``sequence`` holds a text.

    source: the sequence whose first ``known`` ids are the text's; may be the same one.
    """

    sequence: int
    source: int
    known: int


class Texts:
    """The texts that ``count`` sequences hold, numbered from ``first``; the one that was least recently used goes."""

    def __init__(self, first: int, count: int) -> None:
        self._held: dict[int, tuple[int, ...]] = {first + i: () for i in range(count)}  # least recently used first

    def find(self, ids: Sequence[int]) -> int | None:
        """A sequence that holds a text, and maybe more after it."""
        for sequence, held in self._held.items():
            if held[: len(ids)] == tuple(ids):
                self.hold(sequence, held)
                return sequence
        return None

    def plan(self, ids: Sequence[int], most: int) -> Reading:
        """Where a text is to be read, of which at most ``most`` ids may be taken over from what is held.

        Until ``hold`` is told that it has been read, that sequence counts as holding nothing.
        """
        common = {sequence: min(most, _common(ids, held)) for sequence, held in self._held.items()}
        source = max(common, key=lambda sequence: common[sequence])
        # Nothing is lost by reading on in the source where its whole text is part of the new one, or the other way.
        contained = _common(ids, self._held[source]) in (len(ids), len(self._held[source]))
        sequence = source if contained else next(iter(self._held))
        self.hold(sequence, ())
        return Reading(sequence, source, common[source])

    def hold(self, sequence: int, ids: Sequence[int]) -> None:
        """A sequence holds a text, and is the most recently used one."""
        del self._held[sequence]
        self._held[sequence] = tuple(ids)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Ids that two texts have in common from their beginnings on."""
    for i, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return i
    return min(len(one), len(other))
