"""No command destroys what a user has, and none notices at the end that its result has no place."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.detection.toys import ALIGNED, UNALIGNED, rows, write
from tests.e2e.command import as_a_user, blinkscope

PAIR = ("--aligned", ALIGNED, "--unaligned", UNALIGNED)
LOOK = ("locate", "x", "--model", "toy:fork", "--generation", "chat.html")
REPEAT = ("study", "repeat", "--model", "toy:fork")
FULL = Path("/dev/full")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run and scores, each under another name too, and what they were made from."""
    folder = tmp_path_factory.mktemp("made")
    write(folder / "t.jsonl", rows(20))
    (folder / "chat.html").write_text("<html>a page that a model wrote, to be looked into")
    fork = ("locate", "Which way?", "--model", "toy:fork?agree=8&width=2&length=24", "--error", "0.1")
    for command in (
        (*fork, "-o", "run.db"),
        ("detect", "score", "t.jsonl", *PAIR, "-o", "sc.db"),
        ("report", "run.db", "-o", "page.html"),
    ):
        done = blinkscope(*command, cwd=folder)
        assert done.returncode == 0, done.stderr
    (folder / "run.svg").write_bytes((folder / "run.db").read_bytes())
    (folder / "sc.svg").write_bytes((folder / "sc.db").read_bytes())
    (folder / "link.jsonl").symlink_to("run.db")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("export", "--to", "jsonl", "run.db", "-o", "run.db"), "run.db is read by this command"),
        (("export", "--to", "jsonl", "run.db", "-o", "link.jsonl"), "link.jsonl is read by this command"),
        (("export", "--to", "jsonl", "sc.db", "-o", "run.svg"), "run.svg is a run file or another database"),
        (("export", "--to", "jsonl", "run.db", "-o", "t.jsonl"), "t.jsonl is no export as JSON lines"),
        (("export", "--to", "guidance", "run.db", "-o", "run.db"), "run.db is read by this command"),
        (("export", "--to", "guidance", "run.db", "-o", "t.jsonl"), "t.jsonl is no export for guidance"),
        (("export", "--to", "parquet", "run.db", "-o", "run.svg"), "run.svg is a file; choose a folder"),
        (("detect", "score", "t.jsonl", *PAIR, "-o", "n.db", "--running", "n.db"), "-o and --running name the same"),
        (("detect", "score", "t.jsonl", *PAIR, "-o", "n.db", "--running", "t.jsonl"), "t.jsonl is read by this"),
        (("detect", "score", "t.jsonl", *PAIR, "-o", "n.db", "--running", "n.svg", "--plot", "n.svg"), "the same file"),
        (("detect", "evaluate", "sc.db", "--running", "sc.db"), "sc.db is read by this command"),
        (("detect", "evaluate", "sc.db", "--running", "t.jsonl"), "t.jsonl is what sc.db was made from"),
        (("detect", "evaluate", "sc.svg", "--plot", "sc.svg"), "sc.svg is read by this command"),
        (("detect", "train", "t.jsonl", "--layer", "1", "-o", "t.jsonl"), "t.jsonl is read by this command"),
        (("detect", "train", "t.jsonl", "--layer", "1", "-o", "run.svg"), "run.svg is a run file"),
        ((*REPEAT, "-o", "new.svg", "--plot", "new.svg"), "-o and --plot name the same file, new.svg"),
        ((*REPEAT, "-o", "new.db", "--plot", "run.svg"), "run.svg is a run file"),
        (("world", "critical-token", "--plot", "run.svg"), "run.svg is a run file"),
        (("show", "sc.db", "--plot", "run.svg"), "run.svg is a run file"),
        (("show", "run.db", "--report", "chat.txt"), "chat.txt is no HTML page"),
        (("report", "run.db", "-o", "link.jsonl"), "link.jsonl is read by this command"),
        (("report", "run.db", "-o", "x" * 300), "cannot be written: File name too long"),
        ((*LOOK, "--report", "chat.html", "-o", "new.db"), "chat.html is read by this command"),
    ],
    ids=lambda x: " ".join(x)[:70] if isinstance(x, tuple) else "",
)
def test_nothing_is_written_over_what_a_user_has(command: tuple[str, ...], why: str, made: Path) -> None:
    (made / "chat.txt").write_text("a conversation")
    before = content(made)
    done = blinkscope(*command, cwd=made)
    assert done.returncode == 2, done.stderr
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert content(made) == before


def test_a_run_named_like_a_word_of_the_command_is_gone_on_with(tmp_path: Path) -> None:
    for error in ("0.3", "0.2"):
        command = ("locate", "fork", "--model", "toy:fork?agree=8&width=2&length=24", "--error", error, "-o", "fork")
        assert blinkscope(*command, cwd=tmp_path).returncode == 0


def test_what_was_written_before_is_written_again(made: Path, tmp_path: Path) -> None:
    for command in (
        ("export", "--to", "jsonl", made / "run.db", "-o", "run.jsonl"),
        ("detect", "evaluate", made / "sc.db", "--running", "ratio.jsonl", "--plot", "early.png"),
        ("report", made / "run.db", "-o", "page.html"),
        ("world", "critical-token", "--plot", "token.pdf"),
    ):
        for _ in range(2):
            done = blinkscope(*command, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("early.png", "page.html", "ratio.jsonl", "run.jsonl", "token.pdf")
    ]


def test_links_and_pipes_stay_and_are_written_through(made: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    assert blinkscope("report", made / "run.db", "-o", "pipe", cwd=tmp_path).returncode == 0
    reader.join(20)
    (tmp_path / "latest.html").symlink_to("monday.html")
    for _ in range(2):
        assert blinkscope("report", made / "run.db", "-o", "latest.html", cwd=tmp_path).returncode == 0
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "latest.html").is_symlink()
    assert read == [(tmp_path / "monday.html").read_bytes()]
    assert read[0].startswith(b"<!doctype html>")


def test_stdout_by_name_is_added_to(made: Path, tmp_path: Path) -> None:
    """What the shell appends to keeps what it holds, and no other line comes between."""
    (tmp_path / "all.jsonl").write_text("{}\n")
    (tmp_path / "out").symlink_to("/proc/self/fd/1")
    for name in ("out", "/dev/stdout"):
        with (tmp_path / "all.jsonl").open("a") as all_:
            done = _run("export", "--to", "jsonl", made / "run.db", "-o", name, cwd=tmp_path, stdout=all_)
        assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert [line.get("item") for line in lines] == [None, "run", "run"]
    assert (tmp_path / "out").is_symlink()


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("command", [("show",), ("show", "--json"), ("export", "--to", "jsonl", "-o", "/dev/stdout")])
def test_output_to_a_full_disk_is_one_sentence(command: tuple[str, ...], made: Path) -> None:
    with FULL.open("w") as full:
        done = _run(command[0], made / "run.db", *command[1:], cwd=made, stdout=full)
    assert done.returncode == 1
    assert "No space left on device; make room and try again." in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        ("export", "--to", "jsonl", "run.db", "-o"),
        ("export", "--to", "parquet", "run.db", "-o"),
        ("export", "--to", "inspect", "run.db", "-o", "x.eval"),
        ("report", "run.db", "-o"),
        ("detect", "evaluate", "sc.db", "--running"),
        ("detect", "evaluate", "sc.db", "--tables"),
        ("detect", "evaluate", "sc.db", "--plot", "x.svg"),
        ("world", "critical-token", "--plot", "x.svg"),
    ],
    ids=" ".join,
)
def test_a_disk_that_fills_leaves_no_half_of_a_file(command: tuple[str, ...], made: Path, tmp_path: Path) -> None:
    target = tmp_path / (command[-1] if "." in command[-1] else "new")
    words = command[:-1] if target.name != "new" else command
    done = _run(*words, target, cwd=made, before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500)))
    assert done.returncode == 1, done.stderr
    sentence, *more = done.stderr.splitlines()
    assert sentence.endswith("File too large; make room and try again.")
    assert not more or "inspect" in command  # whose own temporary file complains when it is thrown away
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("export", "--to", "jsonl", "run.db", "-o"),
        ("export", "--to", "parquet", "run.db", "-o"),
        ("export", "--to", "preference", "run.db", "--prefer", "happy", "-o"),
        ("export", "--to", "guidance", "run.db", "-o"),
        ("report", "run.db", "-o"),
        ("show", "run.db", "--report"),
        ("locate", "x", "--model", "toy:fork", "-o", "new.db", "--report"),
        (*REPEAT, "-o", "new.db", "--plot"),
        (*REPEAT, "-o", "new.db", "--tables"),
        ("world", "critical-token", "--plot"),
        ("detect", "score", "t.jsonl", *PAIR, "-o", "new.db", "--running"),
        ("detect", "train", "t.jsonl", "--layer", "1", "-o"),
        ("train", "grammar", "-o"),
        ("train", "digits", "-o"),
    ],
    ids=" ".join,
)
def test_a_folder_that_cannot_be_written_to_is_noticed_before_any_work(
    command: tuple[str, ...], made: Path, tmp_path: Path
) -> None:
    before = content(made)
    tmp_path.chmod(0o555)
    done = _run(*command, tmp_path / "new.svg", cwd=made, before=as_a_user)
    assert done.returncode == 2, done.stderr
    assert f"nothing can be written in the folder {tmp_path}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert content(made) == before


def _run(
    *arguments: str | Path, cwd: Path, stdout: object = subprocess.PIPE, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command in a process of its own, whose stdout, rights or limits are others."""
    return subprocess.run(
        [sys.executable, "-B", "-m", "blinkscope.cli.main", *map(str, arguments)],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=before,
        text=True,
        timeout=240,
        check=False,
    )
