"""The run file as a file: is it ours and whole, how is it opened, what do its failures mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

from blinkscope.errors import EngineError, UserError
from blinkscope.outputs import DATABASE, NO_SPACE
from blinkscope.runs.migrations import APPLICATION_ID, MIGRATIONS, has_schema
from blinkscope.runs.values import LIMIT, Unreadable

HEADER = 100  # bytes of a database's header
NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs", "afs", "9p", "fuse.glusterfs", "lustre", "beegfs", "gpfs", "ceph")
KEPT = "what was drawn is kept: make room and start again with the same command"


def check_place(file: Path) -> None:
    """Refuse a place where no run file can be: begun, or gone on with."""
    if not file.parent.is_dir():
        raise UserError(f"there is no folder {file.parent}; create it or choose another place for the run file.")
    if file.is_dir():
        raise UserError(f"{file} is a folder; give the name of a run file.")
    log = file.with_name(file.name + "-wal")
    if log.exists() and not file.exists():
        # SQLite would take the log of the lost file for one of the new file.
        raise UserError(
            f"{log} belongs to a run file that was moved or deleted; move that file back beside it, or remove the log."
        )
    if file.exists():
        check_header(file)


def check_leftover(file: Path) -> None:
    """Refuse to make a run file by way of a name at which something of the user's stands."""
    if file.exists():
        with file.open("rb") as stream:
            head = stream.read(len(DATABASE))
        if head not in (b"", DATABASE):
            raise UserError(f"{file} is in the way while a run file is begun; move it, or choose another run file.")


def check_header(path: Path) -> None:
    """Refuse, from its bytes alone, a file that is not a whole run file of a schema that we know.

    Nothing is opened through SQLite before this has passed, so a stranger's file stays as it is.
    """
    if not path.is_file():
        raise UserError(f"{path} is not a file; give the name of a run file.")
    with path.open("rb") as file:
        header = file.read(HEADER)
    size = path.stat().st_size
    if not header:
        raise UserError(f"{path} is empty, not a run file; remove it or choose another name.")
    if len(header) < HEADER or not header.startswith(DATABASE):
        raise UserError(f"{path} is not a run file of blinkscope; choose another name.")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise UserError(f"{path} is a database of another program, not a run file; choose another name.")
    check_version(path, int.from_bytes(header[60:64], "big"))
    page = int.from_bytes(header[16:18], "big")
    expected = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
    # After a kill the newest pages may still stand in the log alone.
    if size < expected and not has_log(path):
        raise UserError(f"{path} is cut off: it has {size:,} bytes of {expected:,}. Use a whole copy of it.")


def check_version(path: Path, version: int) -> None:
    newest = len(MIGRATIONS)
    if version > newest:
        raise UserError(
            f"{path} was written by a newer blinkscope (schema {version}; this one knows schemas up to {newest}); "
            "upgrade with: pip install --upgrade blinkscope"
        )
    if version < 1:
        damaged(path, "it has no schema number")


def check_content(path: Path, connection: sqlite3.Connection) -> int:
    """Refuse a database whose tables are not exactly ours or whose pages do not hang together; its schema number."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    check_version(path, version)
    if not has_schema(connection, version):
        raise UserError(f"{path} does not have the tables of a run file; it was changed by another program.")
    fault = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if fault != "ok":
        damaged(path, str(fault))
    return version


def has_log(path: Path) -> bool:
    """Whether finished batches wait in a log beside the file, as they do while a run is going on or after a kill."""
    log = _log(path)
    return log.exists() and log.stat().st_size > 0


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _interrupted(path: Path) -> bool:
    """Whether a process was killed while it switched the file to or from the format that is read with a log.

    The switch changes two bytes of the header and nothing else, so the file can be read as it is; who works on it next
    undoes the switch.
    """
    return path.with_name(path.name + "-journal").exists()


def _wants_log(path: Path) -> bool:
    """Whether the file was left in the format that is read together with a log, as a lone copy of a killed run is."""
    with path.open("rb") as file:
        return file.read(20)[18:19] == b"\x02"


def connect(path: Path, mode: Literal["read", "write", "create"]) -> sqlite3.Connection:
    """A connection that trusts nothing in the file and commits only where told to."""
    query = {"read": "?mode=ro", "write": "?mode=rw", "create": "?mode=rwc"}[mode]
    if mode == "read" and (_interrupted(path) or (not _log(path).exists() and _wants_log(path))):
        query += "&immutable=1"  # nobody is writing to it, and SQLite must not make its log and index beside it
    connection = sqlite3.connect(path.absolute().as_uri() + query, uri=True, isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT + 2**16)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")
    if mode == "read":
        connection.execute("PRAGMA query_only = ON")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself where the disk was full
            connection.execute("ROLLBACK")
        raise


@contextmanager
def failures(path: Path) -> Iterator[None]:
    """Say in one sentence what went wrong with the file."""
    try:
        yield
    except (Unreadable, UnicodeDecodeError) as error:
        damaged(path, str(error))
    except OSError as error:
        if error.errno in NO_SPACE:
            raise EngineError(f"no space left on the disk of {path}; {KEPT}.") from error
        why = (error.strerror or str(error)).lower()
        raise UserError(f"{path}: {why}; check the file, its folder and their permissions.") from error
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        _explain(path, error)


def _explain(path: Path, error: sqlite3.Error) -> NoReturn:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
    match code & 0xFF:
        case sqlite3.SQLITE_FULL:
            raise EngineError(f"no space left on the disk of {path}; {KEPT}.") from error
        case sqlite3.SQLITE_IOERR if code != sqlite3.SQLITE_IOERR_SHORT_READ:
            raise EngineError(f"the disk of {path} failed or has no space left ({error}); {KEPT}.") from error
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            raise UserError(
                f"{path} cannot be opened ({error}); check the permissions of the file and of its folder."
            ) from error
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            raise UserError(f"another program is using {path}; close it there and try again.") from error
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_TOOBIG | sqlite3.SQLITE_IOERR:
            damaged(path, str(error))
        case _:
            raise error


def damaged(path: Path, why: str) -> NoReturn:
    raise UserError(f"{path} is damaged ({why}); use a whole copy of it, or start a new run.")


def network_disk_note(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """A sentence where the file lies on a disk of another machine, as far as the system tells."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = "", ""
    for folder, file_system in (line.split(" ")[1:3] for line in lines if line.count(" ") >= 2):
        folder = folder.replace("\\040", " ")  # how the kernel writes a blank
        if len(folder) >= len(best) and path.is_relative_to(folder):
            best, kind = folder, file_system
    if not kind.startswith(NETWORK):
        return None
    return (
        f"{path} lies on a network disk ({kind}), where locks and logs are less dependable; "
        "keep the run on a local disk and copy it when it is finished."
    )
