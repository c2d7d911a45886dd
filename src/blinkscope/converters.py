"""Recorded rollouts from other public formats.

Both formats hold free continuations only, so their items have ``resamples`` and no ``forks``: they are analysed row by
row, with the grid method. ``write_rollouts`` turns them into files of our own format.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blinkscope.errors import UserError
from blinkscope.replay_formats import (
    Item,
    RecordedToken,
    Resample,
    check_label,
    check_object,
    check_probability,
    check_text,
    located,
    read_rollouts,
    read_rows,
    shown,
)

SUCCESS, FAILURE = "success", "failure"
REST = " […]"  # stands for the part of a generation that a file of pivotal tokens does not hold
MOST_SAMPLES = 1000
ROUNDED = 1e-9  # by which a stored share may differ from the exact one


@dataclass(frozen=True)
class PivotalToken:
    """One event of a pivotal token search; ``before`` and ``after`` are shares of successful completions."""

    model: str
    query: str
    item: str
    context: str
    token: str
    before: float
    after: float

    @property
    def end(self) -> str:
        """The text up to and with the token."""
        return self.context + self.token


def read_recorded(path: str | Path) -> tuple[Item, ...]:
    """Items of a file in any of the formats that are known, told apart by the fields of its first row.

    Raises
    ------
    UserError : the file cannot be read, or a row is not sound.
    """
    _, row = next(read_rows(path), (0, None))
    found = row if isinstance(row, dict) else {}
    if "pivot_token" in found or "event_type" in found:
        return from_pivotal_tokens(path)
    if "sentence" in found:
        return from_sentences(path)
    return read_rollouts(path)


def from_pivotal_tokens(path: str | Path, samples: int | None = None) -> tuple[Item, ...]:
    """One item for every searched generation in a file of pivotal-token-search events.

    The events are those of codelion/pts (``event_type`` "pivotal_token"; older files have ``pivot_context`` and
    ``pivot_token``); events of other types are passed over. Events belong to one generation where the text of one goes
    on to be the context of the next. An item's prompt is the text before its first pivotal token; its steps are the
    pivotal tokens and the stretches between them, and one step for the rest.

    Not in the file, hence lost: what follows the last pivotal token, single tokens between pivotal ones, probabilities
    and alternatives of tokens, answers beyond success and failure. The final label is not known either; it is taken to
    be the likelier outcome after the last pivotal token.

    Parameters
    ----------
    samples : completions behind each share. The file does not say; by default the smallest number of which all shares
        in the file are multiples, which is at most the true one, so that errors are not understated.

    Raises
    ------
    UserError : the file cannot be read, an event is not sound, or no number of samples fits.
    """
    events: dict[tuple[str, str, str, str], PivotalToken] = {}
    for line, row in read_rows(path):
        with located(f"{path}, line {line}: "):
            event = _pivotal_token(row)
        if event is not None:
            # A context that came up in several searches is listed each time; one measurement of it is enough.
            events.setdefault((event.model, event.query, event.context, event.token), event)
    if not events:
        raise UserError(f"{path} holds no pivotal-token events; their event_type is 'pivotal_token'.")
    if samples is not None and samples < 1:
        raise UserError(f"samples is {samples}; at least one completion is behind each share.")
    with located(f"{path}: "):
        number = samples or _samples([share for event in events.values() for share in (event.before, event.after)])
    chains = _chains(events.values())
    return tuple(_searched(f"{chain[0].item}/{i}", chain, number) for i, chain in enumerate(chains, 1))


def from_sentences(path: str | Path) -> tuple[Item, ...]:
    """Items from per-sentence resampling results: JSON lines with ``sentence`` and ``outcomes``, in the text's order.

        {"id": "q1", "prompt": "...", "sentence": "First, ...", "outcomes": {"A": 60, "B": 40}, "final_label": "A"}

    ``outcomes`` counts the labels of continuations that keep the sentences before this one and write it anew. A
    position is a number of kept sentences. ``id`` tells generations apart (a file without it holds one); ``prompt`` and
    ``final_label`` may stand in any row of a generation; ``mean_tokens`` is optional, and where it is missing a draw
    costs the number of sentences that are left. Sentences are joined by a space unless they bring white space along.

    Raises
    ------
    UserError : the file cannot be read, a row is not sound, or the final label of a generation is missing.
    """
    generations: dict[str, list[dict[str, Any]]] = {}
    for line, row in read_rows(path):
        with located(f"{path}, line {line}: "):
            check_object("the row", row)
            name = row.get("id", Path(path).name)
            check_text("id", name)
            check_text("sentence", row.get("sentence"))
            before = generations.setdefault(name, [])
            # Built here, so that what is wrong with the outcomes is said with its line.
            before.append({**row, "resample": Resample(len(before), row.get("outcomes"), row.get("mean_tokens"))})
    if not generations:
        raise UserError(f"{path} holds no sentences; it needs one JSON object a line.")
    items = []
    for name, rows in generations.items():
        with located(f"{path}, item {shown(name)}: "):
            items.append(
                Item(
                    id=name,
                    prompt=_only(rows, "prompt", ""),
                    tokens=tuple(RecordedToken(text) for text in _joined([row["sentence"] for row in rows])),
                    final_label=_only(rows, "final_label", None),
                    resamples=tuple(row["resample"] for row in rows),
                )
            )
    return tuple(items)


def _pivotal_token(row: Any) -> PivotalToken | None:
    check_object("the row", row)
    if "pivot_token" in row:
        context, token = "pivot_context", "pivot_token"
    elif row.get("event_type") == "pivotal_token":
        context, token = "context", "label"
    else:
        return None
    for name in ("query", context, token):
        check_text(name, row.get(name))
    for name in ("prob_before", "prob_after"):
        check_probability(name, row.get(name))
    return PivotalToken(
        model=str(row.get("model_id")),
        query=row["query"],
        item=str(row.get("dataset_item_id") or "generation"),
        context=row[context],
        token=row[token],
        before=float(row["prob_before"]),
        after=float(row["prob_after"]),
    )


def _samples(shares: Sequence[float]) -> int:
    for number in range(1, MOST_SAMPLES + 1):
        if all(abs(share * number - round(share * number)) <= ROUNDED * number for share in shares):
            return number
    raise UserError(
        f"no number of completions up to {MOST_SAMPLES:,} gives these shares; say with samples how many were drawn."
    )


def _chains(events: Iterable[PivotalToken]) -> list[list[PivotalToken]]:
    """Events by generation: in a chain, every event's context begins with all of the event before it."""
    searches: dict[tuple[str, str], list[PivotalToken]] = {}
    for event in events:
        searches.setdefault((event.model, event.query), []).append(event)
    return [chain for search in searches.values() for chain in _chains_of_search(search)]


def _chains_of_search(events: Sequence[PivotalToken]) -> list[list[PivotalToken]]:
    chains: list[list[PivotalToken]] = []
    for event in sorted(events, key=lambda event: len(event.context)):
        chain = next((chain for chain in chains if event.context.startswith(chain[-1].end)), None)
        if chain is None:
            chains.append([event])
        else:
            chain.append(event)
    return chains


def _searched(name: str, chain: Sequence[PivotalToken], samples: int) -> Item:
    texts: list[str] = []
    shares: dict[int, float] = {}
    end = chain[0].context
    for event in chain:
        if between := event.context.removeprefix(end):
            texts.append(between)
        # Where two pivotal tokens stand side by side, the later search measured the row between them anew.
        shares[len(texts)] = event.before
        texts.append(event.token)
        shares[len(texts)] = event.after
        end = event.end
    return Item(
        id=name,
        prompt=chain[0].context,
        tokens=tuple(RecordedToken(text) for text in (*texts, REST)),
        final_label=SUCCESS if chain[-1].after >= 0.5 else FAILURE,
        resamples=tuple(Resample(row, _counts(share, samples)) for row, share in shares.items()),
    )


def _counts(share: float, samples: int) -> dict[str, int]:
    good = round(share * samples)
    return {label: count for label, count in ((SUCCESS, good), (FAILURE, samples - good)) if count}


def _joined(sentences: Sequence[str]) -> list[str]:
    """Sentences with a space in front where the text would run together."""
    out: list[str] = []
    for sentence in sentences:
        apart = not out or not out[-1] or out[-1][-1].isspace() or sentence[:1].isspace()
        out.append(sentence if apart else f" {sentence}")
    return out


def _only(rows: Sequence[dict[str, Any]], name: str, default: Any) -> Any:
    """The one value that the rows of a generation give for a field."""
    values = [row[name] for row in rows if row.get(name) is not None]
    for value in values:
        (check_label if name == "final_label" else check_text)(name, value)
    if len(set(values)) > 1:
        raise UserError(f"{name} is {shown(values[0])} in one row and {shown(values[-1])} in another; give one value.")
    return values[0] if values else default
