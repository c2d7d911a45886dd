"""Diffusion models, with noise levels where a language model has tokens.

``denoisers`` turns any network's prediction into E[X | Y_t]; ``schedules`` holds the noise levels in use; ``gaussian``
noises and denoises; ``exact`` has a denoiser whose posteriors are known; ``digits`` are two small networks that ship
with the package, and ``train_digits`` makes them. ``masked`` does the same for tokens. ``pictures`` runs the
forward-reverse and clone experiments on one sample of either; ``levels`` spends their draws, ``smoother`` reads them.
"""
