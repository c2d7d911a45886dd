"""Data sets that cannot be reached: a study of several goes on without them, and takes their items in later.

An item's number in a run file never changes. Items of a data set that could not be reached when the study began are
added after the others, all at once, when it is reached for the first time. Later on it may be out of reach again: what
its items came to is in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from blinkscope.errors import EngineError
from blinkscope.estimate.source import JSON
from blinkscope.reread import item_digests, items_of
from blinkscope.runs.spec import Spec
from blinkscope.runs.store import Run

if TYPE_CHECKING:
    from blinkscope.studies.workers import StudyItem

TRIED = "It was out of reach when it was last tried: {why}. The same command tries again, and takes its items in."


def apart(items: Sequence[StudyItem]) -> tuple[list[StudyItem], dict[str, str]]:
    """The items that were read, and why each data set without any was not, by its name.

    Raises
    ------
    EngineError : none was read.
    """
    read = [item for item in items if "unreached" not in item.content]
    absent = [item.content for item in items if "unreached" in item.content]
    missing = {str(content["data"]): str(content["unreached"]) for content in absent}
    if missing and not read:
        raise EngineError(next(iter(missing.values())))
    return read, missing


def begun(path: str | Path, asked: Spec, missing: Mapping[str, str]) -> Spec:
    """The spec with the items that the run file began with, where all that differs is which data could be reached."""
    if not Path(path).exists():
        return replace(asked, identity={**asked.identity, "unreached": dict(missing)}) if missing else asked
    with Run.open(path) as run:
        before, stored = _tries(run)[0], item_digests(run)
        kept = {name: run.spec.identity[name] for name in ("items", "unreached") if name in run.spec.identity}
    now = asked.identity["items"]
    assert isinstance(now, dict)
    late = [data for data in before if not _of(data, stored)]
    explained = all(
        stored[item] == digest if item in stored else _in(item, late) for item, digest in now.items()
    ) and all(item in now or _in(item, missing) for item in stored)
    if not explained:
        kept.pop("items", None)
    return replace(asked, identity={**asked.identity, **kept})


def numbers_of(run: Run, asked: Spec) -> dict[str, int]:
    """The number of every item in an open run; those of data that were not reached before are added."""
    known, now = item_digests(run), asked.identity["items"]
    assert isinstance(now, dict)
    added = {item: digest for item, digest in now.items() if item not in known}
    if added:
        run.put_document(f"items from {len(known)}", added)
    return {item: number for number, item in enumerate(items_of(run))}


def remember(run: Run, missing: Mapping[str, str]) -> None:
    """Store why data sets could not be read this time, once the items of all others are in the run.

    What is stored last is all that is known of now: a data set that is not named was read.
    """
    tries = _tries(run)
    if dict(missing) != tries[-1]:
        run.put_document(_try(len(tries)), missing)


def still_missing(run: Run, items: Iterable[str], waiting: Sequence[str]) -> dict[str, str]:
    """Data sets that could not be read when they were last tried, without an item or with one that waits to be worked
    on, and the sentence for each."""
    listed = list(items)
    return {
        data: TRIED.format(why=why.rstrip("."))
        for data, why in _tries(run)[-1].items()
        if not _of(data, listed) or _of(data, waiting)
    }


def _tries(run: Run) -> list[dict[str, str]]:
    """Why data sets could not be read when the run began, and each time that this was not as before."""
    tries = [_reasons(run.spec.identity.get("unreached"))]
    while (found := run.document(_try(len(tries)))) is not None:
        tries.append(_reasons(found))
    return tries


def _try(number: int) -> str:
    return f"try {number}: unreached"


def _reasons(missing: JSON) -> dict[str, str]:
    return {data: str(why) for data, why in missing.items()} if isinstance(missing, dict) else {}


def _of(data: str, items: Iterable[str]) -> bool:
    """Whether one of the items is of the data set; where there are several, ids begin with the name of theirs."""
    return any(item.startswith(f"{data} ") for item in items)


def _in(item: str, data: Iterable[str]) -> bool:
    return any(_of(name, [item]) for name in data)
