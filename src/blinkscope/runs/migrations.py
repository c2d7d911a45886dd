"""The schema of a run file, as numbered steps.

Step n brings a file of schema n - 1 to schema n; ``user_version`` holds the number. A step that was released is never
edited. Because every file's schema comes from these statements, a file is ours exactly if its schema reads like theirs.
"""

from __future__ import annotations

import sqlite3

APPLICATION_ID = int.from_bytes(b"BLNK", "big")

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE run (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            identity NOT NULL,
            target NOT NULL
        )
        """,
        "CREATE TABLE provenance (number INTEGER PRIMARY KEY, time TEXT NOT NULL, content NOT NULL)",
        "CREATE TABLE document (name TEXT PRIMARY KEY, content NOT NULL)",
        """
        CREATE TABLE draw (
            generation INTEGER NOT NULL,
            stratum INTEGER NOT NULL,
            replicate INTEGER NOT NULL,
            label TEXT NOT NULL,
            cost REAL NOT NULL,
            fork TEXT NOT NULL,
            payload NOT NULL,
            PRIMARY KEY (generation, stratum, replicate)
        )
        """,
        """
        CREATE TABLE completion (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            time TEXT NOT NULL,
            status TEXT NOT NULL,
            summary NOT NULL
        )
        """,
    ),
    (
        """
        CREATE TABLE sitting (
            generation INTEGER NOT NULL,
            number INTEGER NOT NULL,
            seconds REAL NOT NULL,
            model_seconds REAL NOT NULL,
            PRIMARY KEY (generation, number)
        )
        """,
    ),
)


def migrate(connection: sqlite3.Connection, start: int, end: int) -> None:
    """Bring a database from schema ``start`` to ``end``. The caller holds the transaction."""
    for step in MIGRATIONS[start:end]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {end}")


def has_schema(connection: sqlite3.Connection, version: int) -> bool:
    """Whether a database holds exactly the tables of schema ``version``: no view, trigger or index of anyone else's."""
    model = sqlite3.connect(":memory:")
    try:
        migrate(model, 0, version)
        expected = set(model.execute("SELECT type, name, tbl_name, sql FROM sqlite_master"))
    finally:
        model.close()
    found = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master").fetchmany(len(expected) + 1)
    return len(found) == len(expected) and set(found) == expected
