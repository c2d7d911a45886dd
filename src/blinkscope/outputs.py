"""A file or folder that is to be written: checked before any work, there whole or not at all, in no other one's place.

A name is refused where a database, a run file say, or a file of another kind stands already. What a link points to is
written, the link stays; a device or a pipe is written through. Anything else is written beside its place first and then
takes the name. What the person can mend is a ``UserError``, what the machine failed to do an ``EngineError``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from blinkscope.errors import EngineError, UserError, expect

HEAD = 4096  # bytes by which the kind of a file is known
DATABASE = b"SQLite format 3\0"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REFUSED = (
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.EBUSY),
)
"""Failures of the place, not of the machine."""


@dataclass(frozen=True)
class Kind:
    """What is written.

    name: in a sentence, after "the". content: what a file of this kind is, after "no". begins: what the first bytes of
    one match; a file that does not is not replaced. Without it, any file but a database is.
    """

    name: str
    content: str = ""
    begins: re.Pattern[bytes] | None = None


def check_file(path: str | Path, kind: Kind) -> Path:
    """Where a file may be written: in a folder that can be written to, at a free name or in place of one of its kind.

    Raises
    ------
    UserError : the name is a run file's; there is no such folder, or nothing can be written there; a folder, a database
        or a file of another kind stands there.
    """
    path = Path(expect("path", path, (str, Path), "the name of a file"))
    if path.suffix == ".db":
        raise UserError(f"{path} is a run file's name; give the {kind.name} another name.")
    with explained(path, kind.name):
        found = _status(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise UserError(f"{path} is a folder; give the name of a file for the {kind.name}.")
        if found is not None and _through(found):
            return path
        folder = _target(path).parent if path.is_symlink() else path.parent
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder} for the {kind.name}; make it, or choose another place.")
        _check_writable(folder, kind.name)
        if found is not None:
            _check_replaceable(path, kind)
    return path


@contextlib.contextmanager
def written(path: str | Path, kind: Kind) -> Iterator[IO[bytes]]:
    """A file to write into, which appears under its name when the block ends; where it fails, all is as before.

    Raises
    ------
    UserError : the place is refused, by ``check_file`` or by the system.
    EngineError : the machine could not store the file, for instance because its disk is full.
    """
    path = check_file(path, kind)
    with explained(path, kind.name):
        found = _status(path)
        if found is not None and _through(found):
            with _opened_through(path, found) as file:
                yield file
            return
        target = _target(path)
        partial = target.with_name(f".{target.name[:40]}.{secrets.token_hex(4)}.part")
        try:
            with partial.open("xb") as file:
                yield file
            if found is not None:
                shutil.copymode(target, partial)
            os.replace(partial, target)
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()


def check_folder(folder: str | Path, name: str, *, new: bool = True) -> Path:
    """Where a folder may be made and filled; ``name`` says in a sentence with what, after "the".

    Parameters
    ----------
    new : a folder that holds something already is refused.

    Raises
    ------
    UserError : it cannot be made there, or it is no folder, or it holds something already.
    """
    folder = Path(folder)
    with explained(folder, name):
        if _status(folder) is not None and not folder.is_dir():
            raise UserError(f"{folder} is a file; choose a folder for the {name}.")
        if new and folder.is_dir() and any(folder.iterdir()):
            raise UserError(f"{folder} exists and is not an empty folder; give the name of a new one for the {name}.")
        target = _target(folder) if folder.is_symlink() else folder
        nearest = next(place for place in (target, *target.parents) if place.exists())
        if not nearest.is_dir():
            raise UserError(f"{nearest} is a file, so {folder} cannot be made; choose another folder for the {name}.")
        _check_writable(nearest, name)
    return folder


@contextlib.contextmanager
def filled(folder: str | Path, name: str) -> Iterator[Path]:
    """A place to write files and folders into, which appear in a new folder when the block ends; else all is as before.

    Raises
    ------
    UserError : the place is refused, by ``check_folder`` or by the system.
    EngineError : the machine could not store the files.
    """
    folder = check_folder(folder, name)
    with explained(folder, name):
        target = _target(folder)
        made = [place for place in (target, *target.parents) if not place.exists()]
        partial = target / f".{secrets.token_hex(4)}.part"
        try:
            partial.mkdir(parents=True)
            yield partial
            for entry in sorted(partial.iterdir()):
                entry.rename(target / entry.name)
            partial.rmdir()
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                for place in made:
                    place.rmdir()
            raise


@contextlib.contextmanager
def explained(path: Path, name: str) -> Iterator[None]:
    """Say in one sentence why something could not be written. A pipe whose reader has left is nobody's mistake."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in REFUSED:
            raise UserError(f"{path} cannot be written: {why}; choose another place for the {name}.") from error
        room = "; make room and try again" if error.errno in NO_SPACE else ""
        raise EngineError(f"the {name} could not be stored at {path}: {why}{room}.") from error


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two names are of one file, there already or not; devices and pipes are never in each other's way."""
    with contextlib.suppress(OSError, ValueError):  # a text that is no name: too long, or with a zero byte
        a, b = (_status(Path(name)) for name in (one, other))
        if a is None or b is None:
            return a is b and os.path.realpath(one) == os.path.realpath(other)
        return stat.S_ISREG(a.st_mode) and os.path.samestat(a, b)
    return False


def is_stdout(path: str | Path) -> bool:
    """Whether a name, ``/dev/stdout`` say, is of where this process prints."""
    found = _status(Path(path))
    return found is not None and _is_stdout(found)


def _status(path: Path) -> os.stat_result | None:
    """Of what a path leads to; None where nothing is there."""
    try:
        return path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _target(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _through(found: os.stat_result) -> bool:
    """Whether bytes go through what is there, a device, a pipe or where stdout goes, rather than into a new file."""
    return not stat.S_ISREG(found.st_mode) or _is_stdout(found)


def _is_stdout(found: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(found, os.fstat(1))
    return False


def _opened_through(path: Path, found: os.stat_result) -> IO[bytes]:
    if _is_stdout(found):  # opened anew, a file that the shell appends to would begin at its beginning
        sys.stdout.flush()
        return os.fdopen(os.dup(1), "wb")
    return path.open("wb")


def _check_writable(folder: Path, name: str) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"nothing can be written in the folder {folder}; choose another place for the {name}.")


def _check_replaceable(path: Path, kind: Kind) -> None:
    if not os.access(path, os.W_OK):
        raise UserError(f"{path} is protected, so the {kind.name} does not replace it; choose another name.")
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(DATABASE):
        raise UserError(f"{path} is a run file or another database; give the {kind.name} another name.")
    if head and kind.begins is not None and not kind.begins.match(head):
        raise UserError(f"{path} is no {kind.content}, so the {kind.name} does not replace it; choose another name.")
