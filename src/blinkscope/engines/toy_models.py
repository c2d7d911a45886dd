"""The toy models by name: ``toy:fork``, ``toy:walk``, ``toy:maze``, ``toy:null``; worlds are in ``toy_worlds.py``.

Each builder lays an automaton out along the reply, one layer of states for each token, except ``walk``, whose states
are the walker's places. Most tokens choose among synonyms, which decide nothing, as most tokens of real text do.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from blinkscope.engines.automaton import Automaton, State, automaton
from blinkscope.engines.machine import END_TEXT
from blinkscope.engines.toy import ToyEngine
from blinkscope.engines.toy_worlds import WORDINGS, open_world, world_parameters
from blinkscope.errors import UserError
from blinkscope.window import default_max_width

GRAMMAR = (  # one sentence of text without meaning; each slot offers words that may replace one another
    ("The", "This", "That", "One", "Each", "Every"),
    ("narrow", "quiet", "dusty", "bright", "old", "cold", "long", "green"),
    ("corridor", "lamp", "door", "stair", "hall", "window", "wall", "passage"),
    ("turned", "waited", "led", "opened", "bent", "rose", "closed", "went"),
    ("towards", "past", "beside", "beyond", "behind", "under", "over", "near"),
    ("the", "this", "that", "one", "some", "another"),
    ("wide", "empty", "silent", "hidden", "small", "round", "dark", "distant"),
    ("garden.", "courtyard.", "river.", "tower.", "cellar.", "bridge.", "library.", "kitchen."),
)
TURNS = ("left", "right", "ahead", "back", "up", "down", "across", "around")
COLOURS = ("red", "blue", "green", "white", "black", "amber", "violet", "silver")
CLOSING = 4  # tokens of the last sentence: It was red. <end>
OPEN = 2 / 3  # share of positions with a choice of words

Moves = dict[str, tuple[float, Hashable]]


def fork(*, agree: int, width: int, leak: float, weight: float, length: int) -> Automaton:
    """Two modes that say the same for ``agree`` tokens and part within the next ``width`` ([LKC25], Example 4).

    A reply is in the happy mode with probability ``weight``, else in the sad one, and ends with its mode's name. In the
    sad mode at most half of the ``width`` words are bright (smiled, laughed), in the happy mode more than half of them
    are, but for the mass ``leak`` that the happy mode has inside the sad one's support. So after those words TV between
    the modes is 1 - leak: the label is certain after a bright text, and a dim one turns out happy now and then.
    """
    _room("fork", length, agree + width + CLOSING)
    random = np.random.default_rng(0)
    body = length - CLOSING
    bright = _share_with_majority(width, weight * (1 - leak))
    happy_if_dim = weight * leak / (weight * leak + 1 - weight)
    states: dict[Hashable, State] = {}
    open_ = _chosen(random, body, OPEN)
    for t in range(body):
        told = min(max(t - agree, 0), width)
        fill = _synonyms(random, t, several=bool(open_[t]))
        for count in range(told + 1):  # bright words among those told so far
            if agree <= t < agree + width:
                tell = {"smiled": 0.6 * bright, "laughed": 0.4 * bright}
                tell |= {"frowned": 0.7 * (1 - bright), "wept": 0.3 * (1 - bright)}
                moves = {w: (p, (t + 1, count + (w in ("smiled", "laughed")))) for w, p in tell.items()}
            else:
                moves = {w: (p, (t + 1, count)) for w, p in fill.items()}
            states[t, count] = State(moves)
    for count in range(width + 1):
        happy = 1.0 if 2 * count > width else happy_if_dim
        states |= _closing((body, count), {"happy": happy, "sad": 1 - happy})
    return automaton(states | _closed(("happy", "sad")), ("happy", "sad"))


def walk(*, drift: float, barrier: int, length: int) -> Automaton:
    """A solver that steps forward or back until it is ``barrier`` ahead or behind ([LKC25], Example 5).

    A strong mode steps forward with probability 1/2 + drift, a weak one with 1/2 - drift, and both are equally likely.
    Given its place x the modes have the odds r^x, r = (1/2 + drift) / (1/2 - drift), however it came there, so the
    place is all the state there is. ``length`` is the default cap; a walk that is cut off has the label ``neither``.
    """
    log_ratio = math.log((0.5 + drift) / (0.5 - drift))
    forward = {"so": 0.4, "then": 0.3, "good,": 0.2, "right.": 0.1}
    back = {"but": 0.35, "wait,": 0.3, "no,": 0.2, "hmm.": 0.15}
    places = sorted(range(1 - barrier, barrier), key=abs)  # the start, 0, comes first
    states: dict[Hashable, State] = {}
    for x in places:
        strong = 0.5 + 0.5 * math.tanh(0.5 * x * log_ratio)  # r^x / (1 + r^x), without overflow
        ahead = strong * (0.5 + drift) + (1 - strong) * (0.5 - drift)
        moves: Moves = {w: (p * ahead, x + 1) for w, p in forward.items()}
        moves |= {w: (p * (1 - ahead), x - 1) for w, p in back.items()}
        states[x] = State(moves, "neither")
    for x, word, label in ((barrier, "Done.", "solved"), (-barrier, "Stuck.", "failed")):
        states[x] = State({word: (1.0, label)}, label)
        states[label] = State({END_TEXT: (1.0, label)}, label)
    return automaton(states, ("solved", "failed", "neither"))


def maze(*, seed: int, length: int, labels: int, open: float, windows: int) -> Automaton:
    """A way through a maze: few turns decide much, many words decide a little, most decide nothing.

    The turns form a tree: at each of ``windows`` decisive tokens the reply takes a branch, and each of its leaves has
    a label, another one than its siblings'. At half of the other open positions one unlikely word leads elsewhere in
    the tree (to a branch before its time, or to another place of the same depth); such words have half an expected
    occurrence in a reply altogether. ``open`` is the share of positions with a choice of words.
    """
    body = length - CLOSING
    _room("maze", length, 8 * windows + CLOSING)
    random = np.random.default_rng(seed)
    branches = 2 if labels == 2 else 3
    while branches**windows < labels:
        branches += 1
    tree = _tree(branches, windows)
    shares = {node: _shares(random, branches) for node in tree}
    leaves = [node for node in tree if len(node) == windows]
    colours = _order(random, labels)
    label = {leaf: COLOURS[colours[i % labels]] for i, leaf in enumerate(leaves)}

    parts = np.arange(windows) + 0.3 + 0.5 * random.random(windows)
    decisive = {int(t) for t in parts * body / windows}
    open_ = _chosen(random, body, max(open * length - windows, 0) / body, without=decisive)
    drifting = open_ & _chosen(random, body, 0.5)
    unlikely = np.zeros(body)
    unlikely[drifting] = np.minimum(0.5 * _dirichlet(random, int(drifting.sum())), 0.2)

    states: dict[Hashable, State] = {}
    depth = 0  # branches that every reply has taken by now
    for t in range(body):
        fill = _synonyms(random, t, several=bool(open_[t]))
        stray = next(word for word in GRAMMAR[t % len(GRAMMAR)] if word not in fill)
        for node in (node for node in tree if len(node) >= depth):
            if t in decisive and len(node) == depth:
                moves: Moves = {TURNS[i]: (float(p), (t + 1, (*node, i))) for i, p in enumerate(shares[node])}
            else:
                moves = {w: (p * (1 - unlikely[t]), (t + 1, node)) for w, p in fill.items()}
                if unlikely[t] > 0:
                    moves[stray] = (float(unlikely[t]), (t + 1, _elsewhere(random, node, branches, windows)))
            states[t, node] = State(moves)
        depth += t in decisive
    for leaf in leaves:
        states |= _closing((body, leaf), {label[leaf]: 1.0})
    return automaton(states | _closed(COLOURS[:labels]), COLOURS[:labels])


def null(*, seed: int, length: int, labels: int) -> Automaton:
    """A reply whose label is settled so gradually that there is no window: no change above 0.38 in a tenth of it.

    The first label leads against all others with probability 0.76. Every w tokens, w the largest width of a window,
    one word either settles the contest for whoever is ahead or turns it round (0.76 <-> 0.38), and among the others the
    next contest follows in the same way. Each such word moves the label law by 0.24 or 0.38 in total variation, no
    interval of w tokens holds two of them, and all other words decide nothing.

    A label that is a function of a text of bounded length cannot be settled without a window on *every* path: of the
    outcomes of the last word that decides anything, one at least is a move of one half or more. Here that is left to
    the rare replies whose contest is still open at the end, where the label itself is drawn: at most 0.0004 of all
    replies with 2 labels, 0.004 with 4 and 0.009 with 8. All this holds at temperature 1 without filters.
    """
    width = default_max_width(length)
    body = length - CLOSING
    last = length - 2  # where the label is said
    deciding = set(range(last % width, body, width))
    random = np.random.default_rng(seed)
    open_ = _chosen(random, body, OPEN, without=deciding)
    names = [COLOURS[i] for i in _order(random, labels)]
    settled = [("settled", k) for k in range(labels)]
    contests = [(mood, k) for k in range(labels - 1) for mood in ("leads", "trails")]
    low, high = 0.38, 0.76
    states: dict[Hashable, State] = {}
    for t in range(body):
        fill = _synonyms(random, t, several=bool(open_[t]))
        for mood, k in contests + settled:
            if t in deciding and mood != "settled":
                ahead = mood == "leads"
                certain = (high - low) / (1 - low) if ahead else 1 - low / high
                winner = ("settled", k) if ahead else _rest(k, labels)
                turned = ("trails" if ahead else "leads", k)
                moves: Moves = {"surely": (certain, (t + 1, winner)), "perhaps": (1 - certain, (t + 1, turned))}
            else:
                moves = {w: (p, (t + 1, (mood, k))) for w, p in fill.items()}
            states[t, (mood, k)] = State(moves)
    law = {("settled", k): {names[k]: 1.0} for k in range(labels)}
    for mood, k in reversed(contests):
        share = high if mood == "leads" else low
        others = law[_rest(k, labels)]
        law[mood, k] = {names[k]: share, **{name: (1 - share) * p for name, p in others.items()}}
    for standing in contests + settled:
        states |= _closing((body, standing), law[standing])
    return automaton(states | _closed(names), COLOURS[:labels])


def _rest(k: int, labels: int) -> tuple[str, int]:
    """Where the reply stands once label k and those before it are out."""
    return ("settled", k + 1) if k == labels - 2 else ("leads", k + 1)


def _closing(state: Hashable, law: Mapping[str, float]) -> dict[Hashable, State]:
    """The states of the last sentence, from ``state`` on; its third word is drawn from the label law."""
    it, was = ("It", state), ("It was", state)
    says: Moves = {f"{label}.": (p, ("said", label)) for label, p in law.items()}
    return {state: State({"It": (1.0, it)}), it: State({"was": (1.0, was)}), was: State(says)}


def _closed(labels: Sequence[str]) -> dict[Hashable, State]:
    """The states after the label was said."""
    return {("said", label): State({END_TEXT: (1.0, ("said", label))}, label) for label in labels}


def _share_with_majority(n: int, target: float) -> float:
    """The p with P(Binomial(n, p) > n/2) = target, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        p = (low + high) / 2
        reached = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(n // 2 + 1, n + 1))
        low, high = (p, high) if reached < target else (low, p)
    return 0.0 if target == 0 else (low + high) / 2


# Everything random is made from uniform doubles, the part of numpy's generators that is least likely to change: a seed
# should name the same model for good.


def _order(random: np.random.Generator, n: int) -> list[int]:
    """The numbers 0 .. n - 1 in random order."""
    return [int(i) for i in np.argsort(random.random(n))]


def _dirichlet(random: np.random.Generator, n: int) -> Float[np.ndarray, " n"]:
    """A law on n outcomes, uniform among all laws."""
    weights = -np.log1p(-random.random(n))
    return np.asarray(weights / weights.sum())


def _shares(random: np.random.Generator, branches: int) -> Float[np.ndarray, " branches"]:
    """Probabilities of the branches of a decision.

    Two are never even: an even choice between two labels moves the label law by no more than one half.
    """
    if branches > 2:
        return np.asarray(0.5 / branches + 0.5 * _dirichlet(random, branches))
    unlikely = 0.2 + 0.15 * random.random()
    return np.array([unlikely, 1 - unlikely])[_order(random, 2)]


def _chosen(
    random: np.random.Generator, n: int, share: float, *, without: Collection[int] = ()
) -> Bool[np.ndarray, " n"]:
    """A random choice of ``share`` of n positions, taken among those not in ``without``."""
    order = [i for i in _order(random, n) if i not in without]
    chosen = np.zeros(n, dtype=bool)
    chosen[order[: round(share * n)]] = True
    return chosen


def _synonyms(random: np.random.Generator, t: int, *, several: bool) -> dict[str, float]:
    """The law of a word that decides nothing: one word, or two to four that may stand for one another."""
    slot = GRAMMAR[t % len(GRAMMAR)]
    count = 2 + int(3 * random.random()) if several else 1
    words = [slot[i] for i in _order(random, len(slot))[:count]]
    weights = 0.02 + (1 - 0.02 * count) * _dirichlet(random, count)
    return {word: float(p) for word, p in zip(words, weights, strict=True)} if several else {words[0]: 1.0}


Node: TypeAlias = tuple[int, ...]  # the branches taken so far


def _tree(branches: int, depth: int) -> list[Node]:
    """All nodes of a full tree, the root first and the leaves last."""
    return [node for d in range(depth + 1) for node in itertools.product(range(branches), repeat=d)]


def _elsewhere(random: np.random.Generator, node: Node, branches: int, depth: int) -> Node:
    """A child of the node, or another node of the same depth; each half of the time where there are both."""
    branch, deeper, shift = random.random(3)
    if len(node) < depth and (not node or deeper < 0.5):
        return (*node, int(branch * branches))
    nodes = branches ** len(node)
    place = sum(digit * branches**i for i, digit in enumerate(reversed(node)))
    place = (place + 1 + int(shift * (nodes - 1))) % nodes
    return tuple(place // branches**i % branches for i in reversed(range(len(node))))


def _room(name: str, length: int, needed: int) -> None:
    if length < needed:
        raise UserError(f"toy:{name}: length is {length}, but these parameters need at least {needed} tokens.")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a toy model; it is a whole number where its default is one."""

    default: int | float
    low: int | float
    high: int | float
    meaning: str

    def read(self, owner: str, name: str, text: str) -> int | float:
        kind = "a whole number" if isinstance(self.default, int) else "a number"
        try:
            value = type(self.default)(text)
        except ValueError:
            value = math.nan
        if not self.low <= value <= self.high:
            raise UserError(f"{owner}: {name} is {text!r}; it must be {kind} from {self.low} to {self.high}.")
        return value


@dataclass(frozen=True)
class Toy:
    """A family of toy models."""

    description: str
    example: str
    parameters: Mapping[str, Parameter]
    build: Callable[..., Automaton]


LENGTH = "tokens of a reply, the end-of-turn token included"
SEED = Parameter(0, 0, 2**31 - 1, "which of the models")

TOYS: Mapping[str, Toy] = {
    "fork": Toy(
        "two modes that agree for some tokens and then part within a few",
        "toy:fork?agree=20&width=3&leak=0.05",
        {
            "agree": Parameter(20, 0, 5000, "tokens before the modes part"),
            "width": Parameter(3, 1, 50, "tokens within which they part"),
            "leak": Parameter(0.02, 0.0, 1.0, "mass of the happy mode inside the sad one's support"),
            "weight": Parameter(0.4, 0.01, 0.99, "probability of the happy mode"),
            "length": Parameter(60, 5, 5000, LENGTH),
        },
        fork,
    ),
    "walk": Toy(
        "a solver that steps forward or back until it is done or stuck",
        "toy:walk?drift=0.1&barrier=8",
        {
            "drift": Parameter(0.05, 0.0, 0.45, "how far the chance of a forward step is from one half"),
            "barrier": Parameter(8, 1, 500, "steps ahead or behind that settle the matter"),
            "length": Parameter(200, 2, 5000, "tokens after which the walk is broken off"),
        },
        walk,
    ),
    "maze": Toy(
        "a seeded model with several windows, many small forks and most tokens open",
        "toy:maze?seed=3&length=200&labels=4",
        {
            "seed": SEED,
            "length": Parameter(200, 12, 5000, LENGTH),
            "labels": Parameter(4, 2, 8, "outcomes"),
            "open": Parameter(0.66, 0.0, 1.0, "share of positions with a choice of words"),
            "windows": Parameter(3, 1, 4, "decisive tokens in a reply"),
        },
        maze,
    ),
    "null": Toy(
        "a model without windows: its label is settled gradually",
        "toy:null?seed=1&length=100&labels=2",
        {
            "seed": SEED,
            "length": Parameter(100, 30, 5000, LENGTH),
            "labels": Parameter(2, 2, 8, "outcomes"),
        },
        null,
    ),
}


def toy_models() -> dict[str, str]:
    """Names of the toy models, each with a description."""
    described = {name: toy.description for name, toy in TOYS.items()}
    return described | {name: wording.description for name, wording in WORDINGS.items()}


def open_toy(rest: str) -> ToyEngine:
    """The toy model that ``toy:REST`` names, for instance ``fork``, ``maze?seed=3&length=200`` or ``random-walk``.

    Raises
    ------
    UserError : there is no such model or parameter, or a parameter's value does not fit.
    """
    name, _, query = rest.partition("?")
    if name not in TOYS and name not in WORDINGS:
        known = ", ".join(f"toy:{known}" for known in (*TOYS, *WORDINGS))
        raise UserError(f"there is no toy model {name!r}; there are {known}.")
    parameters = tuple(TOYS[name].parameters) if name in TOYS else world_parameters(name)
    given: dict[str, str] = {}
    for key, _, text in (pair.partition("=") for pair in query.split("&") if pair):
        if key not in parameters:
            raise UserError(f"toy:{name} has no parameter {key!r}; it takes {', '.join(parameters)}.")
        if key in given:
            raise UserError(f"toy:{name}: {key} is given twice; give it once.")
        given[key] = text
    if name in WORDINGS:
        return open_world(name, given)
    toy = TOYS[name]
    values = {key: parameter.default for key, parameter in toy.parameters.items()}
    values |= {key: toy.parameters[key].read(f"toy:{name}", key, text) for key, text in given.items()}
    spelling = "&".join(f"{key}={value}" for key, value in values.items())
    return ToyEngine(f"toy:{name}?{spelling}", toy.build(**values), longest=int(values["length"]))
