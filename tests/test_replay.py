"""Recorded rollouts: reading, the recorded law, draws with and without replacement, comparison, other formats."""

from __future__ import annotations

import copy
import gzip
import json
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blinkscope import replay_formats
from blinkscope.converters import from_pivotal_tokens, from_sentences, read_recorded
from blinkscope.errors import UserError
from blinkscope.estimate import loop, streams
from blinkscope.estimate.record import MethodOptions, PathRecord
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.source import Draw, Order
from blinkscope.estimate.trace import Target
from blinkscope.feature import OTHER
from blinkscope.replay import (
    ReplaySource,
    _spread_uniforms,
    default_method,
    labels_of,
    limited,
    record_of,
    recorded_law,
    source_of,
    truth_of,
)
from blinkscope.replay_comparison import agreement, compare_with_resamples
from blinkscope.replay_formats import (
    Item,
    RecordedFork,
    RecordedToken,
    Resample,
    read_rollouts,
    select,
    write_rollouts,
)

FIXTURES = Path(__file__).parent / "fixtures"
LABELS = ("yes", "no", "(unparsed)")
LARGEST_Z = 5.5  # of a two-sided normal test: false alarm below 4e-8 each; all streams are fixed


@pytest.fixture(scope="module")
def umbrella() -> Item:
    return select(read_rollouts(FIXTURES / "rollouts.jsonl"), "umbrella")


# Reading and writing


def test_a_file_is_read_with_what_may_be_missing(umbrella: Item) -> None:
    items = read_rollouts(FIXTURES / "rollouts.jsonl")
    assert [item.id for item in items] == ["umbrella", "coin", "direct"]
    assert umbrella.text == "Clouds are dark: yes"
    assert umbrella.forks[1] == RecordedFork(0, "Well", 0.1, {"no": 8, "yes": 2}, 9)
    assert umbrella.resamples[-1] == Resample(5, {"yes": 20}, None)
    assert items[1].tokens[2] == RecordedToken(" heads", None)
    assert items[1].resamples == items[2].forks == ()
    assert labels_of(umbrella) == LABELS
    assert labels_of(umbrella, 2) == ("yes", "no", OTHER)


def test_select_takes_the_first_and_names_some_where_there_is_none() -> None:
    items = read_rollouts(FIXTURES / "rollouts.jsonl")
    assert select(items).id == "umbrella"
    with pytest.raises(UserError, match=r"no item 'rain'; the items are 'umbrella', 'coin', 'direct'\."):
        select(items, "rain")
    many = [replace(items[0], id=f"q{i}") for i in range(30)]
    with pytest.raises(UserError, match=r"'q7' and 22 more\."):
        select(many, "rain")


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda row: row.pop(name)


def put(*path: str | int, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        place: Any = row
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


FORK = ("forks", 0)
BAD_ROWS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (without("id"), "id is missing; it must be a text"),
    (put("id", value=7), "id is 7; it must be a text"),
    (put("id", value=""), "id is empty"),
    (put("id", value="\ud800"), "id is .*, which holds half of a character"),
    (without("prompt"), "prompt is missing"),
    (without("final_label"), "final_label is missing"),
    (put("final_label", value=3), "final_label is 3; it must be a text"),
    (put("final_label", value=" "), "final_label is ' '; a label is a text that is not empty"),
    (put("final_label", value="(other)"), r"final_label is '\(other\)', which stands for the sum of rare labels"),
    (without("tokens"), "tokens is missing or empty"),
    (put("tokens", value={}), "tokens is {}; it must be a list"),
    (put("tokens", 1, value=" are"), r"tokens\[1\] is ' are'; it must be a JSON object"),
    (put("tokens", 1, "text", value=None), r"tokens\[1\].text is missing"),
    (put("tokens", 1, "p", value=1.5), r"tokens\[1\].p is 1.5; a probability is a number from 0 to 1"),
    (put("tokens", 1, "p", value="0.5"), r"tokens\[1\].p is '0.5'"),
    (put("tokens", 1, "p", value=True), r"tokens\[1\].p is True"),
    (put("tokens", 1, "p", value=float("nan")), "the row holds NaN; every number must be finite"),
    (put("tokens", 1, "p", value=-float("inf")), "the row holds -Infinity"),
    (put("tokens", 0, "p", value=None), r"tokens\[0\].p is missing; it is needed where a fork is recorded"),
    (put(*FORK, "p", value=-0.1), r"forks\[0\].p is -0.1"),
    (put(*FORK, "p", value=0.41), r"forks\[1\].p is 0.1, with which the probabilities at position 0 sum to 1.01"),
    (put(*FORK, "position", value=5), r"forks\[0\].position is 5; of 5 tokens the last is at 4"),
    (put(*FORK, "position", value=-1), r"forks\[0\].position is -1; it must be a whole number"),
    (put(*FORK, "position", value=0.0), r"forks\[0\].position is 0.0; it must be a whole number"),
    (put(*FORK, "token", value="Clouds"), r"forks\[0\].token is 'Clouds', which is the path's own token"),
    (put(*FORK, "token", value="Well"), r"forks\[1\].token is 'Well', which is .* a fork that is listed already"),
    (put(*FORK, "outcomes", value={}), r"forks\[0\].outcomes is empty; leave out what was never continued"),
    (put(*FORK, "outcomes", value={"yes": 0}), r"forks\[0\].outcomes is empty"),
    (put(*FORK, "outcomes", value=["yes"]), r"forks\[0\].outcomes is \['yes'\]; it must say how often"),
    (put(*FORK, "outcomes", "yes", value=-1), r"forks\[0\].outcomes\['yes'\] is -1; it must be a whole number"),
    (put(*FORK, "outcomes", "yes", value=2.0), r"forks\[0\].outcomes\['yes'\] is 2.0"),
    (put(*FORK, "outcomes", "yes", value=True), r"forks\[0\].outcomes\['yes'\] is True"),
    (
        put(*FORK, "outcomes", "yes", value=1_000_000),
        "forks and resamples hold 1,000,094 outcomes; at most",
    ),
    (put(*FORK, "outcomes", "(other)", value=1), r"forks\[0\].outcomes: the label is '\(other\)'"),
    (put(*FORK, "mean_tokens", value=-2), r"forks\[0\].mean_tokens is -2; it is a number of tokens"),
    (put(*FORK, "mean_tokens", value=10**400), r"forks\[0\].mean_tokens is 1000"),
    (put("resamples", 1, "position", value=6), r"resamples\[1\].position is 6; the path has 5 tokens to keep"),
    (put("resamples", 1, "position", value=0), r"resamples\[1\].position is 0, as before"),
    (lambda row: (row.pop("forks"), row.pop("resamples")), "forks and resamples are both missing"),
]


@pytest.mark.parametrize(("change", "complaint"), BAD_ROWS, ids=[complaint[:40] for _, complaint in BAD_ROWS])
def test_a_bad_row_is_refused_by_file_line_and_field(
    change: Callable[[dict[str, Any]], Any], complaint: str, tmp_path: Path
) -> None:
    good, *_ = (FIXTURES / "rollouts.jsonl").read_text().splitlines()
    row = json.loads(good)
    change(row)
    path = tmp_path / "bad.jsonl"
    path.write_text(f"{good.replace('umbrella', 'earlier', 1)}\n\n{json.dumps(row)}\n")
    with pytest.raises(UserError, match=rf"bad\.jsonl, line 3: {complaint}") as caught:
        read_rollouts(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "file.jsonl"
    good = (FIXTURES / "rollouts.jsonl").read_bytes()
    for content, complaint in [
        (b"", "holds no rollouts"),
        (b"\n \n", "holds no rollouts"),
        (b"[1, 2", "line 1: the row is not JSON"),
        (b"[" * 1_000_000, "line 1: the row is nested too deeply"),
        (b"3", "line 1: the row is 3; it must be a JSON object"),
        (b'{"id": "\xff"}', "line 1: the row is not UTF-8 text"),
        (b'{"id": "a", "prompt": 1e999}', "line 1: prompt is inf; it must be a text"),
        (good + good, "line 5: id is 'umbrella', as in an earlier line"),
        (gzip.compress(good)[:200], "is damaged or cut off"),
        (gzip.compress(good) + b"more", "is damaged or cut off"),
    ]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=complaint):
            read_rollouts(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_rollouts(tmp_path / "absent.jsonl")
    with pytest.raises(UserError, match="is a folder"):
        write_rollouts([], tmp_path)


def test_nothing_unpacks_into_all_of_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_formats, "LARGEST_ROW", 1 << 16)
    monkeypatch.setattr(replay_formats, "LARGEST_FILE", 1 << 20)
    path = tmp_path / "bomb.jsonl.gz"
    for block, complaint in [(b" " * 1024, "line 1: the row has more than 65,536"), (b" " * 1023 + b"\n", "split it")]:
        path.write_bytes(gzip.compress(block * (1 << 15)))
        tracemalloc.start()
        with pytest.raises(UserError, match=complaint):
            read_rollouts(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 21 < len(block) << 15


text = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
label = text.filter(lambda value: value.strip() and value != OTHER)
outcomes = st.dictionaries(label, st.integers(0, 9), min_size=1, max_size=4).filter(lambda counts: sum(counts.values()))
mean_tokens = st.none() | st.floats(0, 1000)


@st.composite
def items(draw: st.DrawFn, id: str = "item") -> Item:
    """Any sound item: up to five tokens, up to three forks at each, remainders of any size."""
    tokens, forks = [], []
    for s in range(draw(st.integers(1, 5))):
        shares = np.asarray([*draw(st.lists(st.integers(0, 20), min_size=4, max_size=4)), 1])
        p = shares / shares.sum()
        names = draw(st.lists(text, min_size=4, max_size=4, unique=True))
        number = draw(st.integers(0, 3))
        tokens.append(RecordedToken(names[0], float(p[0]) if number or draw(st.booleans()) else None))
        for name, share in zip(names[1 : 1 + number], p[1:], strict=False):
            forks.append(RecordedFork(s, name, float(share), draw(outcomes), draw(mean_tokens)))
    rows = draw(st.lists(st.integers(0, len(tokens)), unique=True, min_size=0 if forks else 1))
    resamples = [Resample(row, draw(outcomes), draw(mean_tokens)) for row in rows]
    return Item(id, draw(text), tuple(tokens), draw(label), tuple(forks), tuple(resamples))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(0, 3), st.booleans())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, number: int, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("rollouts") / ("rollouts.jsonl" + ".gz" * zipped)
    written = tuple(data.draw(items(id=f"item {i}")) for i in range(1 + number))
    write_rollouts(written, path)
    assert read_rollouts(path) == written
    first = path.read_bytes()
    write_rollouts(written, path)
    assert path.read_bytes() == first
    assert first.startswith(b"\x1f\x8b") == zipped


# The recorded law


def test_the_recorded_law_by_hand(umbrella: Item) -> None:
    law = recorded_law(umbrella)
    np.testing.assert_allclose(law.recursion.p, [5 / 9, 1, 0.6, 1, 8 / 9])
    np.testing.assert_allclose(law.recursion.off_path, [4 / 9, 0, 0.4, 0, 1 / 9], atol=1e-15)
    assert [(fork.token, pytest.approx(fork.p)) for fork in law.forks[0]] == [("The", 1 / 3), ("Well", 1 / 9)]
    truth = truth_of(umbrella)
    assert truth.labels == LABELS
    decided, white = [8 / 9, 1 / 9, 0], [8 / 15, 1 / 15 + 0.36, 0.04]
    first = 5 / 9 * np.asarray(white) + 4 / 9 * np.asarray([0.5, 0.5, 0])
    np.testing.assert_allclose(truth.mean, [first, white, white, decided, decided, [1, 0, 0]])
    # Remainders 0.1, 0, 0, 0.1, 0.1: u_4 = 0.1, u_3 = 0.9 u_4 + 0.1, which is the largest.
    assert law.unrecorded == pytest.approx(0.19)


@settings(max_examples=200, deadline=None)
@given(items())
def test_the_recorded_law_is_a_law(item: Item) -> None:
    law = recorded_law(item)
    leaving = np.zeros(len(item.tokens))
    for s, forks in law.forks.items():
        leaving[s] = sum(fork.p for fork in forks)
    np.testing.assert_allclose(law.recursion.p + leaving, 1, atol=1e-12)
    mean = truth_of(item).mean
    np.testing.assert_allclose(mean.sum(axis=1), 1, atol=1e-9)
    assert (mean > -1e-12).all()
    assert 0 <= law.unrecorded <= 1 + 1e-12


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0, 1))
def test_what_was_not_recorded_moves_no_row_by_more_than_the_unrecorded_weight(
    seed: int, steps: int, kept: float
) -> None:
    """A model's law with three alternatives everywhere, of which some are left out of the record."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 0.7), steps)
    counts = rng.integers(1, 20, (steps, 3, 2)) * rng.integers(0, 2, (steps, 3, 2))
    counts[..., 0] += counts.sum(axis=2) == 0
    share = counts / counts.sum(axis=2, keepdims=True)
    recorded = rng.random((steps, 3)) < kept
    recorded[0, 0] = True
    forks = tuple(
        RecordedFork(s, f"f{f}", float(p[s, 1 + f]), dict(zip("ab", map(int, counts[s, f]), strict=True)))
        for s, f in np.argwhere(recorded).tolist()
    )
    item = Item("full", "", tuple(RecordedToken("x", float(row[0])) for row in p), "a", forks)
    gamma = np.einsum("sf,sfl->sl", p[:, 1:], share) / p[:, 1:].sum(axis=1, keepdims=True)
    exact = Recursion(p[:, 0], 1 - p[:, 0]).curve(gamma, np.asarray([1.0, 0.0]))
    off = abs(truth_of(item).mean[:, 0] - exact[:, 0])
    assert off.max() <= recorded_law(item).unrecorded + 1e-9


# Draws


def drawn(
    source: ReplaySource, orders: list[Order], round_: int = 0, known: frozenset[tuple[int, int]] = frozenset()
) -> list[Draw]:
    return list(source.draw(orders, round_, known))


def everything(source: ReplaySource) -> list[Draw]:
    """All draws that there are without replacement."""
    limits = {stratum.key: source.limit(stratum.key) or 0 for stratum in source.strata}
    orders = [Order(s, half, 0, (limit + 1 - half) // 2) for s, limit in limits.items() for half in (0, 1)]
    return drawn(source, [order for order in orders if order.count])


@settings(max_examples=150, deadline=None)
@given(items().filter(lambda item: any(fork.p for fork in item.forks)), st.integers(0, 2**32))
def test_no_outcome_is_drawn_twice_and_draws_end_where_one_is_missing(item: Item, seed: int) -> None:
    record = record_of(item, MethodOptions(), seed=seed)
    source = source_of(item, record)
    found: dict[tuple[int, str], Counter[str]] = defaultdict(Counter)
    for draw in everything(source):
        found[draw.stratum, draw.fork][draw.label] += 1
    for stratum in source.strata:
        s = stratum.key
        forks = {fork.token: Counter(fork.outcomes) for fork in item.forks if fork.position == s and fork.p > 0}
        assert all(found[s, token] <= outcomes for token, outcomes in forks.items())
        assert any(found[s, token].total() == outcomes.total() for token, outcomes in forks.items())
        if len(forks) == 1:
            assert source.limit(s) == sum(next(iter(forks.values())).values())
        for half in (0, 1):
            room = ((source.limit(s) or 0) + 1 - half) // 2
            with pytest.raises(UserError, match=f"recorded at position {s} have run out: there are {source.limit(s)}"):
                drawn(source, [Order(s, half, room, 1)])


@settings(max_examples=50, deadline=None)
@given(items().filter(lambda item: any(fork.p for fork in item.forks)), st.integers(0, 2**32), st.booleans())
def test_draws_do_not_depend_on_rounds_or_on_what_is_known(item: Item, seed: int, with_replacement: bool) -> None:
    record = record_of(item, MethodOptions(), seed=seed)
    source = source_of(item, record, with_replacement=with_replacement)
    s = source.strata[0].key
    count = 8 if with_replacement else ((source_of(item, record).limit(s) or 0) + 1) // 2
    whole = drawn(source, [Order(s, 0, 0, count)], 3)
    known = frozenset((draw.stratum, draw.replicate) for draw in whole[::2])
    rest = drawn(source_of(item, record, with_replacement=with_replacement), [Order(s, 0, 0, count)], 3, known)
    assert rest == whole[1::2]
    if not with_replacement:
        pieces = [drawn(source, [Order(s, 0, i, 1)], 5 + i) for i in reversed(range(count))]
        assert [draw for piece in reversed(pieces) for draw in piece] == whole


def test_each_draw_has_the_recorded_law_by_itself(umbrella: Item) -> None:
    """8 binomial tests over 4,000 seeds."""
    seeds, gamma, well = 4000, 0.5, 0.25
    record = record_of(umbrella)
    for with_replacement in (False, True):
        labels, tokens = np.zeros(2), np.zeros(2)
        for seed in range(seeds):
            source = source_of(umbrella, replace(record, seed=seed), with_replacement=with_replacement)
            for i, order in enumerate([Order(0, 0, 0, 1), Order(0, 1, 2, 1)]):
                (draw,) = drawn(source, [order])
                labels[i] += draw.label == "yes"
                tokens[i] += draw.fork == "Well"
        z = (labels - gamma * seeds) / np.sqrt(seeds * gamma * (1 - gamma))
        assert abs(z).max() < LARGEST_Z
        z = (tokens - well * seeds) / np.sqrt(seeds * well * (1 - well))
        assert abs(z).max() < LARGEST_Z


@given(st.integers(0, 2**32), st.integers(1, 200), st.data())
def test_every_stretch_of_first_choices_is_spread_evenly(seed: int, count: int, data: st.DataObject) -> None:
    u = _spread_uniforms(count, np.random.default_rng(seed))
    assert len(u) == count
    start = data.draw(st.integers(0, count - 1))
    stretch = u[start : data.draw(st.integers(start + 1, count))]
    for cells in (1, 2, 4, 8, 16):
        number = np.bincount((stretch * cells).astype(int), minlength=cells)
        assert len(number) == cells
        assert number.max() - number.min() <= 1


def test_draws_say_what_they_began_with_and_what_they_cost(umbrella: Item) -> None:
    record = record_of(umbrella)
    assert record.strata == ((0, pytest.approx(7.875)), (2, 2.5), (4, 1.0))
    draws = everything(source_of(umbrella, record))
    assert {(draw.fork, draw.cost) for draw in draws} == {("The", 7.5), ("Well", 9.0), (" white", 2.5), (" no", 0.2)}
    assert all(draw.payload["p"] == pytest.approx(0.4) for draw in draws if draw.fork == " white")
    coin = select(read_rollouts(FIXTURES / "rollouts.jsonl"), "coin")
    assert record_of(coin).strata == ((1, 1.0),)
    longer = replace(coin, tokens=coin.tokens + coin.tokens)
    assert record_of(longer).strata == ((1, 4.0),)


# Analysis


@pytest.fixture(scope="module")
def plenty(umbrella: Item) -> Item:
    """The same with ten times as many outcomes."""
    forks = [replace(fork, outcomes={name: 10 * n for name, n in fork.outcomes.items()}) for fork in umbrella.forks]
    return replace(umbrella, forks=tuple(forks))


def test_an_interrupted_analysis_ends_where_the_uninterrupted_one_does(plenty: Item) -> None:
    record, target = record_of(plenty, seed=3), Target(error=0.08)
    whole = loop.run(source_of(plenty, record), record.method_of_loop(target), target)
    assert whole.status == "complete"
    assert whole.posterior.sd.max() <= 0.08
    stored: dict[tuple[int, int], Draw] = {}

    class Interrupted:
        strata = source_of(plenty, record).strata

        def draw(self, *arguments: Any) -> Iterator[Draw]:
            for i, draw in enumerate(source_of(plenty, record).draw(*arguments)):
                if i == 3:
                    raise KeyboardInterrupt
                yield draw

    sittings = 0
    status = "interrupted"
    while status == "interrupted":
        sittings += 1
        outcome = loop.run(
            Interrupted(),
            record.method_of_loop(target),
            target,
            known=dict(stored),
            record=lambda draw: stored.update({(draw.stratum, draw.replicate): draw}),
        )
        status = outcome.status
    assert sittings > 5
    assert outcome.draws == whole.draws
    np.testing.assert_array_equal(outcome.posterior.mean, whole.posterior.mean)


def test_the_record_survives_a_run_file_and_shows_what_was_asked(umbrella: Item) -> None:
    record = record_of(umbrella, seed=5, labels=2, model="replay:rollouts.jsonl")
    assert PathRecord.from_json(json.loads(json.dumps(record.to_json()))) == record
    assert (record.settings["item"], record.settings["model"]) == ("umbrella", "replay:rollouts.jsonl")
    assert record.text == umbrella.text
    assert [step.text for step in record.steps] == ["Clouds", " are", " dark", ":", " yes"]
    assert "up to 0.19" in record.notes[0]
    tokens = (*[RecordedToken("x", 1.0)] * 2, umbrella.tokens[2])
    assert record_of(replace(umbrella, tokens=tokens, forks=umbrella.forks[2:3], resamples=())).notes == ()


@pytest.mark.parametrize("method", ["divergence", "grid", "bisect"])
def test_with_replacement_every_method_finds_the_exact_curve(umbrella: Item, method: str) -> None:
    """At most 6 rows x 3 labels, each from at least 2,000 draws; a share's standard deviation is at most 0.5."""
    number = 2000
    options = {"divergence": {}, "grid": {"fractions": (0.0, 0.4, 0.8)}, "bisect": {"threshold": 0.01}}[method]
    record = record_of(umbrella, MethodOptions(method, **({"resamples": number} if options else {}), **options))
    source, target = source_of(umbrella, record, with_replacement=True), Target(error=0.006)
    outcome = loop.run(source, record.method_of_loop(target), target)
    assert source.limit(0) is None
    exact = truth_of(umbrella)
    truth = exact.mean[outcome.posterior.index.astype(int)]
    columns = [exact.labels.index(name) for name in outcome.posterior.labels]
    assert set(columns) == {0, 1, 2}
    assert abs(outcome.posterior.mean - truth[:, columns]).max() < LARGEST_Z * 0.5 / np.sqrt(number)
    if method != "divergence":
        # Expected lengths by hand: a fork costs its token and mean_tokens, the path a token a step.
        last = 1 + 1 / 9 * 0.2
        third = 1 + 0.6 * (1 + last) + 0.4 * 2.5
        (cost,) = {draw.cost for draw in outcome.draws if draw.stratum == 0}
        assert cost == pytest.approx(1 + 5 / 9 * (1 + third) + 4 / 9 * 7.875)


def test_free_continuations_alone_are_read_row_by_row() -> None:
    direct = select(read_rollouts(FIXTURES / "rollouts.jsonl"), "direct")
    record = record_of(direct)
    assert (record.method, record.notes) == (MethodOptions("grid", fractions=(0.0, 0.5), resamples=6), ())
    source, target = source_of(direct, record), Target()
    outcome = loop.run(source, record.method_of_loop(target), target)
    assert len(outcome.draws) == 12
    assert all(draw.fork == "" for draw in outcome.draws)
    assert Counter(draw.label for draw in outcome.draws if draw.stratum == 0) == {"heads": 3, "tails": 3}
    with pytest.raises(UserError, match="position 0 have run out: there are 6 draws, and number 7 was asked for"):
        drawn(source, [Order(0, 0, 3, 1)])
    with pytest.raises(UserError, match=r"item 'direct' has no forks, .* use method grid"):
        record_of(direct, MethodOptions())


def test_the_record_knows_how_many_draws_there_are(umbrella: Item) -> None:
    record = limited(record_of(umbrella, seed=4), umbrella)
    source = source_of(umbrella, record)
    assert record.limits == tuple(source.limit(key) for key, _ in record.strata)
    assert [stratum.limit for stratum in record.places] == list(record.limits)
    # Replicates are dealt to the halves in turn, so their rooms add up.
    assert all(stratum.room(0) + stratum.room(1) == stratum.limit for stratum in record.places)
    document = json.loads(json.dumps(record.to_json()))
    assert PathRecord.from_json(document) == record
    for name in ("limits", "unrecorded"):  # of a run file from before there were any
        del document[name]
    assert PathRecord.from_json(document).places == record_of(umbrella, seed=4).places
    prediction = record.prediction(Target(error=0.001))
    assert prediction.continuations == sum(record.limits)
    assert record_of(umbrella).prediction(Target(error=0.001)).continuations > 1000


def test_an_analysis_ends_when_the_outcomes_run_out(umbrella: Item) -> None:
    record, target = limited(record_of(umbrella), umbrella), Target(error=0.01)
    outcome = loop.run(source_of(umbrella, record), record.method_of_loop(target), target)
    assert (outcome.status, outcome.ran_out) == ("budget", True)
    trace = record.trace(outcome, target)
    assert trace.notes[-1].startswith("the recorded outcomes have run out")
    assert trace.unrecorded_weight == pytest.approx(0.19)
    assert trace.skipped_weight == 0
    known = {(draw.stratum, draw.replicate): draw for draw in outcome.draws}
    again = record.trace(loop.run(None, record.method_of_loop(target), target, known=known), target)
    assert again.to_json() == trace.to_json()
    rough = Target(error=0.3)
    outcome = loop.run(source_of(umbrella, record), record.method_of_loop(rough), rough)
    assert record.trace(outcome, rough).notes == record.notes
    grid = limited(record_of(umbrella, default_method(umbrella, "grid")), umbrella)
    assert grid.unrecorded == 0
    assert (grid.method.fractions, grid.method.resamples) == ((0.0, 0.4), 20)
    with pytest.raises(UserError, match="no free continuations after 1 tokens"):
        limited(record_of(umbrella, MethodOptions("grid", fractions=(0.2,))), umbrella)


def test_every_format_is_known_by_its_first_row(tmp_path: Path) -> None:
    assert read_recorded(FIXTURES / "rollouts.jsonl") == read_rollouts(FIXTURES / "rollouts.jsonl")
    assert read_recorded(FIXTURES / "sentences.jsonl") == from_sentences(FIXTURES / "sentences.jsonl")
    assert read_recorded(FIXTURES / "pivotal_tokens.jsonl") == from_pivotal_tokens(FIXTURES / "pivotal_tokens.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="holds no rollouts"):
        read_recorded(tmp_path / "empty.jsonl")


def test_a_method_that_looks_where_nothing_was_recorded_is_told_so(umbrella: Item) -> None:
    record = record_of(umbrella, MethodOptions("grid", resamples=4))
    target = Target()
    with pytest.raises(UserError, match="no continuations were recorded at position 1; use another method"):
        loop.run(source_of(umbrella, record), record.method_of_loop(target), target)
    ended = replace(umbrella, forks=(), resamples=umbrella.resamples[-1:])
    with pytest.raises(UserError, match="has no free continuations from before its last token"):
        default_method(ended)


# Comparison


def test_the_comparison_by_hand(umbrella: Item) -> None:
    comparison = compare_with_resamples(umbrella)
    assert comparison.positions == (0, 2)
    assert comparison.labels == LABELS
    np.testing.assert_allclose(comparison.predicted, truth_of(umbrella).mean[[0, 2]])
    np.testing.assert_allclose(comparison.observed, [[11 / 20, 9 / 20, 0], [11 / 20, 9 / 20, 0]])
    # At position 0: two forks of ten outcomes each, with weights 3/4 and 1/4.
    own = 4 / 9 * np.sqrt(0.75**2 * 0.6 * 0.4 / 10 + 0.25**2 * 0.2 * 0.8 / 10)
    assert comparison.predicted_error[0, 0] == pytest.approx(own)
    mean = (14 / 27 + 11 / 20) / 2
    assert comparison.observed_error[0, 0] == pytest.approx(np.sqrt(mean * (1 - mean) / 20))
    expected = (11 / 20 - 14 / 27) / np.sqrt(own**2 + mean * (1 - mean) / 20)
    assert comparison.z[0, 0] == pytest.approx(expected)
    # (unparsed) has a mean of 0.02 or less.
    together = agreement([comparison, comparison], undecided=0.03)
    assert together.compared == 8
    assert together.spread == pytest.approx(np.sqrt((comparison.z[:, :2] ** 2).mean()))
    assert together.beyond_2 == 0
    assert agreement([comparison], undecided=0).compared == 6
    assert together.correlation == pytest.approx(
        np.corrcoef(comparison.predicted.ravel(), comparison.observed.ravel())[0, 1]
    )
    summed = compare_with_resamples(umbrella, labels=1)
    assert summed.labels == ("yes", OTHER)
    np.testing.assert_allclose(summed.predicted.sum(axis=1), 1)


def test_a_comparison_needs_both_sides() -> None:
    for name in ("coin", "direct"):
        with pytest.raises(UserError, match="needs forks and resamples"):
            compare_with_resamples(select(read_rollouts(FIXTURES / "rollouts.jsonl"), name))


def test_certain_items_agree_without_a_z_score(umbrella: Item) -> None:
    certain = replace(
        umbrella,
        forks=tuple(replace(fork, outcomes={"yes": 5}) for fork in umbrella.forks),
        resamples=(Resample(1, {"yes": 9}),),
    )
    comparison = compare_with_resamples(certain)
    assert np.isnan(comparison.z).all()
    together = agreement([comparison])
    assert together.compared == 0
    assert np.isnan([together.correlation, together.spread, together.beyond_2]).all()


def test_z_scores_are_standard_normal_where_both_sides_have_the_same_law() -> None:
    """600 synthetic items, one z-score each; 0.35 is six standard errors of the mean of 600 squares."""
    rng = streams.stream(11, 0)
    comparisons = []
    for _ in range(600):
        p, g = rng.uniform(0.5, 0.9), rng.uniform(0.2, 0.8, 2)
        n = 200
        forks = tuple(
            RecordedFork(s, "other", 1 - p, {"a": (k := int(rng.binomial(n, g[s]))), "b": n - k}) for s in (0, 1)
        )
        truth = (1 - p) * g[0] + p * ((1 - p) * g[1] + p)
        free = int(rng.binomial(n, truth))
        item = Item(
            "synthetic", "", (RecordedToken("x", p),) * 2, "a", forks, (Resample(0, {"a": free, "b": n - free}),)
        )
        comparisons.append(compare_with_resamples(item))
    z = np.asarray([comparison.z[0, 0] for comparison in comparisons])
    assert abs((z**2).mean() - 1) < 0.35
    assert abs(z.mean()) < LARGEST_Z / np.sqrt(len(z))


# Other formats


def test_pivotal_tokens_become_items_of_one_generation_each(tmp_path: Path) -> None:
    twelve, long, prime = from_pivotal_tokens(FIXTURES / "pivotal_tokens.jsonl")
    assert [item.id for item in (twelve, long, prime)] == ["7/1", "7/2", "generation/3"]
    by_prompt = {item.prompt: item for item in (long, twelve, prime)}
    three = by_prompt["Q: What is 3 times 4? A: That is"]
    assert [token.text for token in three.tokens] == [" 3", " +", " 4", " […]"]
    assert three.final_label == "failure"
    assert three.resamples == (
        Resample(0, {"success": 10, "failure": 10}),
        Resample(1, {"success": 15, "failure": 5}),
        Resample(2, {"success": 14, "failure": 6}),
        Resample(3, {"success": 1, "failure": 19}),
    )
    assert by_prompt["Q: What is 3 times 4? A: Twelve"].final_label == "success"
    assert by_prompt["Name a prime. "].resamples[1] == Resample(1, {"failure": 20})
    assert len(by_prompt) == 3
    (_, _, more) = from_pivotal_tokens(FIXTURES / "pivotal_tokens.jsonl", samples=40)
    assert more.resamples[0] == Resample(0, {"success": 32, "failure": 8})
    path = tmp_path / "rollouts.jsonl"
    write_rollouts(by_prompt.values(), path)
    assert read_rollouts(path) == tuple(by_prompt.values())
    record, target = record_of(three), Target()
    assert record.method_of_loop(target).orders((), 0)


def test_pivotal_tokens_side_by_side_share_a_row(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "pivot_context": "q ", "pivot_token": "a", "prob_before": 0.5, "prob_after": 0.9},
        {"query": "q", "pivot_context": "q a", "pivot_token": "b", "prob_before": 0.8, "prob_after": 0.1},
    ]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (item,) = from_pivotal_tokens(path)
    assert [token.text for token in item.tokens] == ["a", "b", " […]"]
    assert [entry.outcomes.get("success") for entry in item.resamples] == [5, 8, 1]


def test_bad_pivotal_tokens_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    good = {"query": "q", "pivot_context": "q ", "pivot_token": "a", "prob_before": 0.5, "prob_after": 0.9}
    for changes, complaint in [
        ({"prob_before": 1.5}, "line 1: prob_before is 1.5; a probability"),
        ({"prob_after": None}, "line 1: prob_after is missing"),
        ({"query": 3}, "line 1: query is 3; it must be a text"),
        ({"pivot_context": None}, "line 1: pivot_context is missing"),
        ({"prob_after": 0.1234567}, "no number of completions up to 1,000 gives these shares; say with samples"),
    ]:
        path.write_text(json.dumps({**good, **changes}))
        with pytest.raises(UserError, match=complaint):
            from_pivotal_tokens(path)
    path.write_text(json.dumps({"event_type": "thought_anchor"}))
    with pytest.raises(UserError, match="holds no pivotal-token events"):
        from_pivotal_tokens(path)
    path.write_text(json.dumps(good))
    with pytest.raises(UserError, match="samples is 0"):
        from_pivotal_tokens(path, samples=0)


def test_sentences_become_positions(tmp_path: Path) -> None:
    first, second = from_sentences(FIXTURES / "sentences.jsonl")
    assert (first.id, first.prompt, first.final_label) == ("q1", "Is 91 prime?", "yes")
    assert first.text == "It is odd. The digits sum to 10.\nSo it is prime."
    assert [token.p for token in first.tokens] == [None] * 3
    assert first.resamples[1] == Resample(1, {"yes": 12, "no": 8}, 31.5)
    assert (second.id, second.resamples) == ("q2", (Resample(0, {"yes": 20}),))
    assert record_of(first).method.fractions == (0.0, 1 / 3, 2 / 3)
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"sentence": "Yes.", "outcomes": {"yes": 2}, "final_label": "yes"}))
    assert from_sentences(path)[0].id == "q.jsonl"


def test_bad_sentences_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    good = {"sentence": "Yes.", "outcomes": {"yes": 2}, "final_label": "yes"}
    for rows, complaint in [
        ([], "holds no sentences"),
        ([good, {**good, "outcomes": {"yes": -2}}], r"line 2: outcomes\['yes'\] is -2"),
        ([{**good, "sentence": 3}], "line 1: sentence is 3"),
        ([{**good, "final_label": None}], "item 'q.jsonl': final_label is missing"),
        ([good, {**good, "final_label": "no"}], "item 'q.jsonl': final_label is 'yes' in one row and 'no' in another"),
        ([{**good, "prompt": 5}], "item 'q.jsonl': prompt is 5"),
        ([{**good, "id": 5}], "line 1: id is 5"),
    ]:
        path.write_text("\n".join(json.dumps(row) for row in copy.deepcopy(rows)))
        with pytest.raises(UserError, match=complaint):
            from_sentences(path)
