"""The generations of a run file, each with its result and with the record that it was computed from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.record import PathRecord
from blinkscope.estimate.trace import Trace
from blinkscope.keeper import named
from blinkscope.pictured import DOCUMENT
from blinkscope.reread import items_of, not_scored, stored_generation, target_of
from blinkscope.runs.store import Run


@dataclass(frozen=True)
class StoredGeneration:
    """One generation of a run.

    item: its id within a study; the name of the run file where the run holds one generation.
    sampled: whether the model wrote it; False for a given transcript.
    """

    item: str
    trace: Trace
    record: PathRecord
    sampled: bool


def stored_generations(path: str | Path, item: str | None = None, **changes: Any) -> Iterator[StoredGeneration]:
    """Every generation of a run file that was scored, in the order of their numbers.

    Parameters
    ----------
    item : only this one of a study.
    changes : fields of ``Target``, in place of those of the run.

    Raises
    ------
    UserError : there is no such item, or the run holds no scored generation.
    """
    with Run.open(Path(path)) as run:
        items = items_of(run) or (Path(path).stem,)
        if item is not None and item not in items:
            raise UserError(f"{path} holds no item {item!r}; it holds {', '.join(map(repr, items[:8]))}.")
        target = target_of(run).changed(**changes)
        found = False
        for number, name in enumerate(items):
            document = run.document(named("path", number))
            if document is None or item not in (None, name):
                continue
            found = True
            record = PathRecord.from_json(document)
            given = run.spec.identity.get("generation") is not None or _ends_with_reply(record.settings.get("prompt"))
            sampled = not given and record.limits is None
            yield StoredGeneration(name, stored_generation(run, number, target), record, sampled)
        if not found and run.document(DOCUMENT) is not None:
            raise UserError(f"{path} holds a picture; exports are of texts. Use blinkscope show --json.")
        if not found:
            raise not_scored(run, "holds no scored generation yet; go on with the run first.")


def _ends_with_reply(prompt: Any) -> bool:
    """Whether a conversation holds the generation itself, as its last turn."""
    return isinstance(prompt, list) and bool(prompt) and prompt[-1].get("role") == "assistant"
