"""The posterior object: sub-mixtures, the martingale property, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given

from blinkscope.errors import UserError
from blinkscope.posterior import Posterior, martingale_check, submixture
from tests.theory.chains import Case, Chain, chains, chains_with_sets


@given(chains())
def test_the_posterior_is_a_martingale(chain: Chain) -> None:
    """E[pi_{t-1} | Y_t] = pi_t at every Y_t that can occur, and E pi_t = w."""
    for t, kernel in enumerate(chain.kernels, start=1):
        before = chain.weights @ chain.at(t - 1)
        joint = before[:, None] * kernel
        total = joint.sum(axis=0)
        cleaner = chain.posterior(np.arange(len(before)), t - 1)
        noisier = chain.posterior(np.arange(len(total)), t)
        assert joint.T @ cleaner == pytest.approx(total[:, None] * noisier, abs=1e-12)
        assert total @ noisier == pytest.approx(chain.weights, abs=1e-12)


@given(chains_with_sets())
def test_a_submixture_is_the_posterior_of_its_own_model(
    case: Case,
) -> None:
    chain, _, target, t = case
    kept = [label in target for label in chain.labels]
    alone = Chain(chain.weights[kept] / chain.weights[kept].sum(), chain.components[kept], chain.kernels)
    part, whole = submixture(chain.law(t), target), alone.law(t)
    assert part.mass is not None
    assert whole.mass is not None
    assert part.mass == pytest.approx(whole.mass, abs=1e-12)
    seen = part.mass[0] > 0
    assert part.mean[0][seen] == pytest.approx(whole.mean[0][seen], abs=1e-12)
    assert part.labels == tuple(label for label in chain.labels if label in target)


def trajectories(rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
    """Posteriors of a strong against a weak walk, P(+1) = .7 or .3 with weights .8 and .2, after 9, 6, 3, 0 steps."""
    strong = rng.random(n) < 0.8
    walk = np.cumsum(np.where(rng.random((9, n)) < np.where(strong, 0.7, 0.3), 1, -1), axis=0)
    place = np.stack([walk[8], walk[5], walk[2], np.zeros(n)])
    odds = 4 * (0.7 / 0.3) ** place
    return np.stack([odds / (1 + odds), 1 / (1 + odds)], axis=-1)


def test_martingale_check_passes_a_true_posterior_and_fails_a_sharpened_one() -> None:
    """False alarm below 1e-6 by the check's own p-value."""
    pi, times = trajectories(np.random.default_rng(3), 20_000), np.array([0.0, 3.0, 6.0, 9.0])
    assert martingale_check(Posterior(times, ("strong", "weak"), pi)).p_value > 1e-6
    backwards = martingale_check(Posterior(times, ("strong", "weak"), pi[::-1]))
    assert backwards.p_value < 1e-12
    sharp = pi**2 / (pi**2).sum(axis=-1, keepdims=True)
    assert martingale_check(Posterior(times, ("strong", "weak"), sharp)).p_value < 1e-12
    # The order in which times are listed does not matter.
    order = [2, 0, 3, 1]
    assert martingale_check(Posterior(times[order], ("strong", "weak"), pi[order])).p_value > 1e-6


def test_martingale_check_needs_trajectories() -> None:
    chain = Chain(np.array([0.5, 0.5]), np.eye(2), ())
    with pytest.raises(UserError, match="at least 2 drawn trajectories"):
        martingale_check(chain.law(0))


@pytest.mark.misuse
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.array([0.5, 0.4])}, "sum to 0.9; they must sum to 1"),
        ({"weights": np.array([1.2, -0.2])}, "every weight must be a positive number"),
        ({"weights": np.array([1.0, np.nan])}, "every weight must be a positive number"),
        ({"weights": np.array([0.5, 0.25, 0.25])}, "2 labels and weights of shape"),
        ({"mean": np.array([[[np.nan, 1.0]]])}, "NaN or infinite"),
        ({"mean": np.ones((1, 1, 3)) / 3}, "does not fit 1 rows and 2 labels"),
        ({"mean": np.array([[[1.2, -0.2]]])}, "entries from -0.2"),
        ({"mean": np.array([[[0.2, 0.2]]])}, "sum to 0.4 to 0.4; every row must be a law"),
        ({"counts": np.array([[[3, -1]]])}, "a count is -1"),
        ({"mass": np.ones((1, 2))}, "mass of shape"),
        ({"counts": np.ones((1, 2, 2), dtype=int)}, "counts of shape"),
    ],
)
def test_what_a_posterior_refuses(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "index": np.array([0.0]),
        "labels": ("a", "b"),
        "mean": np.array([[[0.5, 0.5]]]),
        "weights": np.array([0.5, 0.5]),
    }
    Posterior(**good)
    Posterior(**{name: value if name == "labels" else value.tolist() for name, value in good.items()})
    with pytest.raises(UserError, match=message):
        Posterior(**{**good, **changes})
