"""A run file: one SQLite database that holds a spec, what was drawn, and at the end a completion mark.

The spec is there before any work, a batch of draws is stored whole or not at all, and the completion mark stands only
while nothing was drawn and no target was changed after it. A process that is killed at any moment loses what it was
drawing, nothing more; the promise does not cover a power cut.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON, Draw
from blinkscope.runs.files import (
    check_content,
    check_header,
    check_leftover,
    check_place,
    connect,
    failures,
    network_disk_note,
    transaction,
)
from blinkscope.runs.lock import Lock
from blinkscope.runs.migrations import APPLICATION_ID, MIGRATIONS, migrate
from blinkscope.runs.spec import Difference, Spec, differences, identity_difference
from blinkscope.runs.values import Unreadable, decode, encode

DRAW_COLUMNS = "stratum, replicate, label, cost, fork, payload"


@dataclass(frozen=True)
class Provenance:
    """With what the run was worked on from ``time`` (ISO 8601, UTC) on."""

    time: str
    content: Mapping[str, JSON]


class Run:
    """An open run file. ``create_or_open`` is for working on it, ``open`` for looking at it.

    path: the file. notes: what a user should know about where it lies.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: Lock | None) -> None:
        self.path = path
        note = network_disk_note(path)
        self.notes: tuple[str, ...] = (note,) if note else ()
        self._connection = connection
        self._lock = lock
        self._sitting = 0

    @classmethod
    def create_or_open(cls, path: str | os.PathLike[str], spec: Spec) -> Run:
        """Begin a run, or go on with the one in the file.

        A changed target is stored and removes the completion mark; a changed provenance is added to those before it.

        Raises
        ------
        UserError : the file is another run, foreign, damaged, from a newer version, or in use; it is left untouched.
        EngineError : the disk is full or fails.
        """
        file = Path(path).resolve()
        check_place(file)
        with failures(file):
            lock = Lock(file)
            try:
                if file.exists():
                    _check_same_run(file, spec)
                else:
                    _create(file, spec)
                run = cls(file, _open_for_work(file), lock)
            except BaseException:
                lock.release()
                raise
            try:
                run._adopt(spec)
            except BaseException:
                run.close()
                raise
        return run

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Run:
        """Look at a run file, also while another process is working on it. Nothing is written to it or beside it.

        Raises
        ------
        UserError : there is no such file, or it is foreign, damaged or from a newer version.
        """
        file = Path(path).resolve()
        if not file.exists():
            raise UserError(f"there is no file {file}; give the name of a run file.")
        with failures(file):
            check_header(file)
            return cls(file, _open_to_look(file), None)

    @property
    def spec(self) -> Spec:
        """Identity, newest target and newest provenance."""
        (row,) = self._query("SELECT identity, target FROM run")
        identity, target = (self._object(column) for column in row)
        return Spec(identity, target, self.provenances[-1].content)

    @property
    def provenances(self) -> tuple[Provenance, ...]:
        """Every machine and set of versions that worked on the run, the first one first."""
        rows = self._query("SELECT time, content FROM provenance ORDER BY number")
        return tuple(Provenance(str(time), self._object(content)) for time, content in rows)

    @property
    def provenance_changes(self) -> tuple[Difference, ...]:
        """What changed from one provenance to the next."""
        seen = self.provenances
        return tuple(d for old, new in pairwise(seen) for d in differences(old.content, new.content))

    @property
    def status(self) -> str | None:
        """The completion mark; None while the run is not finished."""
        rows = self._query("SELECT status FROM completion")
        return str(rows[0][0]) if rows else None

    @property
    def summary(self) -> JSON:
        """What was said at completion; None while the run is not finished."""
        rows = self._query("SELECT summary FROM completion")
        return self._value(rows[0][0]) if rows else None

    def put_document(self, name: str, content: JSON | Mapping[str, JSON]) -> None:
        """Store a JSON document for good, for instance the path; a name is written once."""
        self._write([("INSERT INTO document VALUES (?, ?)", [(name, encode(content))])])

    def document(self, name: str) -> JSON:
        """The JSON document of that name; None where there is none."""
        rows = self._query("SELECT content FROM document WHERE name = ?", (name,))
        return self._value(rows[0][0]) if rows else None

    def documents(self) -> tuple[str, ...]:
        """The names of all documents."""
        return tuple(str(name) for (name,) in self._query("SELECT name FROM document ORDER BY name"))

    def add(self, draws: Iterable[Draw], generation: int = 0) -> None:
        """Store a batch of draws, all of them or none, and take the completion mark away.

        Raises
        ------
        sqlite3.IntegrityError : a (stratum, replicate) of this generation is already stored.
        """
        rows = [
            (generation, d.stratum, d.replicate, _storable(d.label), d.cost, _storable(d.fork), encode(d.payload))
            for d in draws
        ]
        insert = f"INSERT INTO draw (generation, {DRAW_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._write([("DELETE FROM completion", [()]), (insert, rows)])

    def draws(self, generation: int = 0) -> dict[tuple[int, int], Draw]:
        """Every stored draw of a generation by (stratum, replicate), in that order."""
        rows = self._query(
            f"SELECT {DRAW_COLUMNS} FROM draw WHERE generation = ? ORDER BY stratum, replicate", (generation,)
        )
        with failures(self.path):
            found = (_draw(row) for row in rows)
            return {(draw.stratum, draw.replicate): draw for draw in found}

    def spend(self, seconds: float, model_seconds: float, generation: int = 0) -> None:
        """Store what this sitting has taken so far for a generation, in place of what was said before."""
        row = (generation, self._sitting, float(seconds), float(model_seconds))
        self._write([("INSERT OR REPLACE INTO sitting VALUES (?, ?, ?, ?)", [row])])

    def spent(self, generation: int = 0) -> tuple[float, float]:
        """Seconds that all sittings took for a generation together, and those of them that the model took."""
        sums = "SELECT total(seconds), total(model_seconds) FROM sitting WHERE generation = ?"
        ((seconds, model_seconds),) = self._query(sums, (generation,))
        with failures(self.path):
            if not 0 <= model_seconds <= seconds < math.inf:
                raise Unreadable("the time that the run took is not one that blinkscope wrote")
        return float(seconds), float(model_seconds)

    def complete(self, status: str, summary: JSON | Mapping[str, JSON] = None) -> None:
        """Set the completion mark: the last thing that is written."""
        row = (_now(), status, encode(summary))
        self._write([("INSERT OR REPLACE INTO completion VALUES (1, ?, ?, ?)", [row])])

    @property
    def empty(self) -> bool:
        """Whether the run holds nothing but its spec."""
        ((found,),) = self._query("SELECT EXISTS (SELECT 1 FROM document) OR EXISTS (SELECT 1 FROM draw)")
        return not found

    def discard(self) -> None:
        """Close the run and remove its file, together with SQLite's files beside it."""
        self._connection.close()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Fold the log into the file, so that the one file can be copied or mailed, and let others work on it."""
        if self._lock is not None:
            try:
                # Leaving WAL also folds the log in; it fails while somebody is reading, or where the disk is full.
                # The log then stays beside the file and is folded in by the next one who works on it.
                self._connection.execute("PRAGMA busy_timeout = 200")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.Error:
                pass
        self._connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _adopt(self, spec: Spec) -> None:
        """Take over what may change between two sittings."""
        ((self._sitting,),) = self._query("SELECT coalesce(max(number), 0) + 1 FROM sitting")
        stored = self.spec
        statements: list[tuple[str, list[tuple[Any, ...]]]] = []
        if stored.target != spec.target:
            statements.append(("UPDATE run SET target = ?", [(encode(spec.target),)]))
            statements.append(("DELETE FROM completion", [()]))
        if stored.provenance != spec.provenance:
            statements.append(_insert_provenance(spec))
        if statements:
            self._write(statements)

    def _write(self, statements: list[tuple[str, list[tuple[Any, ...]]]]) -> None:
        with failures(self.path), transaction(self._connection):
            for statement, rows in statements:
                self._connection.executemany(statement, rows)

    def _query(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with failures(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _value(self, column: object) -> JSON:
        with failures(self.path):
            return decode(column)

    def _object(self, column: object) -> dict[str, JSON]:
        with failures(self.path):
            return _as_object(decode(column))


def _create(file: Path, spec: Spec) -> None:
    """Write the spec into a new file that gets its name only when it is whole."""
    unfinished = file.with_name(file.name + ".new")
    check_leftover(unfinished)
    unfinished.unlink(missing_ok=True)  # from a process that was killed here: we hold the lock
    try:
        connection = connect(unfinished, "create")
        try:
            connection.execute("PRAGMA journal_mode = MEMORY")  # a half-made file is thrown away, not rolled back
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            with transaction(connection):
                migrate(connection, 0, len(MIGRATIONS))
                connection.execute("INSERT INTO run VALUES (1, ?, ?)", (encode(spec.identity), encode(spec.target)))
                connection.executemany(*_insert_provenance(spec))
        finally:
            connection.close()
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def _check_same_run(file: Path, spec: Spec) -> None:
    """Refuse a file that is not this run, before anything may write to it."""
    check_header(file)
    with Run(file, _open_to_look(file), None) as stored:
        found = identity_difference(stored.spec, spec)
    if found:
        raise UserError(
            f"{file} holds another run; choose another file with -o, or ask for the same thing. They differ in:\n"
            + "\n".join(f"  {difference}" for difference in found)
        )


def _open_for_work(file: Path) -> sqlite3.Connection:
    connection = connect(file, "write")
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < len(MIGRATIONS):
            with transaction(connection):
                migrate(connection, version, len(MIGRATIONS))
    except BaseException:
        connection.close()
        raise
    return connection


def _open_to_look(file: Path) -> sqlite3.Connection:
    """A connection that cannot write; a file of an older schema is brought up to date in a copy in memory."""
    connection = connect(file, "read")
    try:
        version = check_content(file, connection)
        if version == len(MIGRATIONS):
            return connection
        copy = sqlite3.connect(":memory:", isolation_level=None)
        connection.backup(copy)
    except BaseException:
        connection.close()
        raise
    connection.close()
    with transaction(copy):
        migrate(copy, version, len(MIGRATIONS))
    return copy


def _insert_provenance(spec: Spec) -> tuple[str, list[tuple[Any, ...]]]:
    return "INSERT INTO provenance (time, content) VALUES (?, ?)", [(_now(), encode(spec.provenance))]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _storable(text: str) -> str:
    """Half of a surrogate pair is no text that a database can hold; it is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _draw(row: tuple[Any, ...]) -> Draw:
    """A stored draw; nothing that a stranger's file may hold instead gets past here."""
    stratum, replicate, label, cost, fork, payload = row
    whole = isinstance(stratum, int) and isinstance(replicate, int) and replicate >= 0
    texts = isinstance(label, str) and label and isinstance(fork, str)
    if not (whole and texts and isinstance(cost, float) and math.isfinite(cost) and cost >= 0):
        raise Unreadable(f"draw {row[:2]!r} is not one that blinkscope wrote")
    return Draw(stratum, replicate, label, cost, fork, _as_object(decode(payload)))


def _as_object(value: JSON) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise Unreadable("a value is not a JSON object")
    return value
