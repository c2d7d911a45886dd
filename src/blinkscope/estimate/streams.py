"""Keyed random streams.

Streams are looked up by what they are for, never handed on, so a resumed run draws what the uninterrupted one would
have drawn. A key starts with its purpose; the rest names the generation, the position, and the draw or the round.
Recorded rollouts use the same purposes for the order in which their outcomes are dealt out: FIRST with (generation,
position, half) and FOLLOW with (generation, position, fork).
"""

from __future__ import annotations

from typing import Final

import numpy as np

GENERATION: Final = 0  # the fresh sample that is analysed: (generation,)
FOLLOW: Final = 1  # what follows a fork: (generation, position, replicate)
FIRST: Final = 2  # the jointly drawn first tokens off the path: (generation, position, round, half)
FREE: Final = 3  # continuations that may stay on the path: (generation, position, replicate)
BANDS: Final = 4  # joint draws of a curve: (generation,)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The generator of one keyed stream."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
