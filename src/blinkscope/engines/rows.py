"""One continuation while it is written: what is fed next, when it ends, what comes after."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from blinkscope.language.engine import Completion, Job
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class Rules:
    """What ends a reply.

    end_of_turn: ids of which any ends the model's turn.
    decode: ids to text, for finding stop texts.
    """

    sampling: Sampling
    seed: int
    end_of_turn: frozenset[int]
    decode: Callable[[Iterable[int]], str]

    def stops(self, tokens: tuple[int, ...], since: int) -> bool:
        """Whether a stop text was completed by ``tokens[since:]``; it may have begun before."""
        if not self.sampling.stop:
            return False
        # A token holds at least one byte, so the text can reach back by no more tokens than it has bytes; three more
        # keep a character that is cut in two away from it.
        reach = max(len(text.encode()) for text in self.sampling.stop) + 3
        text = self.decode(tokens[max(0, since - reach) :])
        return any(stop in text for stop in self.sampling.stop)


class Row:
    """One job on its way.

    prefix: number of ids (context, then path) whose keys and values are taken from the path's.
    queue: ids that are fed next. While there is more than one, nothing has to be drawn: forced tokens and follow-up
        questions are fed this way.
    finished: True once there is nothing left to do.

    A reply may end with an end-of-turn token, with a stop text or at the cap. The end-of-turn token is never fed: a
    follow-up turn begins with its own. The last token of a reply that was cut is fed before the follow-up turn.
    """

    def __init__(self, job: Job, rules: Rules) -> None:
        self.job, self.rules = job, rules
        self.tokens = list(job.forced)
        self.p = [float("nan")] * len(job.forced)
        self.answer: list[int] | None = None
        self.generated = 0
        self.finished = False
        self.finish: Literal["stop", "length"] = "length"
        kept, context = job.path.tokens[: job.kept], job.path.context.ids
        said = (*kept, *job.forced)
        self.left = rules.sampling.max_new_tokens - len(said)
        ended = bool(said) and said[-1] in rules.end_of_turn
        fed = (*context, *(said[:-1] if ended else said))
        self.prefix = min(len(context) + job.kept, len(fed))
        self.queue = deque(fed[self.prefix :])
        if rules.end_of_turn.intersection(said) or rules.stops(said, 0):
            self._end_reply("stop")
        elif self.left <= 0:
            self._end_reply("length")
        if not self.queue:
            self.prefix -= 1
            self.queue.append(fed[self.prefix])
        stream = np.random.default_rng(np.random.SeedSequence(rules.seed, spawn_key=job.stream))
        self._uniforms = iter(stream.random(max(self.left, 0)).tolist())

    def uniform(self) -> float:
        """The next number of the row's own stream; 0, which draws the most probable token, while it answers."""
        return 0.0 if self.answer is not None else next(self._uniforms)

    def accept(self, token: int, p: float) -> None:
        """Take the token that was drawn after everything fed so far."""
        self.generated += 1
        ended = token in self.rules.end_of_turn
        if self.answer is not None:
            assert self.job.ask is not None
            self.answer.append(token)
            self.finished = ended or len(self.answer) >= self.job.ask.max_new_tokens
            self.queue.append(token)
            return
        self.tokens.append(token)
        self.p.append(p)
        self.left -= 1
        if ended:
            self._end_reply("stop")
            return
        self.queue.append(token)
        said = (*self.job.path.tokens[: self.job.kept], *self.tokens)
        if self.rules.stops(said, len(said) - 1):
            self._end_reply("stop")
        elif self.left <= 0:
            self._end_reply("length")

    def _end_reply(self, finish: Literal["stop", "length"]) -> None:
        self.finish = finish
        if self.job.ask is None:
            self.finished = True
        else:
            self.answer = []
            self.queue.extend(self.job.ask.ids)

    def completion(self) -> Completion:
        """The finished continuation."""
        answer = None if self.answer is None else self.rules.decode(self.answer)
        return Completion(self.job, tuple(self.tokens), tuple(self.p), self.finish, answer, self.generated)
