"""The loop on sources with a known law: what it draws, when it stops, and that its errors are true."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from blinkscope.estimate.counts import kept_labels
from blinkscope.estimate.loop import run
from blinkscope.estimate.resampling import Bisection, Grid, fraction_rows
from blinkscope.estimate.source import Draw, Stratum
from blinkscope.estimate.trace import Estimator, Target
from blinkscope.feature import OTHER
from tests.estimate.known import Case, random_case


def truth_on(case: Case, labels: tuple[str, ...]) -> np.ndarray:
    return case.truth[:, [case.names.index(label) for label in labels]]


@pytest.mark.parametrize("estimator", ["unbiased", "pooled"])
def test_it_stops_at_the_asked_error_and_goes_on_from_what_is_known(estimator: Estimator) -> None:
    case = random_case(1)
    rough = run(case.source(5), case.method(5, estimator), Target(error=0.1, estimator=estimator))
    fine = run(case.source(5), case.method(5, estimator), Target(error=0.05, estimator=estimator))
    assert 0 < rough.posterior.sd.max() <= 0.1
    assert fine.posterior.sd.max() <= 0.05
    known = {(draw.stratum, draw.replicate): draw for draw in rough.draws}
    drawn: list[Draw] = []
    topped_up = run(case.source(5), case.method(5, estimator), Target(error=0.05), known=known, record=drawn.append)
    assert topped_up.draws == fine.draws
    assert len(drawn) == len(fine.draws) - len(rough.draws)
    assert run(None, case.method(5, estimator), Target(error=0.1), known=known).draws == rough.draws


def test_budgets_are_kept() -> None:
    case = random_case(2)
    for continuations in (1, 20, 150):
        outcome = run(case.source(1), case.method(1), Target(error=0.001, continuations=continuations))
        assert (len(outcome.draws), outcome.status) == (continuations, "budget")
    outcome = run(case.source(1), case.method(1), Target(error=0.001, generated_tokens=3000))
    assert outcome.status == "budget"
    assert 2900 <= sum(draw.cost for draw in outcome.draws) <= 3000


def test_a_budget_that_ends_a_run_at_the_asked_error_leaves_it_complete() -> None:
    case, errors = random_case(2), []
    whole = run(case.source(1), case.method(1), Target(error=0.05), watch=lambda now: errors.append(now.error))
    before, last = list(dict.fromkeys(error for error in errors if error == error))[-2:]
    target = Target(error=(before + last) / 2, continuations=len(whole.draws) - 1)
    outcome = run(case.source(1), case.method(1), target)
    assert (len(outcome.draws), outcome.status) == (len(whole.draws) - 1, "complete")
    # One draw of the pilot leaves nearly every place unknown, however small the error that it states.
    assert run(case.source(1), case.method(1), Target(error=0.9, continuations=1)).status == "budget"


def test_an_interrupted_run_keeps_what_there_is_and_ends_where_the_uninterrupted_one_does() -> None:
    case = random_case(3)
    whole = run(case.source(1), case.method(1), Target(error=0.08))
    stored: dict[tuple[int, int], Draw] = {}

    class Interrupted:
        strata = case.strata

        def draw(self, *arguments: object) -> Iterator[Draw]:
            for i, draw in enumerate(case.source(1).draw(*arguments)):  # type: ignore[arg-type]
                if i == 17:
                    raise KeyboardInterrupt
                yield draw

    for _ in range(100):
        outcome = run(
            Interrupted(),
            case.method(1),
            Target(error=0.08),
            known=stored,
            record=lambda draw: stored.update({(draw.stratum, draw.replicate): draw}),
        )
        if outcome.status == "complete":
            break
        assert outcome.status == "interrupted"
    assert outcome.draws == whole.draws
    np.testing.assert_array_equal(outcome.posterior.mean, whole.posterior.mean)


def test_the_unbiased_mean_is_unbiased_under_its_own_adaptive_counts() -> None:
    """THEORY 6.6's case: one decision of true probability 0.2, where a naive pooled mean gives about 0.13.

    400 independent runs. A run's value at row 0 has a standard deviation of at most 0.2, so the bound of 5 standard
    errors fails by chance with probability under 6e-7.
    """
    values = []
    case = random_case(11, steps=6, jumps=1, open_=0.5)
    for seed in range(400):
        outcome = run(case.source(seed), case.method(seed), Target(error=0.12))
        column = outcome.posterior.labels.index("a") if "a" in outcome.posterior.labels else None
        values.append(0.0 if column is None else outcome.posterior.mean[0, column])
    error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - case.truth[0, 0]) < 5 * error


@pytest.mark.parametrize("estimator", ["unbiased", "pooled"])
@pytest.mark.parametrize(("labels", "open_"), [(2, 0.15), (4, 0.4)])
def test_bands_cover_and_the_stated_error_is_the_error_made(estimator: Estimator, labels: int, open_: float) -> None:
    """24 paths, one run each; measured over many more in the calibration benchmark.

    The mean coverage of 24 runs has a standard error of at most about 0.025; the limit of 0.8 lies more than 5 of them
    below 0.93, so a calibrated band fails by chance with probability under 1e-6.
    """
    covered, squared, stated = [], [], []
    for seed in range(24):
        case = random_case(seed, labels=labels, open_=open_)
        target = Target(error=0.1, estimator=estimator)
        posterior = run(case.source(seed + 500), case.method(seed, estimator), target).posterior
        truth = truth_on(case, posterior.labels)
        low, high = posterior.band(0.95)
        undecided = (truth > 0.02) & (truth < 0.98)
        if undecided.any():
            covered.append(((low <= truth) & (truth <= high))[undecided].mean())
        squared.append(((posterior.mean - truth) ** 2).mean())
        stated.append((posterior.sd**2).mean())
    assert np.mean(covered) > 0.8
    assert 0.6 < np.sqrt(np.mean(squared) / np.mean(stated)) < 1.6


def test_bands_touch_0_and_1_where_the_outcome_is_certain() -> None:
    case = random_case(4)
    posterior = run(case.source(1), case.method(1), Target(error=0.2)).posterior
    low, high = posterior.band()
    final = posterior.labels.index(case.names[case.final])
    assert low[-1, final] == high[-1, final] == 1.0
    assert high[-1].sum() == 1.0


def test_kept_labels_never_lose_one_and_rank_by_the_pilot() -> None:
    def draws(text: str) -> list[Draw]:
        return [Draw(0, i, label, 1.0) for i, label in enumerate(text)]

    assert kept_labels("b", draws("aabac"), draws("d"), 12) == ("a", "b", "c", "d")
    assert kept_labels("b", draws("aabac"), draws("d"), 3) == ("a", "b", "c", OTHER)
    assert kept_labels("z", draws("aab"), [], 2) == ("a", "z", OTHER)
    assert kept_labels("z", [], [], 12) == ("z",)


def test_grid_and_bisection_look_where_they_say() -> None:
    gamma = np.asarray([[0.5, 0.5]] * 4 + [[1.0, 0.0]] * 6)
    strata = tuple(Stratum(row, 10.0 - row) for row in range(10))

    class Free:
        def __init__(self) -> None:
            self.strata = strata

        def draw(self, orders: list, round_: int, known: object) -> Iterator[Draw]:
            for order in orders:
                for replicate in order.replicates():
                    rng = np.random.default_rng([order.stratum, replicate])
                    yield Draw(order.stratum, replicate, "ab"[rng.choice(2, p=gamma[order.stratum])], 1.0)

    grid = Grid(strata, fraction_rows(10, (0, 0.3, 0.6)), 40, "a", 12, 0)
    outcome = run(Free(), grid, Target())
    assert outcome.posterior.index.tolist() == [0, 3, 6, 10]
    assert len(outcome.draws) == 120
    assert outcome.posterior.mean[-2:, outcome.posterior.labels.index("a")].tolist() == [1.0, 1.0]
    # The posterior jumps between rows 3 and 4: bisection looks at the ends, 5, 2, 3 and 4 and nowhere else.
    outcome = run(Free(), Bisection(strata, 200, "a", 12, 0), Target())
    assert outcome.posterior.index.tolist() == [0, 2, 3, 4, 5, 10]


@pytest.mark.parametrize("estimator", ["unbiased", "pooled"])
@pytest.mark.parametrize("seed", range(2))
def test_strata_that_end_are_drawn_from_no_further(seed: int, estimator: Estimator) -> None:
    case = random_case(seed, steps=30)
    limits = np.random.default_rng(seed).integers(0, 9, len(case.strata))
    strata = tuple(replace(s, limit=int(n)) for s, n in zip(case.strata, limits, strict=True))
    method = replace(case.method(1, estimator), strata=strata)
    outcome = run(case.source(1), method, Target(error=0.001, estimator=estimator))
    assert (outcome.status, outcome.ran_out) == ("budget", True)
    limit = {stratum.key: stratum.limit for stratum in strata}
    assert all(draw.replicate < limit[draw.stratum] for draw in outcome.draws)
    # Wherever the labels differ everything there is was drawn.
    for stratum in strata:
        labels = [draw.label for draw in outcome.draws if draw.stratum == stratum.key]
        assert len(labels) == stratum.limit or len(set(labels)) <= 1
    known = {(draw.stratum, draw.replicate): draw for draw in outcome.draws}
    again = run(None, method, Target(error=0.001, estimator=estimator), known=known)
    assert (again.draws, again.status, again.ran_out) == (outcome.draws, "budget", True)
    plenty = replace(method, strata=tuple(replace(s, limit=10_000) for s in strata))
    free = run(case.source(1), case.method(1, estimator), Target(error=0.1, estimator=estimator))
    same = run(case.source(1), plenty, Target(error=0.1, estimator=estimator))
    assert (same.draws, same.status, same.ran_out) == (free.draws, "complete", False)


def test_a_grid_and_a_bisection_take_what_there_is() -> None:
    strata = tuple(Stratum(row, 10.0 - row, limit) for row, limit in enumerate([7, 9, 0, 9, 9, 9, 9, 9, 9, 9]))

    class Coin:
        def __init__(self) -> None:
            self.strata = strata

        def draw(self, orders: list, round_: int, known: object) -> Iterator[Draw]:
            for order in orders:
                for replicate in order.replicates():
                    rng = np.random.default_rng([order.stratum, replicate])
                    yield Draw(order.stratum, replicate, "ab"[int(rng.integers(2))], 1.0)

    outcome = run(Coin(), Grid(strata, (0, 2, 5), 8, "a", 12, 0), Target())
    assert (outcome.status, outcome.ran_out) == ("budget", True)
    assert outcome.posterior.index.tolist() == [0, 5, 10]
    assert len(outcome.draws) == 7 + 8
    assert run(Coin(), Grid(strata, (0, 5), 7, "a", 12, 0), Target()).status == "complete"
    # Row 2 has nothing, so the interval from 0 to 5 is not split any further below row 2.
    outcome = run(Coin(), Bisection(strata, 9, "a", 12, 0, threshold=1e-9), Target())
    assert (outcome.status, outcome.ran_out) == ("budget", True)
    assert 2 not in outcome.posterior.index
