"""Worlds as toy models: ``toy:critical-token``, ``random-walk``, ``in-context``, ``permuted-masking`` and
``random-hierarchy``, so that what ``locate`` finds can be held against the theory.

The law of the text is the world's own: given the words so far, which make the observation Y_t, the next word has the
law ``world.next_token(y, t)``, and where the text is over, one word names a label drawn from ``world.posterior(y, t)``.
So the label posterior of a beginning of the text is pi_t(y), the world's. t counts what is not shown yet, of the text
that the world would write: with T tokens of the world and s shown, t = T - s. (Where the text settles its label,
as under random-hierarchy, the last word has nothing left to decide.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Int

from blinkscope.engines.machine import END, END_TEXT, UNKNOWN_TEXT, States, certain, endings, label_laws
from blinkscope.engines.toy import BATCH, ToyEngine
from blinkscope.errors import UserError
from blinkscope.language.sampling import Sampling
from blinkscope.worlds import create_world, parameter_readers
from blinkscope.worlds.permuted_masking import DIGITS
from blinkscope.worlds.world import TextWorld, check_memory

LONGEST = 5000  # words of a world's text
VISITED = 2**20  # most states, times outcomes, that are followed for a label law that is not the world's own
POSITION, SAID, SEEN = 0, 1, 2  # columns of a state
FIRST = 2  # the first token that is a word


@dataclass(frozen=True)
class Wording:
    """How a world becomes text.

    words: of a world, a word for each of its tokens.
    before, after: words that stand around every token, each place with its choices. They are equally likely, whatever
        the label and the text so far, so they leave the posterior as it was ([LKC25], Corollary 3).
    hidden: parameters of the world that are given by its being a text.
    """

    description: str
    example: str
    words: Callable[[Any], tuple[str, ...]]
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)


WORDINGS: Mapping[str, Wording] = {
    "critical-token": Wording(
        "two modes that agree up to a few tokens, at which they part; one sometimes turns later",
        "toy:critical-token?length=30&agree=12&width=3&leak=0.01",
        lambda world: ("along", "aside"),
    ),
    "random-walk": Wording(
        "a strong or a weak solver, told apart by steps forward and back; absorb=A stops it A steps ahead or behind",
        "toy:random-walk?length=100&drift=0.2",
        lambda world: ("back", "forward"),
    ),
    "in-context": Wording(
        "questions with answers, all from one of several candidates",
        "toy:in-context?examples=20&separation=0.8&candidates=4",
        lambda world: _numbers(world.laws.shape[1]),
        before=(("apple", "fig", "pear", "plum"),),
        after=((";",),),
    ),
    "permuted-masking": Wording(
        "a string, filled in one coordinate after the other; order=2,0,1 (and so on) says in which order",
        "toy:permuted-masking?coordinates=4&alphabet=3&order=2,0,3,1",
        lambda world: tuple(DIGITS[: world.alphabet]),
    ),
    "random-hierarchy": Wording(
        "the leaves of a random grammar from left to right; the label is its root",
        "toy:random-hierarchy?depth=3&branching=2&symbols=6&rules=3&seed=1",
        lambda world: _numbers(world.symbols),
        hidden={"process": "truncation"},
    ),
}


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(str(i) for i in range(n))


@dataclass(frozen=True, eq=False)
class WorldText:
    """A world that writes: a ``Machine`` whose states are observations.

    A state is a row: how many words of the text there are, the number of the label said after it plus one (0 before
    that), and the observation Y_t that these words make.
    """

    world: TextWorld
    wording: Wording

    @property
    def labels(self) -> tuple[str, ...]:
        return self.world.labels

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The world's tokens, the words around them and the labels, in this order, after two that are not words."""
        asides = [word for place in (*self.wording.before, *self.wording.after) for word in place]
        names = (*self.wording.words(self.world), *asides, *(f"{label}." for label in self.labels))
        return (END_TEXT, UNKNOWN_TEXT, *(f" {name}" for name in names))

    @cached_property
    def ids(self) -> Mapping[str, int]:
        return {word.strip(): token for token, word in enumerate(self.words) if token >= FIRST}

    @property
    def length(self) -> int:
        """Words of the longest text, the label not counted."""
        return int(self.world.index.high) * self._round

    @property
    def start(self) -> States:
        return np.concatenate([[0, 0], self._nothing.reshape(-1)])

    def moves(self, states: States) -> tuple[Int[np.ndarray, "rows k"], Float[np.ndarray, "rows k"]]:
        p = self._law(states)
        columns = np.flatnonzero(p.any(axis=0))
        p = p[:, columns]
        k = int((p > 0).sum(axis=1).max(initial=1))
        order = np.argsort(-p, axis=1, kind="stable")[:, :k]
        with np.errstate(divide="ignore"):
            return columns[order], np.log(np.take_along_axis(p, order, axis=1))

    def follow(self, states: States, tokens: Int[np.ndarray, " rows"]) -> States:
        """The states after one more word; a word that the world gives probability 0 is refused."""
        possible = self._law(states)[np.arange(len(states)), tokens] > 0
        wrong = np.flatnonzero(~possible & (tokens != END))
        if len(wrong):
            raise UserError(
                f"{self.words[tokens[wrong[0]]]!r} cannot stand after {states[wrong[0], POSITION]} words of this text; "
                f"the world {self.world.name} gives it probability 0, and no posterior after it."
            )
        after = states.copy()
        named = tokens >= self._first_label
        after[named, SAID] = tokens[named] - self._first_label + 1
        told = (tokens >= FIRST) & ~named
        after[told, POSITION] += 1
        of_world = told & (tokens < self._first_aside)
        for position in np.unique(states[of_world, POSITION]).tolist():
            rows = np.flatnonzero(of_world & (states[:, POSITION] == position))
            seen = self._seen(states[rows])
            extended = self.world.extend(seen, self._time(position), tokens[rows] - FIRST)
            after[rows, SEEN:] = extended.reshape(len(rows), -1)
        return after

    def outcome(self, states: States) -> Int[np.ndarray, " rows"]:
        return states[:, SAID] - 1

    def label(self, text: str) -> str | None:
        said = (self.ids.get(word, 0) for word in text.split())
        return next((self.labels[token - self._first_label] for token in said if token >= self._first_label), None)

    def posterior(
        self, sampling: Sampling, states: States, left: Int[np.ndarray, " rows"]
    ) -> Float[np.ndarray, "rows outcomes"] | None:
        """The world's own posterior where the sampling leaves its law alone, else that of ``label_laws``."""
        own = sampling.temperature == 1 and not sampling.truncates and endings(self, sampling).sum() == 1
        unsaid = states[:, SAID] == 0
        if not own or (left < self.length + 1 - states[:, POSITION])[unsaid].any():
            return label_laws(self, sampling, states, left, most=VISITED)
        rows = certain(self.outcome(states), len(self.labels) + 2)
        for position in np.unique(states[unsaid, POSITION]).tolist():
            here = unsaid & (states[:, POSITION] == position)
            rows[here] = 0
            rows[here, : len(self.labels)] = self.world.posterior(self._seen(states[here]), self._time(position))
        return rows

    def _law(self, states: States) -> Float[np.ndarray, "rows words"]:
        """The law of the next word, a column for each token."""
        p = np.zeros((len(states), len(self.words)))
        p[states[:, SAID] > 0, END] = 1.0
        for position in np.unique(states[:, POSITION]).tolist():
            rows = np.flatnonzero((states[:, POSITION] == position) & (states[:, SAID] == 0))
            seen, t = self._seen(states[rows]), self._time(position)
            if position < self.length:
                place = position % self._round
                if place == len(self.wording.before):
                    p[rows, FIRST : self._first_aside] = self.world.next_token(seen, t)
                else:
                    p[np.ix_(rows, self._choices[place])] = 1 / len(self._choices[place])
            over = ~p[rows].any(axis=1)
            if over.any():
                p[rows[over], self._first_label :] = self.world.posterior(seen[over], t)
        return p

    def _time(self, position: int) -> int:
        """The t at which a text of that many words stands: how many of the world's tokens are to come."""
        rounds, place = divmod(position, self._round)
        return int(self.world.index.high) - rounds - (place > len(self.wording.before))

    def _seen(self, states: States) -> np.ndarray[Any, Any]:
        """The observations in states, in the shape that the world gives them."""
        return states[:, SEEN:].reshape(len(states), *self._nothing.shape[1:])

    @cached_property
    def _nothing(self) -> np.ndarray[Any, Any]:
        # At the noisy end nothing is shown, whatever the label and the random numbers.
        return self.world.sample(np.random.default_rng(0), self.labels[0], self.world.index.high, 1)

    @property
    def _round(self) -> int:
        """Words from one of the world's tokens to the next."""
        return len(self.wording.before) + 1 + len(self.wording.after)

    @cached_property
    def _first_aside(self) -> int:
        return FIRST + len(self.wording.words(self.world))

    @cached_property
    def _first_label(self) -> int:
        return len(self.words) - len(self.labels)

    @cached_property
    def _choices(self) -> tuple[Int[np.ndarray, " choices"], ...]:
        """The tokens that can stand at each place of a round; none of the world's own at the world's."""
        places = (*self.wording.before, (), *self.wording.after)
        return tuple(np.array([self.ids[word] for word in place], dtype=np.int64) for place in places)


def world_parameters(name: str) -> tuple[str, ...]:
    """Parameters of ``toy:NAME``: the world's own, but for those that its being a text settles."""
    return tuple(key for key in parameter_readers(name) if key not in WORDINGS[name].hidden)


def open_world(name: str, parameters: Mapping[str, str]) -> ToyEngine:
    """A world as a language model; parameters as text, by the names that ``world_parameters`` lists.

    Raises
    ------
    UserError : a parameter does not fit the world, or its text or its labels would be too many.
    """
    wording = WORDINGS[name]
    world = cast(TextWorld, create_world(name, {**parameters, **wording.hidden}))
    text = WorldText(world, wording)
    check_memory(32.0 * BATCH * len(world.labels), f"{BATCH} texts side by side with {len(world.labels)} labels")
    if text.length > LONGEST:
        raise UserError(f"toy:{name}: its text would have {text.length} words; a toy model writes up to {LONGEST}.")
    values = {key: getattr(world, key.replace("-", "_")) for key in world_parameters(name)}
    spelling = "&".join(f"{key}={value}" for key, value in values.items() if value not in (None, ""))
    return ToyEngine(f"toy:{name}?{spelling}", text, longest=text.length + 2)
