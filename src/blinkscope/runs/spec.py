"""What a run file says about itself before any work is done.

A spec has three parts. The *identity* fixes what is being measured: another one is another run. The *target* says how
well and what to call a window: it may change, and the run is topped up or only analysed again. The *provenance* says
with what it was made: a change is mentioned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON

SHOWN = 60  # characters of a value in a message
ABSENT = "(absent)"


@dataclass(frozen=True)
class Spec:
    """Identity, target and provenance of a run, as JSON objects.

    The store writes down when each provenance was seen, so a provenance holds versions and machine but no time of day.
    """

    identity: Mapping[str, JSON]
    target: Mapping[str, JSON]
    provenance: Mapping[str, JSON]

    def __post_init__(self) -> None:
        # Tuples become lists here, so that a spec equals what is read back from its file.
        for part in ("identity", "target", "provenance"):
            object.__setattr__(self, part, _plain(part, getattr(self, part)))


def digest(content: JSON | Mapping[str, JSON]) -> str:
    """SHA-256 of a JSON document, whatever the order of its names: what stands in an identity for a large content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode("ascii")).hexdigest()


@dataclass(frozen=True)
class Difference:
    """One place where two JSON objects disagree.

    key: dotted path. stored, asked: the values as a person can read them, shortened; ``(absent)`` where there is none.
    """

    key: str
    stored: str
    asked: str

    def __str__(self) -> str:
        return f"{self.key}: {self.stored} in the file, {self.asked} now"


def identity_difference(stored: Spec, asked: Spec) -> list[Difference]:
    """Where the identities of two specs disagree, in the order of the keys."""
    before, now = stored.identity.get("items"), asked.identity.get("items")
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)) or len(before) == len(now):
        return differences(stored.identity, asked.identity)
    # Digests of items that are on one side alone say nothing to a person; how many there are does.
    both = before.keys() & now.keys()
    old, new = (
        {**spec.identity, "items": {name: items[name] for name in both}}
        for spec, items in ((stored, before), (asked, now))
    )
    number = Difference("items", f"{len(before):,} of them", f"{len(now):,} of them")
    return sorted([*differences(old, new), number], key=lambda difference: difference.key)


def differences(stored: JSON | Mapping[str, JSON], asked: JSON | Mapping[str, JSON], key: str = "") -> list[Difference]:
    """Where two JSON values disagree; objects are compared key by key, everything else as a whole."""
    if isinstance(stored, Mapping) and isinstance(asked, Mapping):
        found: list[Difference] = []
        for name in sorted(stored.keys() | asked.keys()):
            inner = f"{key}.{_printable(name)}" if key else _printable(name)
            if name in stored and name in asked:
                found += differences(stored[name], asked[name], inner)
            else:
                old, new = (_shown(side[name]) if name in side else ABSENT for side in (stored, asked))
                found.append(Difference(inner, old, new))
        return found
    if stored == asked and isinstance(stored, bool) == isinstance(asked, bool):
        return []
    start = _first_difference(stored, asked)
    return [Difference(key, _shown(stored, start), _shown(asked, start))]


def _plain(part: str, value: Any) -> Any:
    try:
        return json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UserError(f"the {part} of a run must be a JSON object without NaN or infinities: {error}.") from None


def _first_difference(stored: object, asked: object) -> int:
    """Where two long texts part, so that the part that differs is the one shown."""
    if not (isinstance(stored, str) and isinstance(asked, str)):
        return 0
    if max(len(stored), len(asked)) <= SHOWN:
        return 0
    pairs = enumerate(zip(stored, asked, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(stored), len(asked)))
    return max(0, common - SHOWN // 3)


def _shown(value: object, start: int = 0) -> str:
    """A value for a message. ``repr`` spells out what does not print, so no text can act on a terminal."""
    text = value[start:] if isinstance(value, str) else repr(value)
    cut = text[:SHOWN] + "…" * (len(text) > SHOWN)
    return repr("…" * (start > 0) + cut) if isinstance(value, str) else cut


def _printable(name: str) -> str:
    return name if name.isprintable() and len(name) <= SHOWN else _shown(name)
