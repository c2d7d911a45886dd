"""The grammar model as it ships, against belief propagation: its laws, its texts, and when their class is decided."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from blinkscope.cli.main import main
from blinkscope.critical import critical_window
from blinkscope.diffusion import train_grammar
from blinkscope.diffusion.grammar import (
    GRAMMAR,
    REPORT,
    WEIGHTS,
    GrammarModel,
    classes,
    exact_marginals,
    load_grammar_model,
    save_grammar_model,
)
from blinkscope.diffusion.masked import FiniteTexts, MaskedDiffusion, Order
from blinkscope.diffusion.pictures import METHODS, PictureModel, locate_sample
from blinkscope.diffusion.shipped import HOME
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.feature import UNPARSED
from blinkscope.studies import diffusion
from blinkscope.studies.diffusion import DiffusionSpec, Drawing
from blinkscope.studies.study import run_study
from blinkscope.symbols import HIDDEN
from blinkscope.worlds.random_hierarchy import RandomHierarchy

LEVELS = np.linspace(0, 1, 9)


@pytest.fixture(scope="module")
def model() -> GrammarModel:
    return load_grammar_model()


def rngs(n: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


def all_texts() -> np.ndarray:
    """The 512 texts of the grammar: 4 classes and 2 productions at each of 7 nodes, all of the same probability."""
    texts = np.arange(GRAMMAR.symbols)[:, None]
    for production in GRAMMAR.productions:
        choices = np.stack(np.meshgrid(*[range(GRAMMAR.rules)] * texts.shape[1]), axis=-1).reshape(-1, texts.shape[1])
        texts = np.concatenate([production[text, choices].reshape(len(choices), -1) for text in texts])
    assert len(np.unique(texts, axis=0)) == len(texts) == 512
    return texts


def test_exact_marginals_are_those_of_all_texts() -> None:
    """Against enumeration, at every level of masking; a grammar of three children a node too."""
    texts = all_texts()
    finite = FiniteTexts(texts, ("any",) * 512, np.full(512, 1 / 512))
    _, seen = train_grammar.masked_texts(np.random.default_rng(0), 300)
    np.testing.assert_allclose(exact_marginals(seen), finite.marginals(seen), atol=1e-12)
    other = RandomHierarchy(depth=2, branching=3, symbols=3, rules=4)
    text = other.sample(np.random.default_rng(1), "2", 0.0, 1)
    for place in range(9):
        seen = text.copy()
        seen[0, place] = HIDDEN
        law = []
        for symbol in range(3):
            filled = seen.copy()
            filled[0, place] = symbol
            try:
                law.append(other.posterior(filled, 0.0).sum())
            except UserError:
                law.append(0.0)
        assert ((exact_marginals(seen, other)[0, place] > 0) == (np.array(law) > 0)).all()


def test_classes_are_the_roots_and_other_texts_have_none() -> None:
    texts = all_texts()
    assert classes(texts) == [GRAMMAR.labels[k] for k in GRAMMAR.posterior(texts, 0.0).argmax(axis=1)]
    every = np.array(list(np.ndindex(*(4,) * 8)))[::7]
    known = {tuple(text) for text in texts}
    assert [found is not None for found in classes(every)] == [tuple(text) in known for text in every]


def test_the_networks_laws_are_near_the_exact_ones(model: GrammarModel) -> None:
    """Mean KL of 1,000 masked texts that it was not measured on in its report, which says 2,000 others."""
    quality = model.report["quality"]
    _, seen = train_grammar.masked_texts(np.random.default_rng(5), 1000)
    apart = train_grammar.divergence(model, seen)
    assert apart.mean() == pytest.approx(quality["mean_kl"], abs=5 * apart.std() / np.sqrt(1000))
    assert quality["mean_kl"] < 0.01
    assert quality["grammatical"] > 0.97
    assert (HOME / WEIGHTS).is_file()
    assert len((HOME / WEIGHTS).read_bytes()) < 1e6


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_labels_of_filled_in_texts_follow_the_roots_posterior(model: GrammarModel, order: Order) -> None:
    """600 fillings of masked texts at four levels: E pi_t(own class) by belief propagation, in either order.

    5 standard errors (false alarm 6e-7 each), and 0.05 for what the network is off.
    """
    masked = MaskedDiffusion(model.marginals, LEVELS, GRAMMAR.leaves, order=order)
    for level in (2, 4, 6, 8):
        streams = rngs(600, level)
        texts = train_grammar.grammar_texts(np.random.default_rng(level), 600)
        seen = np.stack([masked.noise(rng, text, level) for rng, text in zip(streams, texts, strict=True)])
        own = GRAMMAR.posterior(texts, 0.0)
        exact = (GRAMMAR.posterior(seen, 0.5) * own).sum(axis=1).mean()
        found = np.empty(600, dtype=object)
        for rows, filled in masked.reverse_batches(seen, np.full(600, level), streams):
            found[rows] = classes(filled)
        same = (found == np.array(classes(texts), dtype=object)).mean()
        assert abs(same - exact) < 5 * np.sqrt(exact * (1 - exact) / 600) + 0.05


@pytest.mark.parametrize("method", METHODS)
def test_where_a_text_of_the_network_was_decided(model: GrammarModel, method: str) -> None:
    """Every level of the curve against belief propagation; binomial tails at 1e-9 with 0.05 for the network."""
    masked = MaskedDiffusion(model.marginals, LEVELS, GRAMMAR.leaves)
    text = all_texts()[100]
    trace = locate_sample(masked, classes, sample=text, method=method, seed=4, target=Target(error=0.1))
    assert trace.final_label == classes(text[None])[0]
    path = masked.forward_path(np.random.default_rng(np.random.SeedSequence(4, spawn_key=(0, 0))), text)
    for position in trace.posterior.index[:-1].astype(int):
        level = 8 - int(position)
        seen = path[level : level + 1]
        if method == "forward-reverse":
            seen = np.array([masked.noise(rng, text, level) for rng in rngs(3000, level)])
        exact = GRAMMAR.posterior(seen, 0.5).mean(axis=0)
        drawn = [draw.label for draw in trace.draws if draw.stratum == position]
        for label, p in zip(GRAMMAR.labels, exact, strict=True):
            assert binom.sf(drawn.count(label) - 1, len(drawn), min(1.0, p + 0.05)) > 1e-9
            assert binom.cdf(drawn.count(label), len(drawn), max(0.0, p - 0.05)) > 1e-9


def test_the_networks_windows_are_the_grammars(model: GrammarModel, tmp_path: Path) -> None:
    """The study's limits (level 1 - 1e-8, 0.05 for the network) hold the exact total variations and windows."""
    sampler = MaskedDiffusion(model.marginals, LEVELS, GRAMMAR.leaves)
    spec = DiffusionSpec(
        items=50, levels=4, eps=0.4, asking=Drawing("grammar", seed=1), target=Target(error=0.18, level=1 - 1e-8)
    )
    found = run_study(diffusion.STUDY, spec, tmp_path / "run.db", model=PictureModel("grammar", sampler, classes))
    tables = found.findings.tables
    for row in tables["total_variation"]:
        if row["of"] != UNPARSED and row["kept"] < 8:
            rest = tuple(label for label in GRAMMAR.labels if label != row["of"])
            exact = GRAMMAR.total_variation((row["of"],), rest, row["time"]).value
            assert row["low"] - 0.05 <= exact <= row["high"] + 0.05
    row = next(row for row in tables["windows"] if row["of"] == "0")
    window = critical_window(GRAMMAR, spec.eps, ("0",))
    for name, time in (("start", window.t_before), ("end", window.t_after)):
        assert time is not None
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        assert low is None or low - 2 <= 8 * (1 - time)  # the study looks at every other level
        assert high is None or 8 * (1 - time) <= high + 2


SMALL = {"STEPS": 3, "BATCH": 8, "MEASURED": 20}


def test_the_command_trains_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A few steps; the real numbers are in the shipped report."""
    for name, value in SMALL.items():
        monkeypatch.setattr(train_grammar, name, value)
    assert main(["train", "grammar", "-o", str(tmp_path / "new"), "--seed", "2"]) == 0
    printed = capsys.readouterr()
    again = load_grammar_model(tmp_path / "new")
    assert json.loads(printed.out) == again.report == json.loads((tmp_path / "new" / REPORT).read_text())
    assert "training the transformer" in printed.err
    trained = train_grammar.train(seed=2)
    _, seen = train_grammar.masked_texts(np.random.default_rng(0), 5)
    np.testing.assert_allclose(trained.marginals(seen), again.marginals(seen), atol=1e-5)
    save_grammar_model(tmp_path / "other", trained)
    (tmp_path / "other" / WEIGHTS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="cannot be read"):
        load_grammar_model(tmp_path / "other")


def test_it_is_looked_into_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["locate", "--model", "diffusion:grammar?steps=8", "--error", "0.2", "--seed", "1"]
    report = tmp_path / "run.html"
    assert main([*asked, "-o", str(tmp_path / "run.db"), "--report", str(report), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["final_label"] in GRAMMAR.labels
    assert found["curve"]["time"][0] == 1.0
    assert report.stat().st_size > 1000
    assert main([*asked, "--method", "clone", "-o", str(tmp_path / "clone.db")]) == 0
