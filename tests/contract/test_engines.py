"""What every engine promises. A scheme, or a toy model, that is not listed here fails."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

from blinkscope.engines import SCHEMES, open_engine
from blinkscope.engines.toy_models import TOYS
from blinkscope.engines.toy_worlds import WORDINGS
from blinkscope.errors import UserError
from blinkscope.language.engine import Completion, Engine, Job, Path
from blinkscope.language.sampling import Sampling
from tests.engines import fake_server, fake_vllm, tiny, tiny_gguf

KNOWING = ("smollm2", "hf:FOLDER", "gguf:tiny", "toy:")  # engines that know the law of every token they write
FALSE_ALARM = 1e-7  # of each chi-square test; its streams are fixed, so it either always passes or never
SPECS = {
    "smollm2": ["smollm2"],
    "hf": ["hf:FOLDER"],
    "gguf": ["gguf:tiny"],
    "vllm": ["vllm:toy"],
    "http": ["http:llama.cpp", "http:llama-server", "http:vllm", "http:sglang", "http:completions"],
    "toy": [
        "toy:fork?agree=5&width=3&leak=0.1",
        "toy:walk",
        "toy:maze?seed=3&length=30&labels=3",
        "toy:null?length=40",
        "toy:critical-token?length=8&agree=2&width=6&leak=0.8",
        "toy:random-walk?length=16&drift=0.2&absorb=5",
        "toy:in-context?examples=5&separation=0.8&candidates=3",
        "toy:permuted-masking?coordinates=5&alphabet=3&order=2,0,4,3,1",
        "toy:random-hierarchy?depth=4&branching=2&symbols=6&rules=3&seed=1",
    ],
}
PROMPT = "I live in a small flat. Should I get a cat or a dog? Finish with 'My choice: ...'."
CAP = 24
SERVED = "fork?agree=5&width=3&leak=0.1&length=20"  # the toy model behind the servers that are not real ones
REAL = ("smollm2", "http:llama.cpp")  # the embedded model: slow, and need not be tried under every law
SAMPLINGS = {
    "model": None,
    "plain": Sampling(max_new_tokens=CAP),
    "top-p": Sampling(temperature=0.7, top_p=0.8, max_new_tokens=CAP),
    "top-k and min-p": Sampling(temperature=1.3, top_k=4, min_p=0.05, max_new_tokens=CAP),
}


@dataclass(frozen=True)
class Case:
    """An engine with a path that it wrote itself.

    knows: whether it knows the law of every token that it writes.
    """

    engine: Engine
    path: Path
    sampling: Sampling
    written: Completion
    knows: bool


def write(engine: Engine, jobs: list[Job], sampling: Sampling, seed: int = 11) -> dict[Any, Completion]:
    return {done.job.key: done for done in engine.continue_(jobs, sampling, seed)}


def marked(spec: str, *values: str) -> Any:
    without_llama = pytest.mark.skipif(find_spec("llama_cpp") is None, reason="make test-gguf runs it")
    marks = [pytest.mark.model] * (spec in REAL) + [without_llama] * spec.startswith("gguf:")
    return pytest.param((spec, *values), marks=marks)


ALL = [spec for specs in SPECS.values() for spec in specs]
LAWS = {"smollm2": ("model", "plain"), "http:llama.cpp": ("top-p",)}  # the others run the same code under every law
PAIRS = [marked(spec, law) for spec in ALL for law in LAWS.get(spec, SAMPLINGS)]


@pytest.fixture(scope="module")
def opened(request, tmp_path_factory):
    """Opens a model by its name, once; ``http:NAME`` starts a server of that kind."""
    servers = ExitStack()

    @cache
    def open_(spec: str) -> Engine:
        if spec == "smollm2":
            return request.getfixturevalue("smollm2")
        if spec == "http:llama.cpp":
            return open_engine(request.getfixturevalue("llama_server").url)
        if spec.startswith("http:"):
            server = servers.enter_context(fake_server.serving(spec.removeprefix("http:"), toy=SERVED))
            return open_engine(server.url)
        if spec == "gguf:tiny":
            file = tiny_gguf.write(tmp_path_factory.mktemp("model") / "tiny.gguf", tiny.model("llama"))
            return open_engine(f"gguf:{file}")
        if spec == "vllm:toy":
            fake_vllm.install(servers.enter_context(pytest.MonkeyPatch.context()))
            servers.enter_context(pytest.MonkeyPatch.context()).setitem(
                fake_vllm.LOADED, "toy", fake_vllm.Model(toy=SERVED)
            )
            return open_engine(spec)
        if spec == "hf:FOLDER":
            folder = tmp_path_factory.mktemp("model")
            tiny.model("llama").save_pretrained(folder)
            tiny.tokenizer().save_pretrained(folder)
            return open_engine(f"hf:{folder}")
        return open_engine(spec)

    with servers:
        yield open_


@pytest.fixture(scope="module", params=[marked(spec) for spec in ALL], ids=lambda param: param[0])
def engine(opened, request) -> Engine:
    return opened(*request.param)


@pytest.fixture(scope="module", params=PAIRS, ids=", ".join)
def case(opened, request) -> Case:
    spec, law = request.param
    engine = opened(spec)
    sampling = SAMPLINGS[law] or replace(engine.default_sampling, max_new_tokens=CAP)
    start = Path(engine.encode(PROMPT), ())
    written = write(engine, [Job((i,), start, 0, (), (9, i)) for i in range(3)], sampling)
    longest = max(written.values(), key=lambda done: len(done.tokens))
    return Case(engine, replace(start, tokens=longest.tokens), sampling, longest, spec.startswith(KNOWING))


def test_every_scheme_and_every_toy_model_is_listed():
    assert set(SPECS) == set(SCHEMES)
    assert {spec.removeprefix("toy:").partition("?")[0] for spec in SPECS["toy"]} == {*TOYS, *WORDINGS}


def test_name_and_window(engine):
    assert engine.name
    assert engine.context_window > CAP
    assert engine.default_sampling.max_new_tokens >= 1


def test_text_survives_encoding(case):
    text = case.engine.decode(case.path.tokens)
    if "\ufffd" in text:
        text = "Ein Kätzchen"  # random bytes are not text; the tiny model spells any
    for finished in (False, True):
        path = case.engine.encode_reply(case.path.context, text, finished=finished)
        assert path.context == case.path.context
        assert case.engine.decode(path.tokens) == text
        assert "".join(case.engine.pieces(path.tokens)).startswith(text)
    assert len(path.tokens) == 1 + len(case.engine.encode_reply(case.path.context, text, finished=False).tokens)


def test_pieces_make_the_text(case):
    tokens = case.path.tokens[:-1] if case.written.finish == "stop" else case.path.tokens
    pieces = case.engine.pieces(tokens)
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == case.engine.decode(tokens)


def test_score_is_a_law(case):
    score = case.engine.score(case.path, case.sampling)
    n = len(case.path.tokens)
    assert (len(score.p), len(score.off_path), len(score.alternatives)) == (n, n, n)
    np.testing.assert_allclose(score.p + score.off_path, 1, atol=1e-6)
    for s, options in enumerate(score.alternatives):
        assert case.path.tokens[s] not in options.ids
        assert len(set(options.ids.tolist())) == len(options.ids)
        assert (options.p > 0).all()
        assert (np.diff(options.p) <= 0).all()
        missing = 1.0 if score.notes else 2e-6  # what a server does not tell is said, and bounded
        assert -1e-9 <= score.off_path[s] - options.p.sum() <= missing
        assert len(options.ids) > 0 or score.off_path[s] <= missing
    if case.sampling.truncates and not score.notes:
        assert all(score.off_path[s] == 0 for s, options in enumerate(score.alternatives) if not len(options.ids))


def test_what_was_recorded_while_sampling_is_what_scoring_finds(case):
    # The same law from the rows' own keys and values and from one pass over everything.
    score, written = case.engine.score(case.path, case.sampling), np.array(case.written.p)
    told = np.isfinite(written)  # a server may keep it to itself, for all tokens or where its list does not settle it
    np.testing.assert_allclose(score.p[told], written[told], rtol=1e-3)
    assert told.all() or not case.knows
    middle = len(case.path.tokens) // 2
    (done,) = write(case.engine, [Job((), case.path, middle, (), (4,))], case.sampling).values()
    again = case.engine.score(replace(case.path, tokens=(*case.path.tokens[:middle], *done.tokens)), case.sampling)
    assert (again.p > 0).all()
    if case.knows:
        np.testing.assert_allclose(again.p[middle:], done.p, rtol=1e-3)


def test_first_tokens_follow_the_scored_law(case):
    score = case.engine.score(case.path, case.sampling)
    position = int(np.argmax(np.minimum(score.p, score.off_path)))  # the most open one
    options = score.alternatives[position]
    ids = [case.path.tokens[position], *options.ids.tolist()]
    law = np.array([score.p[position], *options.p])
    count = 300
    jobs = [Job((i,), case.path, position, (), (position, i)) for i in range(count)]
    drawn = write(case.engine, jobs, replace(case.sampling, max_new_tokens=position + 1))
    seen = [done.tokens[0] for done in drawn.values()]
    assert len(seen) == count
    common = count * law >= 15
    expected = np.append(count * law[common], count - (count * law[common]).sum())
    observed = np.array([seen.count(id_) for id_, kept in zip(ids, common, strict=True) if kept])
    observed = np.append(observed, count - observed.sum())
    if expected[-1] < 15:  # too few for the test: counted with the rarest of the common ones
        expected, observed = (np.append(x[:-2], x[-2:].sum()) for x in (expected, observed))
    statistic = float(((observed - expected) ** 2 / expected).sum())
    assert statistic <= chi2.isf(FALSE_ALARM, max(len(expected) - 1, 1))
    if case.sampling.truncates:
        assert set(seen) <= set(ids)


def test_forced_tokens_stand_and_the_cap_counts_from_the_start(case):
    score = case.engine.score(case.path, case.sampling)
    jobs = [
        Job((s, i), case.path, s, (int(options.ids[0]),) if i and len(options.ids) else (), (s, i))
        for s, options in list(enumerate(score.alternatives))[::3]
        for i in range(2)
    ]
    done = write(case.engine, jobs, case.sampling)
    assert set(done) == {job.key for job in jobs}
    for job in jobs:
        completion = done[job.key]
        assert completion.job == job
        assert completion.tokens[: len(job.forced)] == job.forced
        assert np.isnan(completion.p[: len(job.forced)]).all()
        free = completion.p[len(job.forced) :]
        assert all(0 < p <= 1 or (np.isnan(p) and not case.knows) for p in free)
        assert completion.generated == len(completion.tokens) - len(job.forced)
        assert job.kept + len(completion.tokens) <= CAP
        assert completion.finish == "stop" or job.kept + len(completion.tokens) == CAP
        assert completion.answer is None


def test_streams_make_the_draws_whoever_is_beside_them(case):
    sampling = replace(case.sampling, max_new_tokens=9)
    jobs = [Job((i,), case.path, i % 4, (), (2, i)) for i in range(12)]
    first = {key: done.tokens for key, done in write(case.engine, jobs, sampling).items()}
    few = {key: done.tokens for key, done in write(case.engine, jobs[5:2:-1], sampling).items()}
    other = {key: done.tokens for key, done in write(case.engine, jobs, sampling, seed=12).items()}
    # A uniform that lies within rounding of a step of the law may fall on either side: about one token in a million.
    assert few == {key: first[key] for key in few}
    assert other != first
    twins = write(case.engine, [replace(jobs[0], key=(100,)), replace(jobs[0], key=(101,))], sampling)
    assert {done.tokens for done in twins.values()} == {first[0,]}


def test_a_stop_text_ends_a_reply_wherever_it_began(engine):
    plain = Sampling(max_new_tokens=CAP)
    start = Path(engine.encode(PROMPT), ())
    replies = write(engine, [Job((i,), start, 0, (), (8, i)) for i in range(12)], plain).values()
    # Two tokens spell it, so that it can begin in what is kept; a toy model stops at single words only.
    spelled_by = 1 if engine.name.startswith("toy:") else 2
    found = (_new_text(engine, done.tokens, spelled_by) for done in replies)
    tokens, text = next(each for each in found if each is not None)
    path, law, end = replace(start, tokens=tokens), replace(plain, stop=(text,)), len(tokens)
    jobs = [Job((kept, i), path, kept, (), (8, kept, i)) for kept in range(end) for i in range(4)]
    for done in write(engine, jobs, law).values():
        written = [*tokens[: done.job.kept], *done.tokens]
        assert done.finish == "stop" or text not in engine.decode(written)
        assert text not in engine.decode(written[:-1])
    for kept in (0, end - 2, end - 1):  # forced tokens can end it too
        (done,) = write(engine, [Job((), path, kept, tokens[kept:], (8, kept))], law).values()
        assert (done.tokens, done.finish) == (tokens[kept:], "stop")
    (done,) = write(engine, [Job((), path, end, (), (8, end))], law).values()
    assert (done.tokens, done.finish) == ((), "stop")  # over before anything was written


def _new_text(engine: Engine, tokens: tuple[int, ...], spelled_by: int) -> tuple[tuple[int, ...], str] | None:
    """The beginning of a reply up to a text that its last tokens spell and that was not said before; and that text."""
    pieces = engine.pieces(tokens)
    for end in range(2, len(tokens)):
        parts = pieces[end - spelled_by : end]
        text = "".join(parts).strip()
        if all(map(str.strip, parts)) and "\ufffd" not in text and text not in engine.decode(tokens[: end - 1]):
            return tokens[:end], text
    return None


def test_greedy_cannot_fork(engine):
    sampling = Sampling(temperature=0, max_new_tokens=CAP)
    start = Path(engine.encode(PROMPT), ())
    done = write(engine, [Job((i,), start, 0, (), (i,)) for i in range(2)], sampling)
    assert done[0,].tokens == done[1,].tokens
    score = engine.score(replace(start, tokens=done[0,].tokens), sampling)
    assert (score.p == 1).all()
    assert (score.off_path == 0).all()
    assert all(len(options.ids) == 0 for options in score.alternatives)


def test_completions_come_as_they_finish_and_the_rest_can_be_dropped(case):
    running = case.engine.continue_((Job((i,), case.path, 0, (), (i,)) for i in range(30)), case.sampling, 1)
    assert isinstance(next(running), Completion)
    running.close()  # type: ignore[attr-defined]
    with pytest.raises(StopIteration):
        next(running)


def test_no_jobs_no_completions(case):
    assert list(case.engine.continue_([], case.sampling, 0)) == []


def test_empty_prompts_and_too_long_ones_are_refused(engine):
    for empty in ("", "  \n"):
        with pytest.raises(UserError, match="empty"):
            engine.encode(empty)
    with pytest.raises(UserError, match=str(engine.context_window)):
        engine.encode("word " * engine.context_window)
