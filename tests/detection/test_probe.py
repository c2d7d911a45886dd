"""Probes: what is kept computes what scikit-learn computed, and a file that is none is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from blinkscope.detection.probe import FEWEST, Probe, load_probe, save_probe, train_probe
from blinkscope.errors import UserError


def data(n: int = 60, width: int = 12, apart: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = np.arange(n) % 2
    return rng.normal(size=(n, width)) * 3 + 10 + apart * 3 * labels[:, None] * (np.arange(width) < 4), labels


def trained(**options: object) -> Probe:
    x, labels = data()
    return train_probe(x, labels, model="tiny", system=None, layer=1, **options)  # type: ignore[arg-type]


def test_the_kept_numbers_give_the_log_odds_that_scikit_learn_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.pipeline import Pipeline

    kept: list[Pipeline] = []
    fit = Pipeline.fit

    def keeping(self: Pipeline, *args: object, **more: object) -> Pipeline:
        kept.append(fit(self, *args, **more))
        return kept[-1]

    monkeypatch.setattr(Pipeline, "fit", keeping)
    probe = trained()
    x, labels = data()
    logistic, mlp = (p for p in kept if p[0].n_samples_seen_ == len(x))
    for row in x[:10]:
        p = [classifier.predict_proba(row[None])[0, 1] for classifier in (logistic, mlp)]
        found = probe.scores(row)
        assert [found["logistic"], found["mlp"]] == pytest.approx([np.log(q / (1 - q)) for q in p], rel=1e-6, abs=1e-6)
    assert probe.report["texts"] == len(labels)


def test_labels_that_activations_tell_apart_are_learned_and_others_are_not() -> None:
    assert min(trained().report["auroc_held_out"].values()) > 0.95
    x, labels = data(apart=0.0, n=200)
    nothing = train_probe(x, labels, model="tiny", system=None, layer=1)
    # Under no difference the AUROC of 100 and 100 texts has a standard deviation of 0.041; five of them are 0.2.
    assert all(0.3 < value < 0.7 for value in nothing.report["auroc_held_out"].values())


def test_a_probe_is_kept_as_numbers_and_comes_back(tmp_path: Path) -> None:
    probe = trained(seed=4)
    path = tmp_path / "probe.safetensors"
    save_probe(path, probe)
    again = load_probe(path)
    assert (again.model, again.system, again.layer, dict(again.report)) == ("tiny", None, 1, dict(probe.report))
    x, _ = data()
    assert again.scores(x[0]) == probe.scores(x[0])
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    assert json.loads(header["__metadata__"]["blinkscope_probe"])["layer"] == 1
    with pytest.raises(UserError, match="12 numbers and this model has 3"):
        again.scores(np.zeros(3))
    with pytest.raises(UserError, match=r"there is no folder .*no for the probe"):
        save_probe(tmp_path / "no" / "folder", probe)


def test_what_is_no_probe_is_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "probe.safetensors"
    with pytest.raises(UserError, match="no file"):
        load_probe(path)
    path.write_bytes(pickle.dumps({"mean": 1}))
    with pytest.raises(UserError, match="no probe that blinkscope wrote"):
        load_probe(path)
    probe = trained()
    about = json.dumps({"model": "tiny", "system": None, "layer": 1, "report": {}})
    broken = {
        "missing": {name: array for name, array in probe.arrays.items() if name != "mean"},
        "misfit": {**probe.arrays, "mean": np.zeros(3)},
        "infinite": {**probe.arrays, "mlp_bias": np.array(np.inf)},
        "flat": {**probe.arrays, "scale": np.zeros(12)},
    }
    for arrays in broken.values():
        save_file(dict(arrays), path, metadata={"blinkscope_probe": about})
        with pytest.raises(UserError, match="no probe that blinkscope wrote"):
            load_probe(path)
    save_file(dict(probe.arrays), path, metadata={})
    with pytest.raises(UserError, match="no probe that blinkscope wrote"):
        load_probe(path)


def test_too_few_texts_are_refused() -> None:
    x, labels = data(2 * FEWEST - 2)
    with pytest.raises(UserError, match=f"{FEWEST - 1} with label 1"):
        train_probe(x, labels, model="tiny", system=None, layer=1)
