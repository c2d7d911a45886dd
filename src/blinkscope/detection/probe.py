"""The baseline that looks inside: classifiers on the aligned model's activations.

What they see of a text is the residual stream after one layer, averaged over the same tokens whose log-probabilities
make the other scores. A logistic regression and a network with one hidden layer are trained with scikit-learn and kept
as plain numbers (safetensors), so that loading a probe runs no code.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from blinkscope.errors import MissingExtra, UserError
from blinkscope.outputs import Kind, written

PROBE = Kind("probe", "probe", re.compile(rb'(?s).{8}\{"__metadata__":\{"blinkscope_probe"'))
HIDDEN = 32
STRENGTH = 0.01
"""Inverse strength of the logistic regression's penalty, on standardised activations: they outnumber the texts."""
FOLDS = 5
FEWEST = 10
"""Texts of each label that a probe is trained on at least."""
KINDS = ("logistic", "mlp")
ARRAYS = ("mean", "scale", "logistic_weight", "logistic_bias", "hidden_weight", "hidden_bias", "mlp_weight", "mlp_bias")


@dataclass(frozen=True, eq=False)
class Probe:
    """Two trained classifiers.

    model, system, layer: of which activations. arrays: by the names in ``ARRAYS``; ``mean`` and ``scale`` standardise
    an activation of ``width`` numbers, ``hidden_weight`` is (width, hidden). report: how it was trained.
    """

    model: str
    system: str | None
    layer: int
    arrays: Mapping[str, np.ndarray]
    report: Mapping[str, Any]

    def scores(self, activation: Float[np.ndarray, " width"]) -> dict[str, float]:
        """The log-odds of label 1 by each kind."""
        a = self.arrays
        if activation.shape != a["mean"].shape:
            raise UserError(
                f"the probe was trained on activations of {len(a['mean'])} numbers and this model has "
                f"{len(activation)}; train one for this model."
            )
        x = (activation - a["mean"]) / a["scale"]
        hidden = np.maximum(x @ a["hidden_weight"] + a["hidden_bias"], 0.0)
        return {
            "logistic": float(x @ a["logistic_weight"] + a["logistic_bias"]),
            "mlp": float(hidden @ a["mlp_weight"] + a["mlp_bias"]),
        }


def train_probe(
    activations: Float[np.ndarray, "texts width"],
    labels: Int[np.ndarray, " texts"],
    *,
    model: str,
    system: str | None,
    layer: int,
    seed: int = 0,
) -> Probe:
    """Fit both classifiers, and measure each on texts that it was not fitted to (``FOLDS``-fold cross-validation).

    Raises
    ------
    UserError : there are fewer than ``FEWEST`` texts of a label.
    MissingExtra : scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
        from sklearn.model_selection import StratifiedKFold, cross_val_predict
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtra("training a probe", "detect") from None
    counts = {label: int((labels == label).sum()) for label in (1, 0)}
    if min(counts.values()) < FEWEST:
        raise UserError(
            f"a probe needs at least {FEWEST} texts of each label; there are {counts[1]} with label 1 and "
            f"{counts[0]} with label 0."
        )
    classifiers = {
        "logistic": LogisticRegression(C=STRENGTH, max_iter=2000),
        "mlp": MLPClassifier((HIDDEN,), solver="lbfgs", alpha=1.0, max_iter=200, random_state=seed),
    }
    fitted, auroc = {}, {}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the cross-validated number says what came of it
        for kind, classifier in classifiers.items():
            pipeline = make_pipeline(StandardScaler(), classifier)
            held_out = cross_val_predict(pipeline, activations, labels, cv=folds, method="predict_proba")[:, 1]
            auroc[kind] = float(roc_auc_score(labels, held_out))
            fitted[kind] = pipeline.fit(activations, labels)
    scaler, logistic, mlp = fitted["logistic"][0], fitted["logistic"][1], fitted["mlp"][1]
    arrays = {
        "mean": scaler.mean_,
        "scale": scaler.scale_,
        "logistic_weight": logistic.coef_[0],
        "logistic_bias": logistic.intercept_[0],
        "hidden_weight": mlp.coefs_[0],
        "hidden_bias": mlp.intercepts_[0],
        "mlp_weight": mlp.coefs_[1][:, 0],
        "mlp_bias": mlp.intercepts_[1][0],
    }
    report = {"texts": len(labels), "with_label_1": counts[1], "seed": seed, "auroc_held_out": auroc}
    return Probe(model, system, layer, {name: np.asarray(value, float) for name, value in arrays.items()}, report)


def save_probe(path: Path, probe: Probe) -> None:
    """Write a probe as safetensors: numbers, and a JSON text that says what they belong to.

    Raises
    ------
    UserError, EngineError : as ``outputs.written``; weights of another kind are not replaced.
    """
    from safetensors.numpy import save

    about = {"model": probe.model, "system": probe.system, "layer": probe.layer, "report": dict(probe.report)}
    content = save(dict(probe.arrays), metadata={"blinkscope_probe": json.dumps(about, allow_nan=False)})
    with written(path, PROBE) as file:
        file.write(content)


def load_probe(path: Path) -> Probe:
    """Read a probe; the numbers are checked to fit together.

    Raises
    ------
    UserError : there is no such file, or it is no probe of blinkscope.
    """
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise MissingExtra("a probe", "detect") from None
    if not path.is_file():
        raise UserError(f"there is no file {path}; train a probe with blinkscope detect train.")
    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: np.asarray(file.get_tensor(name), float) for name in file.keys()}  # noqa: SIM118
            about = json.loads((file.metadata() or {})["blinkscope_probe"])
        probe = Probe(
            str(about["model"]), _text_or_none(about["system"]), int(about["layer"]), arrays, dict(about["report"])
        )
        _check(arrays)
    except (SafetensorError, KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{path} is no probe that blinkscope wrote ({error}).") from None
    return probe


def _text_or_none(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("its system prompt is no text")
    return value


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    if set(arrays) != set(ARRAYS):
        raise ValueError("it does not hold the arrays of a probe")
    width, hidden = arrays["hidden_weight"].shape
    shapes: Sequence[tuple[int, ...]] = ((width,),) * 3 + ((), (width, hidden), (hidden,), (hidden,), ())
    if any(arrays[name].shape != shape for name, shape in zip(ARRAYS, shapes, strict=True)):
        raise ValueError("its arrays do not fit together")
    if not all(np.isfinite(array).all() for array in arrays.values()) or not (arrays["scale"] > 0).all():
        raise ValueError("it holds numbers that are not finite")
