"""Toy models: their exact law against enumeration, closed forms and their own samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from blinkscope.divergence import total_variation
from blinkscope.engines.automaton import Automaton, State, automaton
from blinkscope.engines.machine import END, END_TEXT, UNKNOWN, label_laws, law_of
from blinkscope.engines.toy import ToyEngine
from blinkscope.engines.toy_models import TOYS, open_toy
from blinkscope.errors import UserError
from blinkscope.feature import TRUNCATED, UNPARSED, Reply, label_of
from blinkscope.language.engine import Ask, Completion, Job, KnownLaw, Message, Path, Truth
from blinkscope.language.sampling import Sampling
from blinkscope.window import default_max_width

STATES = {  # loops, a label before the end, an end without a label
    "start": State({"go": (0.4, "start"), "left": (0.25, "left"), "right": (0.2, "right"), "halt": (0.15, "halt")}),
    "left": State({END_TEXT: (0.5, "left"), "go": (0.3, "start"), "right": (0.2, "right")}, "L"),
    "right": State({END_TEXT: (0.8, "right"), "on": (0.2, "right")}, "R"),
    "halt": State({END_TEXT: (1.0, "halt")}),
}
TINY = ToyEngine("toy:tiny", automaton(STATES, ("L", "R")), longest=9)
SAMPLINGS = (
    Sampling(max_new_tokens=6),
    Sampling(max_new_tokens=1),
    Sampling(temperature=0.6, top_p=0.9, max_new_tokens=7),
    Sampling(temperature=1.7, top_k=2, max_new_tokens=5),
    Sampling(min_p=0.5, max_new_tokens=6),
    Sampling(temperature=0, max_new_tokens=6),
    Sampling(max_new_tokens=6, stop=("righ", "zebra")),
    Sampling(max_new_tokens=6, stop=("go",)),
)


def sampled(moves: Mapping[str, float], sampling: Sampling) -> dict[str, float]:
    """A next-word law under a sampling distribution, the slow way: drop words one by one, least probable first."""
    ranked = sorted(moves, key=lambda word: (-moves[word], word))
    if sampling.temperature == 0:
        return {ranked[0]: 1.0}
    p = {word: moves[word] ** (1 / sampling.temperature) for word in ranked}
    p = dict(list(p.items())[: sampling.top_k or None])
    p = {word: x / sum(p.values()) for word, x in p.items()}
    nucleus: dict[str, float] = {}
    for word, x in p.items():
        if sum(nucleus.values()) < sampling.top_p:
            nucleus[word] = x
    kept = {word: x for word, x in nucleus.items() if x >= sampling.min_p * max(nucleus.values())}
    return {word: x / sum(kept.values()) for word, x in kept.items()}


def enumerated(engine: ToyEngine, state: str, text: str, left: int, sampling: Sampling) -> dict[str, float]:
    """Label law after ``text`` by listing every continuation and reading its label from its text."""
    if left == 0:
        return {label_of(engine.feature, Reply(text, finished=False)): 1.0}
    law: dict[str, float] = {}
    for word, p in sampled({w: p for w, (p, _) in STATES[state].moves.items()}, sampling).items():
        longer = text if word == END_TEXT else f"{text} {word}"
        if word == END_TEXT or any(stop in f" {word}" for stop in sampling.stop):
            after = {label_of(engine.feature, Reply(longer, finished=True)): 1.0}
        else:
            after = enumerated(engine, str(STATES[state].moves[word][1]), longer, left - 1, sampling)
        for label, q in after.items():
            law[label] = law.get(label, 0.0) + p * q
    return law


def row(truth: Truth, s: int) -> dict[str, float]:
    return {label: p for label, p in zip(truth.labels, truth.posterior[s], strict=True) if p > 0}


def write(engine: ToyEngine, count: int, sampling: Sampling, seed: int = 0) -> list[Completion]:
    start = Path(engine.encode("Tell me."), ())
    jobs = [Job((i,), start, 0, (), (7, i)) for i in range(count)]
    return sorted(engine.continue_(jobs, sampling, seed), key=lambda done: done.job.key)


def paths(engine: ToyEngine, count: int, sampling: Sampling | None = None, seed: int = 0) -> list[Path]:
    done = write(engine, count, sampling or engine.default_sampling, seed)
    return [Path(one.job.path.context, one.tokens) for one in done]


def label(engine: ToyEngine, path: Path, done: Completion) -> str:
    text = path.context.prefill + engine.decode((*path.tokens[: done.job.kept], *done.tokens))
    return label_of(engine.feature, Reply(text, done.finish == "stop"))


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("text", ["go go left go right", "left right on", "halt", "on go halt"])
def test_truth_is_what_enumeration_gives(sampling: Sampling, text: str) -> None:
    path = TINY.encode_reply(TINY.encode("x"), text, finished=False)
    if any(any(stop in f" {word}" for stop in sampling.stop) for word in text.split()[:-1]):
        with pytest.raises(UserError, match="ends it; cut it there"):
            TINY.truth(path, sampling)
        return
    truth = TINY.truth(path, sampling)
    state, words = "start", text.split()
    for s, word in enumerate(words):
        left = max(sampling.max_new_tokens - s, 0)
        expected = enumerated(TINY, state, " ".join(words[:s]), left, sampling)
        assert row(truth, s) == pytest.approx(expected, abs=1e-12)
        state = str(STATES[state].moves.get(word, (0.0, state))[1])
    over = any(stop in f" {words[-1]}" for stop in sampling.stop)
    assert row(truth, len(words)) == {label_of(TINY.feature, Reply(text, finished=over)): 1.0}


def test_reserved_outcomes_are_listed_only_where_they_can_happen() -> None:
    halted = Path(TINY.encode("x", prefill="halt"), (END,))
    assert TINY.truth(halted, Sampling()).labels == ("L", "R", UNPARSED)
    go = TINY.encode_reply(TINY.encode("x"), "go right", finished=False)
    assert TINY.truth(go, Sampling(max_new_tokens=2)).labels == ("L", "R", TRUNCATED, UNPARSED)
    fork = open_toy("fork")
    assert fork.truth(paths(fork, 1)[0], fork.default_sampling).labels == ("happy", "sad")
    short = Sampling(max_new_tokens=20)
    truth = fork.truth(paths(fork, 1, short)[0], short)
    assert truth.labels == ("happy", "sad", TRUNCATED)
    assert truth.posterior[:, 2] == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("engine", [TINY, *(open_toy(name) for name in TOYS)], ids=lambda engine: engine.name)
@pytest.mark.parametrize(
    ("sampling", "share"),
    [(Sampling(), 1.0), (Sampling(temperature=0.6, top_p=0.9), 1.0), (Sampling(temperature=1.5, min_p=0.1), 0.7)],
)
def test_divergence_decomposition_holds_exactly(engine: ToyEngine, sampling: Sampling, share: float) -> None:
    """pi_s = p_s pi_{s+1} + q_s gamma_s = sum_x P(x) pi_{s+1}(x), with every gamma taken from another path's truth."""
    cap = round(share * engine.longest)
    law = replace(sampling, max_new_tokens=cap)
    for path in paths(engine, 2, law, seed=5):
        truth, score = engine.truth(path, law), engine.score(path, law)
        assert truth.posterior.sum(axis=1) == pytest.approx(1.0, abs=1e-12)
        assert score.p + score.off_path == pytest.approx(1.0, abs=1e-12)
        open_ = np.flatnonzero(score.off_path > 0)
        moves = total_variation(truth.posterior[1:], truth.posterior[:-1])
        assert (moves <= score.off_path + 1e-12).all()
        for s in open_[:: max(len(open_) // 25, 1)]:
            mixed = {label: score.p[s] * p for label, p in row(truth, s + 1).items()}
            alternatives = score.alternatives[s]
            assert float(alternatives.p.sum()) == score.off_path[s]
            assert (np.diff(alternatives.p) <= 0).all()
            for token, p in zip(alternatives.ids.tolist(), alternatives.p.tolist(), strict=True):
                ended = token == END or s + 1 == cap  # the last row of a path is the label of its text
                other = Path(path.context, (*path.tokens[:s], token, *(() if ended else (UNKNOWN,))))
                for name, q in row(engine.truth(other, law), s + 1).items():
                    mixed[name] = mixed.get(name, 0.0) + p * q
            assert mixed == pytest.approx(row(truth, s), abs=1e-12)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10**6), st.sampled_from([2, 3, 4, 8]), st.sampled_from([0.1, 0.66, 1.0]), st.sampled_from([1, 2, 4])
)
def test_every_maze_is_sound(seed: int, labels: int, share: float, windows: int) -> None:
    engine = open_toy(f"maze?seed={seed}&labels={labels}&open={share}&windows={windows}&length=90")
    path = paths(engine, 1, seed=seed)[0]
    truth, score = engine.truth(path, engine.default_sampling), engine.score(path, engine.default_sampling)
    assert len(path.tokens) == 90
    assert truth.labels == engine.machine.labels
    assert len(truth.labels) == labels
    assert (truth.posterior[0] > 0.01).all(), "every label can happen"
    opened = min(round(max(share * 90 - windows, 0)) + windows, 86)
    assert opened - windows <= (score.off_path > 0).sum() <= opened, "a turn taken before its time closes its position"
    assert (total_variation(truth.posterior[1:], truth.posterior[:-1]) <= score.off_path + 1e-12).all()


@pytest.mark.parametrize(
    ("rest", "misplaced", "sampling"),
    [
        ("fork?agree=5&width=4&leak=0.3&length=20", "sad.", Sampling(max_new_tokens=20)),
        ("walk?barrier=3", "Done.", Sampling(temperature=0.8, top_p=0.95, max_new_tokens=15)),
        ("maze?length=60&windows=2&labels=3", "red.", Sampling(temperature=0.7, top_k=3, max_new_tokens=60)),
        ("null?length=40&labels=4", "red.", Sampling(temperature=1.3, max_new_tokens=40)),
    ],
)
def test_continuations_follow_the_truth(rest: str, misplaced: str, sampling: Sampling) -> None:
    """Hoeffding's inequality, 4 models x at most 4 rows x 7 labels: together a false alarm of at most 1e-7."""
    engine, count = open_toy(rest), 3000
    path = paths(engine, 1, sampling, seed=3)[0]
    tokens = (*path.tokens[:2], engine.machine.ids[misplaced], *path.tokens[2:])  # a word that cannot stand there
    path = Path(path.context, tokens)
    truth = engine.truth(path, sampling)
    tolerance = np.sqrt(np.log(2 * 4 * 4 * 7 / 1e-7) / (2 * count))
    for kept in {0, 3, 6, len(tokens) - 2}:
        jobs = [Job((i,), path, kept, (), (kept, i)) for i in range(count)]
        seen = [label(engine, path, done) for done in engine.continue_(jobs, sampling, seed=11)]
        assert set(seen) <= set(truth.labels)
        for name, p in zip(truth.labels, truth.posterior[kept], strict=True):
            assert abs(seen.count(name) / count - p) < tolerance


def test_forced_words_count_and_free_ones_use_the_job_s_own_stream() -> None:
    engine = open_toy("maze")
    sampling = engine.default_sampling
    path = paths(engine, 1)[0]
    fork = int(np.flatnonzero([len(a.ids) for a in engine.score(path, sampling).alternatives])[4])
    token = int(engine.score(path, sampling).alternatives[fork].ids[-1])
    jobs = [Job((0,), path, fork, (token,), (1, 0)), Job((1,), path, 0, (), (1, 1)), Job((2,), path, 150, (), (1, 2))]
    jobs += [Job((i,), path, i % 180, (), (1, i)) for i in range(3, 2500)]
    together = {done.job.key: done for done in engine.continue_(jobs, sampling, seed=2)}
    assert len(together) == len(jobs)
    for job in [*jobs[:3], jobs[-1]]:
        (alone,) = engine.continue_([job], sampling, seed=2)
        same = together[job.key]
        assert (alone.tokens, alone.finish, alone.generated) == (same.tokens, same.finish, same.generated)
        assert np.array_equal(alone.p, same.p, equal_nan=True)
        free = alone.tokens[len(job.forced) :]
        uniforms = np.random.default_rng(np.random.SeedSequence(2, spawn_key=job.stream)).random(len(free))
        written = Path(path.context, (*path.tokens[: job.kept], *alone.tokens))
        score = engine.score(written, sampling)
        for i, (u, x) in enumerate(zip(uniforms, free, strict=True), start=job.kept + len(job.forced)):
            law = sorted([(score.p[i], x), *zip(score.alternatives[i].p, score.alternatives[i].ids, strict=True)])[::-1]
            assert law[int((np.cumsum([p for p, _ in law]) <= u).sum())][1] == x, "one uniform for each token"
        assert list(alone.p[len(job.forced) :]) == score.p[job.kept + len(job.forced) :].tolist()
        assert np.isnan(alone.p[: len(job.forced)]).all()
        assert alone.generated == len(free)
    assert together[0,].tokens[0] == token


def test_replies_that_are_over_stay_as_they_are() -> None:
    context = TINY.encode("x")
    whole = TINY.encode_reply(context, "go left", finished=True)
    jobs = [Job((0,), whole, 3), Job((1,), whole, 2, (END,)), Job((2,), whole, 1, (TINY.machine.ids["left"],))]
    cap = Sampling(max_new_tokens=2)
    done = {one.job.key[0]: one for one in TINY.continue_(jobs, cap, seed=0)}
    assert [(done[i].tokens, done[i].finish, done[i].generated) for i in range(3)] == [
        ((), "stop", 0),
        ((END,), "stop", 0),
        ((TINY.machine.ids["left"],), "length", 0),
    ]
    with pytest.raises(UserError, match=r"goes on after token 1 \('<end>'\)"):
        TINY.score(Path(context, (END, END)), cap)


def test_a_cap_beyond_the_context_window_is_refused_before_anything_is_reckoned() -> None:
    job = Job((0,), Path(TINY.encode("x y"), ()), 0)
    (done,) = TINY.continue_([job], Sampling(max_new_tokens=TINY.context_window - 2), seed=0)
    assert done.finish == "stop"
    with pytest.raises(UserError, match="may have 99999999999 tokens together, and the model's context window is"):
        next(iter(TINY.continue_([job], Sampling(max_new_tokens=99_999_999_997), seed=0)))


def test_an_impossible_word_has_probability_0_and_is_passed_over() -> None:
    path = TINY.encode_reply(TINY.encode("x"), "go on left", finished=True)
    score = TINY.score(path, Sampling())
    assert score.p.tolist() == pytest.approx([0.4, 0.0, 0.25, 0.5])
    assert score.off_path[1] == pytest.approx(1.0)
    assert len(score.alternatives[1].ids) == 4
    truth = TINY.truth(path, Sampling(max_new_tokens=9))
    shorter = TINY.truth(TINY.encode_reply(TINY.encode("x"), "go left", finished=True), Sampling(max_new_tokens=8))
    assert row(truth, 2) == pytest.approx(row(shorter, 1), abs=1e-12)


def test_text_and_tokens() -> None:
    engine = open_toy("maze")
    context = engine.encode("How do I get out?", prefill="The quiet")
    assert len(context.ids) == 5 + 2
    assert context.prefill == "The quiet"
    messages = (Message("system", "Be brief."), Message("user", "Where to?"))
    assert engine.encode(messages).messages == messages
    assert len(engine.encode(messages).ids) == 4
    for path in paths(engine, 3):
        text = engine.decode(path.tokens)
        assert engine.encode_reply(path.context, text, finished=True).tokens == path.tokens
        assert engine.pieces(path.tokens)[-1] == END_TEXT
        assert "".join(engine.pieces(path.tokens[:-1])) == text


def test_a_prefill_belongs_to_the_reply() -> None:
    context = TINY.encode("x", prefill="go right")
    law = TINY.truth(Path(context, (END,)), Sampling())
    assert row(law, 0) == {"R": 1.0}
    (done,) = TINY.continue_([Job((0,), Path(context, ()), 0)], Sampling(), seed=0)
    assert label(TINY, done.job.path, done) == "R"


@pytest.mark.parametrize("name", TOYS)
def test_the_feature_reads_the_label_from_text_alone(name: str) -> None:
    engine = open_toy(name)
    assert isinstance(engine, KnownLaw)
    for path in paths(engine, 20):
        truth = engine.truth(path, engine.default_sampling)
        text = engine.decode(path.tokens)
        final = truth.labels[int(truth.posterior[-1].argmax())]
        assert engine.feature.label(Reply(text, finished=True)) == final
        noisy = f"\n<script> {text.replace(' ', '  ')} \u202e"  # what the model never says is passed over
        assert engine.feature.label(Reply(noisy, finished=True)) == final
    assert engine.feature.label(Reply("", finished=True)) == ("neither" if name == "walk" else None)


# The named models


def test_fork_parts_where_it_should() -> None:
    weight, leak, agree, width = 0.3, 0.1, 12, 5
    engine = open_toy(f"fork?agree={agree}&width={width}&leak={leak}&weight={weight}&length=40")
    for path in paths(engine, 40):
        happy = engine.truth(path, engine.default_sampling).posterior[:, 0]
        assert happy[: agree + 1] == pytest.approx(weight)
        told = engine.decode(path.tokens[agree : agree + width]).split()
        bright = sum(word in ("smiled", "laughed") for word in told) > width / 2
        dim = weight * leak / (weight * leak + 1 - weight)
        assert happy[agree + width : -2] == pytest.approx(1.0 if bright else dim)
    for kept, distance in ((agree, 0.0), (agree + width, 1 - leak)):
        p, laws = states_after(engine, kept)
        happy = laws[:, 0]
        assert 0.5 * (p * abs(happy / weight - (1 - happy) / (1 - weight))).sum() == pytest.approx(distance, abs=1e-9)


def states_after(engine: ToyEngine, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the states that a fresh reply can be in after ``kept`` tokens, and the label law in each."""
    machine, sampling = engine.machine, engine.default_sampling
    assert isinstance(machine, Automaton)
    _, law = law_of(machine, np.arange(len(machine.outcomes)), sampling)
    p = np.zeros(len(machine.outcomes))
    p[0] = 1.0
    for _ in range(kept):
        after = np.zeros_like(p)
        np.add.at(after, machine.successors, p[:, None] * law)
        p = after
    there = np.flatnonzero(p)
    laws = label_laws(machine, sampling, there, np.full(len(there), engine.longest - kept))
    assert laws is not None
    return p[there], laws


@pytest.mark.parametrize(("drift", "barrier"), [(0.0, 5), (0.1, 4), (0.03, 9)])
def test_walk_is_gambler_s_ruin(drift: float, barrier: int) -> None:
    engine = open_toy(f"walk?drift={drift}&barrier={barrier}")
    path = engine.encode_reply(engine.encode("Solve it."), "so " * barrier, finished=False)
    posterior = engine.truth(path, Sampling(max_new_tokens=4000)).posterior
    up = np.array([0.5 + drift, 0.5 - drift])
    for x in range(barrier):  # x steps forward
        mode = up**x / (up**x).sum()
        r = (1 - up) / up
        fair = np.full(2, (x + barrier) / (2 * barrier))
        ruin = (1 - r ** (x + barrier)) / (1 - r ** (2 * barrier)) if drift else fair
        assert posterior[x] == pytest.approx([mode @ ruin, 1 - mode @ ruin, 0], abs=1e-9)
    assert posterior[barrier].tolist() == [1, 0, 0]


def widest_change(truth: Truth) -> float:
    """Largest total variation between two rows that a window may join."""
    posterior = truth.posterior
    width = default_max_width(len(posterior) - 1)
    return max(float(total_variation(posterior[k:], posterior[:-k]).max()) for k in range(1, width + 1))


@pytest.mark.parametrize(("labels", "stated"), [(2, 0.0004), (4, 0.004), (8, 0.009)])
@pytest.mark.parametrize("length", [30, 46, 100])
def test_null_has_no_window(labels: int, stated: float, length: int) -> None:
    """Exact bound where the label is settled before it is said, and the stated share of replies where it is not.

    The number of exceptions among 200 sampled replies is allowed what has probability 1e-7 under the stated share.
    """
    engine = open_toy(f"null?seed=4&length={length}&labels={labels}")
    sampling = engine.default_sampling
    exceptions = 0
    for path in paths(engine, 200):
        truth = engine.truth(path, sampling)
        change = widest_change(truth)
        if truth.posterior[-3].max() == pytest.approx(1.0):
            assert change <= 0.38 + 1e-9
        exceptions += change >= 0.5
    assert exceptions <= binom.isf(1e-7, 200, stated)
    p, says = states_after(engine, length - 2)
    share = float(p @ np.where(says <= 0.5, says, 0.0).sum(axis=1))
    assert stated / 3 < share <= stated


@pytest.mark.parametrize(("labels", "at_least"), [(2, 0.2), (4, 0.3), (8, 0.4)])
def test_maze_has_windows(labels: int, at_least: float) -> None:
    """In a fixed sample many replies have a change of 0.6 within a tenth, and small moves outnumber large ones."""
    for seed in range(3):
        engine = open_toy(f"maze?seed={seed}&labels={labels}")
        truths = [engine.truth(path, engine.default_sampling) for path in paths(engine, 60)]
        assert np.mean([widest_change(truth) >= 0.6 for truth in truths]) >= at_least
        moves = np.concatenate([total_variation(t.posterior[1:], t.posterior[:-1]) for t in truths])
        assert ((moves > 1e-3) & (moves < 0.1)).sum() > 5 * (moves > 0.3).sum() > 0


def test_seeds_name_different_mazes() -> None:
    first, second = open_toy("maze?seed=0"), open_toy("maze?seed=1")
    assert first.decode(paths(first, 1)[0].tokens) != second.decode(paths(second, 1)[0].tokens)
    assert open_toy("maze?labels=3&seed=2").name == open_toy("maze?seed=2&labels=3").name


# Mistakes


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        (
            "fox",
            "there is no toy model 'fox'; there are toy:fork, toy:walk, toy:maze, toy:null, toy:critical-token, "
            "toy:random-walk, toy:in-context, toy:permuted-masking, toy:random-hierarchy.",
        ),
        ("fork?agre=2", "toy:fork has no parameter 'agre'; it takes agree, width, leak, weight, length."),
        ("fork?leak=2", "toy:fork: leak is '2'; it must be a number from 0.0 to 1.0."),
        ("fork?leak=nan", "toy:fork: leak is 'nan'; it must be a number from 0.0 to 1.0."),
        ("fork?width=2.5", "toy:fork: width is '2.5'; it must be a whole number from 1 to 50."),
        ("fork?width", "toy:fork: width is ''; it must be a whole number from 1 to 50."),
        ("maze?seed=1&seed=2", "toy:maze: seed is given twice; give it once."),
        ("fork?agree=90", "toy:fork: length is 60, but these parameters need at least 97 tokens."),
        ("maze?length=20", "toy:maze: length is 20, but these parameters need at least 28 tokens."),
    ],
)
def test_a_wrong_spelling_is_answered_with_what_there_is(rest: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        open_toy(rest)
    assert str(error.value) == said


def test_examples_open() -> None:
    for name, toy in TOYS.items():
        assert open_toy(toy.example.removeprefix("toy:")).name.startswith(f"toy:{name}?")


def test_what_a_toy_model_cannot_do_is_said_plainly() -> None:
    context = TINY.encode("x")
    path = Path(context, ())
    with pytest.raises(UserError, match="does not know the word 'banana'"):
        TINY.encode_reply(context, "go banana", finished=False)
    with pytest.raises(UserError, match="does not know the word 'Sure,'"):
        TINY.encode("x", prefill="Sure,")
    with pytest.raises(UserError, match="cannot be asked"):
        TINY.follow_up(path, "Which?")
    with pytest.raises(UserError, match="cannot be asked"):
        list(TINY.continue_([Job((0,), path, 0, ask=Ask((1,)))], Sampling(), seed=0))
    with pytest.raises(UserError, match="stop text 'go left' spans several words"):
        TINY.score(path, Sampling(stop=("go left",)))
    with pytest.raises(UserError, match="prompt is empty"):
        TINY.encode(" ")
    with pytest.raises(UserError, match="the prompt has 40000 words"):
        TINY.encode("word " * 40_000)
