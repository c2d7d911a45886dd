"""The run file: what goes in comes out, nothing is doubled, and the completion mark is the last word."""

from __future__ import annotations

import os
import sqlite3
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkscope.errors import UserError
from blinkscope.estimate.source import Draw
from blinkscope.runs import migrations
from blinkscope.runs.migrations import APPLICATION_ID
from blinkscope.runs.spec import Spec
from blinkscope.runs.store import Run
from blinkscope.runs.values import LIMIT, Unreadable, decode, encode

SPEC = Spec({"prompt": "cat or dog?", "seed": 0}, {"error": 0.05}, {"blinkscope": "0.1.0"})
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
DRAWS = st.builds(
    Draw,
    stratum=st.integers(0, 5),
    replicate=st.integers(0, 10**6),
    label=TEXT.filter(bool),
    cost=st.floats(0, 1e6),
    fork=TEXT,
    payload=st.dictionaries(TEXT, TEXT | st.floats(allow_nan=False, allow_infinity=False) | st.lists(st.integers())),
)


def draw(stratum: int, replicate: int, label: str = "dog", **payload: object) -> Draw:
    return Draw(stratum, replicate, label, 12.5, " however", payload)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@settings(max_examples=25, deadline=None)
@given(st.lists(DRAWS, max_size=20, unique_by=lambda d: (d.stratum, d.replicate)), st.data())
def test_draws_come_back_equal_and_in_order_however_they_were_batched(tmp_path_factory, draws, data):
    cut = data.draw(st.integers(0, len(draws)))
    path = tmp_path_factory.mktemp("run") / "run.db"
    with Run.create_or_open(path, SPEC) as run:
        run.add(draws[:cut])
        run.add(iter(draws[cut:]))
    with Run.open(path) as run:
        stored = run.draws()
    assert list(stored) == sorted((d.stratum, d.replicate) for d in draws)
    assert stored == {(d.stratum, d.replicate): d for d in draws}


@pytest.mark.parametrize("reached", [1, 2], ids=["before", "after"])
def test_killed_while_its_format_was_switched_a_run_is_read_and_gone_on_with(path, reached):
    """What a kill can leave: the header half-way to the other format, and the journal that takes it back."""
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
    content, size, nonce = path.read_bytes(), 4096, 7
    page = content[:size]
    checksum = nonce + sum(page[i] for i in range(size - 200, 0, -200))
    header = bytes.fromhex("d9d505f920a163d7") + struct.pack(">5I", 1, nonce, len(content) // size, 512, size)
    record = struct.pack(">I", 1) + page + struct.pack(">I", checksum)
    path.with_name("run.db-journal").write_bytes(header.ljust(512, b"\0") + record)
    path.write_bytes(content[:18] + bytes([reached, reached]) + content[20:])
    with Run.open(path) as run:
        assert run.draws() == {(0, 0): draw(0, 0)}
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 1)])
    with Run.open(path) as run:
        assert len(run.draws()) == 2
    assert os.listdir(path.parent) == ["run.db"]


def test_time_adds_up_over_sittings(path):
    with Run.create_or_open(path, SPEC) as run:
        run.spend(1.0, 0.5)
        run.spend(2.0, 1.5)  # the same sitting, further on
        run.spend(7.0, 7.0, generation=1)
    with Run.create_or_open(path, SPEC) as run:
        assert run.spent() == (2.0, 1.5)
        run.spend(0.25, 0.0)
    with Run.open(path) as run:
        assert run.spent() == (2.25, 1.5)
        assert run.spent(generation=1) == (7.0, 7.0)


def test_a_strangers_time_is_refused(path):
    with Run.create_or_open(path, SPEC) as run:
        run.spend(1.0, 2.0)
    with Run.open(path) as run, pytest.raises(UserError, match="time that the run took"):
        run.spent()


def test_generations_are_kept_apart(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0, "a")])
        run.add([draw(0, 0, "b")], generation=3)
        assert run.draws()[0, 0].label == "a"
        assert run.draws(3)[0, 0].label == "b"
        assert run.draws(1) == {}


def test_nothing_is_stored_twice_and_a_refused_batch_leaves_no_trace(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
        with pytest.raises(sqlite3.IntegrityError):
            run.add([draw(0, 1), draw(0, 0, "other")])
        assert list(run.draws()) == [(0, 0)]
        assert run.draws()[0, 0].label == "dog"


def test_a_batch_whose_source_fails_half_way_leaves_no_trace(path):
    def broken():
        yield draw(0, 0)
        raise KeyboardInterrupt

    with Run.create_or_open(path, SPEC) as run:
        with pytest.raises(KeyboardInterrupt):
            run.add(broken())
        assert run.draws() == {}
        run.add([draw(0, 0)])


def test_half_a_surrogate_pair_does_not_stop_a_run(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0, "a\ud800", text="b\udfff")])
        assert run.draws()[0, 0].label == "a\\ud800"
        assert run.draws()[0, 0].payload == {"text": "b\udfff"}


def test_documents_are_written_once(path):
    big = {"p": [i / 7 for i in range(5000)], "text": "naïve 猫 \x00 \ud800"}
    with Run.create_or_open(path, SPEC) as run:
        assert run.document("path") is None
        run.put_document("path", big)
        with pytest.raises(sqlite3.IntegrityError):
            run.put_document("path", {})
    with Run.open(path) as run:
        assert run.document("path") == big


def test_the_spec_is_there_before_any_work(path):
    run = Run.create_or_open(path, SPEC)
    with Run.open(path) as looker:
        assert looker.spec == SPEC
        assert looker.status is None
        assert looker.summary is None
    run.close()


def test_a_closed_run_is_one_file_and_looking_leaves_nothing_beside_it(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, i, text="x" * 2000) for i in range(100)])
    assert os.listdir(path.parent) == ["run.db"]
    before = path.read_bytes()
    with Run.open(path) as run:
        assert len(run.draws()) == 100
        assert os.listdir(path.parent) == ["run.db"]
    assert os.listdir(path.parent) == ["run.db"]
    assert path.read_bytes() == before
    assert int.from_bytes(before[68:72], "big") == APPLICATION_ID
    assert int.from_bytes(before[60:64], "big") == len(migrations.MIGRATIONS)


def test_a_lone_copy_of_a_running_file_can_be_looked_at(path, tmp_path):
    """Only the file, without its log, and marked as one that has a log."""
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
        run._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        copy = tmp_path / "mailed" / "copy.db"
        copy.parent.mkdir()
        copy.write_bytes(path.read_bytes())
    with Run.open(copy) as looker:
        assert list(looker.draws()) == [(0, 0)]
    assert os.listdir(copy.parent) == ["copy.db"]


def test_a_reader_follows_a_run_that_is_going_on(path):
    with Run.create_or_open(path, SPEC) as run, Run.open(path) as looker:
        run.add([draw(0, 0)])
        assert len(looker.draws()) == 1
        run.add([draw(0, 1)])
        assert len(looker.draws()) == 2
        with pytest.raises(UserError, match="cannot be opened"):
            looker.add([draw(0, 2)])


def test_closing_under_a_reader_keeps_everything_and_the_next_one_tidies_up(path):
    run = Run.create_or_open(path, SPEC)
    run.add([draw(0, 0)])
    looker = Run.open(path)
    run.close()
    assert len(looker.draws()) == 1
    looker.close()
    with Run.create_or_open(path, SPEC) as run:
        assert len(run.draws()) == 1
    assert os.listdir(path.parent) == ["run.db"]


def test_the_completion_mark_comes_last_and_goes_first(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
        run.complete("complete", {"windows": 1})
        assert (run.status, run.summary) == ("complete", {"windows": 1})
    with Run.create_or_open(path, SPEC) as run:
        assert run.status == "complete", "the same request again has nothing to do"
        run.add([draw(0, 1)])
        assert run.status is None, "draws after the mark would not be covered by it"
        run.complete("budget")
        run.complete("complete")
        assert run.status == "complete"


def test_a_changed_target_is_taken_over_and_removes_the_mark(path):
    with Run.create_or_open(path, SPEC) as run:
        run.complete("complete")
    finer = Spec(SPEC.identity, {"error": 0.01}, SPEC.provenance)
    with Run.create_or_open(path, finer) as run:
        assert run.spec == finer
        assert run.status is None


def test_a_changed_provenance_is_remembered_and_mentioned(path):
    with Run.create_or_open(path, SPEC) as run:
        assert run.provenance_changes == ()
    for _ in range(2):
        with Run.create_or_open(path, Spec(SPEC.identity, SPEC.target, {"blinkscope": "0.2.0"})) as run:
            (change,) = run.provenance_changes
            assert str(change) == "blinkscope: '0.1.0' in the file, '0.2.0' now"
    with Run.open(path) as run:
        assert [p.content["blinkscope"] for p in run.provenances] == ["0.1.0", "0.2.0"]


def test_another_identity_is_refused_with_the_difference_and_the_file_stays(path):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
    before = path.read_bytes()
    other = Spec({"prompt": "cat or dog?", "seed": 7}, {"error": 0.01}, {})
    with pytest.raises(UserError, match=r"another run.*\n  seed: 0 in the file, 7 now$"):
        Run.create_or_open(path, other)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["run.db"]


def test_an_older_schema_is_migrated_for_work_and_in_memory_for_a_look(path, monkeypatch):
    with Run.create_or_open(path, SPEC) as run:
        run.add([draw(0, 0)])
    before = path.read_bytes()
    newer = (*migrations.MIGRATIONS, ("CREATE TABLE note (text TEXT)",))
    for module in ("files", "store", "migrations"):
        monkeypatch.setattr(f"blinkscope.runs.{module}.MIGRATIONS", newer)
    with Run.open(path) as run:
        assert len(run.draws()) == 1
        assert run._query("SELECT * FROM note") == []
    assert path.read_bytes() == before
    with Run.create_or_open(path, SPEC) as run:
        assert len(run.draws()) == 1
    with Run.open(path) as run:
        assert run._query("SELECT * FROM note") == []
    assert int.from_bytes(path.read_bytes()[60:64], "big") == len(newer)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x)))
def test_values_survive_their_column(value):
    assert decode(encode(value)) == value
    assert decode(encode([value] * 200)) == [value] * 200


@pytest.mark.parametrize("column", [3, None, b"not zlib", encode(["x" * 1000])[:-5], "{", "NaN", "[" * 10**5, b""])
def test_columns_that_were_not_written_by_us_are_refused(column):
    with pytest.raises(Unreadable):
        decode(column)


def test_a_compression_bomb_is_refused_before_it_unfolds():
    import zlib

    bomb = zlib.compress(b'"' + b"0" * (LIMIT + 1) + b'"')
    assert len(bomb) < 100_000
    with pytest.raises(Unreadable, match="64 MiB"):
        decode(bomb)
    with pytest.raises(UserError, match="64 MiB"):
        encode("0" * (LIMIT + 1))
