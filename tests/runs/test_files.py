"""Files that are not ours, not whole, in use or on a full disk: one plain sentence, and the file stays as it is."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.source import Draw
from blinkscope.outputs import DATABASE
from blinkscope.runs.files import network_disk_note
from blinkscope.runs.migrations import APPLICATION_ID, MIGRATIONS
from blinkscope.runs.spec import Spec
from blinkscope.runs.store import Run

SPEC = Spec({"prompt": "cat or dog?"}, {"error": 0.05}, {"blinkscope": "0.1.0"})


def draws(start: int, count: int = 64, words: int = 20) -> list[Draw]:
    rng = random.Random(start)
    return [
        Draw(i % 7, i, "dog", 12.0, " a", {"text": rng.randbytes(5 * words).hex()}) for i in range(start, start + count)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.fixture
def whole(path):
    """A closed run file of a good many pages."""
    with Run.create_or_open(path, SPEC) as run:
        run.add(draws(0, 500))
    return path


def database(path, *statements: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def empty(path):
    path.write_bytes(b"")


def short(path):
    path.write_bytes(path.read_bytes()[:50])


def noise(path):
    path.write_bytes(random.Random(0).randbytes(20_000))


def text(path):
    path.write_text("Dear diary,\n" * 1000)


def other_application(path):
    path.unlink()
    database(path, "CREATE TABLE bookmarks (url TEXT)", "PRAGMA application_id = 77")


def no_application(path):
    path.unlink()
    database(path, "CREATE TABLE t (x)")


def newer(path):
    database(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")


def no_version(path):
    database(path, "PRAGMA user_version = 0")


def cut_in_the_middle(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_by_a_byte(path):
    path.write_bytes(path.read_bytes()[:-1])


def a_page_of_noise(path):
    content = bytearray(path.read_bytes())
    content[8192:12288] = random.Random(1).randbytes(4096)
    path.write_bytes(content)


def foreign_tables(path):
    path.unlink()
    database(path, "CREATE TABLE t (x)", f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 1")


def an_added_trigger(path):
    database(path, "CREATE TRIGGER t AFTER DELETE ON completion BEGIN DELETE FROM draw; END")


def a_view_in_place_of_a_table(path):
    database(
        path,
        "DROP TABLE draw",
        "CREATE VIEW draw AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x FROM n",
    )


STRANGE = {
    empty: "is empty",
    short: "not a run file",
    noise: "not a run file",
    text: "not a run file",
    other_application: "database of another program",
    no_application: "database of another program",
    newer: "newer blinkscope",
    no_version: "damaged",
    cut_in_the_middle: "cut off",
    cut_by_a_byte: "cut off",
    a_page_of_noise: "damaged",
    foreign_tables: "tables of a run file",
    an_added_trigger: "tables of a run file",
    a_view_in_place_of_a_table: "tables of a run file",
}


@pytest.mark.parametrize("spoil", STRANGE, ids=lambda spoil: spoil.__name__)
def test_a_strange_file_is_named_and_left_untouched(whole, spoil):
    spoil(whole)
    before = hashlib.sha256(whole.read_bytes()).hexdigest()
    for attempt in (lambda: Run.create_or_open(whole, SPEC), lambda: Run.open(whole)):
        with pytest.raises(UserError, match=STRANGE[spoil]) as caught:
            attempt()
        assert str(whole) in str(caught.value)
        assert hashlib.sha256(whole.read_bytes()).hexdigest() == before
        assert os.listdir(whole.parent) == ["run.db"], "nothing is left beside it"


def test_damage_anywhere_ends_in_a_plain_sentence_or_not_at_all(whole):
    """Bytes that blinkscope did not write: 200 files with a few of them changed, none of which may surprise us."""
    good = whole.read_bytes()
    rng = random.Random(2)
    refused = 0
    for _ in range(200):
        bad = bytearray(good)
        for _ in range(rng.choice([1, 4, 40])):
            bad[rng.randrange(len(bad))] = rng.randrange(256)
        whole.write_bytes(bad)
        try:
            with Run.open(whole) as run:
                run.draws()
                assert run.spec.identity is not None
        except UserError:
            refused += 1
        assert whole.read_bytes() == bad
    assert refused > 20


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", b"\xff\x00"),
        ("label", ""),
        ("fork", b"x"),
        ("cost", "much"),
        ("cost", float("inf")),
        ("replicate", -1),
        ("payload", "[1]"),
        ("payload", '{"x": NaN}'),
        ("payload", b"\x78\x9c"),
        ("payload", 7),
    ],
)
def test_a_well_formed_file_with_values_that_we_never_write_is_refused(whole, column, value):
    connection = sqlite3.connect(whole)
    with connection:
        connection.execute(f"UPDATE draw SET {column} = ? WHERE stratum = 0 AND replicate = 0", (value,))
    connection.close()
    with Run.open(whole) as run, pytest.raises(UserError, match="damaged"):
        run.draws()


def test_text_that_is_not_utf8_is_refused(whole):
    connection = sqlite3.connect(whole)
    with connection:
        connection.execute("UPDATE draw SET label = CAST(x'ff41' AS TEXT) WHERE replicate = 0")
    connection.close()
    with Run.open(whole) as run, pytest.raises(UserError, match="damaged"):
        run.draws()


def test_places_that_do_not_exist(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        Run.create_or_open(tmp_path / "missing" / "run.db", SPEC)
    with pytest.raises(UserError, match="is a folder"):
        Run.create_or_open(tmp_path, SPEC)
    with pytest.raises(UserError, match="there is no file"):
        Run.open(tmp_path / "missing.db")
    with pytest.raises(UserError, match="is not a file"):
        Run.open(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_log_without_its_file_is_not_mixed_into_a_new_run(path):
    log = path.with_name("run.db-wal")
    log.write_bytes(b"what was drawn last")
    with pytest.raises(UserError, match="moved or deleted"):
        Run.create_or_open(path, SPEC)
    assert log.read_bytes() == b"what was drawn last"


@pytest.mark.parametrize("name", ["uv.lock", "uv.new"])
def test_a_file_of_the_users_beside_the_run_is_not_taken_for_one_of_ours(tmp_path, name):
    (tmp_path / name).write_text("version = 1\nrequires-python = '>=3.11'\n")
    with pytest.raises(UserError, match=rf"{name} .*choose another run file"):
        Run.create_or_open(tmp_path / "uv", SPEC)
    assert {file.name: file.read_text()[:11] for file in tmp_path.iterdir()} == {name: "version = 1"}


@pytest.mark.parametrize(("name", "left"), [("run.db.lock", b"12345"), ("run.db.new", b""), ("run.db.new", DATABASE)])
def test_what_a_killed_process_left_is_no_hindrance(path, name, left):
    path.with_name(name).write_bytes(left)
    Run.create_or_open(path, SPEC).close()
    assert os.listdir(path.parent) == ["run.db"]


def in_a_process(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Run a script that starts with this module's names at hand."""
    prelude = "import sys; sys.path.insert(0, sys.argv[1])\nfrom test_files import *\npath = Path(sys.argv[2])\n"
    command = [sys.executable, "-c", prelude + textwrap.dedent(script), os.path.dirname(__file__), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


def test_a_folder_that_cannot_be_written_is_named():
    """As an ordinary user: the superuser may write everywhere."""
    script = """
        if os.getuid() == 0:
            os.setuid(65534)
        for name in ("run.db", "new.db"):
            try:
                Run.create_or_open(path.with_name(name), SPEC)
            except UserError as error:
                print(error)
        with Run.open(path) as run:
            print(len(run.draws()))
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.db"
        with Run.create_or_open(path, SPEC) as run:
            run.add(draws(0, 500))
        path.parent.chmod(0o555)
        output, _ = in_a_process(script, path).communicate(timeout=60)
        path.parent.chmod(0o755)
    first, second, count = output.splitlines()
    assert "run.db: permission denied" in first
    assert "new.db: permission denied" in second
    assert count == "500", "looking needs no right to write"


def test_a_full_database_keeps_what_was_drawn(path):
    run = Run.create_or_open(path, SPEC)
    run.add(draws(0))
    (pages,) = run._query("PRAGMA page_count")[0]
    run._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(EngineError, match=r"no space left .* what was drawn is kept"):
        run.add(draws(64, 1000))
    assert list(run.draws().values()) == sorted(draws(0), key=lambda d: (d.stratum, d.replicate))
    run._connection.execute("PRAGMA max_page_count = 1000000")
    run.add(draws(64))
    run.close()
    with Run.open(path) as run:
        assert len(run.draws()) == 128


@pytest.mark.parametrize("limit", [0, 3000, 40_000, 300_000])
def test_a_disk_that_takes_no_more_keeps_whole_batches(path, limit):
    """A process whose files may not grow beyond the limit: its writes fail as they do on a full disk."""
    script = """
        import resource
        with Run.create_or_open(path, SPEC) as run:
            pass
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
        stored = 0
        try:
            with Run.create_or_open(path, SPEC) as run:
                while True:
                    run.add(draws(stored))
                    stored += 64
        except EngineError as error:
            print(stored, error)
    """
    process = in_a_process(script, path, limit)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    stored, message = output.split(" ", 1)
    assert "space left" in message
    assert "is kept" in message
    assert (int(stored) > 0) == (limit >= 40_000)
    with Run.create_or_open(path, SPEC) as run:
        assert len(run.draws()) == int(stored)
        run.add(draws(int(stored)))
    assert os.listdir(path.parent) == ["run.db"]


def test_a_disk_without_room_for_a_new_run(path):
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192,) * 2)
        try:
            Run.create_or_open(path, SPEC)
        except EngineError as error:
            print(error)
    """
    process = in_a_process(script, path)
    output, _ = process.communicate(timeout=60)
    assert "space left" in output
    assert os.listdir(path.parent) == []


def test_a_second_process_is_refused_and_told_who_is_at_work(path):
    script = """
        with Run.create_or_open(path, SPEC) as run:
            run.add(draws(0))
            print("working", flush=True)
            sys.stdin.readline()
    """
    worker = in_a_process(script, path)
    assert worker.stdout.readline() == "working\n"
    with pytest.raises(UserError, match=rf"process \(pid {worker.pid}\) is working on .*run\.db"):
        Run.create_or_open(path, SPEC)
    with Run.open(path) as looker:
        assert len(looker.draws()) == 64, "looking is allowed meanwhile"
    worker.communicate("\n", timeout=60)
    assert worker.returncode == 0
    with Run.create_or_open(path, SPEC) as run:
        assert len(run.draws()) == 64
    assert os.listdir(path.parent) == ["run.db"]


def test_one_process_cannot_work_on_one_file_twice_by_any_name(path):
    alias = path.with_name("alias.db")
    with Run.create_or_open(path, SPEC) as run:
        alias.symlink_to(path)
        for name in (path, alias):
            with pytest.raises(UserError, match="already being worked on by this process"):
                Run.create_or_open(name, SPEC)
        run.add(draws(0))
    with Run.create_or_open(alias, SPEC) as run:
        assert len(run.draws()) == 64


def test_the_lock_dies_with_a_killed_process_even_while_its_children_live(path):
    script = """
        import os, time
        run = Run.create_or_open(path, SPEC)
        run.add(draws(0))
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.readline()
    """
    worker = in_a_process(script, path)
    child = int(worker.stdout.readline())
    try:
        worker.send_signal(signal.SIGKILL)
        worker.wait(timeout=60)
        with Run.create_or_open(path, SPEC) as run:
            assert len(run.draws()) == 64
    finally:
        os.kill(child, signal.SIGKILL)
        worker.stdout.close()
        worker.stdin.close()


def test_killed_at_twenty_random_moments_loses_nothing_and_doubles_nothing(path):
    """Batches of 7 draws are told to us once stored; after each kill the file holds those, and whole batches only."""
    script = """
        with Run.create_or_open(path, SPEC) as run:
            stored = len(run.draws())
            print(stored, flush=True)
            while True:
                run.add(draws(stored, 7, words=300))
                stored += 7
                print(stored, flush=True)
    """
    rng = random.Random(3)
    told = 0
    for kill in range(20):
        worker = in_a_process(script, path)
        # Ten kills fall anywhere from the start-up on, ten after some batches, in the middle of a later one.
        if kill % 2:
            time.sleep(rng.uniform(0.02, 0.4))
        else:
            for _ in range(rng.randrange(1, 40)):
                told = int(worker.stdout.readline())
        worker.send_signal(signal.SIGKILL)
        told = max([told, *map(int, worker.stdout.read().split())])
        worker.wait(timeout=60)
        worker.stdout.close()
        worker.stdin.close()
        if not path.exists():
            assert told == 0
            continue
        with Run.open(path) as run:
            stored = run.draws()
        assert len(stored) % 7 == 0
        assert told <= len(stored) <= told + 7
        assert sorted(stored.values(), key=lambda d: d.replicate) == draws_up_to(len(stored))
    assert told > 50, "the worker was stopped before it did anything; the test has shown nothing"
    with Run.create_or_open(path, SPEC) as run:
        assert len(run.draws()) >= told
    assert os.listdir(path.parent) == ["run.db"]


def draws_up_to(end: int) -> list[Draw]:
    return [draw for start in range(0, end, 7) for draw in draws(start, 7, words=300)]


def test_a_network_disk_is_pointed_out(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/root / ext4 rw 0 0\nserver:/home /home nfs4 rw 0 0\n/dev/sdb /home/local\\040disk ext4 rw 0 0\nodd\n"
        "user@host: /mnt/far fuse.sshfs rw 0 0\n"
    )
    assert "network disk (nfs4)" in (network_disk_note(Path("/home/ann/run.db"), mounts) or "")
    assert "fuse.sshfs" in (network_disk_note(Path("/mnt/far/run.db"), mounts) or "")
    assert network_disk_note(Path("/home/local disk/run.db"), mounts) is None
    assert network_disk_note(Path("/homework/run.db"), mounts) is None
    assert network_disk_note(Path("/home/run.db"), tmp_path / "missing") is None
