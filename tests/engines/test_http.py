"""Models behind servers: the traps of their interfaces, and everything that can go wrong on the way.

The servers are local, toy-backed and written from the documented shapes (``fake_server.py``), so that the law is known.
"""

from __future__ import annotations

import dataclasses
import gc
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path as FilePath
from socketserver import BaseRequestHandler, TCPServer

import numpy as np
import pytest

from blinkscope import locate
from blinkscope.engines import open_engine
from blinkscope.engines.servers import pool
from blinkscope.engines.servers.address import read_keys, read_servers
from blinkscope.engines.servers.chat import open_chat
from blinkscope.engines.toy_models import open_toy
from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.loop import Progress
from blinkscope.estimate.trace import Target
from blinkscope.language.engine import Engine, Job, Path
from blinkscope.language.sampling import Sampling
from blinkscope.studies import distribution
from blinkscope.studies.distribution import DistributionSpec
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import run_study
from tests.engines.fake_server import FakeServer, Faults, serving

TOY = "fork?agree=2&width=3&leak=0.1&length=14"
FEATURE = "regex:(happy|sad)"
DIALECTS = ("vllm", "sglang", "llama-server")  # those that give token ids
LAW = Sampling(temperature=0.8, top_p=0.9, max_new_tokens=14)


@pytest.fixture(params=DIALECTS)
def server(request: pytest.FixtureRequest) -> Iterator[FakeServer]:
    with serving(request.param, toy=TOY) as started:
        yield started


def toy_path(engine: Engine) -> Path:
    """A reply of the toy model after its prompt."""
    start = Path(engine.encode("Which way?"), ())
    (done,) = engine.continue_([Job((), start, 0, (), (0,))], dataclasses.replace(LAW, top_p=1.0, temperature=1), 2)
    return dataclasses.replace(start, tokens=done.tokens)


def work(server: FakeServer) -> list[dict[str, object]]:
    return [asked for path, asked in server.requests if path in ("/v1/completions", "/generate", "/completion")]


# What is exact.


@pytest.mark.parametrize(
    "law",
    [LAW, Sampling(max_new_tokens=14), Sampling(1.4, 3, 0.95, 0.01, 14), Sampling(0, max_new_tokens=14)],
    ids=["top-p", "plain", "all filters", "greedy"],
)
def test_a_score_is_the_toy_models_own(server: FakeServer, law: Sampling) -> None:
    engine, toy = open_engine(server.url), open_toy(TOY)
    path = toy_path(engine)
    known = toy.score(Path(toy.encode("Which way?"), path.tokens), law)
    for fresh in (engine, open_engine(server.url)):  # with what was said while it was written, and without
        score = fresh.score(path, law)
        np.testing.assert_allclose(score.p, known.p, atol=1e-9)
        np.testing.assert_allclose(score.off_path, known.off_path, atol=1e-9)
        for ours, other in zip(score.alternatives, known.alternatives, strict=True):
            assert dict(zip(ours.ids, ours.p.round(9), strict=True)) == dict(
                zip(other.ids, other.p.round(9), strict=True)
            )
        assert score.notes == ()


def test_label_laws_are_the_toy_models_own(server: FakeServer) -> None:
    engine, toy = open_engine(server.url), open_toy(TOY)
    start = Path(engine.encode("Which way?"), ())
    count = 300
    said = Counter(
        "happy" in engine.decode(done.tokens)
        for done in engine.continue_([Job((i,), start, 0, (), (3, i)) for i in range(count)], LAW, 5)
    )
    truth = toy.truth(toy_path(toy), LAW)
    assert truth is not None
    p = float(truth.posterior[0, truth.labels.index("happy")])
    # 5.5 standard deviations: 4e-8, two-sided, for each of the dialects.
    assert abs(said[True] / count - p) < 5.5 * np.sqrt(p * (1 - p) / count)


# The traps.


def test_first_tokens_are_forced_by_the_prefix_not_by_a_bias(server: FakeServer) -> None:
    engine = open_engine(server.url)
    path = toy_path(engine)
    score = engine.score(path, LAW)
    position = int(np.argmax(score.off_path))
    token = int(score.alternatives[position].ids[0])
    server.requests.clear()
    list(engine.continue_([Job((0,), path, position, (token,), (1,))], LAW, 0))
    (asked,) = work(server)
    sent = asked.get("prompt") or asked["input_ids"]
    assert sent == [*path.context.ids, *path.tokens[:position], token]
    assert not asked.get("logit_bias")
    assert "allowed_token_ids" not in asked


def test_every_field_of_the_sampling_law_is_always_sent(server: FakeServer) -> None:
    engine = open_engine(server.url)
    list(engine.continue_([Job((), toy_path(engine), 0, (), (1,))], Sampling(max_new_tokens=14), 0))
    for asked in work(server):
        fields = asked.get("sampling_params", asked)
        assert isinstance(fields, dict)
        assert {"temperature", "top_p", "top_k", "min_p", "stop"} <= set(fields)
        assert "seed" in fields or "sampling_seed" in fields
        assert "samplers" in fields or server.dialect != "llama-server"


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_log_probabilities_after_temperature_do_not_pass_for_raw_ones(dialect: str) -> None:
    with serving(dialect, toy=TOY, processed=dialect == "vllm") as server:
        engine, toy = open_engine(server.url), open_toy(TOY)
        start = Path(engine.encode("Which way?"), ())
        (done,) = engine.continue_([Job((), start, 0, (), (0,))], LAW, 2)
        score = engine.score(dataclasses.replace(start, tokens=done.tokens), LAW)
        known = toy.score(Path(toy.encode("Which way?"), done.tokens), LAW)
        np.testing.assert_allclose(score.p, known.p, atol=1e-9)


def test_neighbouring_seeds_never_share_draws(server: FakeServer) -> None:
    engine = open_engine(server.url)
    start = Path(engine.encode("Which way?"), ())
    jobs = [Job((a, i), start, 0, (), (3, a, i)) for a in range(4) for i in range(70)]
    list(engine.continue_(jobs, dataclasses.replace(LAW, max_new_tokens=2), 1))
    seeds: list[int] = []
    for asked in work(server):
        fields = asked.get("sampling_params", asked)
        assert isinstance(fields, dict)
        first = int(fields.get("seed", fields.get("sampling_seed", 0)))
        count = int(fields.get("n", fields.get("n_cmpl", 1)))
        seeds += range(first, first + count)
    drawn = seeds[-len(jobs) :]
    assert len(set(drawn)) == len(jobs)


def test_a_jobs_draw_does_not_depend_on_what_shares_its_request(server: FakeServer) -> None:
    engine = open_engine(server.url)
    start = Path(engine.encode("Which way?"), ())
    jobs = [Job((i,), start, 0, (), (3, i)) for i in range(90)]
    together = {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)}
    before = len(work(server))
    alone = {done.job.key: done.tokens for job in jobs[::9] for done in engine.continue_([job], LAW, 1)}
    assert alone == {key: together[key] for key in alone}
    if server.dialect != "sglang":
        assert before < 60  # children of one request


def test_tokens_with_the_same_text_stay_apart() -> None:
    with serving("vllm", toy=TOY, twins=True) as server:
        engine, toy = open_engine(server.url), open_toy(TOY)
        path = toy_path(engine)
        law = Sampling(max_new_tokens=14)
        score = engine.score(path, law)
        words = [token % len(toy.machine.words) if token >= len(toy.machine.words) else token for token in path.tokens]
        known = toy.score(Path(toy.encode("Which way?"), tuple(words)), law)
        halved = np.array([1.0 if token == 0 else 0.5 for token in path.tokens])
        np.testing.assert_allclose(score.p, known.p * halved, atol=1e-9)
        twins = [
            token + len(toy.machine.words) if token < len(toy.machine.words) else word
            for token, word in zip(path.tokens, words, strict=True)
        ]
        assert all(twin in set(other.ids.tolist()) for twin, other in zip(twins[:-1], score.alternatives, strict=False))


def test_a_server_that_lists_few_tokens_is_asked_to_draw_more() -> None:
    with serving("vllm", toy=TOY, most_listed=2) as server:
        engine, toy = open_engine(server.url), open_toy(TOY)
        path = toy_path(engine)
        for law in (Sampling(max_new_tokens=14), Sampling(0.7, max_new_tokens=14), LAW):
            score = engine.score(path, law)
            known = toy.score(Path(toy.encode("Which way?"), path.tokens), law)
            # Whatever it did not find out is said: as probability that is not listed, or as a bound in a note.
            missing = score.off_path - np.array([other.p.sum() for other in score.alternatives])
            assert missing.min() > -1e-9
            said = score.notes[0].split("total variation of ")[1].split()[0] if score.notes else "1e-9"
            bound = float(said)
            assert np.abs(score.p - known.p).max() <= bound * 1.05  # it is printed with two digits
            assert missing.max() < 0.05


def test_a_list_that_does_not_settle_the_law_bounds_it() -> None:
    from blinkscope.engines.returned import Returned, law_of
    from blinkscope.language.sampling import next_token_law

    random = np.random.default_rng(0)
    exact = 0
    for _ in range(300):
        size, top = int(random.integers(30, 200)), int(random.integers(3, 29))
        p = np.sort(random.dirichlet(np.full(size, random.choice([0.05, 0.3, 2.0]))))[::-1] + 1e-12
        logprobs = np.log(p / p.sum())
        law = Sampling(
            float(random.choice([0.5, 0.8, 1.0, 1.3])),
            int(random.choice([0, 5, 40])),
            float(random.choice([0.8, 0.95, 1.0])),
            float(random.choice([0.0, 0.05])),
        )
        true = next_token_law(logprobs[None], law, vocabulary=size).p[0]
        found = law_of(Returned(np.arange(top), logprobs[:top], top), law, size)
        assert np.abs(found.p - true[:top]).sum() / 2 <= found.error + 1e-9
        if found.error == 0:
            exact += 1
            assert abs(found.unlisted - true[top:].sum()) < 1e-9
    assert exact > 100


def test_minus_infinity_is_no_probability() -> None:
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(server.url)
        score = engine.score(toy_path(engine), Sampling(max_new_tokens=14))
        assert all(np.isfinite(other.p).all() and (other.p > 0).all() for other in score.alternatives)
        # The server did list impossible tokens: it has more of them than the toy model has moves.
        assert server.most_listed > max(len(other.ids) for other in score.alternatives) + 1


# Everything that can go wrong.


def located(url: str, run: str | None = None) -> dict[str, object]:
    trace = locate(open_engine(url), "Which way?", feature=FEATURE, seed=3, continuations=120, run=run)
    found = trace.to_json()
    del found["timing"]
    return found


@pytest.mark.parametrize("dialect", [*DIALECTS, "completions"])
def test_with_failing_requests_and_two_restarts_the_result_is_the_same(dialect: str) -> None:
    with serving(dialect, toy=TOY) as server:
        expected = located(server.url)
        requests = len(work(server))
    faults = Faults(0.05, seed=1)
    with serving(dialect, toy=TOY, faults=faults, stop_after=[requests // 4, requests // 4]) as server:
        assert located(server.url) == expected
        assert not server.stop_after
        assert faults.seen.total() > 0


@pytest.mark.parametrize("kind", ["busy", "broken", "cut", "malformed", "miscounted", "slow"])
def test_each_fault_is_survived(kind: str) -> None:
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(server.url + ("?timeout=1" if kind == "slow" else ""))
        start = Path(engine.encode("Which way?"), ())
        jobs = [Job((i,), start, 0, (), (3, i % 2, i)) for i in range(20)]
        expected = {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)}
        server.faults = Faults(0.3, (kind,), slow=2.0, seed=2)
        assert {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)} == expected
        assert server.faults.seen[kind] > 0


@pytest.mark.parametrize("kind", ["busy", "broken", "cut", "malformed"])
def test_a_server_that_fails_while_it_is_met_is_asked_again(kind: str) -> None:
    faults = Faults(1.0, (kind,), most=2)
    with serving("vllm", toy=TOY, faults=faults) as server:
        assert open_engine(server.url).name == "server:toy-model"
        assert faults.seen[kind] == 2


def test_retry_after_is_waited_for() -> None:
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(server.url)
        start = toy_start(engine)
        server.arrived.clear()
        server.faults = Faults(1.0, ("busy",), most=2, after=0.3)  # longer than any pause that would be made without it
        list(engine.continue_([Job((), start, 0, (), (0,))], LAW, 2))
        assert server.faults.seen["busy"] == 2
        assert np.diff(server.arrived).min() >= 0.3


def toy_start(engine: Engine) -> Path:
    return Path(engine.encode("Which way?"), ())


def test_a_server_that_only_fails_ends_the_run_with_its_words() -> None:
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(server.url + "?patience=2")
        start = toy_start(engine)
        server.faults = Faults(1.0, ("broken",))
        with pytest.raises(EngineError, match="500: the engine is dead"):
            list(engine.continue_([Job((), start, 0, (), (0,))], LAW, 2))


def test_work_that_nobody_waits_for_is_called_off() -> None:
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(server.url + "?concurrency=4")
        start = toy_start(engine)
        jobs = [Job((i,), start, 0, (), (3, i, 0)) for i in range(200)]
        server.arrived.clear()
        server.hold(answers=1)
        running = engine.continue_(jobs, LAW, 1)
        next(running)
        running.close()  # type: ignore[attr-defined]
        server.release()
        time.sleep(0.5)  # enough for many more requests than those that were on their way
        assert 1 <= len(server.arrived) <= 1 + 4


def test_an_engine_that_is_dropped_amid_its_work_closes_its_connections() -> None:
    with serving("vllm", toy=TOY) as server:
        before = [thread for thread in threading.enumerate() if thread.name == pool.THREAD]
        for count in range(20):
            engine = open_engine(server.url + "?concurrency=4")
            jobs = [Job((i,), toy_start(engine), 0, (), (3, i, count)) for i in range(50)]
            running = engine.continue_(jobs, LAW, 1)
            next(running)
            running.close()  # type: ignore[attr-defined]
            del running, engine

        def left() -> bool:
            return server.connections > 0 or any(
                thread.name == pool.THREAD and thread not in before for thread in threading.enumerate()
            )

        deadline = time.monotonic() + 60
        while left() and time.monotonic() < deadline:
            gc.collect()  # what was called off may know itself by its own error
            time.sleep(0.01)
        assert not left()


# Several servers.


def test_several_servers_share_the_work_and_one_that_dies_loses_nothing() -> None:
    with serving("vllm", toy=TOY) as one, serving("vllm", toy=TOY) as two:
        expected = located(one.url)
        one.requests.clear()
        pair = f"{one.url},{two.url}"
        assert located(pair) == expected
        # Where a prefix belongs follows from the servers' ports, so one of the two may have next to nothing to do.
        busier = max((one, two), key=lambda server: len(work(server)))
        busier.stop_after = [10]
        assert located(pair) == expected
        assert not busier.stop_after
        busier.stop()
        with pytest.warns(UserWarning, match="left out"):
            assert located(pair) == expected


def test_a_prefix_goes_to_the_server_whose_cache_has_it_and_prefixes_are_shared_out() -> None:
    with serving("vllm", toy=TOY) as one, serving("vllm", toy=TOY) as two:
        engine = open_engine(f"{one.url},{two.url}")
        starts = [Path(engine.encode("Which" + " way?" * (1 + n)), ()) for n in range(50)]
        for server in (one, two):
            server.requests.clear()
        jobs = [Job((n, again), start, 0, (), (n, again, 0)) for n, start in enumerate(starts) for again in range(2)]
        assert len(list(engine.continue_(jobs, LAW, 1))) == 100
        homes = [Counter(tuple(asked["prompt"]) for asked in work(server)) for server in (one, two)]  # type: ignore[arg-type]
        assert not homes[0].keys() & homes[1].keys()
        assert set(homes[0].values()) == set(homes[1].values()) == {2}
        # Half of the 50 each, as a coin would have it: fewer than 8 have probability 1.1e-7 for each of the two.
        assert min(map(len, homes)) >= 8


def test_two_who_ask_at_once_stay_within_a_servers_room() -> None:
    with serving("vllm", toy=TOY) as one, serving("vllm", toy=TOY) as two:
        engine = open_engine(f"{one.url},{two.url}?concurrency=3")
        start = toy_start(engine)
        said: dict[int, list[tuple[int, ...]]] = {}

        def ask(half: int) -> None:
            jobs = [Job((i,), start, 0, (), (3, half, 64 * i)) for i in range(40)]
            done = sorted(engine.continue_(jobs, LAW, 1), key=lambda completion: completion.job.key)
            said[half] = [completion.tokens for completion in done]

        threads = [threading.Thread(target=ask, args=(half,)) for half in (1, 2)]
        for server in (one, two):
            server.hold()
        for thread in threads:
            thread.start()
        until(lambda: one.busy >= 3 and two.busy >= 3)
        time.sleep(0.2)  # enough for one too many to come
        for server in (one, two):
            server.release()
        for thread in threads:
            thread.join()
        together = dict(said)
        ask(1)
        ask(2)
        assert together == said
        assert one.largest == two.largest == 3


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    while not holds():
        time.sleep(0.01)


def left_out_no_more(engine: Engine) -> None:
    """Wait until every server may be tried again."""
    endpoints = engine._pool.endpoints  # type: ignore[attr-defined]
    until(lambda: all(endpoint.until <= time.monotonic() for endpoint in endpoints))


def test_a_server_that_comes_back_is_used_again() -> None:
    with serving("vllm", toy=TOY) as one, serving("vllm", toy=TOY) as two:
        engine = open_engine(f"{one.url},{two.url}?concurrency=5")
        start = toy_start(engine)
        jobs = [Job((i,), start, 0, (), (3, i, 0)) for i in range(40)]
        two.stop()
        done = list(engine.continue_(jobs, LAW, 1))
        assert len({completion.job.key for completion in done}) == len(done) == 40
        two.start()
        left_out_no_more(engine)
        two.requests.clear()
        assert len(at_many_places(engine)) == 40
        assert work(two)


def at_many_places(engine: Engine) -> dict[tuple[int, ...], tuple[int, ...]]:
    """Five continuations of each of eight prefixes.

    Of two servers that are given five at a time each has a request at once, wherever their prefixes belong.
    """
    path = toy_path(engine)
    jobs = [Job((s, i), path, s, (), (4, s, i)) for s in range(8) for i in range(5)]
    return {done.job.key: done.tokens for done in engine.continue_(jobs, LAW, 1)}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"dialect": "sglang"}, "one is a llama-server with toy-model, another a sglang with toy-model"),
        ({"template": False}, "differ in their chat template"),
        ({"twins": True}, "differ in their (vocabulary|tokenizer)"),
    ],
    ids=["kind", "template", "vocabulary"],
)
def test_servers_that_differ_are_refused_and_left_out_where_they_come_later(
    other: dict[str, object], words: str
) -> None:
    with serving("llama-server", toy=TOY) as one, serving(toy=TOY, **{"dialect": "llama-server", **other}) as two:  # type: ignore[arg-type]
        pair = f"{one.url},{two.url}?concurrency=5"
        with pytest.raises(UserError, match=words):
            open_engine(pair)
        two.stop()
        with pytest.warns(UserWarning, match="it is left out and tried again later"):
            engine = open_engine(pair)
        two.start()
        left_out_no_more(engine)
        two.requests.clear()
        with pytest.warns(UserWarning, match="is left out: the servers differ"):
            assert len(at_many_places(engine)) == 40
        assert not work(two)


def test_a_server_that_comes_back_with_another_model_gets_no_work() -> None:
    with serving("vllm", toy=TOY) as one, serving("vllm", toy=TOY) as two:
        engine = open_engine(f"{one.url},{two.url}?concurrency=5")
        expected = at_many_places(engine)
        assert work(two)
        two.stop()
        assert at_many_places(engine) == expected
        with serving("llama-server", toy="walk", port=two.port) as third:
            left_out_no_more(engine)
            with pytest.warns(UserWarning, match="another a llama-server"):
                assert at_many_places(engine) == expected
            assert not work(third)


# Keys and addresses.


def test_a_key_goes_to_its_host_and_nowhere_else(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    key = "sk-very-secret"
    with serving("vllm", toy=TOY, key=key) as server, serving("vllm", toy=TOY, key="another") as other:
        host = server.url.split("/")[2]
        monkeypatch.setenv("BLINKSCOPE_KEYS", f"{host}={key}")
        run = str(tmp_path / "run.db")
        found = located(server.url, run)
        assert found["status"] == "budget"
        content = (tmp_path / "run.db").read_bytes()
        assert key.encode() not in content
        assert host.encode() not in content
        assert key not in repr(read_servers(server.url))
        with pytest.raises(UserError, match="401") as refused:
            open_engine(other.url)
        assert key not in str(refused.value)
        # A server that sends a wrong key back does not get it printed.
        monkeypatch.setenv("BLINKSCOPE_KEYS", f"{other.url.split('/')[2]}={key}")
        with pytest.raises(UserError, match="refuses the key that was sent") as refused:
            open_engine(other.url)
        assert key not in str(refused.value)


def test_a_key_file_that_others_can_read_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: FilePath) -> None:
    place = tmp_path / "keys"
    place.write_text("# mine\nhost.example:8000 sk-1\n\nother.example sk-2\n", encoding="utf-8")
    environment = {"BLINKSCOPE_KEY_FILE": str(place)}
    place.chmod(0o644)
    with pytest.raises(UserError, match="chmod 600"):
        read_keys(environment)
    place.chmod(0o600)
    assert read_keys(environment) == {"host.example:8000": "sk-1", "other.example": "sk-2"}
    assert read_keys({**environment, "BLINKSCOPE_KEYS": "other.example=sk-3"})["other.example"] == "sk-3"
    place.write_text("one two three\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        read_keys(environment)
    with pytest.raises(UserError, match="HOST=KEY"):
        read_keys({"BLINKSCOPE_KEYS": "nothing"})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("http://", "no address of a server"),
        ("http://me:secret@host/v1", "a password stands in the address"),
        ("http://host:99999/v1", "port"),
        ("http://host/v1?api_key=1", "no setting 'api_key'"),
        ("http://host/v1?concurrency=0", "concurrency is '0'"),
        ("http://host/v1?timeout=-1", "timeout is '-1'"),
        ("http://host/v1?dialect=", "dialect of a server's address is empty"),
        ("http://host/v1,http://host/v1", "named twice"),
        ("http://a/v1#x,http://b/v1#y", "several models"),
    ],
)
def test_addresses_that_make_no_sense_are_refused(spec: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        read_servers(spec)
    assert "secret" not in str(refused.value)


def test_several_addresses_and_their_settings() -> None:
    servers = read_servers("http://a:1/v1,https://b/x/v1/?concurrency=7&dialect=vllm#org/model")
    assert [address.url for address in servers.addresses] == ["http://a:1", "https://b/x"]
    assert (servers.model, servers.dialect, servers.concurrency) == ("org/model", "vllm", 7)


# Mistakes, in the server's own words.


def test_mistakes_are_said_in_one_sentence() -> None:
    with serving("no models at all") as server, pytest.raises(UserError, match="not like a server of models"):
        open_engine(server.url)
    with (
        serving("vllm", toy=TOY, faults=Faults(1.0, ("malformed",))) as server,
        pytest.raises(UserError, match="not like a server of models that is known here"),
    ):
        open_engine(server.url)
    with serving("vllm", toy=TOY, window=40) as server:
        with pytest.raises(UserError, match="has no model other; it has toy-model"):
            open_engine(f"{server.url}#other")
        with pytest.raises(UserError, match="there is no dialect 'x'"):
            open_engine(f"{server.url}?dialect=x")
        with pytest.raises(UserError, match="not like a sglang"):
            open_engine(f"{server.url}?dialect=sglang")
        engine = open_engine(server.url)
        with pytest.raises(UserError, match="context window is 40"):
            list(engine.continue_([Job((), toy_start(engine), 0)], Sampling(max_new_tokens=60), 0))
        server.window = 10  # it says something else now than it did at first
        with pytest.raises(UserError, match="maximum context length is 10 tokens"):
            list(engine.continue_([Job((), toy_start(engine), 0)], Sampling(max_new_tokens=14), 0))


def test_a_server_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "MEETING_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes calls and says nothing
        place = f"127.0.0.1:{silent.getsockname()[1]}"
        for meet in (open_engine, partial(open_chat, cap=5)):
            # An answer that took work would have 600 s, four times.
            with pytest.raises(
                EngineError, match=rf"no server answers at {place} \(no answer within 0.5 s\); start it"
            ):
                meet(f"http://{place}/v1")


def test_https_where_there_is_none_is_said() -> None:
    class Plain(BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with TCPServer(("127.0.0.1", 0), Plain) as plain:
        threading.Thread(target=plain.serve_forever, daemon=True).start()
        with pytest.raises(EngineError, match="by https: wrong version number; is it a server of http alone"):
            open_engine(f"https://127.0.0.1:{plain.server_address[1]}/v1")
        plain.shutdown()


@pytest.mark.parametrize(
    ("kind", "law", "words"),
    [
        ("vllm", Sampling(top_p=0.9, min_p=0.05), "min-p before top-p"),
        ("vllm", Sampling(temperature=0.005), "temperature is 0.005"),
        ("vllm", Sampling(temperature=2.5), "temperature is 2.5; vLLM takes 0 or 0.01 to 2"),
        ("sglang", Sampling(top_k=2, top_p=0.9), "top-p of all tokens, not of those that top-k has left"),
    ],
)
def test_laws_that_a_server_would_change_are_refused(kind: str, law: Sampling, words: str) -> None:
    with serving(kind, toy=TOY) as server, pytest.raises(UserError, match=words):
        list(open_engine(server.url).continue_([Job((), toy_start(open_engine(server.url)), 0)], law, 0))


def test_without_a_template_a_prompt_is_raw_text() -> None:
    with serving("llama-server", toy=TOY, template=False) as server:
        engine = open_engine(server.url)
        context = engine.encode("Which way?")
        assert engine.decode(context.ids) == "Which way?"
        with pytest.raises(UserError, match="no chat template"):
            engine.follow_up(Path(context, ()), "So?")


# A server that takes text only.


def test_a_text_server_says_what_it_cannot_know() -> None:
    with serving("completions", toy=TOY) as server:
        engine, toy = open_engine(server.url), open_toy(TOY)
        path = toy_path(engine)
        words = [toy.machine.ids.get(piece.strip(), 0) for piece in engine.pieces(path.tokens)]
        law = Sampling(max_new_tokens=14)
        score = engine.score(path, law)
        known = toy.score(Path(toy.encode("Which way?"), tuple(words)), law)
        np.testing.assert_allclose(score.p[:-1], known.p[:-1], atol=1e-9)
        # The end of a turn is no text: after eight draws of it, it is likely, and that is said.
        assert 0.8 < score.p[-1] <= known.p[-1]
        assert "known within a total variation" in score.notes[0]
        with pytest.raises(UserError, match="no chat template"):
            engine.follow_up(path, "So?")


@pytest.mark.parametrize("echo", [True, False])
def test_a_run_on_a_text_server_goes_on_in_another_sitting(echo: bool, tmp_path: FilePath) -> None:
    with serving("completions", toy=TOY, echo=echo) as server:
        whole = located(server.url)

        def killed(progress: Progress) -> None:
            if progress.continuations == 40:
                raise KeyboardInterrupt

        asked = {"feature": FEATURE, "seed": 3, "continuations": 120, "run": tmp_path / "run.db", "watch": killed}
        assert len(locate(open_engine(server.url), "Which way?", **asked).draws) == 40  # type: ignore[arg-type]
        assert located(server.url, str(tmp_path / "run.db")) == whole


def test_a_study_on_a_text_server_goes_on_in_another_sitting(tmp_path: FilePath) -> None:
    with serving("completions", toy=TOY) as server:
        asking = Asking(server.url, seed=1, max_new_tokens=14)
        spec = DistributionSpec("Which way?", 2, 4, FEATURE, asking=asking, target=Target(error=0.25))
        whole = run_study(distribution.STUDY, spec, tmp_path / "whole.db")
        server.comes_back, server._served, server.stop_after = False, 0, [16]
        spec = dataclasses.replace(spec, asking=dataclasses.replace(asking, model=f"{server.url}?patience=0.5"))
        broken = run_study(distribution.STUDY, spec, tmp_path / "broken.db")
        # Which items it reaches before it stops, and how far, is the servers' and threads' to say.
        assert {kind for kind, _ in broken.failed.values()} == {"engine"}
        assert 0 < broken.cost["continuations"] < whole.cost["continuations"]  # type: ignore[operator]
        server.start()
        assert run_study(distribution.STUDY, spec, tmp_path / "broken.db").to_json() == whole.to_json()


def test_text_servers_share_the_work() -> None:
    with serving("completions", toy=TOY) as one, serving("completions", toy=TOY, most_listed=5) as two:
        alone = located(two.url)
        one.requests.clear()
        two.requests.clear()
        assert located(f"{one.url},{two.url}?concurrency=4") == alone
        # What the one whose prefix it is has no room for goes to the other, at once: four in a round at least.
        assert min(sum(asked["max_tokens"] > 1 for asked in work(server)) for server in (one, two)) >= 4  # type: ignore[operator]


def test_drift_is_detected_and_said() -> None:
    with serving("completions", toy=TOY) as server:
        engine = open_engine(server.url)
        path = toy_path(engine)
        numbers = engine._dialect.numbers  # type: ignore[attr-defined]
        pieces = engine.pieces(path.tokens)
        joined = numbers.of(pieces[0] + pieces[1])  # a token that the model wrote and the server does not read so
        drifted = dataclasses.replace(path, tokens=(joined, *path.tokens[2:]))
        assert engine.decode(drifted.tokens) == engine.decode(path.tokens)
        assert not any("other tokens" in note for note in engine.score(path, LAW).notes)
        assert any("other tokens" in note for note in engine.score(drifted, LAW).notes)


def test_a_text_server_without_echo_or_log_probabilities() -> None:
    with serving("completions", toy=TOY, echo=False) as server:
        engine = open_engine(server.url)
        path = toy_path(engine)
        assert (engine.score(path, LAW).p[:-1] > 0).any()
        with pytest.raises(UserError, match="echo"):
            engine.encode_reply(path.context, " The old lamp", finished=True)
    with serving("completions", toy=TOY, most_listed=0) as server, pytest.raises(UserError, match="log-probabilities"):
        open_engine(server.url)


# A tokenizer on this side.


def test_a_tokenizer_on_this_side_is_checked_against_the_servers(tmp_path: FilePath) -> None:
    from tests.engines import tiny

    tiny.tokenizer().save_pretrained(tmp_path)
    with serving("vllm", toy=TOY) as server:
        engine = open_engine(f"{server.url}?tokenizer={tmp_path}")
        with pytest.raises(UserError, match="disagree about this prompt from token 1 on"):
            engine.encode("Which way?")
        with pytest.raises(UserError, match="cannot be read as a tokenizer"):
            open_engine(f"{server.url}?tokenizer={tmp_path / 'none'}")
