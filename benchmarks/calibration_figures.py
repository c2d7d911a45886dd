"""The figures of docs/calibration.md, from what ``benchmarks/calibration.py`` counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {"unbiased": "#1f5a99", "pooled": "#b5541c"}


def draw(summaries: Sequence[dict[str, Any]], runs: Mapping[str, Sequence[dict[str, Any]]], folder: Path) -> None:
    """Write ``coverage.svg`` and ``errors.png``."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "blinkscope", "font.size": 9})
    folder.mkdir(parents=True, exist_ok=True)
    estimators = [name for name in COLOURS if any(found["estimator"] == name for found in summaries)]
    _coverage(summaries, estimators).savefig(folder / "coverage.svg", metadata={"Date": None})
    _errors(runs, estimators).savefig(folder / "errors.png", dpi=110)


def _coverage(summaries: Sequence[dict[str, Any]], estimators: Sequence[str]) -> Any:
    """Share of true values inside the bands against the level the bands claim, a line for each case."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.4 + 3.3 * len(estimators), 3.3), layout="constrained")
    axes = figure.subplots(1, len(estimators), sharey=True, squeeze=False)[0]
    for ax, estimator in zip(axes, estimators, strict=True):
        for found in summaries:
            if found["estimator"] == estimator and found["case"] != "decision":
                levels = [float(level) for level in found["bands"]]
                ax.plot(
                    levels, [b["share"] for b in found["bands"].values()], color=COLOURS[estimator], lw=0.8, alpha=0.7
                )
                low, high = found["bands"]["0.95"]["low"], found["bands"]["0.95"]["high"]
                ax.plot([0.95, 0.95], [low, high], color=COLOURS[estimator], lw=0.8, alpha=0.4)
        ax.plot([0.5, 1], [0.5, 1], color="black", lw=0.8, ls=":")
        ax.set(title=estimator, xlabel="level of the band", xlim=(0.48, 1.0), ylim=(0.4, 1.01))
    axes[0].set_ylabel("share of true values inside")
    return figure


def _errors(runs: Mapping[str, Sequence[dict[str, Any]]], estimators: Sequence[str]) -> Any:
    """Root mean square error made against the one stated, a dot for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(0.4 + 3.3 * len(estimators), 3.3), layout="constrained")
    axes = figure.subplots(1, len(estimators), sharey=True, sharex=True, squeeze=False)[0]
    for ax, estimator in zip(axes, estimators, strict=True):
        colour = COLOURS[estimator]
        found = [
            run for key, rows in runs.items() if key.endswith(f" {estimator}") for run in rows if run["stated"] > 0
        ]
        stated, made = (np.sqrt([run[key] for run in found]) for key in ("stated", "squared"))
        ax.plot(stated, np.maximum(made, 1e-4), ".", color=colour, ms=3, alpha=0.5)
        edge = np.asarray([2e-3, 0.3])
        ax.plot(edge, edge, color="black", lw=0.8, ls=":")
        ax.set(title=estimator, xlabel="error stated", xscale="log", yscale="log", xlim=edge, ylim=edge)
    axes[0].set_ylabel("error made")
    return figure
