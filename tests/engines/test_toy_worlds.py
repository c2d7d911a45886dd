"""Worlds that write: prefix probabilities and posteriors against Bayes' rule, and what ``locate`` finds in them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from blinkscope.critical import critical_window
from blinkscope.engines.machine import label_laws
from blinkscope.engines.toy import ToyEngine
from blinkscope.engines.toy_models import open_toy
from blinkscope.engines.toy_worlds import WORDINGS, WorldText
from blinkscope.errors import UserError
from blinkscope.feature import Reply
from blinkscope.language.engine import Job, KnownLaw, Path
from blinkscope.language.sampling import Sampling
from blinkscope.posterior import Posterior
from blinkscope.session import locate
from blinkscope.window import token_windows

SPECS = (
    "critical-token?length=12&agree=4&width=3&leak=0.3",
    "critical-token?length=7&agree=0&width=7&leak=0.2",
    "random-walk?length=9&drift=0.2",
    "random-walk?length=9&drift=0.3&absorb=3",
    "random-walk?length=8&drift=0.1&absorb=3&label=ending",
    "in-context?examples=3&separation=0.8&candidates=3",
    "permuted-masking?coordinates=4&alphabet=3&order=2,0,3,1",
    "random-hierarchy?depth=2&branching=2&symbols=3&rules=2&seed=1",
    "random-hierarchy?depth=2&branching=3&symbols=3&rules=2&seed=4",
)


def machine_of(engine: ToyEngine) -> WorldText:
    assert isinstance(engine.machine, WorldText)
    return engine.machine


def written(engine: ToyEngine, count: int, sampling: Sampling | None = None, seed: int = 0) -> list[Path]:
    start = Path(engine.encode("Tell me."), ())
    done = engine.continue_([Job((i,), start, 0, (), (3, i)) for i in range(count)], sampling or Sampling(), seed)
    return [Path(start.context, one.tokens) for one in sorted(done, key=lambda one: one.job.key)]


def body(engine: ToyEngine, path: Path) -> list[str]:
    """The words of a text before its label."""
    return [word for word in engine.decode(path.tokens).split() if not word.endswith(".")]


# What a beginning of the text is worth under each label, worked out from the definition of the world alone.


def critical_token(world: Any, words: list[str]) -> np.ndarray:
    """The second mode parts at the first or the last of the k tokens, or for good at a place uniform over the rest."""
    first, last, rest = world.agree, world.agree + world.width - 1, range(world.agree + world.width, world.length)
    parts = np.zeros(world.length + 1)  # the last entry: never
    parts[first] += (1 - world.leak) / 2
    parts[last] += (1 - world.leak) / 2
    parts[list(rest) or [world.length]] += world.leak / (len(rest) or 1)
    if "aside" in words:
        return np.array([0.0, parts[words.index("aside")]])
    return np.array([1.0, parts[len(words) :].sum()])


def random_walk(world: Any, words: list[str]) -> np.ndarray:
    """Joint with the mode; for the ending, by listing every way on."""
    ups = np.array([0.5 + world.drift, 0.5 - world.drift])
    if world.label == "mode":
        return np.prod([ups if word == "forward" else 1 - ups for word in words], axis=0) * np.ones(2)
    total = np.zeros(3)
    for more in product(("back", "forward"), repeat=world.length - len(words)):
        steps = [1 if word == "forward" else -1 for word in (*words, *more)]
        places = np.cumsum(steps)
        stops = np.flatnonzero(np.abs(places) >= world.absorb)
        end = 2 if not len(stops) else 0 if places[stops[0]] > 0 else 1
        total[end] += np.prod([ups if step > 0 else 1 - ups for step in steps], axis=0).mean()
    return total / world.weights


def in_context(world: Any, words: list[str]) -> np.ndarray:
    answers = [int(word) for word in words if word.isdigit()]
    questions = sum(word in ("apple", "fig", "pear", "plum") for word in words)
    return world.laws[:, answers].prod(axis=1) / 4**questions


def permuted_masking(world: Any, words: list[str]) -> np.ndarray:
    order = [int(i) for i in world.order.split(",")]
    return np.array([all(label[i] == word for i, word in zip(order, words, strict=False)) for label in world.labels])


def random_hierarchy(world: Any, words: list[str]) -> np.ndarray:
    """By listing every text of the grammar."""
    texts = {(x,): {(x,): 1.0} for x in range(world.symbols)}
    for production in world.productions:
        for law in texts.values():
            for text, p in list(law.items()):
                del law[text]
                for choice in product(range(world.rules), repeat=len(text)):
                    longer = tuple(int(y) for x, rule in zip(text, choice, strict=True) for y in production[x, rule])
                    law[-1, *longer] = law.get((-1, *longer), 0.0) + p / world.rules ** len(text)
            for text in list(law):
                law[text[1:]] = law.pop(text)
    shown = tuple(int(word) for word in words)
    return np.array([sum(p for text, p in law.items() if text[: len(shown)] == shown) for law in texts.values()])


LIKELIHOODS: dict[str, Callable[[Any, list[str]], np.ndarray]] = {
    "critical-token": critical_token,
    "random-walk": random_walk,
    "in-context": in_context,
    "permuted-masking": permuted_masking,
    "random-hierarchy": random_hierarchy,
}


@pytest.mark.parametrize("spec", SPECS)
def test_law_and_posterior_are_the_worlds(spec: str) -> None:
    engine = open_toy(spec)
    machine = machine_of(engine)
    world, likelihood = machine.world, LIKELIHOODS[machine.world.name]
    assert isinstance(engine, KnownLaw)
    for path in written(engine, 25):
        score, truth = engine.score(path, engine.default_sampling), engine.truth(path, engine.default_sampling)
        assert truth is not None
        assert truth.labels == world.labels
        words = body(engine, path)
        assert len(path.tokens) == len(words) + 2
        for s in range(len(words) + 1):
            joint = world.weights * likelihood(world, words[:s])
            assert score.p[:s].prod() == pytest.approx(joint.sum(), rel=1e-10)
            assert truth.posterior[s] == pytest.approx(joint / joint.sum(), abs=1e-10)
        said = world.labels.index(str(engine.feature.label(Reply(engine.decode(path.tokens), True))))
        assert score.p[len(words)] == pytest.approx(truth.posterior[len(words), said])
        assert truth.posterior[len(words) + 1 :] == pytest.approx(np.eye(len(world.labels))[[said, said]])


@pytest.mark.parametrize("spec", SPECS)
def test_the_worlds_posterior_is_what_following_its_words_gives(spec: str) -> None:
    """Two routes to the same curve: the world's formula, and the sum over everything that can be written."""
    engine = open_toy(spec)
    machine, sampling = machine_of(engine), engine.default_sampling
    for path in written(engine, 5, seed=1):
        states = engine._states(path, sampling)[:-1]
        left = engine.longest - np.arange(len(states))
        own = machine.posterior(sampling, states, left)
        assert own == pytest.approx(label_laws(machine, sampling, states, left), abs=1e-10)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(
    "sampling",
    [Sampling(temperature=0.7, top_p=0.9), Sampling(temperature=2.0, top_k=2), Sampling(max_new_tokens=6)],
    ids=str,
)
def test_the_decomposition_holds_under_other_laws(spec: str, sampling: Sampling) -> None:
    """pi_s = sum_x P(x) pi_{s+1}(x), with the laws after other words taken from other texts' truth."""
    engine = open_toy(spec)
    for path in written(engine, 2, sampling, seed=2):
        score = engine.score(path, sampling)
        for s in range(min(len(path.tokens), sampling.max_new_tokens) - 1):
            mixed: dict[str, float] = {}
            ways = [(path.tokens[s], score.p[s]), *zip(score.alternatives[s].ids, score.alternatives[s].p, strict=True)]
            for token, p in ways:
                law = label_law(engine, Path(path.context, (*path.tokens[:s], int(token))), sampling)
                for label, q in law.items():
                    mixed[label] = mixed.get(label, 0.0) + p * q
            here = label_law(engine, Path(path.context, path.tokens[:s]), sampling)
            assert {label: q for label, q in mixed.items() if q > 1e-12} == pytest.approx(here, abs=1e-10)


def label_law(engine: ToyEngine, path: Path, sampling: Sampling) -> dict[str, float]:
    """The exact law of the label after a text."""
    states = engine._states(path, sampling)[-1:]
    left = np.array([sampling.max_new_tokens - len(path.tokens)])
    law = engine.machine.posterior(sampling, states, left)
    assert law is not None
    names = (*engine.machine.labels, "(truncated)", "(unparsed)")
    return {name: float(p) for name, p in zip(names, law[0], strict=True) if p > 1e-12}


@pytest.mark.parametrize("spec", [SPECS[0], SPECS[2], SPECS[3], SPECS[5], SPECS[6], SPECS[8]])
def test_texts_are_as_far_apart_as_the_world_says(spec: str) -> None:
    """TV(p_t^A, p_t^B) = E |pi(A)/w_A - pi(B)/w_B| / 2 over 300 texts; 7 standard errors, 6 models, 4 times each.

    Together a false alarm of 24 x 2.6e-12 in the normal approximation; the streams are fixed.
    """
    engine = open_toy(spec)
    world = machine_of(engine).world
    inside = np.isin(world.labels, world.after)
    curves = []
    for path in written(engine, 300, seed=4):
        truth = engine.truth(path, engine.default_sampling)
        assert truth is not None
        round_ = machine_of(engine).length // int(world.index.high)
        rows = truth.posterior[:-2:round_, inside].sum(axis=1)
        full = np.full(int(world.index.high) + 1, rows[-1])  # a walk that has stopped stays
        full[: len(rows)] = rows
        curves.append(full)
    share, weight = np.array(curves), world.weights[inside].sum()
    others = tuple(label for label in world.labels if label not in world.after)
    for shown in np.linspace(1, world.index.high, 4).round().astype(int).tolist():
        gap = np.abs(share[:, shown] / weight - (1 - share[:, shown]) / (1 - weight)) / 2
        exact = world.total_variation(world.after, others, int(world.index.high) - shown).value
        assert abs(gap.mean() - exact) <= 7 * gap.std() / np.sqrt(len(gap)) + 1e-12


# locate against the theory


@pytest.mark.parametrize(
    "spec",
    [
        "critical-token?length=12&agree=4&width=3&leak=0.3",
        "random-walk?length=10&drift=0.25",
        "in-context?examples=3&separation=0.8&candidates=3",
        "permuted-masking?coordinates=3&alphabet=2&order=2,0,1",
        "random-hierarchy?depth=2&branching=2&symbols=3&rules=2&seed=1",
    ],
)
def test_locate_is_unbiased_and_shows_the_worlds_own_curve(spec: str) -> None:
    """The same text analysed with 16 seeds: every row and label against the exact curve.

    |t| with 15 degrees of freedom exceeds 12 with probability 4e-9, in the normal approximation; at most 161 entries
    are compared over the five models, so the probability of a false alarm is below 7e-7. The streams are fixed.
    """
    engine = open_toy(spec)
    path = max(written(engine, 10), key=lambda p: float(engine.score(p, Sampling()).off_path.sum()))
    truth = engine.truth(path, engine.default_sampling)
    assert truth is not None
    curves = []
    for seed in range(16):
        trace = locate(engine, "x", generation=engine.decode(path.tokens), seed=seed, error=0.1, labels=20)
        assert trace.truth is not None
        named = [k for k, label in enumerate(trace.labels) if label in truth.labels]  # all but (other)
        columns = [truth.labels.index(trace.labels[k]) for k in named]
        assert trace.truth[:, named] == pytest.approx(truth.posterior[:, columns])
        assert trace.truth.sum(axis=1) == pytest.approx(1)
        curve = np.zeros_like(truth.posterior)
        curve[:, columns] = trace.curve[:, named]
        curves.append(curve)
    error = np.array(curves) - truth.posterior
    assert (np.abs(error.mean(axis=0)) <= 12 * error.std(axis=0, ddof=1) / 4 + 1e-9).all()
    assert (np.abs(error.mean(axis=0)) <= 0.15).all()


def test_windows_lie_where_the_world_has_its_window() -> None:
    """Without a leak nothing can change outside the k tokens, so no window can be found elsewhere, by any draws."""
    engine = open_toy("critical-token?length=30&agree=12&width=3&leak=0")
    world = machine_of(engine).world
    window = critical_window(world, 0.1, world.after)
    assert window.t_after is not None
    assert window.t_before is not None
    first, last = (round(world.index.high - t) for t in (window.t_before, window.t_after))
    assert (first, last) == (12, 15)
    for label, part in (("first", "along"), ("second", "aside")):
        text = " ".join(["along"] * 14 + [part] * 16 + [f"{label}."])
        for seed in range(5):
            found = locate(engine, "x", generation=text, seed=seed, delta=0.3).windows()
            assert found
            assert all(first <= one.start < one.end <= last for one in found)


@pytest.mark.parametrize("spec", ["critical-token?length=30&agree=12&width=3&leak=0", SPECS[6]])
def test_exact_windows_of_every_text_lie_in_the_window_of_the_distribution(spec: str) -> None:
    """pi(S_after) moves inside [T_after, T_before] only, where eps can be 0."""
    engine = open_toy(spec)
    world = machine_of(engine).world
    window = critical_window(world, 1e-6, world.after)
    assert window.t_after is not None
    assert window.t_before is not None
    inside = np.isin(world.labels, world.after)
    for path in written(engine, 100):
        truth = engine.truth(path, engine.default_sampling)
        assert truth is not None
        share = truth.posterior[:, inside].sum(axis=1)
        two = np.stack([share, 1 - share], axis=1)
        posterior = Posterior(np.arange(len(two)), ("after", "else"), two)
        for one in token_windows(posterior, "after", delta=0.3):
            assert world.index.high - window.t_before <= one.start
            assert one.end <= world.index.high - window.t_after


# Sizes and mistakes


def test_a_large_world_has_its_posterior_but_not_under_another_law() -> None:
    engine = open_toy("in-context?examples=100&separation=0.1&candidates=8")
    (path,) = written(engine, 1, engine.default_sampling)
    truth = engine.truth(path, engine.default_sampling)
    assert truth is not None
    assert truth.posterior.shape == (303, 8)
    assert engine.truth(path, Sampling(temperature=0.9, max_new_tokens=400)) is None


def test_long_leaves_are_read_level_by_level() -> None:
    """The next leaf's law of a deep grammar, against belief propagation with each leaf in turn."""
    engine = open_toy("random-hierarchy?depth=3&branching=3&symbols=4&rules=2&seed=2")
    world: Any = machine_of(engine).world
    (path,) = written(engine, 1)
    leaves = np.array([int(word) for word in body(engine, path)])
    assert len(leaves) == 27
    for shown in range(27):
        y = np.where(np.arange(27) < shown, leaves, -1)[None]
        law = world.next_token(y, 27 - shown)[0]
        assert law.sum() == pytest.approx(1)
        before, after = world.posterior(y, 27 - shown)[0], np.zeros(4)
        for x in np.flatnonzero(law):
            after += law[x] * world.posterior(world.extend(y, 27 - shown, np.array([x])), 26 - shown)[0]
        assert after == pytest.approx(before)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("critical-token?agre=2", "toy:critical-token has no parameter 'agre'; it takes length, agree, width, leak."),
        (
            "random-hierarchy?process=masking",
            "toy:random-hierarchy has no parameter 'process'; it takes depth, branching, symbols, rules, seed.",
        ),
        ("random-walk?drift=2", "drift is 2.0; it must be at least 1e-100 and below 1/2."),
        ("in-context?examples=two", "examples is 'two'; the world in-context needs a whole number there."),
        (
            "random-walk?length=6000",
            "toy:random-walk: its text would have 6000 words; a toy model writes up to 5000.",
        ),
        ("critical-token?leak=0&leak=0.5", "toy:critical-token: leak is given twice; give it once."),
    ],
)
def test_a_wrong_spelling_is_answered_in_one_sentence(rest: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        open_toy(rest)
    assert str(error.value) == said


def test_too_many_labels_and_impossible_words_are_refused() -> None:
    with pytest.raises(UserError, match="1024 texts side by side with 531441 labels"):
        open_toy("permuted-masking?coordinates=12")
    engine = open_toy("critical-token")
    path = engine.encode_reply(engine.encode("x"), "along aside along", finished=False)
    with pytest.raises(UserError, match="' aside' cannot stand after 1 words of this text; the world critical-token"):
        engine.score(path, Sampling())


@pytest.mark.parametrize("name", WORDINGS)
def test_a_name_with_its_parameters_opens_the_same_model(name: str) -> None:
    engine = open_toy(WORDINGS[name].example.removeprefix("toy:"))
    again = open_toy(engine.name.removeprefix("toy:"))
    assert again.name == engine.name
    assert [path.tokens for path in written(again, 5)] == [path.tokens for path in written(engine, 5)]
    assert engine.feature.label(Reply("", True)) is None
    prefilled = engine.encode("x", prefill=engine.decode(written(engine, 1)[0].tokens[:2]))
    (done,) = engine.continue_([Job((), Path(prefilled, ()), 0)], Sampling(), 0)
    assert done.finish == "stop"
