"""The sampling distribution, held against the filters of transformers themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from blinkscope.engines.array_logits import ArrayLogits
from blinkscope.engines.next_token import draw, listed_law, score_tokens
from blinkscope.engines.torch_logits import TorchLogits
from blinkscope.errors import EngineError, UserError
from blinkscope.language.sampling import Sampling, inverse_cdf, next_token_law

SAMPLINGS = st.builds(
    Sampling,
    temperature=st.floats(0.05, 5),
    top_k=st.one_of(st.just(0), st.integers(1, 900)),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 0.999)),
    min_p=st.one_of(st.just(0.0), st.floats(0.001, 1)),
)
SEEDS = st.integers(0, 2**32 - 1)


def logits_of(seed: int, rows: int = 3, vocabulary: int = 700) -> np.ndarray:
    """Logits without ties, from flat rows to peaked ones; some tokens are impossible, as in a masked vocabulary."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, vocabulary)) * rng.choice([0.5, 2, 6], size=(rows, 1))
    logits[rng.random((rows, vocabulary)) < 0.05] = -np.inf
    return logits


def warped(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The law that ``model.generate`` draws from: the warpers of transformers, in its order."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p:
        warpers.append(MinPLogitsWarper(sampling.min_p))
    return torch.softmax(warpers(None, torch.from_numpy(logits)), dim=-1).numpy()


def sorted_rows(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-logits, axis=1, kind="stable")
    return order, np.take_along_axis(logits, order, axis=1)


@given(SEEDS, SAMPLINGS)
@settings(max_examples=150, deadline=None)
def test_whole_law_is_that_of_transformers(seed, sampling):
    logits = logits_of(seed)
    order, descending = sorted_rows(logits)
    law = next_token_law(descending, sampling, vocabulary=logits.shape[1])
    np.testing.assert_allclose(law.p, np.take_along_axis(warped(logits, sampling), order, axis=1), atol=1e-12)
    assert (law.listed == 1).all()


def clear_cut(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Rows in which no token stands so near the edge of the filter that rounding decides whether it stays."""

    def kept(change: float) -> np.ndarray:
        top_p = min(1.0, sampling.top_p * (1 + change)) if sampling.top_p < 1 else 1.0
        changed = replace(sampling, top_p=top_p, min_p=min(1.0, sampling.min_p * (1 - 2 * change)))
        return (next_token_law(sorted_rows(logits)[1], changed, vocabulary=logits.shape[1]).p > 0).sum(axis=1)

    return kept(-1e-5) == kept(1e-5)


@given(SEEDS, SAMPLINGS, st.integers(1, 300))
@settings(max_examples=150, deadline=None)
def test_shortlist_gives_the_whole_law_or_says_that_it_does_not(seed, sampling, k):
    logits = logits_of(seed)
    order, descending = sorted_rows(logits)
    normalizer = np.logaddexp.reduce(logits / sampling.temperature, axis=1)
    short = next_token_law(descending[:, :k], sampling, vocabulary=logits.shape[1], log_normalizer=normalizer)
    right = np.take_along_axis(warped(logits, sampling), order, axis=1)
    for row in range(len(logits)):
        if short.listed[row] == 1:
            np.testing.assert_allclose(short.p[row], right[row, :k], atol=1e-12)
            assert right[row, k:].sum() < 1e-12
        elif sampling.truncates:
            assert short.listed[row] == 0
            assert (short.p[row] == 0).all()
        else:
            np.testing.assert_allclose(short.p[row], right[row, :k], atol=1e-12)
            assert short.listed[row] == pytest.approx(right[row, :k].sum(), abs=1e-12)


def test_shortlist_is_enough_where_the_filter_ends_inside_it():
    logits = -np.arange(1000.0)[None] / 10
    normalizer = np.logaddexp.reduce(logits, axis=1)
    for sampling in (Sampling(top_k=100), Sampling(top_p=0.9), Sampling(min_p=0.01), Sampling(temperature=0)):
        law = next_token_law(logits[:, :256], sampling, vocabulary=1000, log_normalizer=normalizer)
        assert law.listed[0] == 1


def test_tokens_tied_with_the_last_of_the_top_k_stay():
    law = next_token_law(np.array([[3.0, 2.0, 2.0, 2.0, 1.0]]), Sampling(top_k=2), vocabulary=5)
    np.testing.assert_allclose(law.p[0], np.append(np.exp([3, 2, 2, 2]) / np.exp([3, 2, 2, 2]).sum(), 0))
    short = next_token_law(np.array([[3.0, 2.0, 2.0]]), Sampling(top_k=2), vocabulary=5, log_normalizer=np.array([4.0]))
    assert short.listed[0] == 0  # a fourth token may be tied too


def in_torch(logits: np.ndarray) -> TorchLogits:
    return TorchLogits(torch.from_numpy(logits))


def in_numpy(logits: np.ndarray) -> ArrayLogits:
    return ArrayLogits(logits.astype(np.float32))


KEPT = pytest.mark.parametrize("kept", [in_torch, in_numpy])


@KEPT
@given(seed=SEEDS, sampling=SAMPLINGS)
@settings(max_examples=60, deadline=None)
def test_draws_by_shortlist_are_draws_from_the_whole_law(kept, seed, sampling):
    logits = logits_of(seed, rows=40, vocabulary=6000)
    u = np.random.default_rng(seed).random(40)
    drawn = draw(kept(logits), sampling, u)
    whole = listed_law(kept(logits), sampling, logits.shape[1])
    columns = inverse_cdf(whole.law, u)
    row = np.arange(40)
    # Only a uniform within rounding of a step of the distribution function may fall on the other side of it.
    steps = np.cumsum(whole.law.p, axis=1)
    clear = (np.abs(steps - u[:, None]) > 1e-6).all(axis=1) & clear_cut(logits, sampling)
    assume(clear.sum() >= 20)
    np.testing.assert_array_equal(drawn.ids[clear], whole.ids[row, columns][clear])
    np.testing.assert_allclose(drawn.p[clear], whole.law.p[row, columns][clear], rtol=1e-4)


@KEPT
@given(seed=SEEDS, sampling=SAMPLINGS, token=st.integers(0, 699))
@settings(max_examples=100, deadline=None)
def test_score_lists_the_law_off_the_path(kept, seed, sampling, token):
    logits = np.where(np.isinf(logits_of(seed)), -80, logits_of(seed))
    right = warped(logits, sampling)
    clear = clear_cut(logits, sampling)
    scores = score_tokens(kept(logits), sampling, np.full(3, token))
    for row, score in enumerate(scores):
        p, listed = right[row], score.alternatives
        if not clear[row]:
            continue
        # Single precision of the logits: an error of a few units in the last place, times 1 / temperature.
        assert score.p == pytest.approx(p[token], rel=1e-3, abs=0)
        assert score.off_path == pytest.approx(1 - p[token], abs=1e-5)
        assert token not in listed.ids
        assert (np.diff(listed.p) <= 0).all()
        np.testing.assert_allclose(listed.p, p[listed.ids], rtol=1e-3)
        if sampling.truncates:
            assert listed.p.sum() == pytest.approx(score.off_path, abs=1e-12)
        else:
            assert score.off_path - listed.p.sum() <= 1.01e-6


@KEPT
def test_score_of_a_filtered_token_and_of_the_only_token(kept):
    logits = kept(np.array([[5.0, 0.0, -5.0]]))
    (filtered,) = score_tokens(logits, Sampling(top_p=0.5), np.array([2]))
    assert (filtered.p, filtered.off_path, filtered.alternatives.ids.tolist()) == (0.0, 1.0, [0])
    for sampling in (Sampling(top_p=0.5), Sampling(temperature=0), Sampling(top_k=1)):
        (only,) = score_tokens(logits, sampling, np.array([0]))
        assert (only.p, only.off_path, len(only.alternatives.ids)) == (1.0, 0.0, 0)


@given(SEEDS, SAMPLINGS)
@settings(max_examples=60, deadline=None)
def test_inverse_cdf_inverts_the_distribution_function(seed, sampling):
    _, descending = sorted_rows(logits_of(seed, rows=20))
    law = next_token_law(descending, sampling, vocabulary=700)
    u = np.random.default_rng(seed).random(20)
    u[:2] = 0.0, np.nextafter(1.0, 0.0)
    columns = inverse_cdf(law, u)
    steps = np.cumsum(law.p, axis=1)
    for row, column in enumerate(columns):
        assert law.p[row, column] > 0
        assert (steps[row, column - 1] if column else 0.0) <= u[row] * steps[row, -1]
        assert u[row] * steps[row, -1] <= steps[row, column]


@KEPT
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0)])
def test_logits_that_are_not_numbers_are_refused(kept, wrong, sampling):
    for vocabulary in (2, 3000):
        logits = np.zeros((3, vocabulary))
        logits[1, 1] = wrong
        with pytest.raises(EngineError, match="not finite"):
            draw(kept(logits), sampling, np.full(3, 0.5))


@given(SEEDS, st.sampled_from([1, 2, 17, 256, 4096, 5999, 6000]))
@settings(max_examples=60, deadline=None)
def test_the_largest_logits_are_the_same_wherever_they_are_kept(seed, length):
    logits = logits_of(seed, vocabulary=6000).astype(np.float32)
    arrays, tensors = in_numpy(logits).largest(length), in_torch(logits).largest(length)
    np.testing.assert_array_equal(arrays.values, tensors.values)
    np.testing.assert_array_equal(np.take_along_axis(logits, arrays.ids, axis=1), arrays.values)
    assert all(len(set(ids)) == length for ids in arrays.ids.tolist())
    top = arrays.values[:, 0]
    for temperature in (0.3, 1.0, 2.5):
        np.testing.assert_allclose(
            in_numpy(logits).log_normalizer(top, temperature),
            in_torch(logits).log_normalizer(top, temperature),
            rtol=1e-6,
        )


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"max_new_tokens": 0},
        {"stop": ("",)},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(UserError):
        Sampling(**wrong)
