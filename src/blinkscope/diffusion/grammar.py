"""A small masked-diffusion transformer for texts of a grammar, whose every conditional law is known.

Texts are those of ``GRAMMAR``, a random hierarchy model of 8 tokens with 4 symbols and 4 classes
(``worlds/random_hierarchy.py``). The network is asked for the law of each hidden token given those that are seen, which
belief propagation gives exactly: after the pass up from the leaves to the root (mu_i(x), see there) comes one down,

    root      nu(x) = w_x
    below     nu_{child j}(c) = sum_{x -> x_1 .. x_b, x_j = c} nu(x) (1/m) prod_{i != j} mu_{child i}(x_i)
    leaf      P(token = c | what is seen)  is proportional to  nu_leaf(c) mu_leaf(c)

so the network's laws, the classes of the texts that it makes, and its windows can all be held against the truth.
``train_grammar.py`` makes its weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from blinkscope.diffusion.masked import Marginals, Tokens
from blinkscope.diffusion.shipped import check_weights, load_weights, save_weights
from blinkscope.errors import MissingExtra
from blinkscope.symbols import HIDDEN
from blinkscope.worlds.random_hierarchy import RandomHierarchy

GRAMMAR = RandomHierarchy(depth=3, branching=2, symbols=4, rules=2, process="masking", seed=0)
WEIGHTS, REPORT = "grammar.safetensors", "grammar.json"
WIDTH, LAYERS, HEADS = 48, 3, 4


@dataclass(frozen=True, eq=False)
class GrammarModel:
    """The network, ready to use, and the report of its training."""

    network: Any
    report: dict[str, Any]

    @property
    def marginals(self) -> Marginals:
        """P(X_j = x | what is seen), the network's, for ``MaskedDiffusion``."""
        import torch

        def law(texts: Tokens) -> Float[np.ndarray, "n length symbols"]:
            given = torch.from_numpy(np.where(texts == HIDDEN, GRAMMAR.symbols, texts).astype(np.int64))
            with torch.inference_mode():
                return np.asarray(self.network(given).double().softmax(dim=-1).numpy())

        return law


def new_network() -> Any:
    """The transformer before training, as torch's global random numbers make it."""
    try:
        import torch
        from torch import nn
    except ImportError as error:
        raise MissingExtra("the grammar model", "diffusion") from error

    class Transformer(nn.Module):
        """From tokens, a hidden one spelled as the number of symbols, to scores of the symbols at every place."""

        def __init__(self) -> None:
            super().__init__()
            self.symbol = nn.Embedding(GRAMMAR.symbols + 1, WIDTH)
            self.place = nn.Parameter(0.02 * torch.randn(GRAMMAR.leaves, WIDTH))
            layer = nn.TransformerEncoderLayer(
                WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.layers = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
            self.scores = nn.Linear(WIDTH, GRAMMAR.symbols)

        def forward(self, texts: Any) -> Any:
            return self.scores(self.layers(self.symbol(texts) + self.place))

    return Transformer()


def load_grammar_model(folder: Path | None = None) -> GrammarModel:
    """The network that ships with the package, or the one that ``blinkscope train grammar`` wrote to a folder."""
    network = new_network()
    report = load_weights({"network": network}, WEIGHTS, REPORT, folder)
    return GrammarModel(network, report)


def check_grammar_folder(folder: Path) -> None:
    """Refuse a folder that ``save_grammar_model`` could not write into (``shipped.check_weights``)."""
    check_weights(WEIGHTS, REPORT, folder)


def save_grammar_model(folder: Path, model: GrammarModel) -> None:
    """Write the network and its report."""
    save_weights({"network": model.network}, WEIGHTS, model.report, REPORT, folder)


def classes(texts: Tokens) -> list[str | None]:
    """The class of each finished text; None where the grammar cannot make it."""
    symbols = np.asarray(texts)
    for production in GRAMMAR.productions[::-1]:
        words = symbols.reshape(len(symbols), -1, GRAMMAR.branching)
        spelled = (words[:, :, None, None] == production).all(axis=-1).any(axis=-1)  # n, words, symbols
        symbols = np.where(spelled.any(axis=2), spelled.argmax(axis=2), HIDDEN)
    return [None if symbol == HIDDEN else GRAMMAR.labels[symbol] for symbol in symbols[:, 0]]


def exact_marginals(texts: Tokens, grammar: RandomHierarchy = GRAMMAR) -> Float[np.ndarray, "n length symbols"]:
    """P(X_j = x | what is seen), exactly, by belief propagation; texts that the grammar cannot make give NaN."""
    n, v, b = len(texts), grammar.symbols, grammar.branching
    evidence = np.vstack([np.eye(v), np.ones(v)])
    upward = [evidence[texts]]  # the leaves first, then level by level
    for production in grammar.productions[::-1]:
        children = upward[-1].reshape(n, -1, b, v)
        upward.append(_normalised(_without(children, production, None).sum(axis=-1)))
    downward = np.tile(grammar.weights, (n, 1, 1))
    for level, production in enumerate(grammar.productions):
        children = upward[-2 - level].reshape(n, -1, b, v)
        below = np.empty_like(children)
        for j in range(b):
            joint = downward[..., None] * _without(children, production, j)  # n, nodes, symbols, rules
            below[:, :, j] = np.einsum("nkxr,xrc->nkc", joint, np.eye(v)[production[..., j]])
        downward = _normalised(below.reshape(n, -1, v))
    return _normalised(downward * upward[0])


def _without(
    children: Float[np.ndarray, "n nodes branching symbols"],
    production: Int[np.ndarray, "symbols rules branching"],
    left_out: int | None,
) -> Float[np.ndarray, "n nodes symbols rules"]:
    """prod_i mu_{child i}(x_i) for every production x -> x_1 .. x_b, one child left out."""
    parts = [children[:, :, i][..., production[..., i]] for i in range(children.shape[2]) if i != left_out]
    product = np.ones((*children.shape[:2], *production.shape[:2]))
    for part in parts:
        product *= part
    return product


def _normalised(message: Float[np.ndarray, "*n symbols"]) -> Float[np.ndarray, "*n symbols"]:
    with np.errstate(invalid="ignore"):
        return np.asarray(message / message.sum(axis=-1, keepdims=True))
