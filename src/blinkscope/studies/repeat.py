"""``study repeat``: how likely a word is said again after it was said k times ([LKC25], section on repetition).

The reply is begun with the word k times; the model goes on, and the next word of what it says *itself* is compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target
from blinkscope.feature import Reply
from blinkscope.replies import Beginning, Path, draw_replies
from blinkscope.studies.intervals import share_interval
from blinkscope.studies.prefill import replies_each
from blinkscope.studies.specs import Asking, check_prompt
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem

AGAIN, ANOTHER = "again", "another"
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class RepeatSpec:
    """What ``study repeat`` is asked. times: how often the word was said before the model goes on."""

    prompt: str = "Write something, anything that you like."
    words: tuple[str, ...] = ("apple", "river", "green")
    items: int | None = None
    times: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    asking: Asking = field(default_factory=lambda: Asking(max_new_tokens=8))
    target: Target = field(default_factory=lambda: Target(error=0.1))

    def __post_init__(self) -> None:
        check_prompt(self.prompt)
        for word in self.words:
            if _WORD.fullmatch(word) is None:
                raise UserError(f"{word!r} is not one word; give words of letters and digits.")
        if not self.times or min(self.times) < 1 or list(self.times) != sorted(set(self.times)):
            raise UserError(f"times is {list(self.times)}; give rising whole numbers from 1 on.")


@dataclass(frozen=True)
class NextWord:
    """Whether the first word of a reply is ``word`` again. A reply that goes on inside the last word says another."""

    word: str

    @property
    def name(self) -> str:
        return f"next-word:{self.word}"

    def label(self, reply: Reply) -> str | None:
        found = _WORD.search(reply.text)
        if found is None:
            return ANOTHER if reply.finished else None
        if found.start() == 0:  # the last word was not over yet
            return ANOTHER
        if found.end() == len(reply.text) and not reply.finished:
            return None
        return AGAIN if found.group().casefold() == self.word.casefold() else ANOTHER


def _work(desk: Desk) -> Mapping[str, JSON]:
    spec: RepeatSpec = desk.spec
    word = str(desk.item.content["word"])
    contexts = []
    for times in spec.times:
        begun = desk.engine.encode(desk.prompt, prefill=" ".join([word] * times))
        contexts.append(replace(begun, prefill=""))  # the feature reads what the model says itself
    count = replies_each(desk.target, len(contexts))
    draws = draw_replies(
        desk.engine,
        {row: Beginning(Path(context, ())) for row, context in enumerate(contexts)},
        NextWord(word),
        desk.sampling,
        seed=spec.asking.seed,
        count=count,
        keeper=desk.keeper,
        stopwatch=desk.stopwatch,
    )
    counts = [dict(Counter(draws[row, i].label for i in range(count))) for row in range(len(contexts))]
    return {"counts": counts}  # type: ignore[dict-item]


def _result(spec: RepeatSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    rows: list[Row] = []
    for word, outcome in found:
        for times, counts in zip(spec.times, outcome["counts"], strict=True):
            seen, total = counts.get(AGAIN, 0), sum(counts.values())
            low, high = share_interval(seen, total, target.level)
            place: dict[str, JSON] = {"word": word, "times": times, "replies": total, "share": seen / total}
            rows.append({**place, "low": low, "high": high})
    half: dict[str, JSON] = {}
    for row in rows:
        if row["share"] >= 0.5:
            half.setdefault(row["word"], row["times"])
    reached = [f"{word} after {times}" for word, times in half.items()]
    said = "The word is said again at least half of the time: " + ("; ".join(reached) or "never up to here") + "."
    return Findings({"analysed": len(found), "half_from": half}, {"curve": rows}, (said,))


def _items(spec: RepeatSpec) -> list[StudyItem]:
    return [StudyItem(word, {"word": word, "prompt": spec.prompt}) for word in spec.words[: spec.items]]


STUDY = Study("repeat", RepeatSpec(), _items, _work, _result)
