"""Are the stated errors true? Runs of ``locate`` on toy models, whose exact curve is known.

    python benchmarks/calibration.py [--runs 400] [--case NAME ...] [--estimator unbiased pooled] [--keep FOLDER]
                                     [--plot docs/figures] [--list]

Every run analyses a fresh generation through the real loop, its own stopping rule included; labels are drawn from the
exactly known law of each alternative instead of being read off a text, which has the same law and takes less time.
Prints one JSON object: for each case and estimator what was counted, with intervals clustered by run, and which of the
requirements it meets. With ``--keep`` a call that was ended goes on from where it was; ``--plot`` draws the figures of
the docs.

What is counted, of every run:

- coverage of the pointwise bands over (row, label) with truth in (0.02, 0.98); a label that was never seen has the band
  [0, 0]; and of the interval of the total variation between rows a tenth of the generation apart, where that is at
  least 0.1;
- squared error and stated variance over all rows and labels;
- whether the band touches 0 and 1 where the outcome is certain;
- windows called certain, and how many of them exist; whether a window was listed that does not exist; windows of change
  0.6 or more that exist, and how many of them overlap a listed one;
- windows listed, their mean probability, the share that exists, and the share of their intervals that hold the true
  change; the same for windows of change 0.2 (``small``);
- whether the curve of exact off-path laws with the skipped positions left out stays within the skipped weight, in every
  row, and between all rows at most a window's width apart within the sum of theirs;
- the error of the final label's probability at the first row and in the middle, which averages to 0 if unbiased.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from blinkscope import Target, Trace, open_model
from blinkscope.divergence import total_variation
from blinkscope.engines.toy import ToyEngine
from blinkscope.estimate import loop
from blinkscope.estimate.recursion import Recursion
from blinkscope.estimate.trace import ESTIMATORS, Estimator
from blinkscope.language.engine import Path
from blinkscope.posterior import Posterior
from blinkscope.replay import ReplaySource
from blinkscope.session import plan
from blinkscope.window import default_max_width, token_windows
from cases import exact_forks

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
PIECE = 50  # runs of a case that are kept together
MODELS = 10  # seeded models of a case; runs take them in turn
COVERAGE = (0.93, 0.99)
PROMPT = "Where to?"


@dataclass(frozen=True)
class Case:
    """model: a toy model, ``{seed}`` filled in. per_open: budget of continuations for each open position, or none."""

    model: str
    error: float = 0.05
    per_open: int | None = None


CASES = {
    "maze-2": Case("maze?seed={seed}&length=80&labels=2"),
    "maze-4": Case("maze?seed={seed}&length=80&labels=4"),
    "maze-8": Case("maze?seed={seed}&length=80&labels=8"),
    "maze-2-sparse": Case("maze?seed={seed}&length=80&labels=2&open=0.2"),
    "maze-4-sparse": Case("maze?seed={seed}&length=80&labels=4&open=0.2"),
    "maze-8-sparse": Case("maze?seed={seed}&length=80&labels=8&open=0.2"),
    "walk": Case("walk?drift=0.1&barrier=5&length=80"),
    "fork": Case("fork"),
    "null-2": Case("null?seed={seed}&length=60&labels=2"),
    "null-4": Case("null?seed={seed}&length=60&labels=4"),
    "null-8": Case("null?seed={seed}&length=60&labels=8"),
    # About 4 continuations at an open position: two of the pilot, and what the budget leaves for two more on average.
    "maze-2-few": Case("maze?seed={seed}&length=80&labels=2", 0.01, 4),
    "maze-4-few": Case("maze?seed={seed}&length=80&labels=4", 0.01, 4),
    "maze-8-few": Case("maze?seed={seed}&length=80&labels=8", 0.01, 4),
    "walk-few": Case("walk?drift=0.1&barrier=5&length=80", 0.01, 4),
    "null-4-few": Case("null?seed={seed}&length=60&labels=4", 0.01, 4),
    # One decision, after which the outcome is open with probability 0.2: a pooled proportion under counts that adapt to
    # it would be biased.
    "decision": Case("fork?agree=0&width=1&leak=0.375&length=5"),
}


@lru_cache(maxsize=64)
def engine_of(spelling: str) -> ToyEngine:
    engine = open_model(f"toy:{spelling}")
    assert isinstance(engine, ToyEngine)
    return engine


def run(case: Case, estimator: Estimator, number: int) -> dict[str, Any]:
    """One generation and its analysis, as the numbers that are counted."""
    engine = engine_of(case.model.format(seed=number % MODELS))
    started = time.process_time()
    trace = analyse(engine, case, estimator, number)
    return {
        "seconds": time.process_time() - started,
        "continuations": trace.cost.continuations,
        "tokens": trace.cost.generated_tokens,
        "per_open": float(np.median(np.unique([d.stratum for d in trace.draws], return_counts=True)[1]))
        if trace.draws
        else 0.0,
        **_coverage(trace),
        **_certainty(trace),
        **_windows(trace),
        **_skipped(trace),
        **_bias(trace),
    }


def analyse(engine: ToyEngine, case: Case, estimator: Estimator, number: int) -> Trace:
    """What ``locate`` does, but for the texts: labels are drawn from the exact law of each alternative."""
    record = plan(engine, PROMPT, seed=number).record
    assert record.truth is not None
    budget = None if case.per_open is None else max(1, round(case.per_open * len(record.strata)))
    target = Target(error=case.error, estimator=estimator, continuations=budget)
    path = Path(engine.encode(PROMPT), record.tokens)
    forks = exact_forks(engine, path, engine.score(path, engine.default_sampling), record.truth[0])
    source = ReplaySource(record.places, forks, number, with_replacement=True)
    return record.trace(loop.run(source, record.method_of_loop(target), target), target)


def _truth(trace: Trace) -> np.ndarray:
    assert trace.truth is not None
    return np.asarray(trace.truth)


def _coverage(trace: Trace) -> dict[str, Any]:
    truth = _truth(trace)
    counted = (truth > 0.02) & (truth < 0.98)
    unseen = int((1 - truth.sum(axis=1) > 0.02).sum())
    found: dict[str, Any] = {"entries": int(counted.sum()) + unseen}
    for level in LEVELS:
        low, high = trace.posterior.band(level)
        found[f"covered_{level}"] = int(((low <= truth) & (truth <= high))[counted].sum())
    lag = max(1, round(len(trace.steps) / 10))
    change = total_variation(truth[lag:], truth[:-lag])
    draws = trace.posterior.draws if trace.posterior.believed is None else trace.posterior.believed
    if draws is not None:
        changes = total_variation(draws[:, lag:], draws[:, :-lag])
        middle = total_variation(trace.curve[lag:], trace.curve[:-lag])
        low, high = np.quantile(changes, [0.025, 0.975], axis=0)
        inside = (np.minimum(low, middle) <= change) & (change <= np.maximum(high, middle))
        found |= {"changes": int((change >= 0.1).sum()), "changes_covered": int(inside[change >= 0.1].sum())}
    square = (trace.curve - truth) ** 2
    found |= {"squared": float(square.mean()), "stated": float((trace.posterior.sd**2).mean())}
    found |= {"largest_error": float(np.sqrt(square.max())), "stated_largest": trace.error["reached_max"]}
    return found


def _certainty(trace: Trace) -> dict[str, int]:
    truth, (low, high) = _truth(trace), trace.band
    sure = truth >= 1 - 1e-12
    never = truth <= 1e-12
    return {"sure": int(sure.sum() + never.sum()), "touched": int((high[sure] == 1).sum() + (low[never] == 0).sum())}


def _windows(trace: Trace) -> dict[str, float]:
    truth = _truth(trace)

    def exists(a: int, b: int) -> bool:
        return bool(total_variation(truth[a], truth[b]) >= trace.target.delta - 1e-9)

    def told(delta: float) -> dict[str, float]:
        windows = trace.windows(delta)
        changes = [float(total_variation(truth[w.start], truth[w.end])) for w in windows]
        return {
            "listed": len(windows),
            "probability": sum(w.probability for w in windows),
            "exist": sum(change >= delta - 1e-9 for change in changes),
            "covered": sum(w.low <= change <= w.high for w, change in zip(windows, changes, strict=True)),
        }

    listed = trace.windows()
    certain = [w for w in listed if w.certain]
    exact = Posterior(trace.posterior.index, trace.labels, truth)
    large = [w for w in token_windows(exact, trace.final_label) if w.change >= 0.6]
    return {
        "certain": len(certain),
        "certain_exist": sum(exists(w.start, w.end) for w in certain),
        **told(trace.target.delta),
        **{f"small_{key}": value for key, value in told(0.2).items()},
        "false_alarm": int(any(not exists(w.start, w.end) for w in listed)),
        "large": len(large),
        "large_found": sum(any(w.start < x.end and x.start < w.end for x in listed) for w in large),
    }


def _skipped(trace: Trace) -> dict[str, float]:
    """How far the exact curve without the skipped positions is off beyond the bound; at most 0."""
    recursion = Recursion(np.asarray([s.p for s in trace.steps]), np.asarray([s.off_path for s in trace.steps]))
    truth, q = _truth(trace), recursion.off_path
    gamma = np.zeros((recursion.steps, truth.shape[1]))
    open_ = q > 0
    gamma[open_] = (truth[:-1][open_] - recursion.p[open_, None] * truth[1:][open_]) / q[open_, None]
    drawn = np.zeros(recursion.steps, dtype=bool)
    drawn[sorted({draw.stratum for draw in trace.draws})] = True
    skipped = open_ & ~drawn
    filled = recursion.curve(np.where(skipped[:, None], np.nan, gamma), truth[-1])
    bound = recursion.weight_of(skipped.astype(float))
    misstated = float(np.abs(bound - (0.0 if trace.skipped is None else trace.skipped)).max())
    moved = 0.5 * np.abs(filled - truth).sum(axis=1)
    excess = float((moved - bound).max())
    for lag in range(1, default_max_width(recursion.steps) + 1):
        heights = total_variation(filled[lag:], filled[:-lag]) - total_variation(truth[lag:], truth[:-lag])
        excess = max(excess, float((np.abs(heights) - bound[lag:] - bound[:-lag]).max()))
    return {"beyond_skipped": excess, "skipped": float(bound.max()), "skipped_misstated": misstated}


def _bias(trace: Trace) -> dict[str, float]:
    column = trace.labels.index(trace.final_label)
    error = (trace.curve - _truth(trace))[:, column]
    return {"error_first": float(error[0]), "error_middle": float(error[len(error) // 2])}


def share(hits: Sequence[float], of: Sequence[float], z: float = 1.96) -> dict[str, float]:
    """sum(hits) / sum(of) with an interval in which a run's contributions count as one."""
    hit, total = np.asarray(hits, dtype=float), np.asarray(of, dtype=float)
    if total.sum() == 0:
        return {"share": math.nan, "low": 0.0, "high": 1.0, "of": 0}
    value = hit.sum() / total.sum()
    error = np.sqrt(((hit - value * total) ** 2).sum()) / total.sum()
    low, high = max(0.0, value - z * error), min(1.0, value + z * error)
    return {"share": float(value), "low": float(low), "high": float(high), "of": float(total.sum())}


def binomial(hits: float, of: float) -> dict[str, float]:
    """A share of independent trials with its 95 % interval (Clopper and Pearson)."""
    from scipy.stats import beta

    low = float(beta.ppf(0.025, hits, of - hits + 1)) if hits else 0.0
    high = float(beta.ppf(0.975, hits + 1, of - hits)) if hits < of else 1.0
    return {"share": hits / of if of else math.nan, "low": low, "high": high, "of": of}


def summary(name: str, estimator: str, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What a case amounts to, and which requirements it meets; None where it says nothing about one."""
    total = {key: float(np.sum([r[key] for r in runs])) for key in runs[0] if key != "estimator"}

    def column(key: str) -> list[float]:
        return [r[key] for r in runs]

    bands = {str(level): share(column(f"covered_{level}"), column("entries")) for level in LEVELS}
    changes = share(column("changes_covered"), column("changes"))
    certain = binomial(total["certain_exist"], total["certain"])
    alarms = binomial(total["false_alarm"], len(runs))
    recall = binomial(total["large_found"], total["large"])
    made, stated = math.sqrt(total["squared"] / len(runs)), math.sqrt(total["stated"] / len(runs))
    z = {
        key: float(np.mean(column(key)) / max(np.std(column(key)) / math.sqrt(len(runs)), 1e-12))
        for key in ("error_first", "error_middle")
    }
    full = CASES[name].per_open is None
    # First tokens are drawn in proportion, so on one decision the error is smaller than that of independent draws.
    usual = name != "decision"
    within = bands["0.95"]["high"] >= COVERAGE[0] and bands["0.95"]["low"] <= COVERAGE[1]
    return {
        "case": name,
        "estimator": estimator,
        "runs": len(runs),
        "seconds_a_run": total["seconds"] / len(runs),
        "continuations": float(np.mean(column("continuations"))),
        "generated_tokens": float(np.mean(column("tokens"))),
        "median_per_open_position": float(np.median(column("per_open"))),
        "bands": bands,
        "changes": changes,
        "touch_certainty": share(column("touched"), column("sure")),
        "error_made": made,
        "error_stated": stated,
        "made_over_stated": made / stated if stated else math.nan,
        "largest_made": math.sqrt(float(np.mean(np.square(column("largest_error"))))),
        "certain_windows_exist": certain,
        "runs_that_list_a_window_that_is_none": alarms,
        "listed_windows": _listed(total, ""),
        "listed_small_windows": _listed(total, "small_"),
        "recall_of_large_windows": recall,
        "beyond_skipped_weight": max(column("beyond_skipped")),
        "bias_in_standard_errors": z,
        "meets": {
            "coverage": bool(within) if total["entries"] and usual else None,
            "touches_certainty": bool(total["touched"] >= 0.99 * total["sure"]),
            "error": abs(made / stated - 1) <= 0.25 if stated and usual else None,
            "certain_windows": certain["high"] >= 0.95 if total["certain"] else None,
            "null": alarms["low"] <= 0.05 if name.startswith("null") else None,
            "recall": recall["high"] >= 0.95 if total["large"] and full else None,
            "skipped": max(column("beyond_skipped")) <= 1e-9 and max(column("skipped_misstated")) < 1e-9,
            "unbiased": all(abs(value) < 4 for value in z.values()) if estimator == "unbiased" else None,
        },
    }


def _listed(total: dict[str, float], kind: str) -> dict[str, float]:
    """How many windows were listed, their mean probability, and the shares that exist and whose interval is right."""
    listed = total[f"{kind}listed"]
    shares = {
        key: total[f"{kind}{key}"] / listed if listed else math.nan for key in ("probability", "exist", "covered")
    }
    return {"listed": listed, **shares}


def kept(folder: FilePath | None, name: str, estimator: Estimator, first: int, count: int) -> list[dict[str, Any]]:
    """Runs ``first`` .. ``first + count - 1`` of a case, from the folder where they are there already."""
    file = None if folder is None else folder / f"{name}-{estimator}-{first}-{count}.json"
    if file is not None and file.exists():
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found
    found = [run(CASES[name], estimator, number) for number in range(first, first + count)]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".part").write_text(json.dumps(found))
        file.with_suffix(".part").rename(file)
    print(name, estimator, first + count, json.dumps(found[-1]), file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--estimator", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--keep", type=FilePath, metavar="FOLDER", help="keep every 50 runs, and do not run them again")
    parser.add_argument("--plot", type=FilePath, metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(CASES))
        return
    rows: dict[str, list[dict[str, Any]]] = {}
    for first in range(0, arguments.runs, PIECE):
        for name, estimator in itertools.product(arguments.case, arguments.estimator):
            found = kept(arguments.keep, name, estimator, first, min(PIECE, arguments.runs - first))
            rows.setdefault(f"{name} {estimator}", []).extend(found)
    summaries = [summary(*key.split(), found) for key, found in rows.items()]
    if arguments.plot:
        from calibration_figures import draw

        draw(summaries, rows, arguments.plot)
    print(json.dumps({"summaries": summaries, "runs": rows}))


if __name__ == "__main__":
    main()
