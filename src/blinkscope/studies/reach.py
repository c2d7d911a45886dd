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
from blinkscope.reread import item_digests, items_of
from blinkscope.runs.spec import Spec
from blinkscope.runs.store import Run

if TYPE_CHECKING:
    from blinkscope.studies.workers import StudyItem

AGAIN = ". The same command takes its items in once it can be reached."


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
        before, stored = unreached_of(run), item_digests(run)
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


def unreached_of(run: Run) -> dict[str, str]:
    """Why each data set that was out of reach when the run began could not be read."""
    missing = run.spec.identity.get("unreached")
    return {data: str(why) for data, why in missing.items()} if isinstance(missing, dict) else {}


def still_missing(items: Iterable[str], waiting: Sequence[str], missing: Mapping[str, str]) -> dict[str, str]:
    """Data sets without an item, or with one that waits to be worked on, and the sentence for each."""
    listed = list(items)
    return {
        data: why.rstrip(".") + AGAIN for data, why in missing.items() if not _of(data, listed) or _of(data, waiting)
    }


def _of(data: str, items: Iterable[str]) -> bool:
    """Whether one of the items is of the data set; where there are several, ids begin with the name of theirs."""
    return any(item.startswith(f"{data} ") for item in items)


def _in(item: str, data: Iterable[str]) -> bool:
    return any(_of(name, [item]) for name in data)
