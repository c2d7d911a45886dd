"""The laws that vLLM can draw from, in this process or behind its server.

It applies temperature, min-p, top-k and top-p in this order, where everyone else has min-p last. Min-p keeps tokens by
their ratio to the most probable one, which no other filter changes, so the order makes a difference for top-p alone: a
nucleus of what min-p has left is smaller. Temperatures between 0 and 0.01 it silently raises to 0.01, and those above 2
it refuses. (vLLM 0.33: ``v1/sample/sampler.py``, ``sampling_params.py``.)
"""

from __future__ import annotations

from blinkscope.errors import UserError
from blinkscope.language.sampling import Sampling

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 2.0


def check_law(sampling: Sampling) -> None:
    """Refuse a law that vLLM would not draw from as it is scored."""
    if 0 < sampling.temperature < LEAST_TEMPERATURE or sampling.temperature > MOST_TEMPERATURE:
        raise UserError(
            f"temperature is {sampling.temperature}; vLLM takes 0 or {LEAST_TEMPERATURE} to {MOST_TEMPERATURE:g}."
        )
    if sampling.min_p > 0 and sampling.top_p < 1:
        raise UserError(
            "vLLM applies min-p before top-p, which makes another law than the usual order; set --min-p 0 or --top-p 1."
        )
