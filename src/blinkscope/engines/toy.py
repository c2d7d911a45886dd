"""Toy language models: small automata over words, whose label posterior is known exactly.

In every state of the automaton some words are possible, each with a probability and a state that it leads to; states
may carry a label. With V_r(z) the label law of a reply that stands in state z with r tokens left under the length cap,
and P(x | z) the law of the next word under the sampling distribution,

    V_0(z) = the label of z, ``(truncated)`` where it has none
    V_r(z) = sum_x P(x | z) V_{r-1}(z x),    a word x that ends the reply counts the label of z x

so the posterior pi_s of a path that stands in z_s after s tokens is V_{cap - s}(z_s), with no sampling anywhere.
The models themselves are built in ``toy_models.py``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice

import numpy as np
from jaxtyping import Bool, Float, Int

from blinkscope.errors import UserError
from blinkscope.feature import TRUNCATED, UNPARSED, Reply
from blinkscope.language.engine import Alternatives, Completion, Context, Job, Message, Path, Score, Truth
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf, next_token_law

END, UNKNOWN = 0, 1  # ids of the end-of-turn token, and of words that only a prompt can hold
END_TEXT, UNKNOWN_TEXT = "<end>", "<unknown>"
BATCH = 1024  # continuations written side by side
BLOCK = 64  # uniforms fetched at once from each continuation's stream


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

    words: text of every token, with its leading space.
    labels: the outcomes.
    tokens, logits, successors: the moves of each state, most probable first, filled up with impossible ones.
    outcome: number of the state's label, -1 where it has none.
    """

    words: tuple[str, ...]
    labels: tuple[str, ...]
    tokens: Int[np.ndarray, "states moves"]
    logits: Float[np.ndarray, "states moves"]
    successors: Int[np.ndarray, "states moves"]
    outcome: Int[np.ndarray, " states"]
    ids: Mapping[str, int] = field(repr=False)
    steps: Mapping[tuple[int, int], int] = field(repr=False)

    def step(self, state: int, token: int) -> int:
        """The state after a word. A word that is impossible there is passed over: the state stays."""
        return self.steps.get((state, token), state)

    def read(self, text: str) -> int:
        """The state after a text. What the model never says is passed over."""
        state = 0
        for word in text.split():
            state = self.step(state, self.ids.get(word, UNKNOWN))
        return state


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


@dataclass(frozen=True, eq=False)
class Law:
    """The automaton under one sampling distribution.

    p: probability of each move.
    ends: for each token, whether saying it ends the reply.
    """

    p: Float[np.ndarray, "states moves"]
    ends: Bool[np.ndarray, " tokens"]


@lru_cache(maxsize=16)
def law_of(machine: Automaton, sampling: Sampling) -> Law:
    """The law that ``sampling`` makes of an automaton.

    A stop text ends the reply with the word that contains it; one that spans several words is refused.
    """
    for text in sampling.stop:
        if " " in text[1:]:
            raise UserError(f"stop text {text!r} spans several words; a toy model can stop at a single word only.")
    p = next_token_law(machine.logits, sampling, vocabulary=machine.logits.shape[1]).p
    ends = np.array([any(text in word for text in sampling.stop) for word in machine.words])
    ends[END] = True
    return Law(p, ends)


def label_laws(
    machine: Automaton, law: Law, states: Int[np.ndarray, " rows"], left: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "rows outcomes"]:
    """Exact label law of a reply that stands in ``states[i]`` with ``left[i]`` tokens left under the cap.

    The last two outcomes are ``(truncated)`` and ``(unparsed)``. Only states that can be reached with that many tokens
    left are visited, so an automaton in layers costs one pass over its states, whatever the cap.
    """
    outcomes = len(machine.labels) + 2
    finished = np.eye(outcomes)[np.where(machine.outcome < 0, outcomes - 1, machine.outcome)]
    cut = np.eye(outcomes)[np.where(machine.outcome < 0, outcomes - 2, machine.outcome)]
    ends = law.ends[machine.tokens]
    onward = (law.p > 0) & ~ends
    asked = {int(r): np.flatnonzero(left == r) for r in np.unique(left)}
    nobody = np.zeros(0, dtype=np.int64)

    live: list[tuple[int, Int[np.ndarray, " live"]]] = []
    reached = nobody
    for r in range(max(asked), -1, -1):
        here = np.unique(np.concatenate([reached, states[asked.get(r, nobody)]]))
        live.append((r, here))
        reached = machine.successors[here][onward[here]]
        if not len(reached) and r <= min(asked):
            break

    rows = np.zeros((len(states), outcomes))
    value = np.zeros((len(machine.outcome), outcomes))
    for r, here in reversed(live):
        if r == 0:
            value[here] = cut[here]
        else:
            to = machine.successors[here]
            after = np.where(ends[here][:, :, None], finished[to], value[to])
            value[here] = np.einsum("sm,smo->so", law.p[here], after)
        if r in asked:
            rows[asked[r]] = value[states[asked[r]]]
    return rows


@dataclass(frozen=True, eq=False)
class OwnLabel:
    """The label that a toy model wrote into its reply, read by following the automaton through the text."""

    name: str
    machine: Automaton = field(repr=False)

    def label(self, sample: Reply) -> str | None:
        outcome = int(self.machine.outcome[self.machine.read(sample.text)])
        return None if outcome < 0 else self.machine.labels[outcome]


@dataclass(frozen=True, eq=False)
class ToyEngine:
    """A language model with a known law: an ``Engine`` that is also a ``KnownLaw``.

    A token is a word with its leading space. The prompt may be any text and is not understood: it counts its words and
    changes nothing. A prefill belongs to the reply: it must consist of the model's words and the reply goes on from it.
    A word that cannot follow where it stands has probability 0 and is passed over: the model goes on as if it had not
    been said, though it does use up a token of the cap.

    longest: tokens of the longest reply, the default cap.
    """

    name: str
    machine: Automaton = field(repr=False)
    longest: int
    context_window: int = 32_768

    @property
    def default_sampling(self) -> Sampling:
        return Sampling(max_new_tokens=self.longest)

    @property
    def feature(self) -> OwnLabel:
        return OwnLabel(self.name, self.machine)

    def encode(self, prompt: str | tuple[Message, ...], *, prefill: str = "") -> Context:
        messages = () if isinstance(prompt, str) else prompt
        text = prompt if isinstance(prompt, str) else " ".join(message.content for message in prompt)
        if not text.strip():
            raise UserError("the prompt is empty; a toy model takes any text, but at least one word.")
        ids = (*(self.machine.ids.get(word, UNKNOWN) for word in text.split()), *self._ids(prefill))
        if len(ids) >= self.context_window:
            raise UserError(f"the prompt has {len(ids)} words; {self.name} takes fewer than {self.context_window}.")
        return Context(ids, prefill, messages)

    def encode_reply(self, context: Context, text: str, *, finished: bool) -> Path:
        return Path(context, (*self._ids(text), *((END,) if finished else ())))

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self.machine.words[token] for token in tokens if token not in (END, UNKNOWN))

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [self.machine.words[token] for token in tokens]

    def score(self, path: Path, sampling: Sampling) -> Score:
        law = law_of(self.machine, sampling)
        p = np.zeros(len(path.tokens))
        alternatives = []
        for i, (state, token) in enumerate(zip(self._states(path, law), path.tokens, strict=False)):
            tokens, probabilities = self.machine.tokens[state], law.p[state]
            p[i] = probabilities[tokens == token].sum()
            others = (tokens != token) & (probabilities > 0)
            alternatives.append(Alternatives(tokens[others], probabilities[others]))
        return Score(p, np.array([float(others.p.sum()) for others in alternatives]), tuple(alternatives))

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        """Write continuations; each uses one uniform of its own stream for every generated token."""
        law = law_of(self.machine, sampling)
        waiting = iter(jobs)
        while batch := list(islice(waiting, BATCH)):
            states, left = self._starts(batch, law, sampling.max_new_tokens)
            yield from _write(self.machine, law, batch, states, left, seed)

    def follow_up(self, path: Path, question: str) -> tuple[int, ...]:
        raise UserError(f"{self.name} cannot be asked: it writes its label into its reply; leave the question out.")

    def truth(self, path: Path, sampling: Sampling) -> Truth:
        """The exact label posterior along a path; its last row is the label of the text as it stands.

        ``(truncated)`` and ``(unparsed)`` come last among the labels and are listed where they can happen.
        """
        law = law_of(self.machine, sampling)
        states = np.array(self._states(path, law))
        left = np.maximum(sampling.max_new_tokens - np.arange(len(states)), 0)
        posterior = np.zeros((len(states), len(self.machine.labels) + 2))
        if path.tokens:
            posterior[:-1] = label_laws(self.machine, law, states[:-1], left[:-1])
        over = bool(path.tokens) and bool(law.ends[path.tokens[-1]])
        final = int(self.machine.outcome[states[-1]])
        posterior[-1, final if final >= 0 else -1 if over else -2] = 1.0
        labels = (*self.machine.labels, TRUNCATED, UNPARSED)
        listed = [i for i in range(len(labels)) if i < len(self.machine.labels) or posterior[:, i].any()]
        return Truth(tuple(labels[i] for i in listed), posterior[:, listed])

    def _ids(self, text: str) -> tuple[int, ...]:
        known = self.machine.ids
        for word in text.split():
            if word not in known:
                some = ", ".join(sorted(known)[:8])
                raise UserError(
                    f"{self.name} does not know the word {word!r}; it knows {len(known)} words: {some}, ..."
                )
        return tuple(known[word] for word in text.split())

    def _states(self, path: Path, law: Law) -> list[int]:
        """The state before each token of a path, and the one after all of them."""
        states = [self.machine.read(path.context.prefill)]
        for i, token in enumerate(path.tokens):
            if i and law.ends[path.tokens[i - 1]]:
                word = self.machine.words[path.tokens[i - 1]]
                raise UserError(f"the generation goes on after token {i - 1} ({word!r}), which ends it; cut it there.")
            states.append(self.machine.step(states[-1], token))
        return states

    def _starts(
        self, jobs: Sequence[Job], law: Law, cap: int
    ) -> tuple[Int[np.ndarray, " jobs"], Int[np.ndarray, " jobs"]]:
        """Where each job's free part starts, and how many tokens it may have: 0 where the reply is over already."""
        along: dict[int, list[int]] = {}  # by identity of the path: jobs share few paths, and hashing one reads it all
        states = np.zeros(len(jobs), dtype=np.int64)
        left = np.zeros(len(jobs), dtype=np.int64)
        for i, job in enumerate(jobs):
            if job.ask is not None:
                self.follow_up(job.path, "")
            if id(job.path) not in along:
                along[id(job.path)] = self._states(job.path, law)
            state = along[id(job.path)][job.kept]
            for token in job.forced:
                state = self.machine.step(state, token)
            states[i] = state
            last = (*job.path.tokens[max(job.kept - 1, 0) : job.kept], *job.forced)[-1:]
            over = bool(last) and bool(law.ends[last[0]])
            left[i] = -1 if over else max(cap - job.kept - len(job.forced), 0)
        return states, left


def _write(
    machine: Automaton,
    law: Law,
    jobs: Sequence[Job],
    states: Int[np.ndarray, " jobs"],
    left: Int[np.ndarray, " jobs"],
    seed: int,
) -> Iterator[Completion]:
    """Write one batch side by side; a finished row is yielded and leaves. ``left`` is -1 where the reply is over."""
    alive = np.flatnonzero(left > 0)
    for i in np.flatnonzero(left <= 0).tolist():
        yield _completion(jobs[i], [], [], ended=bool(left[i] < 0))
    streams = {i: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=jobs[i].stream)) for i in alive.tolist()}
    uniforms = np.empty((len(jobs), BLOCK))
    tokens: list[Int[np.ndarray, "jobs block"]] = []
    p: list[Float[np.ndarray, "jobs block"]] = []
    written = 0
    while len(alive):
        column = written % BLOCK
        if column == 0:
            tokens.append(np.empty((len(jobs), BLOCK), dtype=np.int64))
            p.append(np.empty((len(jobs), BLOCK)))
            for i in alive.tolist():
                uniforms[i] = streams[i].random(BLOCK)
        here = states[alive]
        move = inverse_cdf(NextTokenLaw(law.p[here], np.ones(len(alive))), uniforms[alive, column])
        tokens[-1][alive, column] = machine.tokens[here, move]
        p[-1][alive, column] = law.p[here, move]
        states[alive] = machine.successors[here, move]
        written += 1
        ended = law.ends[machine.tokens[here, move]]
        over = ended | (written >= left[alive])
        for i, stopped in zip(alive[over].tolist(), ended[over].tolist(), strict=True):
            row_tokens = np.concatenate([block[i] for block in tokens])[:written]
            row_p = np.concatenate([block[i] for block in p])[:written]
            yield _completion(jobs[i], row_tokens.tolist(), row_p.tolist(), ended=stopped)
        alive = alive[~over]


def _completion(job: Job, tokens: list[int], p: list[float], *, ended: bool) -> Completion:
    return Completion(
        job,
        (*job.forced, *tokens),
        (*([float("nan")] * len(job.forced)), *p),
        "stop" if ended else "length",
        generated=len(tokens),
    )
