"""Posteriors of many samples of a diffusion model, each estimated by denoising the same state again and again.

What ``sampled.SampledMixture`` and ``sampled_window`` need to say of a whole distribution what the theory says of it:
total variations, T_before and T_after, label laws ([LKC25], section 2).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from blinkscope.diffusion.pictures import Labeller, LevelSampler, read
from blinkscope.diffusion.record import Samples
from blinkscope.errors import UserError
from blinkscope.posterior import Posterior


def sampled_posterior(
    sampler: LevelSampler,
    label: Labeller,
    samples: Samples,
    levels: Sequence[int],
    repeats: int,
    *,
    labels: Sequence[str],
    weights: Float[np.ndarray, " labels"] | None = None,
    seed: int = 0,
) -> Posterior:
    """The posterior of every sample at every level, after fresh noise, from so many denoisings of each state.

    Parameters
    ----------
    samples : shape (n, ...), draws from the model's own law where the result is to speak of that.
    levels : numbers of noise levels, 0 (the sample) to ``sampler.steps``.
    labels : all that can come out; ``label`` may return no other.
    weights : the prior law of the labels.

    Returns
    -------
    Shape (levels, n, labels), indexed by the levels' times, with the counts behind it.

    Raises
    ------
    UserError : no samples, levels or repeats, or a label that is not among ``labels``.
    """
    if not len(samples) or not len(levels) or repeats < 1:
        raise UserError(
            f"there are {len(samples)} samples, {len(levels)} levels and {repeats} repeats; give at least one of each."
        )
    n = len(samples)
    rows = np.repeat(np.asarray(levels), n)
    rngs = [np.random.default_rng([seed, 0, i]) for i in range(len(rows))]
    noisy = np.stack([sampler.noise(rng, samples[i % n], int(rows[i])) for i, rng in enumerate(rngs)])
    many = np.repeat(np.arange(len(rows)), repeats)
    streams = [np.random.default_rng([seed, 1, i]) for i in range(len(many))]
    numbers = {name: k for k, name in enumerate(labels)}
    flat = np.zeros((len(rows), len(labels)), dtype=np.int64)
    for batch, finished in sampler.reverse_batches(noisy[many], rows[many], streams):
        found = read(label, finished)
        if unknown := set(found) - numbers.keys():
            raise UserError(f"the label function returned {min(unknown)!r}; the labels are {', '.join(labels)}.")
        np.add.at(flat, (many[batch], [numbers[name] for name in found]), 1)
    counts = flat.reshape(len(levels), n, len(labels))
    times = np.asarray(sampler.times, dtype=float)[np.asarray(levels)]
    return Posterior(times, tuple(labels), counts / repeats, weights=weights, counts=counts)
