"""llama.cpp in this process: against transformers on the same numbers, and on the embedded model's file.

The tiny models are GGUF files in single precision, so the two libraries have to agree to rounding. The embedded model's
weights are quantised, and llama.cpp rounds activations to match; tolerances there are that error, about three times.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2

pytest.importorskip("llama_cpp")

from blinkscope import locate
from blinkscope.cli.main import main
from blinkscope.engines import llama_model, open_engine, weights
from blinkscope.engines.gguf import GgufEngine
from blinkscope.engines.llama_decoder import TEXTS
from blinkscope.engines.llama_model import BATCH, LlamaMemory, LlamaModel
from blinkscope.engines.smollm2 import find_weights
from blinkscope.errors import EngineError, UserError
from blinkscope.keeper import provenance
from blinkscope.language.engine import Ask, Completion, Engine, Job, Message, Path
from blinkscope.language.sampling import Sampling
from tests.engines import tiny, tiny_gguf

END = 258
PLAIN = Sampling(max_new_tokens=40)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny.model("llama"))


@pytest.fixture
def engine(file: FilePath) -> GgufEngine:
    return opened(file)


def opened(file: FilePath, **options: int) -> GgufEngine:
    return GgufEngine("tiny", LlamaModel(file), **options)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call to llama.cpp had."""
    counts: list[int] = []
    decode = LlamaMemory.decode

    def counted(memory: LlamaMemory, ids: Sequence[int], *more: Any) -> Any:
        counts.append(len(ids))
        return decode(memory, ids, *more)

    monkeypatch.setattr(LlamaMemory, "decode", counted)
    return counts


def random_path(engine: Engine, prompt: str, length: int, seed: int = 0) -> Path:
    return Path(engine.encode(prompt), tuple(np.random.default_rng(seed).integers(0, 250, length).tolist()))


def mixed_jobs(engine: Engine, count: int = 24) -> list[Job]:
    """Two paths, all positions, some with forced tokens: prefixes of very different lengths."""
    paths = (random_path(engine, "hi", 40), random_path(engine, "a much longer question than the other one", 30, 1))
    forced = ((), (3,), (4, 5))
    return [Job((i,), paths[i % 2], (7 * i) % 30, forced[i % 3], (i,)) for i in range(count)]


def tokens(done: Sequence[Completion]) -> dict[tuple[int, ...], tuple[int, ...]]:
    return {one.job.key: one.tokens for one in done}


# Against transformers, on the same numbers.


@pytest.mark.parametrize("law", [Sampling(), Sampling(0.7, 0, 0.8), Sampling(1.3, 4, 1.0, 0.05), Sampling(0)])
def test_a_score_is_that_of_transformers(engine, law):
    other = tiny.engine()
    path = random_path(engine, "hello", BATCH + 100)  # more than one call
    mine, theirs = engine.score(path, law), other.score(path, law)
    np.testing.assert_allclose(mine.p, theirs.p, rtol=1e-3)
    np.testing.assert_allclose(mine.off_path, theirs.off_path, rtol=1e-3)
    for ours, listed in zip(mine.alternatives, theirs.alternatives, strict=True):
        np.testing.assert_array_equal(np.sort(ours.ids), np.sort(listed.ids))
        np.testing.assert_allclose(ours.p, listed.p, rtol=1e-3)


def test_a_path_of_any_length_is_scored(engine):
    whole = random_path(engine, "hello", BATCH + 20)
    p = tiny.engine().score(whole, Sampling()).p
    first = len(whole.context.ids)
    for length in (1, 2, BATCH - first, BATCH - first + 1, BATCH - first + 2, BATCH, BATCH + 1, BATCH + 2):
        score = engine.score(replace(whole, tokens=whole.tokens[:length]), Sampling())
        np.testing.assert_allclose(score.p, p[:length], rtol=1e-3)
    assert len(engine.score(replace(whole, tokens=()), Sampling()).p) == 0


# llama.cpp rounds gemma's activation function to half precision.
@pytest.mark.parametrize(("kind", "rounding"), [("llama", 1e-3), ("gemma2", 1e-2)])
def test_rows_that_come_and_go_see_exactly_their_own_past(tmp_path, kind, rounding):
    file = tiny_gguf.write(tmp_path / "tiny.gguf", tiny.model(kind))
    engine, other = opened(file, batch_rows=5), tiny.engine(kind)
    jobs = mixed_jobs(engine)
    done = list(engine.continue_(jobs, Sampling(max_new_tokens=45), 1))
    assert sorted(one.job.key for one in done) == sorted(job.key for job in jobs)
    for one in done:
        kept = one.job.path.tokens[: one.job.kept]
        path = replace(one.job.path, tokens=(*kept, *one.tokens))
        score = other.score(path, Sampling())
        free = slice(len(kept) + len(one.job.forced), None)
        np.testing.assert_allclose(one.p[len(one.job.forced) :], score.p[free], rtol=rounding)
        np.testing.assert_allclose(engine.score(path, Sampling()).p, score.p, rtol=rounding)
        assert np.isnan(one.p[: len(one.job.forced)]).all()


def test_draws_are_those_of_transformers(engine):
    # The same streams, the same law: only a uniform within rounding of a step may fall on the other side of it.
    jobs = mixed_jobs(engine)
    mine = tokens(list(engine.continue_(jobs, PLAIN, 1)))
    assert mine == tokens(list(tiny.engine().continue_(jobs, PLAIN, 1)))


def test_words_become_the_same_tokens(engine):
    other = tiny.engine()
    turns = (Message("system", "Be brief."), Message("user", "hé"))
    context = engine.encode(turns, prefill="Well")
    assert context == other.encode(turns, prefill="Well")
    assert engine.encode("hé", prefill="Well") == other.encode("hé", prefill="Well")
    path = engine.encode_reply(context, "né\n", finished=True)
    assert path == other.encode_reply(context, "né\n", finished=True)
    assert engine.pieces(path.tokens) == other.pieces(path.tokens)
    assert engine.decode(path.tokens) == "né\n"
    assert engine.spell(context) == other.spell(context)
    assert engine.follow_up(path, "Sure?") == other.follow_up(path, "Sure?")
    assert engine.context_window == other.context_window == 512


def test_an_answer_is_what_the_model_says_to_the_whole_conversation(engine):
    path = random_path(engine, "hi", 5)
    question = engine.follow_up(path, "Yes or no?")
    job = Job((), path, 2, (70, END), (1,), Ask(question, 6))
    (done,) = engine.continue_([job], Sampling(max_new_tokens=7), 3)
    (other,) = tiny.engine().continue_([job], Sampling(max_new_tokens=7), 3)
    assert (done.tokens, done.answer, done.generated) == (other.tokens, other.answer, other.generated)


# What is kept, and what it must not change.


def test_a_prefix_is_read_once(file, read):
    engine = opened(file, batch_rows=5)
    path = random_path(engine, "hi", 40)
    list(engine.continue_([Job((i,), path, 1, (), (i,)) for i in range(5)], Sampling(max_new_tokens=42), 1))
    read.clear()
    jobs = [Job((s,), path, s, (5,), (s,)) for s in range(40)]
    done = list(engine.continue_(jobs, Sampling(max_new_tokens=41), 1))
    # One forced token is read by each row and each drawn token but the last: what is fed is what is drawn.
    assert sum(read) == sum(one.generated for one in done)
    read.clear()
    engine.score(path, Sampling())  # logits are needed from the context's last token on
    assert sum(read) == 41
    read.clear()
    engine.score(replace(path, tokens=(*path.tokens[:30], 1, 2, 3)), Sampling())
    assert sum(read) == 34


def test_what_was_read_before_does_not_change_a_score(file):
    law = Sampling()
    engine = opened(file, batch_rows=3)
    paths = [random_path(engine, prompt, 20 + i, i) for i, prompt in enumerate(["hi", "hi", "a", "b", "c", "d", "hi"])]
    paths += [replace(paths[0], tokens=paths[0].tokens[:9]), replace(paths[0], tokens=(*paths[0].tokens[:9], 7, 8))]
    fresh = [opened(file).score(path, law).p for path in paths]
    random = np.random.default_rng(0)
    for i in random.integers(0, len(paths), 40):
        if i % 3 == 0:
            list(engine.continue_([Job((s,), paths[i], s, (), (s,)) for s in range(5)], Sampling(max_new_tokens=9), 1))
        np.testing.assert_allclose(engine.score(paths[i], law).p, fresh[i], rtol=1e-4)


def test_tokens_of_a_row_do_not_depend_on_the_other_rows_nor_on_the_sitting(file):
    jobs = mixed_jobs(opened(file))
    alone = tokens(list(opened(file, batch_rows=1).continue_(jobs, PLAIN, 1)))
    assert tokens(list(opened(file, batch_rows=4).continue_(jobs, PLAIN, 1))) == alone
    assert tokens(list(opened(file, batch_rows=50).continue_(jobs[::-1], PLAIN, 1))) == alone
    again = opened(file, batch_rows=3)
    assert tokens(list(again.continue_(jobs[5:9], PLAIN, 1))) == {job.key: alone[job.key] for job in jobs[5:9]}


def test_two_runs_at_a_time_do_not_disturb_each_other(file):
    engine = opened(file, batch_rows=4)
    jobs = mixed_jobs(engine)
    alone = [tokens(list(engine.continue_(jobs, PLAIN, seed))) for seed in (1, 2)]
    score = engine.score(jobs[0].path, Sampling()).p
    one, two = (engine.continue_(jobs, PLAIN, seed) for seed in (1, 2))
    found: list[list[Completion]] = [[next(one)], [next(two)]]
    np.testing.assert_allclose(engine.score(jobs[0].path, Sampling()).p, score, rtol=1e-4)
    for a, b in zip(one, two, strict=True):
        found[0].append(a)
        found[1].append(b)
    assert [tokens(done) for done in found] == alone


def test_who_leaves_in_the_middle_leaves_nothing_behind(file):
    engine = opened(file, batch_rows=9)
    jobs = mixed_jobs(engine)
    alone = tokens(list(engine.continue_(jobs[:3], PLAIN, 1)))
    running = engine.continue_(jobs, PLAIN, 1)
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert tokens(list(engine.continue_(jobs[:3], PLAIN, 1))) == alone


def test_the_batch_is_bounded_by_bytes(file, read):
    per_token = 2 * 3 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes of a float
    engine = opened(file, batch_bytes=(TEXTS + 3) * 256 * per_token)
    assert engine._model.bytes_per_token == per_token
    path = random_path(engine, "hi", 10)
    done = list(engine.continue_([Job((i,), path, i, (), (i,)) for i in range(9)], Sampling(max_new_tokens=20), 1))
    assert len(done) == 9
    assert max(read[1:]) == 3
    small = opened(file, batch_bytes=1)
    assert len(list(small.continue_([Job((i,), path, i) for i in range(3)], Sampling(max_new_tokens=12), 1))) == 3


def test_a_longer_text_gets_more_room(engine):
    short, long = random_path(engine, "hi", 10), random_path(engine, "hi", 400)
    first = engine.score(short, Sampling()).p
    assert len(engine.score(long, Sampling()).p) == 400
    np.testing.assert_allclose(engine.score(short, Sampling()).p, first, rtol=1e-4)


# Mistakes.


def test_settings_of_the_file_are_the_models_own(tmp_path):
    own = {"temp": 0.7, "top_p": 0.8, "top_k": 20}
    engine = opened(tiny_gguf.write(tmp_path / "own.gguf", tiny.model("llama"), sampling=own))
    law = engine.default_sampling
    assert (law.temperature, law.top_p, law.top_k, law.min_p) == pytest.approx((0.7, 0.8, 20, 0.0))
    assert opened(tiny_gguf.write(tmp_path / "none.gguf", tiny.model("llama"))).default_sampling == Sampling()


def test_without_a_template_a_prompt_is_raw_text(tmp_path):
    engine = opened(tiny_gguf.write(tmp_path / "raw.gguf", tiny.model("llama"), template=False))
    context = engine.encode("Once upon", prefill=" a")
    assert engine.spell(context) == "Once upon a"
    with pytest.raises(UserError, match="no chat template"):
        engine.encode((Message("user", "hi"),))


def test_files_that_cannot_be_read_are_refused(tmp_path, file, capfd):
    text, cut = tmp_path / "text.gguf", tmp_path / "cut.gguf"
    text.write_text("not a model")
    cut.write_bytes(file.read_bytes()[:2000])
    for name, options, words in (
        ("", {}, "gguf:FILE"),
        (str(tmp_path / "none.gguf"), {}, "there is no file"),
        (str(tmp_path), {}, "there is no file"),
        (str(text), {}, "is no GGUF file"),
        (str(cut), {}, r"llama.cpp cannot read \S+: (?!it does not say why)"),
        (str(file), {"device": "cuda"}, "leave out device"),
        (str(file), {"dtype": "float32"}, "leave out device and dtype"),
        (str(file), {"batch_bytes": 0}, "batch-bytes is 0"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            open_engine(f"gguf:{name}", **options)
        assert "\n" not in str(caught.value)
    assert open_engine(f"gguf:{file}").name == f"gguf:{file}"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("llama_model_is_recurrent", "recurrent state"),
        ("llama_model_is_hybrid", "recurrent state"),
        ("llama_model_has_encoder", "one token after the other"),
    ],
)
def test_models_whose_memory_cannot_be_cut_are_refused(file, monkeypatch, asked, words):
    monkeypatch.setattr(llama_model.lib, asked, lambda _: True)
    with pytest.raises(UserError, match=words):
        opened(file)


def test_tokens_the_model_cannot_hold_are_refused_with_numbers(engine):
    path = Path(engine.encode("hi"), ())
    with pytest.raises(UserError, match=f"{len(path.context.ids) + 510}.*512"):
        list(engine.continue_([Job((), path, 0)], Sampling(max_new_tokens=510), 0))
    with pytest.raises(UserError, match="512"):
        engine.score(Path(path.context, (1,) * 512), Sampling())
    with pytest.raises(UserError, match="512"):
        engine.encode("x" * 600)


def test_a_failure_of_llama_cpp_is_said(engine, monkeypatch):
    monkeypatch.setattr(llama_model.lib, "llama_decode", lambda *_: -2)
    with pytest.raises(EngineError, match="its code is -2"):
        engine.score(random_path(engine, "hi", 3), Sampling())


# The command line.


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(file, tmp_path, capsys):
    words = ["locate", "hi", "--model", f"gguf:{file}", "--feature", "contains:e", "--max-new-tokens", "12", "--json"]

    def curve(run: str, continuations: int) -> Any:
        assert main([*words, "--continuations", str(continuations), "-o", str(tmp_path / run)]) == 0
        return json.loads(capsys.readouterr().out)

    curve("stopped.db", 20)
    resumed, whole = curve("stopped.db", 120), curve("whole.db", 120)
    for one in (resumed, whole):
        del one["timing"]
    assert resumed["generation"] == whole["generation"]
    assert resumed["cost"]["continuations"] == whole["cost"]["continuations"]
    assert "llama-cpp-python" in provenance()["versions"]  # type: ignore[operator]


def test_a_run_goes_on_where_the_file_moved_and_not_where_it_changed(tmp_path, monkeypatch, capsys):
    one, two = tiny.model("llama"), tiny.model("llama", seed=1)
    file = tiny_gguf.write(tmp_path / "tiny.gguf", one)
    words = ["locate", "hi", "--feature", "contains:e", "--max-new-tokens", "12", "--continuations", "20", "--json"]
    study = ["study", "prefill", "--items", "1", "--max-new-tokens", "8", "--continuations", "4", "--json"]
    for name, asked in (("run.db", words), ("study.db", study)):
        run = ["-o", str(tmp_path / name)]
        assert main([*asked, "--model", f"gguf:{file}", *run]) == 0
        monkeypatch.chdir(tmp_path)
        assert main([*asked, "--model", "gguf:tiny.gguf", *run]) == 0
        tiny_gguf.write(file, two)
        capsys.readouterr()
        assert main([*asked, "--model", f"gguf:{file}", *run]) == 2
        assert "holds another run" in (said := capsys.readouterr().err)
        assert "weights: " in said
        tiny_gguf.write(file, one)


def test_the_digest_sees_a_change_anywhere_in_a_large_file(tmp_path, file, monkeypatch):
    monkeypatch.setattr(weights, "PIECES", 8)
    monkeypatch.setattr(weights, "PIECE", 64)
    size = file.stat().st_size
    first = LlamaModel(file).digest
    assert first == LlamaModel(file).digest
    for place in range(0, size, size // 8):
        changed = bytearray(file.read_bytes())
        changed[place] ^= 1
        copy = tmp_path / f"{place}.gguf"
        copy.write_bytes(changed)
        model = LlamaModel(file)
        model.file = copy
        assert model.digest != first
    longer = LlamaModel(file)
    longer.file = tmp_path / "longer.gguf"
    longer.file.write_bytes(file.read_bytes() + b"\0")
    assert longer.digest != first


def test_all_layers_stay_on_the_processor(file, monkeypatch):
    asked = []
    load = llama_model.lib.llama_model_load_from_file

    def loading(name, settings):
        asked.append(settings.n_gpu_layers)
        return load(name, settings)

    monkeypatch.setattr(llama_model.lib, "llama_model_load_from_file", loading)
    LlamaModel(file)
    assert asked == [0]


# The embedded model's file.

QUESTION = "Is a whale a fish? Answer yes or no, in one sentence."
REPLY = "No, a whale is not a fish."
LAW = Sampling(temperature=1.0, top_k=40, max_new_tokens=12)


@pytest.fixture(scope="module")
def requantised(tmp_path_factory: pytest.TempPathFactory) -> FilePath:
    """The embedded model in Q8_0, made as the documents say."""
    page = (FilePath(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python notest\n(.*?llama_model_quantize\(.*?)^```", page, re.MULTILINE | re.DOTALL)
    folder = tmp_path_factory.mktemp("quantised")
    names: dict[str, Any] = {}
    exec(block.replace("smollm2-q8_0.gguf", str(folder / "q8.gguf")), names)
    return folder / "q8.gguf"


@pytest.fixture(scope="module", params=["Q4_1", "Q8_0"])
def embedded(request: pytest.FixtureRequest) -> Engine:
    weights = find_weights() if request.param == "Q4_1" else request.getfixturevalue("requantised")
    return open_engine(f"gguf:{weights}")


@pytest.mark.model
def test_probabilities_agree_within_quantisation_error(embedded: Engine, smollm2: Engine) -> None:
    path = smollm2.encode_reply(smollm2.encode(QUESTION), REPLY, finished=True)
    assert embedded.encode_reply(embedded.encode(QUESTION), REPLY, finished=True) == path
    mine, theirs = embedded.score(path, LAW), smollm2.score(path, LAW)
    both = (mine.p > 0) & (theirs.p > 0) & (np.arange(len(path.tokens)) < len(path.tokens) - 1)
    assert both.mean() > 0.8
    assert np.sqrt(np.mean(np.log(mine.p[both] / theirs.p[both]) ** 2)) < 0.3
    assert np.abs(mine.p - theirs.p).max() < 0.3
    assert "rounds activations" in embedded.remarks(path.context)[0]  # type: ignore[attr-defined]


@pytest.mark.model
def test_first_tokens_follow_the_scored_law(embedded: Engine) -> None:
    start = Path(embedded.encode(QUESTION), ())
    one = replace(LAW, max_new_tokens=1)
    count = 400
    said = [
        done.tokens[0] for done in embedded.continue_([Job((i,), start, 0, (), (5, i)) for i in range(count)], one, 7)
    ]
    score = embedded.score(replace(start, tokens=said[:1]), one)
    law = dict(zip(score.alternatives[0].ids.tolist(), score.alternatives[0].p, strict=True)) | {said[0]: score.p[0]}
    common = [id_ for id_, p in law.items() if count * p >= 15]
    expected = np.array([*(count * law[id_] for id_ in common), count * (1 - sum(law[id_] for id_ in common))])
    observed = np.array([*(said.count(id_) for id_ in common), count - sum(said.count(id_) for id_ in common)])
    # 1e-7 for exact laws; twice the statistic leaves room for a law that is a few percent off between the two readings.
    assert ((observed - expected) ** 2 / expected).sum() < 2 * chi2.isf(1e-7, len(common))


@pytest.mark.model
def test_label_laws_agree_within_statistical_and_quantisation_error(requantised: FilePath, smollm2: Engine) -> None:
    def share(engine: Engine, count: int) -> float:
        start = Path(engine.encode(QUESTION), ())
        jobs = [Job((i,), start, 0, (), (6, i)) for i in range(count)]
        done = engine.continue_(jobs, replace(LAW, max_new_tokens=4), 3)
        return float(np.mean(["No" in engine.decode(one.tokens) for one in done]))

    mine, theirs = share(open_engine(f"gguf:{requantised}"), 300), share(smollm2, 300)
    p = (mine + theirs) / 2
    # 5.5 standard deviations of the difference, 4e-8 two-sided, on top of the quantisation error.
    assert abs(mine - theirs) < 5.5 * np.sqrt(2 * p * (1 - p) / 300) + 0.1


@pytest.mark.model
def test_a_run_on_the_embedded_model_says_what_is_rounded(requantised: FilePath) -> None:
    trace = locate(
        f"gguf:{requantised}", QUESTION, feature=r"regex:(?i)\b(yes|no)\b", error=0.2, continuations=60,
        sampling=Sampling(0.6, 0, 0.9, max_new_tokens=20),
    )  # fmt: skip
    assert len(trace.curve) == len(trace.steps) + 1
    assert any("rounds activations" in note for note in trace.notes)
