"""Small automata over words: a ``Machine`` whose states and moves stand in tables."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from blinkscope.engines.machine import END, END_TEXT, UNKNOWN, UNKNOWN_TEXT, States, label_laws
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class State:
    """One state: what can be said in it, and the label of a reply that stops there.

    moves: for each possible word its probability and the key of the state that it leads to.
    label: None where nothing is decided in the text so far.
    """

    moves: Mapping[str, tuple[float, Hashable]]
    label: str | None = None


@dataclass(frozen=True, eq=False)
class Automaton:
    """States and moves as tables; the reply starts in state 0.

    tokens, logits, successors: the moves of each state, most probable first, filled up with impossible ones.
    outcomes: number of the state's label, -1 where it has none.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    tokens: Int[np.ndarray, "states moves"]
    logits: Float[np.ndarray, "states moves"]
    successors: Int[np.ndarray, "states moves"]
    outcomes: Int[np.ndarray, " states"]
    ids: Mapping[str, int] = field(repr=False)
    steps: Mapping[tuple[int, int], int] = field(repr=False)

    @property
    def start(self) -> States:
        return np.asarray(0)

    def moves(self, states: States) -> tuple[Int[np.ndarray, "rows moves"], Float[np.ndarray, "rows moves"]]:
        return self.tokens[states], self.logits[states]

    def follow(self, states: States, tokens: Int[np.ndarray, " rows"]) -> States:
        """The states after a word. A word that is impossible there is passed over: the state stays."""
        here = (self.tokens[states] == tokens[:, None]) & (self.logits[states] > -np.inf)
        return np.where(here.any(axis=1), self.successors[states, here.argmax(axis=1)], states)

    def outcome(self, states: States) -> Int[np.ndarray, " rows"]:
        return self.outcomes[states]

    def label(self, text: str) -> str | None:
        state = 0
        for word in text.split():
            state = self.steps.get((state, self.ids.get(word, UNKNOWN)), state)
        outcome = int(self.outcomes[state])
        return None if outcome < 0 else self.labels[outcome]

    def posterior(
        self, sampling: Sampling, states: States, left: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "rows outcomes"] | None:
        return label_laws(self, sampling, states, left)


def automaton(states: Mapping[Hashable, State], labels: tuple[str, ...]) -> Automaton:
    """Tables of the given states, the first of which is the start. Moves of probability 0 are left out."""
    words = sorted({word for state in states.values() for word in state.moves} - {END_TEXT})
    texts = (END_TEXT, UNKNOWN_TEXT, *(f" {word}" for word in words))
    ids = {word: token for token, word in enumerate(words, start=2)}
    number = {key: i for i, key in enumerate(states)}
    width = max(len(state.moves) for state in states.values())
    tokens = np.full((len(states), width), UNKNOWN)
    logits = np.full((len(states), width), -np.inf)
    successors = np.zeros((len(states), width), dtype=np.int64)
    steps: dict[tuple[int, int], int] = {}
    for i, state in enumerate(states.values()):
        moves = sorted(((p, word, to) for word, (p, to) in state.moves.items() if p > 0), key=lambda m: (-m[0], m[1]))
        if abs(sum(p for p, _, _ in moves) - 1) > 1e-9:
            raise ValueError(f"the words of state {list(states)[i]} do not have total probability 1")
        for j, (p, word, to) in enumerate(moves):
            tokens[i, j] = END if word == END_TEXT else ids[word]
            logits[i, j] = np.log(p)
            successors[i, j] = steps[i, int(tokens[i, j])] = number[to]
    outcome = np.array([-1 if state.label is None else labels.index(state.label) for state in states.values()])
    return Automaton(texts, labels, tokens, logits, successors, outcome, ids, steps)
