"""Files that are to be written: what is refused, what is followed, and what stands there when it fails."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import IO

import pytest

from blinkscope import outputs
from blinkscope.errors import EngineError, UserError
from blinkscope.outputs import Kind, check_file, check_folder, explained, filled, same_file, written

NOTE = Kind("note", "note", re.compile(rb"note"))


def write(path: Path, text: str = "note: new") -> None:
    with written(path, NOTE) as file:
        file.write(text.encode())


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, by name, with the content of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def break_off(writing: AbstractContextManager[Path | IO[bytes]], error: BaseException) -> None:
    """Begin to write a file or a folder, and fail."""
    with writing as place:
        if isinstance(place, Path):
            (place / "data").mkdir()
            (place / "data" / "a").write_text("half")
        else:
            place.write(b"note: half")
        raise error


@pytest.fixture
def no_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that says of everything that it is protected, as one says of a folder that is read-only."""
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: not mode & os.W_OK)


def test_a_file_is_replaced_by_one_of_its_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.note"
    write(path, "note: old")
    path.chmod(0o640)
    write(path)
    assert tree(tmp_path) == {"a.note": b"note: new"}
    assert path.stat().st_mode & 0o777 == 0o640
    path.write_bytes(b"")  # as the shell leaves it
    write(path)
    assert tree(tmp_path) == {"a.note": b"note: new"}


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("run.db", "run file's name"),
        ("folder", "is a folder"),
        ("nowhere/a", "no folder .*nowhere for the note"),
        ("other/a", "no folder .*other for the note"),
        ("other", "is no note, so the note does not replace it"),
        ("database", "is a run file or another database"),
        ("lost", "no folder .*gone for the note"),
        ("loop", "cannot be written"),
        ("x" * 300, "cannot be written"),
    ],
)
def test_what_is_refused_stays_as_it_is(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "other").write_text("a letter")
    with closing(sqlite3.connect(tmp_path / "database")) as made:
        made.execute("create table x (y)")
    (tmp_path / "lost").symlink_to("gone/file")
    (tmp_path / "loop").symlink_to("loop")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=why):
        write(tmp_path / name)
    assert tree(tmp_path) == before


def test_a_database_is_replaced_by_no_kind(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "data")) as made:
        made.execute("create table x (y)")
    with pytest.raises(UserError, match="another database"):
        check_file(tmp_path / "data", Kind("anything"))


@pytest.mark.usefixtures("no_write")
def test_a_folder_without_the_right_to_write_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"nothing can be written in the folder {tmp_path}"):
        check_file(tmp_path / "a", NOTE)
    for name in (".", "new", "new/deep/er"):
        with pytest.raises(UserError, match=f"nothing can be written in the folder {tmp_path}"):
            check_folder(tmp_path / name, "notes")


def test_a_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write(path, "note: old")
    monkeypatch.setattr(outputs.os, "access", lambda which, mode: Path(which) != path)
    with pytest.raises(UserError, match="is protected"):
        write(path)
    assert path.read_bytes() == b"note: old"


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "file"
    link.symlink_to(target)
    for text in ("note: first", "note: second"):  # to a free place, then to a file
        write(link, text)
        assert link.is_symlink()
        assert target.read_text() == text
    assert sorted(tree(tmp_path)) == ["link", "there", "there/file"]


def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(20)
    assert read == [b"note: new"]
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write(tmp_path / "a", "note: old")
    before = tree(tmp_path)
    failures = {errno.ENOSPC: EngineError, errno.EFBIG: EngineError, errno.EROFS: UserError}
    for path in (tmp_path / "a", tmp_path / "b"):
        for error, kind in failures.items():
            with pytest.raises(kind, match=os.strerror(error)):
                break_off(written(path, NOTE), OSError(error, os.strerror(error)))
        with pytest.raises(KeyboardInterrupt):
            break_off(written(path, NOTE), KeyboardInterrupt())
    assert tree(tmp_path) == before


def test_a_reader_who_left_is_nobodys_mistake(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), explained(tmp_path, "note"):
        raise BrokenPipeError


@pytest.mark.parametrize("name", ["empty", "new", "new/deep/er", "link"])
def test_a_folder_is_filled_whole_or_left_as_it_was(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("pointed")
    before = tree(tmp_path)
    with pytest.raises(EngineError, match="No space"):
        break_off(filled(tmp_path / name, "notes"), OSError(errno.ENOSPC, "No space left"))
    assert tree(tmp_path) == before
    with filled(tmp_path / name, "notes") as place:
        (place / "data").mkdir()
        (place / "data" / "a").write_text("whole")
    assert tree(tmp_path / name) == {"data": None, "data/a": b"whole"}
    assert (tmp_path / "link").is_symlink()
    with pytest.raises(UserError, match="not an empty folder"):
        check_folder(tmp_path / name, "notes")
    check_folder(tmp_path / name, "notes", new=False)


def test_a_folder_cannot_be_made_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file; choose a folder"):
        check_folder(tmp_path / "file", "notes")
    with pytest.raises(UserError, match=r"file is a file, so .* cannot be made"):
        check_folder(tmp_path / "file" / "a" / "b", "notes")


def test_names_of_one_file(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    (tmp_path / "soft").symlink_to(one)
    assert same_file(one, tmp_path / "soft")  # neither is there yet
    assert not same_file(one, other)
    one.touch()
    (tmp_path / "hard").hardlink_to(one)
    assert same_file(tmp_path / "soft", tmp_path / "hard")
    assert not same_file(one, other)
    other.touch()
    assert not same_file(one, other)
    assert not same_file(os.devnull, os.devnull)
    assert not same_file(one, "x" * 100_000)
    assert not same_file(one, "a\0b")
