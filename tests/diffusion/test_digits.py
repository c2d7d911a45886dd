"""The digits model as it ships: what it draws, what it reads, when it decides."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from blinkscope.bounds import proof_steps
from blinkscope.cli.main import main
from blinkscope.diffusion import train_digits
from blinkscope.diffusion.digits import (
    LABELS,
    REPORT,
    SHAPE,
    WEIGHTS,
    Digits,
    load_digits_model,
    load_scans,
    save_digits_model,
)
from blinkscope.diffusion.exact import EmpiricalData
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.pictures import locate_sample
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.divergence import label_law, total_variation
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Target
from blinkscope.posterior import Posterior


@pytest.fixture(scope="module")
def model() -> Digits:
    return load_digits_model()


def rngs(n: int, seed: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(n)]


def test_the_classifier_reads_scans_it_has_not_seen(model: Digits) -> None:
    _, tested = load_scans()
    accuracy = train_digits.accuracy(model, tested)
    assert accuracy >= 0.97
    assert accuracy == pytest.approx(model.report["classifier_test_accuracy"], abs=0.006)


def test_the_shipped_weights_are_small_and_their_quality_is_stated(model: Digits) -> None:
    import blinkscope.diffusion

    folder = Path(blinkscope.diffusion.__file__).parent / "weights"
    assert (folder / WEIGHTS).stat().st_size < 2e6
    quality = model.report["quality"]
    assert quality["confidence"] > 0.95
    assert quality["class_accuracy"] > 0.95
    assert quality["balance"] < 0.1


def test_drawn_pictures_look_like_digits(model: Digits) -> None:
    """120 pictures in 25 steps. The report's confidence is 0.96; with a spread of 0.1 its mean is above 0.9 by 6 sd."""
    diffusion = GaussianDiffusion(model.denoiser(), cosine_times(25), SHAPE)
    pictures = diffusion.sample(rngs(120, 0))
    assert model.probabilities(pictures).max(axis=1).mean() > 0.9
    assert len(set(model.label(pictures))) == 10
    assert np.quantile(np.abs(pictures), 0.99) < 1.3


def test_a_class_can_be_asked_for(model: Digits) -> None:
    """40 pictures of one class; the report says 97 % are read as it. P(fewer than 29 of 40) is below 1e-6 at 0.95."""
    diffusion = GaussianDiffusion(model.denoiser(4), cosine_times(25), SHAPE)
    assert model.label(diffusion.sample(rngs(40, 1))).count("4") >= 29
    with pytest.raises(UserError, match="no digit 10"):
        model.denoiser(10)


def test_the_network_is_near_the_exact_denoiser_of_its_data(model: Digits) -> None:
    """Where there is much noise the network cannot tell its training set from its law; where there is little, it can
    (the set's own denoiser knows the very picture, the network does not): difference in root mean square per pixel."""
    known, _ = load_scans()
    data = EmpiricalData(known.pictures, tuple(LABELS[digit] for digit in known.digits))
    clean = known.pictures[:200].astype(float)
    noise = np.random.default_rng(0).standard_normal(clean.shape)
    for t, allowed in ((2.5, 0.04), (1.5, 0.06), (0.7, 0.13)):
        y = math.exp(-t) * clean + math.sqrt(1 - math.exp(-2 * t)) * noise
        difference = model.denoiser()(y, t) - data.denoise(y, t)
        assert math.sqrt(float((difference**2).mean())) < allowed


def test_the_networks_posterior_is_that_of_its_data(model: Digits) -> None:
    """P(digit) of a scan that neither has seen, at four noise levels: 150 denoisings against the exact mean of pi_t.

    5 standard errors (false alarm 6e-7 each), and 0.05 for what the network is off and its 30 steps.
    """
    known, tested = load_scans()
    data = EmpiricalData(known.pictures, tuple(LABELS[digit] for digit in known.digits))
    times, n, digit = cosine_times(30), 150, int(tested.digits[0])
    diffusion = GaussianDiffusion(model.denoiser(), times, SHAPE)
    for level in (12, 18, 21, 25):
        streams = rngs(2000, level)
        noisy = np.stack([diffusion.noise(rng, tested.pictures[0], level) for rng in streams])
        exact = data.posterior(noisy, float(times[level])).mean(axis=0)[digit]
        labels = model.label(diffusion.reverse(noisy[:n], np.full(n, level), streams[:n]))
        share = labels.count(LABELS[digit]) / n
        assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / n) + 0.05


def test_theorem_2_and_the_certificate_hold_for_digits(model: Digits) -> None:
    """The experiment from nines, and its distance from the law of threes and nines.

    Its label law is within the certificate, and that within Theorem 2's bound, by the exact posteriors of the scans
    (all 1,437 of them noised, 5 standard errors). The networks give the label law that the exact posteriors say: 5
    standard errors, and 0.06 for what they are off.
    """
    known, _ = load_scans()
    names = np.array(LABELS)[known.digits]
    data = EmpiricalData(known.pictures, tuple(names))
    times, rng = cosine_times(30), np.random.default_rng(3)
    levels, weights = np.array([6, 10, 14, 18, 22]), np.array([(names == name).mean() for name in LABELS])

    def noised(level: int) -> np.ndarray:
        t, clean = float(times[level]), known.pictures.astype(float)
        return math.exp(-t) * clean + math.sqrt(1 - math.exp(-2 * t)) * rng.standard_normal(clean.shape)

    noisy = [noised(int(level)) for level in levels]
    mean = np.stack([data.posterior(y, float(times[level])) for y, level in zip(noisy, levels, strict=True)])
    posterior = Posterior(times[levels], LABELS, mean, weights=weights)
    target = np.isin(LABELS, ("3", "9"))
    wanted = np.where(target, weights, 0) / weights[target].sum()
    ratio = weights[~target].sum() / weights[target].sum()
    steps = proof_steps(posterior, ("9",), ("3", "9"))
    law = label_law(posterior, ("9",))
    reached = np.array([float(total_variation(row, wanted)) for row in law.mean])
    for row, step in enumerate(steps):
        slack = 5 * (law.standard_error[row].sum() / 2 + step.certificate.standard_error)
        assert reached[row] <= step.certificate.value + slack
        eps = max(step.mixing.value, math.sqrt(1 - step.separation))
        assert step.applies(eps + 1e-9)
        assert step.certificate.value <= eps * (1 + max(1.0, ratio) / math.sqrt(2)) + slack
    # It says something: nines are nearest to threes and nines in between, not with less noise and not with more.
    assert reached.min() < 0.42 < min(reached[0], reached[-1])
    diffusion = GaussianDiffusion(model.denoiser(), times, SHAPE)
    nines = np.flatnonzero(names == "9")
    for row in (2, 4):
        found = model.label(
            diffusion.reverse(noisy[row][nines], np.full(len(nines), levels[row]), rngs(len(nines), row))
        )
        exact = mean[row][nines].mean(axis=0)
        for k in (3, 9):
            spread = math.sqrt(exact[k] * (1 - exact[k]) / len(nines))
            assert abs(found.count(LABELS[k]) / len(nines) - exact[k]) < 5 * spread + 0.06


def test_a_scan_of_a_digit_is_decided_between_noise_and_picture(model: Digits) -> None:
    _, tested = load_scans()
    diffusion = GaussianDiffusion(model.denoiser(), cosine_times(24), SHAPE)
    trace = locate_sample(diffusion, model.label, sample=tested.pictures[0], target=Target(error=0.12))
    assert trace.final_label == LABELS[tested.digits[0]]
    column = trace.labels.index(trace.final_label)
    assert trace.curve[0, column] < 0.6
    assert trace.curve[-2, column] > 0.9
    assert trace.windows(0.5, max_width=24)


SMALL = {"STEPS": 2, "CLASSIFIER_STEPS": 3, "QUALITY_PICTURES": 10, "QUALITY_STEPS": 2, "BATCH": 4}


def test_training_runs_and_its_result_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps of everything; the real numbers are in the shipped report."""
    for name, value in SMALL.items():
        monkeypatch.setattr(train_digits, name, value)
    seen = []
    trained = train_digits.train(seed=3, watch=lambda what, done, of: seen.append((what, done, of)))
    assert seen[0] == ("training the classifier", 1, 3)
    assert ("training the denoiser", 2, 2) in seen
    save_digits_model(tmp_path, trained)
    again = load_digits_model(tmp_path)
    y = np.random.default_rng(0).standard_normal((2, *SHAPE))
    assert (again.denoiser(3)(y, 1.0) == trained.denoiser(3)(y, 1.0)).all()
    assert again.report == json.loads((tmp_path / REPORT).read_text()) == trained.report
    (tmp_path / WEIGHTS).write_bytes(b"\x80\x04pickle")
    with pytest.raises(UserError, match="cannot be read"):
        load_digits_model(tmp_path)
    with pytest.raises(UserError, match="cannot be read"):
        load_digits_model(tmp_path / "nowhere")


def test_the_command_trains_and_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in SMALL.items():
        monkeypatch.setattr(train_digits, name, value)
    assert main(["train", "digits", "-o", str(tmp_path / "new"), "--seed", "2"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == load_digits_model(tmp_path / "new").report
    assert "training the denoiser" in printed.err
    (tmp_path / "file").touch()
    assert main(["train", "digits", "-o", str(tmp_path / "file")]) == 2
    assert "choose a folder" in capsys.readouterr().err
