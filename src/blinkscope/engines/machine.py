"""The law of a toy model's text, word by word, and the exact label posterior that follows from it.

A ``Machine`` says in each of its states which words are possible, each with a probability and a state that it leads to;
states may carry a label. With V_r(z) the label law of a reply that stands in state z with r tokens left under the
length cap, and P(x | z) the law of the next word under the sampling distribution,

    V_0(z) = the label of z, ``(truncated)`` where it has none
    V_r(z) = sum_x P(x | z) V_{r-1}(z x),    a word x that ends the reply counts the label of z x

so the posterior pi_s of a path that stands in z_s after s tokens is V_{cap - s}(z_s), with no sampling anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.errors import UserError
from blinkscope.language.sampling import Sampling, next_token_law

END, UNKNOWN = 0, 1  # ids of the end-of-turn token, and of words that only a prompt can hold
END_TEXT, UNKNOWN_TEXT = "<end>", "<unknown>"

States: TypeAlias = np.ndarray[Any, Any]  # of whole numbers; an entry, or a row, for each of several texts


class Machine(Protocol):
    """The law of a text word by word, for several texts at once.

    words: text of every token, with its leading space; ``ids`` leads back, from the word without it.
    labels: the outcomes.
    start: the state of an empty reply.
    """

    @property
    def words(self) -> tuple[str, ...]: ...

    @property
    def ids(self) -> Mapping[str, int]: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def start(self) -> States: ...

    def __hash__(self) -> int: ...

    def moves(self, states: States) -> tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]:
        """Tokens that can follow and their logits, most probable first, filled up with impossible ones."""
        ...

    def follow(self, states: States, tokens: Int[np.ndarray, " rows"]) -> States:
        """The states after one more word each. One that is impossible there is passed over or refused."""
        ...

    def outcome(self, states: States) -> Int[np.ndarray, " rows"]:
        """Number of the label that the text carries as it stands, -1 where it has none."""
        ...

    def label(self, text: str) -> str | None:
        """The label that a text carries. What the model never says is passed over."""
        ...

    def posterior(
        self, sampling: Sampling, states: States, left: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "rows outcomes"] | None:
        """Exact label laws as ``label_laws`` gives them; None where they are out of reach."""
        ...


@lru_cache(maxsize=16)
def endings(machine: Machine, sampling: Sampling) -> Bool[np.ndarray, " tokens"]:
    """For each token, whether saying it ends the reply: the end of turn, or a word that contains a stop text."""
    for text in sampling.stop:
        if " " in text[1:]:
            raise UserError(f"stop text {text!r} spans several words; a toy model can stop at a single word only.")
    ends = np.array([any(text in word for text in sampling.stop) for word in machine.words])
    ends[END] = True
    return ends


def law_of(
    machine: Machine, states: States, sampling: Sampling
) -> tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]:
    """The words that can follow, most probable first, and their probabilities under the sampling distribution."""
    tokens, logits = machine.moves(states)
    return tokens, next_token_law(logits, sampling, vocabulary=logits.shape[1]).p


@dataclass(frozen=True, eq=False)
class _Layer:
    """The states that can be reached with the same number of tokens left, and all moves from them.

    asked, places: rows whose law is asked for here, and the place of each row's state among ``states``.
    entered: places among ``states`` of what the moves of the layer before lead to.
    state, p, ends, reached: of every move the place of its state, its probability, whether it ends the reply, and the
        state after it.
    """

    states: States
    asked: Int[np.ndarray, " rows"]
    places: Int[np.ndarray, " rows"]
    entered: Int[np.ndarray, " entered"]
    state: Int[np.ndarray, " moves"]
    p: Float[np.ndarray, " moves"]
    ends: Bool[np.ndarray, " moves"]
    reached: States


def label_laws(
    machine: Machine,
    sampling: Sampling,
    states: States,
    left: Int[np.ndarray, " rows"],
    *,
    most: float = math.inf,
) -> Float[np.ndarray, "rows outcomes"] | None:
    """Exact label law of a reply that stands in ``states[i]`` with ``left[i]`` tokens left under the cap.

    The last two outcomes are ``(truncated)`` and ``(unparsed)``. Only states that can be reached with that many tokens
    left are visited; None where these, times the outcomes, are more than ``most``.
    """
    layers = _layers(machine, sampling, states, left, most / (len(machine.labels) + 2))
    if layers is None:
        return None
    outcomes = len(machine.labels) + 2
    rows = np.zeros((len(left), outcomes))
    after = np.zeros((0, outcomes))  # the label laws of the layer after, at the states that moves lead to
    for r, layer in reversed(layers):
        if r == 0:
            outcome = machine.outcome(layer.states)
            value = certain(np.where(outcome < 0, outcomes - 2, outcome), outcomes)
        else:
            outcome = machine.outcome(layer.reached)
            worth = certain(np.where(outcome < 0, outcomes - 1, outcome), outcomes)
            worth[~layer.ends] = after
            first = np.searchsorted(layer.state, np.arange(len(layer.states)))
            value = np.add.reduceat(layer.p[:, None] * worth, first, axis=0)
        rows[layer.asked] = value[layer.places]
        after = value[layer.entered]
    return rows


def certain(outcome: Int[np.ndarray, " rows"], outcomes: int) -> Float[np.ndarray, "rows outcomes"]:
    """Label laws with all their mass on one outcome each."""
    law = np.zeros((len(outcome), outcomes))
    law[np.arange(len(outcome)), outcome] = 1.0
    return law


def _layers(
    machine: Machine, sampling: Sampling, states: States, left: Int[np.ndarray, " rows"], most: float
) -> list[tuple[int, _Layer]] | None:
    """What can be reached, from the most tokens left to the fewest, with the number of tokens left."""
    ends, layers, visited = endings(machine, sampling), [], 0
    reached = states[:0]
    for r in range(int(left.max()), -1, -1):
        asked = np.flatnonzero(left == r)
        if not len(asked) and not len(reached):
            continue
        here, places = np.unique(np.concatenate([reached, states[asked]]), axis=0, return_inverse=True)
        places, entered = places.reshape(-1), len(reached)
        visited += len(here)
        if visited > most:
            return None
        tokens, p = law_of(machine, here, sampling)
        state, move = np.nonzero(p if r else np.zeros_like(p))
        after = machine.follow(here[state], tokens[state, move])
        over = ends[tokens[state, move]]
        layers.append((r, _Layer(here, asked, places[entered:], places[:entered], state, p[state, move], over, after)))
        reached = after[~over]
    return layers
