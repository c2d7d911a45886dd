"""Train the digits model: what ``blinkscope train digits`` does.

The UNet minimises E |v(Y_t, t) - v_true|^2 with the angle arctan(sigma) drawn evenly over (0, pi / 2) (one stratum for
each picture of a batch), by AdamW with a falling rate, and its weights are averaged over the later steps. The
classifier sees shifted and slightly noised scans. Seeds are fixed; results agree bit for bit only on the same machine
and version of torch.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from blinkscope.diffusion.digits import (
    LABELS,
    NO_CLASS,
    SHAPE,
    Digits,
    Scans,
    check_digits_folder,
    load_scans,
    new_networks,
    save_digits_model,
)
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.diffusion.shipped import seeded_training

STEPS, BATCH, RATE = 3000, 128, 2e-3
AVERAGING = 0.998  # share of the averaged weights that a step keeps
HIDDEN = 0.5  # how often the class is hidden
CLASSIFIER_STEPS, CLASSIFIER_BATCH, PIXEL_NOISE = 1500, 128, 0.1
QUALITY_PICTURES, QUALITY_STEPS = 500, 50

check = check_digits_folder
save = save_digits_model
Watch = Callable[[str, int, int], None]


def train(seed: int = 0, watch: Watch = lambda what, done, of: None) -> Digits:
    """Train both networks and measure them.

    Parameters
    ----------
    seed : of everything random.
    watch : called with what is going on, steps done and steps in all.
    """
    started = time.perf_counter()
    known, tested = load_scans()
    with seeded_training(seed):
        unet, classifier = new_networks()
        train_classifier(classifier, known, watch)
        unet = train_unet(unet, known, watch)
    model = Digits(unet.eval(), classifier.eval(), {})
    model.report.update(
        {
            "seed": seed,
            "steps": STEPS,
            "parameters": {
                "unet": sum(p.numel() for p in unet.parameters()),
                "classifier": sum(p.numel() for p in classifier.parameters()),
            },
            "classifier_test_accuracy": accuracy(model, tested),
            "quality": quality(model, known, seed, watch),
            "seconds": round(time.perf_counter() - started, 1),
        }
    )
    return model


def train_unet(unet: Any, scans: Scans, watch: Watch, steps: int | None = None) -> Any:
    """The UNet with its averaged weights, after so many steps; ``STEPS`` of them where nothing else is said."""
    import torch

    steps = STEPS if steps is None else steps
    pictures, digits = torch.from_numpy(scans.pictures), torch.from_numpy(scans.digits)
    averaged = copy.deepcopy(unet)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        chosen = torch.randint(len(pictures), (BATCH,))
        x, noise = pictures[chosen], torch.randn(BATCH, *SHAPE)
        classes = torch.where(torch.rand(BATCH) < HIDDEN, NO_CLASS, digits[chosen])
        share = (torch.randperm(BATCH) + torch.rand(BATCH)) / BATCH
        angle = (share * math.pi / 2).view(-1, 1, 1, 1)
        y = angle.cos() * x + angle.sin() * noise
        velocity = angle.cos() * noise - angle.sin() * x
        loss = (unet(y, 1000 * share, classes).sample - velocity).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for mean, value in zip(averaged.parameters(), unet.parameters(), strict=True):
                mean.lerp_(value, 1 - min(AVERAGING, step / (step + 10)))
        watch("training the denoiser", step + 1, steps)
    return averaged


def train_classifier(classifier: Any, scans: Scans, watch: Watch) -> None:
    import torch

    pictures, digits = torch.from_numpy(scans.pictures), torch.from_numpy(scans.digits)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=CLASSIFIER_STEPS, pct_start=0.05)
    for step in range(CLASSIFIER_STEPS):
        chosen = torch.randint(len(pictures), (CLASSIFIER_BATCH,))
        down, right = (int(shift) for shift in torch.randint(-1, 2, (2,)))
        padded = torch.nn.functional.pad(pictures[chosen], (1, 1, 1, 1), value=-1.0)
        shifted = padded[:, :, 1 + down : 9 + down, 1 + right : 9 + right]
        scores = classifier(shifted + PIXEL_NOISE * torch.randn_like(shifted))
        loss = torch.nn.functional.cross_entropy(scores, digits[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        watch("training the classifier", step + 1, CLASSIFIER_STEPS)


def accuracy(model: Digits, scans: Scans) -> float:
    """Share of scans whose digit the classifier reads right."""
    return float((model.probabilities(scans.pictures).argmax(axis=1) == scans.digits).mean())


def quality(model: Digits, known: Scans, seed: int, watch: Watch) -> dict[str, Any]:
    """Generated pictures against real ones, through the classifier's eyes.

    confidence: mean probability of the most probable digit, of generated and of real pictures.
    balance: total variation between the digits of generated pictures and those of real ones; two real samples of the
        same size are ``balance_of_real`` apart on average.
    class_accuracy: share of pictures drawn with a class that the classifier reads as that class.
    """
    free = generate(model, None, QUALITY_PICTURES, seed, watch)
    given = [generate(model, digit, QUALITY_PICTURES // len(LABELS), seed, watch) for digit in range(len(LABELS))]
    drawn, real = model.probabilities(free), model.probabilities(known.pictures)
    share = np.bincount(known.digits, minlength=len(LABELS)) / len(known.digits)
    rng = np.random.default_rng(seed)
    pairs = rng.multinomial(QUALITY_PICTURES, share, size=(1000,)) / QUALITY_PICTURES
    counts = np.bincount(drawn.argmax(axis=1), minlength=len(LABELS))
    hits = [(model.probabilities(pictures).argmax(axis=1) == digit).mean() for digit, pictures in enumerate(given)]
    return {
        "pictures": QUALITY_PICTURES,
        "steps": QUALITY_STEPS,
        "confidence": round(float(drawn.max(axis=1).mean()), 4),
        "confidence_of_real": round(float(real.max(axis=1).mean()), 4),
        "digits": counts.tolist(),
        "balance": round(float(np.abs(counts / QUALITY_PICTURES - share).sum() / 2), 4),
        "balance_of_real": round(float((np.abs(pairs - share).sum(axis=1) / 2).mean()), 4),
        "class_accuracy": round(float(np.mean(hits)), 4),
    }


def generate(model: Digits, digit: int | None, n: int, seed: int, watch: Watch) -> Float[np.ndarray, "n 1 8 8"]:
    """n pictures, without a class or with one."""
    diffusion = GaussianDiffusion(model.denoiser(digit), cosine_times(QUALITY_STEPS), SHAPE)
    rngs = [np.random.default_rng([seed, NO_CLASS if digit is None else digit, i]) for i in range(n)]
    watch("measuring the pictures", NO_CLASS if digit is None else digit, NO_CLASS)
    return diffusion.sample(rngs)
