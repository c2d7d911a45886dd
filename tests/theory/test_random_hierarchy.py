"""Random hierarchies: belief propagation and the listed prefixes against every text of small grammars.

Comparisons of averages with exact values allow 6 standard errors: false alarms have probability 2e-9 each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from itertools import product

import numpy as np
import pytest

from blinkscope.critical import critical_window
from blinkscope.errors import UserError
from blinkscope.worlds import random_hierarchy
from blinkscope.worlds.random_hierarchy import HIDDEN, PROCESSES, RandomHierarchy

SMALL = [(1, 2, 4, 3), (2, 2, 3, 2), (3, 2, 2, 1), (2, 3, 2, 2)]  # depth, branching, symbols, rules
FIRST = ("0",)


@lru_cache
def texts(world: RandomHierarchy) -> tuple[np.ndarray, np.ndarray]:
    """Every text of the grammar, and its probability given each class, by writing out all derivations."""

    def derive(symbol: int, level: int) -> Iterator[tuple[int, ...]]:
        if level == world.depth:
            yield (symbol,)
            return
        for word in world.productions[level, symbol]:
            for parts in product(*(list(derive(int(child), level + 1)) for child in word)):
                yield sum(parts, ())

    found: dict[tuple[int, ...], np.ndarray] = {}
    for symbol in range(world.symbols):
        derived = list(derive(symbol, 0))
        for text in derived:
            found.setdefault(text, np.zeros(world.symbols))[symbol] += 1 / len(derived)
    return np.array(list(found)), np.array(list(found.values()))


def likelihood(world: RandomHierarchy, y: np.ndarray, t: float) -> np.ndarray:
    """P(y | text) for every text, up to a factor that is the same for all."""
    written, _ = texts(world)
    if world.process == "uniform":
        same = math.exp(-t) + (1 - math.exp(-t)) / world.symbols
        return np.where(written == y, same, (1 - math.exp(-t)) / world.symbols).prod(axis=1)
    return ((written == y) | (y == HIDDEN)).all(axis=1).astype(float)


def exact_total_variation(world: RandomHierarchy, observations: Iterator[tuple[float, np.ndarray]], t: float) -> float:
    """Between class 0 and the rest, from a list of everything that can be seen, with its weight."""
    total = 0.0
    for weight, y in observations:
        given = likelihood(world, y, t) @ texts(world)[1]
        total += weight * abs(given[0] - given[1:].mean()) / 2
    return total


@pytest.mark.parametrize("shape", SMALL)
@pytest.mark.parametrize("process", PROCESSES)
def test_belief_propagation_is_bayes_rule_over_all_texts(process: str, shape: tuple[int, int, int, int]) -> None:
    world = RandomHierarchy(*shape, process=process, seed=1)
    times = (0, 1, 3, world.leaves) if process == "truncation" else (0.0, 0.3, 0.7, 1.0)
    for t in times:
        if t > world.leaves:
            continue
        for label in world.labels:
            observed = world.sample(np.random.default_rng(0), label, t, 6)
            for y, pi in zip(observed, world.posterior(observed, t), strict=True):
                joint = likelihood(world, y, t) @ texts(world)[1]
                assert pi == pytest.approx(joint / joint.sum(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("shape", SMALL)
def test_samples_are_texts_of_their_class(shape: tuple[int, int, int, int]) -> None:
    """Frequencies of texts against their probabilities, by Pearson's statistic; false alarm below 1e-7."""
    from scipy.stats import chi2

    world = RandomHierarchy(*shape, seed=2)
    written, law = texts(world)
    for k, label in enumerate(world.labels):
        drawn = world.sample(np.random.default_rng(k), label, 0.0, 4000)
        counts = (drawn[:, None] == written).all(axis=2).sum(axis=0)
        assert counts[law[:, k] == 0].sum() == 0
        assert counts.sum() == 4000
        expected = 4000 * law[law[:, k] > 0, k]
        statistic = ((counts[law[:, k] > 0] - expected) ** 2 / expected).sum()
        assert statistic <= chi2.isf(1e-8, max(1, len(expected) - 1))


@pytest.mark.parametrize("shape", SMALL)
def test_listed_prefixes_give_the_total_variation_over_all_texts(shape: tuple[int, int, int, int]) -> None:
    world = RandomHierarchy(*shape, process="truncation", seed=3)
    written, _ = texts(world)
    for t in range(world.leaves + 1):
        cut = written.copy()
        cut[:, world.leaves - t :] = HIDDEN
        seen = ((1.0, y) for y in np.unique(cut, axis=0))
        found = world.total_variation(FIRST, world.labels[1:], t)
        assert found.standard_error == 0
        assert found.value == pytest.approx(exact_total_variation(world, seen, t), abs=1e-12)
        law = world.law(t)
        assert law.mass is not None
        assert law.mean[0].T @ law.mass[0] == pytest.approx(world.weights)


@pytest.mark.parametrize("t", [0, 1, 5, 8, 13, 16])
def test_listed_prefixes_agree_with_draws(t: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = RandomHierarchy(process="truncation")
    listed = world.total_variation(FIRST, world.labels[1:], t)
    monkeypatch.setattr(random_hierarchy, "LISTED", 0)
    drawn = world.total_variation(FIRST, world.labels[1:], t)
    assert abs(listed.value - drawn.value) <= 6 * drawn.standard_error + 1e-12
    assert listed.standard_error == 0
    assert t in (0, 16) or drawn.standard_error > 0


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
def test_drawn_total_variation_under_masking_agrees_with_all_masks(t: float) -> None:
    world = RandomHierarchy(2, 2, 3, 2, seed=4)

    def observations() -> Iterator[tuple[float, np.ndarray]]:
        for mask in product((False, True), repeat=4):
            weight = t ** sum(mask) * (1 - t) ** (4 - sum(mask))
            yield from ((weight, y) for y in np.unique(np.where(mask, HIDDEN, texts(world)[0]), axis=0))

    drawn = world.total_variation(FIRST, world.labels[1:], t)
    assert abs(drawn.value - exact_total_variation(world, observations(), t)) <= 6 * drawn.standard_error


@pytest.mark.parametrize("t", [0.1, 0.5, 1.5])
def test_drawn_total_variation_under_uniform_noise_agrees_with_all_observations(t: float) -> None:
    world = RandomHierarchy(2, 2, 3, 2, process="uniform", seed=4)
    observations = ((1.0, np.array(y)) for y in product(range(3), repeat=4))
    drawn = world.total_variation(FIRST, world.labels[1:], t)
    assert abs(drawn.value - exact_total_variation(world, observations, t)) <= 6 * drawn.standard_error


def test_no_word_belongs_to_two_symbols_and_the_seed_names_the_grammar() -> None:
    world = RandomHierarchy(depth=3, branching=3, symbols=4, rules=16)
    for level in world.productions.reshape(3, 64, 3):
        assert len(np.unique(level, axis=0)) == 64
    assert (world.productions == RandomHierarchy(3, 3, 4, 16).productions).all()
    assert (world.productions != RandomHierarchy(3, 3, 4, 16, seed=1).productions).any()


@pytest.mark.parametrize("process", PROCESSES)
def test_everything_seen_is_certain_and_nothing_seen_is_the_prior(process: str) -> None:
    world = RandomHierarchy(process=process)
    last = {"truncation": 16, "masking": 1.0, "uniform": 800.0}[process]
    clean = world.posterior(world.sample(np.random.default_rng(0), "5", 0, 4), 0)
    assert clean == pytest.approx(np.tile(np.eye(8)[5], (4, 1)))
    noise = world.posterior(world.sample(np.random.default_rng(0), "5", last, 4), last)
    assert noise == pytest.approx(np.full((4, 8), 1 / 8))


def test_100_000_leaves_agree_with_messages_passed_one_node_at_a_time() -> None:
    world, t = RandomHierarchy(depth=17, symbols=3, rules=2, process="uniform"), 0.3
    assert world.leaves == 131_072
    y = world.sample(np.random.default_rng(1), "1", t, 1)
    flip = (1 - math.exp(-t)) / 3
    rows = [[math.exp(-t) * (x == symbol) + flip for x in range(3)] for symbol in range(3)]
    messages = [rows[symbol] for symbol in y[0].tolist()]
    for production in world.productions[::-1].tolist():
        above = []
        for left, right in zip(messages[::2], messages[1::2], strict=True):
            message = [sum(left[a] * right[b] for a, b in words) for words in production]
            above.append([x / sum(message) for x in message])
        messages = above
    assert world.posterior(y, t)[0] == pytest.approx(messages[0], rel=1e-9)
    assert np.ptp(messages[0]) > 1e-6, "a posterior equal to the prior would prove nothing"


def test_window_under_truncation_is_the_definition_scanned_over_every_time() -> None:
    world = RandomHierarchy(process="truncation")
    window = critical_window(world, 0.1, FIRST)
    after = [t for t in range(17) if world.total_variation(FIRST, world.labels[1:], t).value >= 0.99]
    before = [t for t in range(17) if world.total_variation(FIRST, world.labels, t).value <= 0.1]
    assert (window.t_after, window.t_before, window.outcome) == (max(after), min(before), "window")
    assert window.t_after_interval is None


def test_window_under_masking_has_intervals() -> None:
    window = critical_window(RandomHierarchy(depth=3, symbols=4, rules=2), 0.1, FIRST)
    assert window.outcome == "window"
    assert window.t_before_interval is not None
    low, high = window.t_before_interval
    assert low is not None
    assert high is not None
    assert window.t_before is not None
    assert low < window.t_before < high < low + 0.1
    assert RandomHierarchy().paper(0.1) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"depth": 0}, "depth is 0"),
        ({"branching": 1}, "branching 1"),
        ({"rules": 9}, "from 1 to 8"),
        ({"rules": 0}, "rules is 0"),
        ({"process": "erasure"}, "masking, truncation, uniform"),
        ({"depth": 25}, "GiB"),
        ({"depth": 2000}, "GiB"),
        ({"branching": 12, "depth": 1}, "all words .* GiB"),
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RandomHierarchy(**parameters)  # type: ignore[arg-type]


def test_bad_observations_are_refused() -> None:
    world = RandomHierarchy(depth=2, symbols=4, rules=1)
    with pytest.raises(UserError, match="4 leaves"):
        world.posterior(np.zeros((1, 3), dtype=int), 0.5)
    written = {tuple(text) for text in texts(world)[0].tolist()}
    impossible = next(text for text in product(range(4), repeat=4) if text not in written)
    with pytest.raises(UserError, match="impossible in this grammar"):
        world.posterior(np.array([impossible]), 0.5)
    with pytest.raises(UserError, match="outside the index set"):
        world.total_variation(FIRST, world.labels, 1.5)
