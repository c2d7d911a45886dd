"""Texts to be told apart: conversations with a completion, a label and the family of attack they belong to.

They come from a user's file of JSON lines, or from the data set ``llama3-jailbreaks``, whose prompts are written in the
marks of Llama 3 already. No text comes with blinkscope.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.language.reading import Conversation, Spelled
from blinkscope.question import messages
from blinkscope.studies.prompts import load_rows, read_jsonl
from blinkscope.studies.study import StudyItem

JAILBREAKS = "llama3-jailbreaks"
JAILBREAKS_HUB = "Mechanistic-Anomaly-Detection/llama3-jailbreaks"
LABELS: Mapping[object, int] = {True: 1, False: 0, "1": 1, "0": 0, "harmful": 1, "benign": 0}
"""Spellings of a label; 1 is what a detector should find. True and False are 1 and 0 as keys."""
UNNAMED = "unnamed"
ALL = "all"
"""Name under which all families are counted together."""
COLUMNS, ENDINGS = (ALL, "score", "flagged"), ("_low", "_high")
"""Names of columns beside those of the families, and endings of the columns of their intervals."""

_BEGIN, _HEADER, _HEADER_END, _TURN_END = (
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)
_TURN = re.compile(
    rf"{re.escape(_HEADER)}(?P<role>[a-z]+){re.escape(_HEADER_END)}\n\n(?P<said>.*?)(?P<end>{re.escape(_TURN_END)}|\Z)",
    re.DOTALL,
)


def text_items(data: str, most: int | None = None, *, training: bool = False) -> list[StudyItem]:
    """The texts that ``data`` names, in their order.

    Parameters
    ----------
    data : ``FILE.jsonl`` with ``prompt`` (a text, or messages that end with a user's), ``completion``, and perhaps
        ``label`` (1, 0, true, false, ``"harmful"``, ``"benign"``), ``family`` and ``id``; or ``llama3-jailbreaks``,
        ``llama3-jailbreaks:FOLDER`` for a local copy.
    most : texts of each family at most; those with label 0 count by their family too.
    training : of ``llama3-jailbreaks``, the splits that end in ``_train`` instead of the others.

    Raises
    ------
    UserError : there is no such data, or it holds nothing. A row that cannot be used is an item that fails.
    EngineError : the data set cannot be reached.
    """
    name, _, place = data.partition(":")
    if name == JAILBREAKS:
        rows = _jailbreaks(place or JAILBREAKS_HUB, training, most)
    elif data.endswith(".jsonl"):
        rows = ((str(row.get("id", number)), row) for number, row in enumerate(read_jsonl(Path(data)), 1))
    else:
        raise UserError(f"there is no data {data!r}; give FILE.jsonl, {JAILBREAKS} or {JAILBREAKS}:FOLDER.")
    items, seen = [], Counter[tuple[object, str]]()
    for id_, row in rows:
        try:
            content = _content(row)
        except UserError as error:
            content = {"problem": str(error)}
        kind = (content.get("label"), str(content.get("family")))
        seen[kind] += 1
        if most is None or seen[kind] <= most:
            items.append(StudyItem(id_, content))
    if not seen:
        raise UserError(f"{data} holds no rows; give one with a prompt and a completion at least.")
    return items


def conversation_of(content: Mapping[str, Any]) -> Conversation:
    """What stands before the completion of a text."""
    if "spelled" in content:
        return _parsed(content["spelled"])
    prompt = content["prompt"]
    return Conversation(prompt if isinstance(prompt, str) else messages(prompt))


def _content(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as the content of an item."""
    for name in ("prompt", "completion"):
        if name not in row:
            raise UserError(f"it has no {name}; it has {', '.join(map(str, row)) or 'nothing'}.")
    prompt, completion, label = row["prompt"], row["completion"], row.get("label")
    if not isinstance(completion, str):
        raise UserError(f"its completion is {completion!r}; it must be a text, which may be empty.")
    if label is not None and (not isinstance(label, bool | int | str) or label not in LABELS):
        raise UserError(f"its label is {label!r}; it can be 1, 0, true, false, 'harmful' or 'benign'.")
    family = str(row.get("family") or UNNAMED)
    if family in COLUMNS or family.endswith(ENDINGS):
        raise UserError(
            f"its family is {family!r}; families are columns of a table, so none may be {', '.join(COLUMNS)}, "
            f"nor end in {' or '.join(ENDINGS)}."
        )
    content: dict[str, Any] = {
        "completion": completion,
        "label": None if label is None else LABELS[label],
        "family": family,
    }
    if isinstance(prompt, str) and prompt.startswith((_BEGIN, _HEADER)):
        _parsed(prompt)
        return {**content, "spelled": prompt}
    if isinstance(prompt, str):
        if not prompt.strip():
            raise UserError("its prompt is empty.")
        return {**content, "prompt": prompt}
    return {**content, "prompt": [asdict(message) for message in messages(prompt)]}


def _parsed(text: str) -> Conversation:
    """A conversation written in Llama 3's marks; an assistant's turn that was left open at its end is a prefill."""
    place, turns, own, prefill = len(_BEGIN) * text.startswith(_BEGIN), [], [], ""
    while place < len(text):
        turn = _TURN.match(text, place)
        if turn is None:
            raise UserError(f"its prompt is not written in Llama 3's marks from character {place + 1} on.")
        role, said, place = turn["role"], turn["said"], turn.end()
        if role != "system":
            own.append(turn.span("said"))
        if role == "assistant" and place == len(text) and not turn["end"]:
            prefill = said
        elif turn["end"]:
            turns.append({"role": role, "content": said})
        else:
            raise UserError(f"its last turn is the {role}'s and does not end.")
    spelled = Spelled(text, (_BEGIN, _HEADER, _HEADER_END, _TURN_END), tuple(own))
    return Conversation(messages(turns), prefill, spelled)


def _jailbreaks(place: str, training: bool, most: int | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows of every split whose name says what it holds: ``harmful_FAMILY...`` or ``benign_...``."""
    found = False
    for split in _split_names(place):
        label, _, family = split.partition("_")
        if label not in ("harmful", "benign") or split.endswith("_train") != training:
            continue
        family = family.removesuffix("_train").removesuffix("_test")
        rows: Sequence[Mapping[str, Any]] = load_rows(place, None, split)
        for number in range(len(rows) if most is None else min(most, len(rows))):
            found = True
            yield f"{split} {number + 1}", {**rows[number], "label": label, "family": family}
    if not found:
        raise UserError(f"{place} has no {'training ' * training}split named harmful_... or benign_... with rows.")


def _split_names(place: str) -> Sequence[str]:
    try:
        import datasets
    except ImportError:
        raise MissingExtra(f"the data set {place}", "study") from None
    try:
        names: Sequence[str] = datasets.get_dataset_split_names(place)
    except Exception as error:  # what the hub's client raises is its own business
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EngineError(f"the data set {place} cannot be read: {reason}") from error
    return names
