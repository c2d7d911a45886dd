"""The scores of a text, by which one of two models may be told from the other.

Means are over the steps of the prompt or of the reply (``running.py``). A score is NaN where there is nothing to take
it from: of the reply where it is empty or lies beyond the context window, of the prompt where an engine reads replies
only, of a ratio where neither model could have said the text.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from blinkscope.detection.running import Running

SCORES = {
    "prompt_aligned": "mean log-probability of the prompt under the aligned model",
    "reply_aligned": "mean log-probability of the reply under the aligned model",
    "prompt_unaligned": "mean log-probability of the prompt under the unaligned model",
    "reply_unaligned": "mean log-probability of the reply under the unaligned model",
    "prompt_ratio": "prompt_unaligned - prompt_aligned, the log-likelihood ratio for each token",
    "reply_ratio": "reply_unaligned - reply_aligned, the log-likelihood ratio for each token",
    "reply_running_max": "largest log-likelihood ratio after any number of tokens of the reply",
    "perplexity": "exp of minus the mean log-probability of prompt and reply together under the aligned model",
}
"""Every score of two models and what it is; probes add ``probe_logistic`` and ``probe_mlp``."""


def scores(prompt: Running, reply: Running) -> dict[str, float]:
    """All scores of a text from its steps under both models."""
    with np.errstate(invalid="ignore", over="ignore"):
        perplexity = float(np.exp(-_mean(np.concatenate([prompt.aligned, reply.aligned]))))
    return {
        "prompt_aligned": _mean(prompt.aligned),
        "reply_aligned": _mean(reply.aligned),
        "prompt_unaligned": _mean(prompt.unaligned),
        "reply_unaligned": _mean(reply.unaligned),
        "prompt_ratio": _last(mean_ratio(prompt)),
        "reply_ratio": _last(mean_ratio(reply)),
        "reply_running_max": float(np.fmax.reduce(reply.log_ratio, initial=np.nan)),
        "perplexity": perplexity,
    }


def mean_ratio(steps: Running) -> Float[np.ndarray, " steps"]:
    """Log-likelihood ratio for each token after every number of steps."""
    return steps.log_ratio / np.arange(1, len(steps.pieces) + 1)


def _last(values: Float[np.ndarray, " n"]) -> float:
    return float(values[-1]) if len(values) else float("nan")


def _mean(log_p: Float[np.ndarray, " n"]) -> float:
    return float(log_p.mean()) if len(log_p) else float("nan")
