"""Recorded rollouts as files: JSON lines, one recorded generation a line, plain or gzipped.

    {"id": ..., "prompt": ..., "tokens": [{"text": " First", "p": 0.221}, ...], "final_label": "B",
     "forks": [{"position": 0, "token": " We", "p": 0.095, "outcomes": {"A": 3, "B": 27}, "mean_tokens": 118.2}, ...],
     "resamples": [{"position": 1, "outcomes": {"A": 9, "B": 21}, "mean_tokens": 117.0}, ...]}

The dataclasses below are the fields of such a row and check themselves, so an ``Item`` is sound wherever it comes from.
Fields of a row that have no place here are ignored.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn, TypeVar, cast

from blinkscope.errors import UserError
from blinkscope.feature import OTHER
from blinkscope.outputs import Kind, written

LARGEST_ROW = 1 << 24  # bytes of one row
LARGEST_FILE = 1 << 28  # bytes of a file after decompression
LARGEST_RECORD = 1_000_000  # continuations of one item
TOLERANCE = 1e-3  # by which a position's probabilities may exceed 1, since files hold rounded numbers
SHOWN = 60  # characters of a value in a message
REPLACEMENT = "\ufffd"  # stands for bytes that are no text by themselves, so different tokens can look alike

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecordedToken:
    """One token of the path. ``p`` is its probability given what came before; None where it was not recorded."""

    text: str
    p: float | None = None

    def __post_init__(self) -> None:
        check_text("text", self.text)
        if self.p is not None:
            check_probability("p", self.p)


@dataclass(frozen=True, slots=True)
class RecordedFork:
    """Continuations whose token at ``position`` was forced to ``token``, which has probability ``p`` there.

    outcomes: how often each label came out. mean_tokens: what one of them costs; None where it was not recorded.
    """

    position: int
    token: str
    p: float
    outcomes: Mapping[str, int]
    mean_tokens: float | None = None

    def __post_init__(self) -> None:
        _check_count("position", self.position)
        check_text("token", self.token)
        check_probability("p", self.p)
        check_outcomes(self.outcomes)
        check_mean_tokens(self.mean_tokens)


@dataclass(frozen=True, slots=True)
class Resample:
    """Free continuations after the first ``position`` tokens; the other fields as in ``RecordedFork``."""

    position: int
    outcomes: Mapping[str, int]
    mean_tokens: float | None = None

    def __post_init__(self) -> None:
        _check_count("position", self.position)
        check_outcomes(self.outcomes)
        check_mean_tokens(self.mean_tokens)


@dataclass(frozen=True)
class Item:
    """One recorded generation: its path, what was sampled off it (``forks``) and along it (``resamples``).

    Raises
    ------
    UserError : a position lies outside the path, the probabilities at a position exceed 1, something is listed twice,
        or nothing was sampled; the message names the field.
    """

    id: str
    prompt: str
    tokens: tuple[RecordedToken, ...]
    final_label: str
    forks: tuple[RecordedFork, ...] = ()
    resamples: tuple[Resample, ...] = ()

    def __post_init__(self) -> None:
        check_text("id", self.id)
        if not self.id:
            raise UserError("id is empty; give every item a name of its own.")
        check_text("prompt", self.prompt)
        check_label("final_label", self.final_label)
        if not self.tokens:
            raise UserError("tokens is missing or empty; a recorded generation has at least one token.")
        if not self.forks and not self.resamples:
            raise UserError("forks and resamples are both missing; at least one of them must hold something.")
        total = sum(sum(outcomes.values()) for outcomes in self.outcomes)
        if total > LARGEST_RECORD:
            raise UserError(f"forks and resamples hold {total:,} outcomes; at most {LARGEST_RECORD:,} can be read.")
        _check_forks(self.tokens, self.forks)
        _check_resamples(self.tokens, self.resamples)

    @property
    def outcomes(self) -> tuple[Mapping[str, int], ...]:
        """Everything that came out, of forks and resamples."""
        return (*(fork.outcomes for fork in self.forks), *(entry.outcomes for entry in self.resamples))

    @property
    def text(self) -> str:
        """The generation."""
        return "".join(token.text for token in self.tokens)


def read_rollouts(path: str | Path) -> tuple[Item, ...]:
    """All items of a file of recorded rollouts, ``.jsonl`` or ``.jsonl.gz``.

    Raises
    ------
    UserError : the file cannot be read or is too large, or a row is not sound; file, line and field are named.
    """
    items: dict[str, Item] = {}
    for line, row in read_rows(path):
        with located(f"{path}, line {line}: "):
            item = item_from_json(row)
            if item.id in items:
                raise UserError(f"id is {shown(item.id)}, as in an earlier line; every item needs an id of its own.")
        items[item.id] = item
    if not items:
        raise UserError(f"{path} holds no rollouts; it needs one JSON object a line.")
    return tuple(items.values())


def write_rollouts(items: Iterable[Item], path: str | Path) -> None:
    """Write items as JSON lines, gzipped where the name ends in ``.gz``; ``read_rollouts`` gives them back."""
    path = Path(path)
    lines = (json.dumps(item_to_json(item), ensure_ascii=False, allow_nan=False) + "\n" for item in items)
    data = "".join(lines).encode()
    with written(path, Kind("rollouts")) as file:
        # Without a time stamp equal items give equal files.
        file.write(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def select(items: Sequence[Item], id: str | None = None) -> Item:
    """The item of this name; the first one where none is asked for."""
    if not items:
        raise UserError("there are no recorded items to choose from.")
    if id is None:
        return items[0]
    for item in items:
        if item.id == id:
            return item
    more = f" and {len(items) - 8:,} more" if len(items) > 8 else ""
    raise UserError(f"there is no item {shown(id)}; the items are {', '.join(shown(i.id) for i in items[:8])}{more}.")


def item_from_json(row: Any) -> Item:
    """The item that a row stands for; complaints begin with the name of the field."""
    check_object("the row", row)
    return Item(
        id=row.get("id"),
        prompt=row.get("prompt"),
        tokens=_entries(row, "tokens", RecordedToken, ("text", "p")),
        final_label=row.get("final_label"),
        forks=_entries(row, "forks", RecordedFork, FORK_FIELDS),
        resamples=_entries(row, "resamples", Resample, RESAMPLE_FIELDS),
    )


def item_to_json(item: Item) -> dict[str, Any]:
    """The row that stands for an item."""
    row: dict[str, Any] = {
        "id": item.id,
        "prompt": item.prompt,
        "tokens": [{"text": token.text, "p": token.p} for token in item.tokens],
        "final_label": item.final_label,
    }
    if item.forks:
        row["forks"] = [{name: getattr(fork, name) for name in FORK_FIELDS} for fork in item.forks]
    if item.resamples:
        row["resamples"] = [{name: getattr(entry, name) for name in RESAMPLE_FIELDS} for entry in item.resamples]
    return row


FORK_FIELDS = ("position", "token", "p", "outcomes", "mean_tokens")
RESAMPLE_FIELDS = ("position", "outcomes", "mean_tokens")


def read_rows(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Line numbers and values of a file of JSON lines, plain or gzipped; blank lines are passed over.

    Lines are decompressed one at a time and within limits, so that no small file unpacks into all of the memory.
    """
    read = 0
    try:
        with _open(Path(path)) as file:
            for number, line in enumerate(iter(partial(file.readline, LARGEST_ROW + 1), b""), 1):
                read += len(line)
                if len(line) > LARGEST_ROW:
                    raise UserError(f"{path}, line {number}: the row has more than {LARGEST_ROW:,} bytes; shorten it.")
                if read > LARGEST_FILE:
                    raise UserError(f"{path} holds more than {LARGEST_FILE:,} bytes of text; split it.")
                if line.strip():
                    with located(f"{path}, line {number}: "):
                        row = _json(line)
                    yield number, row
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise UserError(f"{path} is damaged or cut off: it cannot be decompressed.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None


@contextmanager
def located(place: str) -> Iterator[None]:
    """Put a place in front of the complaints about what is found there."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}{error}") from None


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return cast(IO[bytes], gzip.open(path)) if zipped else path.open("rb")


def _json(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise UserError("the row is not UTF-8 text.") from None
    except RecursionError:
        raise UserError("the row is nested too deeply to be a rollout.") from None
    except ValueError as error:
        raise UserError(f"the row is not JSON: {error}.") from None


def _no_number(name: str) -> NoReturn:
    raise UserError(f"the row holds {name}; every number must be finite.")


def _entries(row: Mapping[str, Any], name: str, make: Callable[..., T], fields: Sequence[str]) -> tuple[T, ...]:
    values = row.get(name)
    if values is None:
        return ()
    if not isinstance(values, list):
        raise UserError(f"{name} is {shown(values)}; it must be a list.")
    made = []
    for i, value in enumerate(values):
        check_object(f"{name}[{i}]", value)
        with located(f"{name}[{i}]."):
            made.append(make(*map(value.get, fields)))
    return tuple(made)


def _check_forks(tokens: Sequence[RecordedToken], forks: Sequence[RecordedFork]) -> None:
    total: dict[int, float] = {}
    seen: set[tuple[int, str]] = set()
    for i, fork in enumerate(forks):
        s = fork.position
        if s >= len(tokens):
            raise UserError(f"forks[{i}].position is {s}; of {len(tokens)} tokens the last is at {len(tokens) - 1}.")
        path_p = tokens[s].p
        if path_p is None:
            raise UserError(f"tokens[{s}].p is missing; it is needed where a fork is recorded.")
        if REPLACEMENT not in fork.token and (fork.token == tokens[s].text or (s, fork.token) in seen):
            raise UserError(
                f"forks[{i}].token is {shown(fork.token)}, which is the path's own token at position {s} or a fork "
                "that is listed already; list every alternative once."
            )
        seen.add((s, fork.token))
        total[s] = total.get(s, path_p) + fork.p
        if total[s] > 1 + TOLERANCE:
            raise UserError(
                f"forks[{i}].p is {fork.p:g}, with which the probabilities at position {s} sum to {total[s]:.6g}; the "
                "path's token and its alternatives cannot exceed 1 together."
            )


def _check_resamples(tokens: Sequence[RecordedToken], resamples: Sequence[Resample]) -> None:
    seen: set[int] = set()
    for i, entry in enumerate(resamples):
        if entry.position > len(tokens):
            raise UserError(f"resamples[{i}].position is {entry.position}; the path has {len(tokens)} tokens to keep.")
        if entry.position in seen:
            raise UserError(f"resamples[{i}].position is {entry.position}, as before; sum the outcomes of a position.")
        seen.add(entry.position)


def check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise UserError(f"{name} is {shown(value)}; it must be a JSON object.")


def check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UserError(f"{name} is {shown(value)}; it must be a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} is {shown(value)}, which holds half of a character.") from None


def check_label(name: str, value: Any) -> None:
    check_text(name, value)
    if not value.strip():
        raise UserError(f"{name} is {shown(value)}; a label is a text that is not empty.")
    if value == OTHER:
        raise UserError(f"{name} is {OTHER!r}, which stands for the sum of rare labels; give the outcome another name.")


def check_probability(name: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{name} is {shown(value)}; a probability is a number from 0 to 1.")


def check_outcomes(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise UserError(f"outcomes is {shown(value)}; it must say how often each label came out.")
    for label, count in value.items():
        with located("outcomes: "):
            check_label("the label", label)
        _check_count(f"outcomes[{shown(label)}]", count)
    if not sum(value.values()):
        raise UserError("outcomes is empty; leave out what was never continued.")


def check_mean_tokens(value: Any) -> None:
    if value is not None and (not _is_number(value) or not 0 <= value <= LARGEST_FILE):
        raise UserError(f"mean_tokens is {shown(value)}; it is a number of tokens, 0 or more.")


def _check_count(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UserError(f"{name} is {shown(value)}; it must be a whole number, 0 or more.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def shown(value: Any) -> str:
    """A value for a message. ``repr`` spells out what does not print, so no text can act on a terminal."""
    if value is None:
        return "missing"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
