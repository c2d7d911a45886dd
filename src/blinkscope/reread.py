"""What a run file holds, as results: computed again from the stored draws alone, without the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError, expect
from blinkscope.estimate.record import PathRecord
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target, Trace
from blinkscope.keeper import named, read_again
from blinkscope.pictured import stored_picture
from blinkscope.question import refuse_unused
from blinkscope.runs.store import Run

LOOKED_INTO = ("replay", "cot", "temperature", "majority")
"""Studies that look into each of their generations as ``locate`` does; the others keep outcomes alone."""


def stored(path: str | Path, *, item: str | None = None, **changes: Any) -> Trace:
    """The result in a run file, computed again without the model; ``changes`` replace fields of its ``Target``.

    item : which of several generations, where the run holds a study.
    """
    expect("path", path, (str, Path), "the name of a run file")
    if unknown := sorted(set(changes) - set(Target.__dataclass_fields__)):
        raise UserError(
            f"{unknown[0]} cannot be changed in a stored run; {', '.join(Target.__dataclass_fields__)} can."
        )
    with Run.open(Path(path)) as run:
        number = _number(run, item)
        refuse_unused(method_of(run, number), changes)
        return stored_generation(run, number, target_of(run).changed(**changes))


def stored_generation(run: Run, generation: int, target: Target) -> Trace:
    """The result for one of the generations in an open run."""
    picture = stored_picture(run, generation, target)
    if picture is not None:
        return picture
    document = run.document(named("path", generation))
    if document is None:
        raise not_scored(run, "does not hold this generation yet: its run was stopped before it was scored.")
    record = PathRecord.from_json(document)
    trace = _read(run, generation, record, target)
    recording = run.document(named("item", generation))
    if recording is None:
        return trace
    from blinkscope.replay_comparison import comparison_of
    from blinkscope.replay_formats import item_from_json

    return replace(trace, comparison=comparison_of(item_from_json(recording), record.labels))


def _read(run: Run, generation: int, record: PathRecord, target: Target) -> Trace:
    """The result of the stored draws. Draws for windows were placed for those of the run, whatever is read now."""
    own, target = target_of(run), record.aim_of(target)
    if target.until == "error" or own.until == "error":
        return read_again(run, generation, record, target)
    drawn = replace(target, delta=own.delta, max_width=own.max_width)
    trace = read_again(run, generation, record, drawn)
    return trace if drawn == target else replace(trace, target=target, undecided=None)


def method_of(run: Run, generation: int) -> str | None:
    """Name of the method by which a generation's text is looked into; None of pictures, and before it was scored."""
    document = run.document(named("path", generation))
    method = document.get("method") if isinstance(document, dict) else None
    return str(method.get("name")) if isinstance(method, dict) else None


def not_scored(run: Run, why: str) -> UserError:
    """What to say of a run that should hold a scored generation and does not; ``why`` where its kind has some."""
    study = run.spec.identity.get("study")
    if study is None or study in LOOKED_INTO:
        return UserError(f"{run.path} {why}")
    return UserError(
        f"{run.path} holds a study {study}, which keeps outcomes and no scored generations; read it with blinkscope "
        "show --json, or write its tables with blinkscope show --tables FOLDER."
    )


def items_of(run: Run) -> tuple[str, ...]:
    """Ids of the generations in a run of recorded ones or of a study, in the order of their numbers."""
    return tuple(item_digests(run))


def item_digests(run: Run) -> dict[str, JSON]:
    """The digest of each item of a run by its id: those that it began with, then those that a study took in later."""
    items = run.spec.identity.get("items", {})
    found = dict(items) if isinstance(items, dict) else {}
    while isinstance(added := run.document(f"items from {len(found)}"), dict) and added:
        found |= added
    return found


def _number(run: Run, item: str | None) -> int:
    items = items_of(run)
    shown = ", ".join(map(repr, items[:8])) + (f" and {len(items) - 8:,} more" if len(items) > 8 else "")
    if item is None:
        if len(items) > 1:
            raise UserError(f"{run.path} holds {len(items):,} generations; choose one with --item: {shown}.")
        return 0
    if item not in items:
        raise UserError(f"{run.path} holds no item {item!r}; {f'it holds {shown}' if items else 'it is no study'}.")
    return items.index(item)


def target_of(run: Run) -> Target:
    """The target of a run, as it was last asked for."""
    try:
        return Target(**run.spec.target)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(f"the run file's target cannot be read ({error}).") from None
