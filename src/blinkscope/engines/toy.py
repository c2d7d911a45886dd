"""Toy language models: the law of the text is known (``machine.py``), and with it the label posterior.

Their text is written by an automaton (``automaton.py``; the models are in ``toy_models.py``) or by a world of the
theory (``toy_worlds.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from jaxtyping import Float, Int

from blinkscope.engines.machine import END, UNKNOWN, Machine, States, endings, law_of
from blinkscope.engines.window import ContextWindow, most_tokens
from blinkscope.errors import UserError
from blinkscope.feature import TRUNCATED, UNPARSED, Reply
from blinkscope.language.engine import Alternatives, Completion, Context, Job, Message, Path, Score, Truth
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf

BATCH = 1024  # continuations written side by side
BLOCK = 64  # uniforms fetched at once from each continuation's stream


@dataclass(frozen=True, eq=False)
class OwnLabel:
    """The label that a toy model wrote into its reply."""

    name: str
    machine: Machine = field(repr=False)

    def label(self, sample: Reply) -> str | None:
        return self.machine.label(sample.text)


@dataclass(frozen=True, eq=False)
class ToyEngine:
    """A language model with a known law: an ``Engine`` that is also a ``KnownLaw``.

    A token is a word with its leading space. The prompt may be any text and is not understood: it counts its words and
    changes nothing. A prefill belongs to the reply: it must consist of the model's words and the reply goes on from it.
    A word that cannot follow where it stands has probability 0. An automaton passes it over (it goes on as if the word
    had not been said, though it does use up a token of the cap); a world, which has no posterior given it, refuses it.

    longest: tokens of the longest reply, the default cap.
    """

    name: str
    machine: Machine = field(repr=False)
    longest: int
    context_window: int = 32_768

    @property
    def default_sampling(self) -> Sampling:
        return Sampling(max_new_tokens=self.longest)

    @property
    def _window(self) -> ContextWindow:
        return ContextWindow(self.context_window, "model")

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
        said = np.array(path.tokens, dtype=np.int64)
        tokens, p = law_of(self.machine, self._states(path, sampling)[:-1], sampling)
        on_path = tokens == said[:, None]
        alternatives = []
        for ids, law, off in zip(tokens, p, ~on_path & (p > 0), strict=True):
            alternatives.append(Alternatives(ids[off], law[off]))
        off_path = np.array([float(others.p.sum()) for others in alternatives])
        return Score(np.where(on_path, p, 0.0).sum(axis=1), off_path, tuple(alternatives))

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        """Write continuations; each uses one uniform of its own stream for every generated token."""
        waiting = iter(jobs)
        while batch := list(islice(waiting, BATCH)):
            self._window.check(max(most_tokens(job, sampling) for job in batch))
            states, left = self._starts(batch, sampling)
            yield from _write(self.machine, sampling, batch, states, left, seed)

    def follow_up(self, path: Path, question: str) -> tuple[int, ...]:
        raise UserError(f"{self.name} cannot be asked: it writes its label into its reply; leave the question out.")

    def truth(self, path: Path, sampling: Sampling) -> Truth | None:
        """The exact label posterior along a path; its last row is the label of the text as it stands.

        ``(truncated)`` and ``(unparsed)`` come last among the labels and are listed where they can happen. None where a
        world's text would have to be followed through too many states; at its own law, temperature 1 without filters,
        stop texts or a short cap, a world gives its posterior at any size.
        """
        states = self._states(path, sampling)
        left = np.maximum(sampling.max_new_tokens - np.arange(len(states)), 0)
        posterior = np.zeros((len(states), len(self.machine.labels) + 2))
        if path.tokens:
            along = self.machine.posterior(sampling, states[:-1], left[:-1])
            if along is None:
                return None
            posterior[:-1] = along
        over = bool(path.tokens) and bool(endings(self.machine, sampling)[path.tokens[-1]])
        final = int(self.machine.outcome(states[-1:])[0])
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

    def _states(self, path: Path, sampling: Sampling) -> States:
        """The state before each token of a path, and the one after all of them."""
        ends = endings(self.machine, sampling)
        over = np.flatnonzero(ends[list(path.tokens[:-1])])
        if len(over):
            word = self.machine.words[path.tokens[over[0]]]
            raise UserError(
                f"the generation goes on after token {over[0] + 1} ({word!r}), which ends it; cut it there."
            )
        state, states = self.machine.start[None], []
        for token in self._ids(path.context.prefill):
            state = self.machine.follow(state, np.array([token]))
        for token in path.tokens:
            states.append(state)
            state = self.machine.follow(state, np.array([token]))
        return np.concatenate([*states, state])

    def _starts(self, jobs: Sequence[Job], sampling: Sampling) -> tuple[States, Int[np.ndarray, " jobs"]]:
        """Where each job's free part starts, and how many tokens it may have: -1 where the reply is over already."""
        ends = endings(self.machine, sampling)
        along: dict[int, States] = {}  # by identity of the path: jobs share few paths, and hashing one reads it all
        left = np.zeros(len(jobs), dtype=np.int64)
        for i, job in enumerate(jobs):
            if job.ask is not None:
                self.follow_up(job.path, "")
            if id(job.path) not in along:
                along[id(job.path)] = self._states(job.path, sampling)
            last = (*job.path.tokens[max(job.kept - 1, 0) : job.kept], *job.forced)[-1:]
            over = bool(last) and bool(ends[last[0]])
            left[i] = -1 if over else max(sampling.max_new_tokens - job.kept - len(job.forced), 0)
        states = np.stack([along[id(job.path)][job.kept] for job in jobs])
        for depth in range(max(len(job.forced) for job in jobs)):
            rows = [i for i, job in enumerate(jobs) if len(job.forced) > depth]
            states[rows] = self.machine.follow(states[rows], np.array([jobs[i].forced[depth] for i in rows]))
        return states, left


def _write(
    machine: Machine, sampling: Sampling, jobs: Sequence[Job], states: States, left: Int[np.ndarray, " jobs"], seed: int
) -> Iterator[Completion]:
    """Write one batch side by side; a finished row is yielded and leaves. ``left`` is -1 where the reply is over.

    A row joins where its free part starts in the text, so that all rows written at a time stand at the same place.
    """
    ends = endings(machine, sampling)
    alive = np.flatnonzero(left > 0)
    for i in np.flatnonzero(left <= 0).tolist():
        yield _completion(jobs[i], [], [], ended=bool(left[i] < 0))
    start = np.array([job.kept + len(job.forced) for job in jobs])
    streams = {i: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=jobs[i].stream)) for i in alive.tolist()}
    uniforms = np.empty((len(jobs), BLOCK))
    tokens: list[Int[np.ndarray, "jobs block"]] = []
    p: list[Float[np.ndarray, "jobs block"]] = []
    origin = place = int(start[alive].min()) if len(alive) else 0
    while len(alive):
        column = (place - origin) % BLOCK
        while len(tokens) * BLOCK <= place - origin:
            tokens.append(np.empty((len(jobs), BLOCK), dtype=np.int64))
            p.append(np.empty((len(jobs), BLOCK)))
        rows = alive[start[alive] <= place]
        drawn = (place - start[rows]) % BLOCK
        for i in rows[drawn == 0].tolist():
            uniforms[i] = streams[i].random(BLOCK)
        options, law = law_of(machine, states[rows], sampling)
        move = inverse_cdf(NextTokenLaw(law, np.ones(len(rows))), uniforms[rows, drawn])
        said = options[np.arange(len(rows)), move]
        tokens[-1][rows, column] = said
        p[-1][rows, column] = law[np.arange(len(rows)), move]
        states[rows] = machine.follow(states[rows], said)
        place += 1
        over = ends[said] | (place - start[rows] >= left[rows])
        for i, ended in zip(rows[over].tolist(), ends[said][over].tolist(), strict=True):
            written = slice(start[i] - origin, place - origin)
            row_tokens = np.concatenate([block[i] for block in tokens])[written]
            row_p = np.concatenate([block[i] for block in p])[written]
            yield _completion(jobs[i], row_tokens.tolist(), row_p.tolist(), ended=ended)
        alive = np.setdiff1d(alive, rows[over], assume_unique=True)
        if len(alive):
            place = max(place, int(start[alive].min()))


def _completion(job: Job, tokens: list[int], p: list[float], *, ended: bool) -> Completion:
    return Completion(
        job,
        (*job.forced, *tokens),
        (*([float("nan")] * len(job.forced)), *p),
        "stop" if ended else "length",
        generated=len(tokens),
    )
