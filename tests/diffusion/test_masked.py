"""Masked diffusion against exact posteriors: strings, and texts of a grammar by belief propagation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom

from blinkscope.diffusion.masked import FiniteTexts, MaskedDiffusion, with_mask_token
from blinkscope.diffusion.pictures import METHODS, locate_sample
from blinkscope.divergence import label_law
from blinkscope.errors import EngineError, UserError
from blinkscope.estimate.trace import Target
from blinkscope.symbols import HIDDEN
from blinkscope.worlds.masked_strings import MaskedStrings
from blinkscope.worlds.random_hierarchy import RandomHierarchy

WORLD = MaskedStrings(hamming=3, weight=0.3)
STRINGS = FiniteTexts(np.array([[0, 1, 0, 2, 1, 1], [0, 2, 0, 1, 1, 0]]), ("first", "second"), np.array([0.3, 0.7]))
FOUR = FiniteTexts(
    np.array([[0, 0, 1], [1, 0, 1], [1, 1, 0], [1, 2, 1]]), ("a", "a", "b", "b"), np.array([0.1, 0.2, 0.3, 0.4])
)
TIMES = np.linspace(0, 1, 17)
GRAMMAR = RandomHierarchy(depth=2, branching=2, symbols=3, rules=2)


def rngs(n: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


def fill(model: MaskedDiffusion, seen: np.ndarray, seed: int) -> np.ndarray:
    out = np.empty_like(seen)
    for rows, texts in model.reverse_batches(seen, np.zeros(len(seen), dtype=int), rngs(len(seen), seed)):
        out[rows] = texts
    return out


def names(texts: np.ndarray, of: FiniteTexts) -> list[str | None]:
    return [next((n for t, n in zip(of.texts, of.labels, strict=True) if (t == x).all()), None) for x in texts]


def grammar_texts() -> FiniteTexts:
    """All texts of the grammar with their classes: each class spells 8 texts, each with probability 1 / 8."""
    drawn = [GRAMMAR.sample(np.random.default_rng(k), label, 0.0, 400) for k, label in enumerate(GRAMMAR.labels)]
    found = [np.unique(texts, axis=0) for texts in drawn]
    assert [len(texts) for texts in found] == [8, 8, 8]
    labels = tuple(label for label, texts in zip(GRAMMAR.labels, found, strict=True) for _ in texts)
    return FiniteTexts(np.concatenate(found), labels, np.full(24, 1 / 24))


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_filling_in_draws_from_the_posterior_in_any_order(order: str) -> None:
    """2,000 fillings of three observations: binomial tails at 1e-8 for 12 shares."""
    model = MaskedDiffusion(FOUR.marginals, TIMES, 3, order=order)  # type: ignore[arg-type]
    for seed, seen in enumerate([[HIDDEN] * 3, [HIDDEN, HIDDEN, 1], [1, HIDDEN, HIDDEN]]):
        texts = fill(model, np.tile(seen, (2000, 1)), seed)
        exact = FOUR.responsibilities(np.array([seen]))[0]
        counts = (texts[:, None] == FOUR.texts).all(axis=2).sum(axis=0)
        assert counts.sum() == 2000
        for count, p in zip(counts, exact, strict=True):
            assert binom.sf(count - 1, 2000, p) > 1e-8
            assert binom.cdf(count, 2000, p) > 1e-8


def test_filling_in_at_once_is_another_law_and_says_so() -> None:
    """Independent marginals make texts that are not in the set."""
    model = MaskedDiffusion(FOUR.marginals, TIMES, 3, at_once=3)
    assert model.outside_theory is not None
    assert None in names(fill(model, np.full((200, 3), HIDDEN), 1), FOUR)
    assert MaskedDiffusion(FOUR.marginals, TIMES, 3).outside_theory is None


def test_label_law_of_strings_is_the_worlds() -> None:
    """Forward-reverse from either string at three levels, 2,000 each; binomial tails at 1e-8 for 6 shares."""
    model = MaskedDiffusion(STRINGS.marginals, TIMES, 6)
    for k, level in ((0, 4), (0, 12), (0, 16), (1, 4), (1, 12), (1, 16)):
        streams = rngs(2000, level)
        seen = np.array([model.noise(rng, STRINGS.texts[k], level) for rng in streams])
        count = names(fill(model, seen, 50 + level), STRINGS).count("first")
        exact = label_law(WORLD.law(float(TIMES[level])), (WORLD.labels[k],)).mean[0, 0]
        assert binom.sf(count - 1, 2000, exact) > 1e-8
        assert binom.cdf(count, 2000, exact) > 1e-8


def test_posteriors_of_a_grammar_agree_with_belief_propagation() -> None:
    texts = grammar_texts()
    for t in (0.2, 0.6, 1.0):
        seen = np.concatenate([GRAMMAR.sample(np.random.default_rng(3), label, t, 20) for label in GRAMMAR.labels])
        assert texts.posterior(seen, GRAMMAR.labels) == pytest.approx(GRAMMAR.posterior(seen, t))


def test_where_a_text_of_the_grammar_was_decided() -> None:
    """Both experiments against belief propagation; binomial tails at 1e-9, some 150 of them."""
    texts = grammar_texts()
    model = MaskedDiffusion(texts.marginals, TIMES, 4)
    for method in METHODS:
        trace = locate_sample(
            model, lambda x: names(x, texts), method=method, seed=2, sample=texts.texts[3], target=Target(error=0.06)
        )
        assert trace.final_label == texts.labels[3]
        path = model.forward_path(np.random.default_rng(np.random.SeedSequence(2, spawn_key=(0, 0))), texts.texts[3])
        for position in trace.posterior.index[:-1].astype(int):
            level, rng = 16 - int(position), np.random.default_rng(int(position))
            seen = path[level : level + 1]
            if method == "forward-reverse":
                seen = np.array([model.noise(rng, texts.texts[3], level) for _ in range(6000)])
            exact = GRAMMAR.posterior(seen, 0.5).mean(axis=0)
            drawn = [draw.label for draw in trace.draws if draw.stratum == position]
            for label, p in zip(GRAMMAR.labels, exact, strict=True):
                assert binom.sf(drawn.count(label) - 1, len(drawn), min(1.0, p + 0.02)) > 1e-9
                assert binom.cdf(drawn.count(label), len(drawn), max(0.0, p - 0.02)) > 1e-9


def test_a_trajectorys_states_are_its_text_with_fewer_tokens() -> None:
    """Masked shares at each level within 5 standard errors of t; states only ever lose tokens."""
    model = MaskedDiffusion(STRINGS.marginals, TIMES, 6)
    paths = model.reverse_paths(rngs(500, 4))
    assert (paths[:, 0] != HIDDEN).all()
    assert (paths[:, -1] == HIDDEN).all()
    assert ((paths[:, 1:] == paths[:, :-1]) | (paths[:, 1:] == HIDDEN)).all()
    share = (paths == HIDDEN).mean(axis=(0, 2))
    assert (np.abs(share - TIMES) <= 5 * np.sqrt(TIMES * (1 - TIMES) / 3000)).all()
    first = names(paths[:, 0], STRINGS).count("first")
    assert abs(first - 150) < 5 * np.sqrt(500 * 0.3 * 0.7)


def test_a_model_with_a_mask_token_never_fills_it_in() -> None:
    def logits(texts: np.ndarray) -> np.ndarray:
        assert (texts != HIDDEN).all()
        return np.broadcast_to(np.array([0.0, 0.0, 0.0, 9.0]), (*texts.shape, 4))

    model = MaskedDiffusion(with_mask_token(logits, 3), TIMES, 5)
    texts = fill(model, np.full((60, 5), HIDDEN), 0)
    assert set(np.unique(texts)) == {0, 1, 2}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MaskedDiffusion(FOUR.marginals, np.array([0.1, 1.0]), 3), "rise from 0 to 1"),
        (lambda: MaskedDiffusion(FOUR.marginals, TIMES, 3, order="left"), "no order 'left'"),  # type: ignore[arg-type]
        (lambda: MaskedDiffusion(FOUR.marginals, TIMES, 0), "at least 1"),
        (lambda: MaskedDiffusion(FOUR.marginals, TIMES, 3).noise(rngs(1, 0)[0], FOUR.texts[0], 17), "noise level 17"),
        (lambda: FOUR.marginals(np.array([[0, 1, 1]])), "fits none"),
        (lambda: FiniteTexts(FOUR.texts, FOUR.labels, np.ones(4)), "sum to 1"),
        (lambda: FiniteTexts(FOUR.texts, ("a",), FOUR.weights), "one length"),
    ],
)
def test_bad_input_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("law", "message"), [(np.zeros((1, 3, 2)), "sum to 1"), (np.zeros((1, 2, 2)), r"shape \(1, 2, 2\)")]
)
def test_broken_marginals_are_named(law: np.ndarray, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        fill(MaskedDiffusion(lambda texts: law, TIMES, 3), np.full((1, 3), HIDDEN), 0)
