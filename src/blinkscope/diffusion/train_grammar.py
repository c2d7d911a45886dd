"""Train the grammar model: what ``blinkscope train grammar`` does.

Every batch is fresh texts of the grammar, each token hidden with a probability of the text's own (one stratum of [0, 1]
for each text); the network minimises the cross entropy of the hidden tokens by AdamW with a falling rate. Seeds are
fixed; results agree bit for bit only on the same machine and version of torch.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.grammar import (
    GRAMMAR,
    GrammarModel,
    check_grammar_folder,
    classes,
    exact_marginals,
    new_network,
    save_grammar_model,
)
from blinkscope.diffusion.masked import MaskedDiffusion, Tokens
from blinkscope.diffusion.shipped import seeded_training
from blinkscope.diffusion.train_digits import Watch
from blinkscope.symbols import HIDDEN

STEPS, BATCH, RATE = 5000, 128, 3e-3
check = check_grammar_folder
save = save_grammar_model
MEASURED = 2000  # texts behind the numbers of the report


def train(seed: int = 0, watch: Watch = lambda what, done, of: None) -> GrammarModel:
    """Train the network and measure it.

    Parameters
    ----------
    seed : of everything random.
    watch : called with what is going on, steps done and steps in all.
    """
    started = time.perf_counter()
    with seeded_training(seed):
        network = new_network()
        _fit(network, np.random.default_rng([seed, 0]), watch)
    model = GrammarModel(network.eval(), {})
    model.report.update(
        {
            "seed": seed,
            "steps": STEPS,
            "parameters": sum(p.numel() for p in network.parameters()),
            "quality": quality(model, np.random.default_rng([seed, 1])),
            "seconds": round(time.perf_counter() - started, 1),
        }
    )
    return model


def _fit(network: Any, rng: np.random.Generator, watch: Watch) -> None:
    import torch

    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.05)
    for step in range(STEPS):
        texts, seen = masked_texts(rng, BATCH)
        hidden = torch.from_numpy(seen == HIDDEN)
        scores = network(torch.from_numpy(np.where(seen == HIDDEN, GRAMMAR.symbols, seen)))
        loss = torch.nn.functional.cross_entropy(scores[hidden], torch.from_numpy(texts)[hidden])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        watch("training the transformer", step + 1, STEPS)


def masked_texts(rng: np.random.Generator, n: int) -> tuple[Tokens, Tokens]:
    """Texts of the grammar, and the same with tokens hidden at levels that cover [0, 1] evenly."""
    texts = grammar_texts(rng, n)
    level = (rng.permutation(n) + rng.random(n)) / n
    return texts, np.where(rng.random(texts.shape) < level[:, None], HIDDEN, texts)


def grammar_texts(rng: np.random.Generator, n: int) -> Int[np.ndarray, "n length"]:
    """n finished texts, of all classes alike."""
    text = rng.integers(GRAMMAR.symbols, size=(n, 1))
    for production in GRAMMAR.productions:
        text = production[text, rng.integers(GRAMMAR.rules, size=text.shape)].reshape(n, -1)
    return text


def divergence(model: GrammarModel, seen: Tokens) -> Float[np.ndarray, " hidden"]:
    """KL( exact law || the network's law ) of every hidden token, in nats."""
    hidden = seen == HIDDEN
    exact, law = exact_marginals(seen)[hidden], model.marginals(seen)[hidden]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(exact > 0, exact * np.log(exact / law), 0.0).sum(axis=1))


def quality(model: GrammarModel, rng: np.random.Generator) -> dict[str, Any]:
    """The network against the grammar.

    mean_kl, largest_kl: of the laws of hidden tokens, in nats; see ``divergence``.
    grammatical: share of texts written from nothing that the grammar can make. classes: of them, by class.
    """
    _, seen = masked_texts(rng, MEASURED)
    apart = divergence(model, seen)
    masked = MaskedDiffusion(model.marginals, np.array([0.0, 1.0]), GRAMMAR.leaves)
    written = masked.reverse_paths([np.random.default_rng(rng.integers(2**63)) for _ in range(MEASURED)])[:, 0]
    found = classes(written)
    return {
        "texts": MEASURED,
        "mean_kl": round(float(apart.mean()), 5),
        "largest_kl": round(float(apart.max()), 3),
        "grammatical": round(1 - found.count(None) / MEASURED, 4),
        "classes": [found.count(label) for label in GRAMMAR.labels],
    }
