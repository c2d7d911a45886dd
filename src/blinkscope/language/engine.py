"""Where tokens come from: the protocol behind which every language model sits.

An engine does five things: it turns a prompt into token ids (``encode``) and ids into text (``decode``), says how
probable each token of a text was and what else could have stood there (``score``), writes continuations
(``continue_``), and spells a follow-up question (``follow_up``). All probabilities are taken *under the sampling
distribution*, that is after temperature, top-k, top-p and min-p (``language/sampling.py``), because the sampler's own
law is what the theory is about ([LKC25], section 2).

Time in this layer is *tokens kept*: position s means that the first s tokens of the generation are fixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from blinkscope.feature import Feature, Reply
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True)
class Context:
    """Everything that stands before the generation, as token ids.

    ids: the templated conversation, the opening of the assistant's turn and the prefill.
    prefill: the text of the reply that is already given; features read it as part of the reply.
    messages: the conversation in words, for follow-up questions; empty where the prompt was raw text.
    """

    ids: tuple[int, ...]
    prefill: str = ""
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True)
class Path:
    """A context and the generation whose making is looked into.

    tokens: the ids of the generation, the end-of-turn token included where it was said.
    """

    context: Context
    tokens: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Alternatives:
    """The tokens that could have stood at one position instead of the path's, most probable first.

    p: their probabilities under the sampling distribution (not renormalised).
    """

    ids: Int[np.ndarray, " k"]
    p: Float[np.ndarray, " k"]


@dataclass(frozen=True, eq=False)
class Score:
    """A path under the sampling distribution, one entry for each of its n tokens.

    p: probability of the path's token given everything before it; 0 where the sampler could not have produced it.
    off_path: probability of leaving the path there. Where the path's token is the only one possible it is exactly 0.
    alternatives: what could have stood there. Their probabilities sum to ``off_path`` less the part of the law that
        the engine could not list (``off_path - alternatives.p.sum()``), which is reported, never hidden.
    notes: where these numbers are bounded rather than exact, and by how much.
    """

    p: Float[np.ndarray, " n"]
    off_path: Float[np.ndarray, " n"]
    alternatives: tuple[Alternatives, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ask:
    """A follow-up turn after a finished reply: its token ids and the cap on the answer, decoded at temperature 0."""

    ids: tuple[int, ...]
    max_new_tokens: int = 32


@dataclass(frozen=True)
class Job:
    """One continuation to be written.

    key: the caller's name for it, returned with the completion.
    path, kept: keep the context and the first ``kept`` tokens of the path.
    forced: tokens set after those (the fork's first token); the sampler goes on from there.
    stream: key of the job's own random stream, used as ``numpy.random.SeedSequence(seed, spawn_key=stream)``.
    ask: a follow-up turn to be answered once the reply is finished.
    """

    key: tuple[int, ...]
    path: Path
    kept: int
    forced: tuple[int, ...] = ()
    stream: tuple[int, ...] = ()
    ask: Ask | None = None


@dataclass(frozen=True, eq=False)
class Completion:
    """A finished continuation.

    tokens: ids after the kept ones, the forced ones and the end-of-turn token included.
    p: probability of each of them under the sampling distribution; NaN for forced tokens, and where a server that
        writes the tokens does not tell.
    finish: ``stop`` (end of turn or a stop text) or ``length`` (the cap).
    answer: text of the answer to ``Job.ask``.
    generated: tokens that the model had to generate, the answer's included (forced ones are not).
    """

    job: Job
    tokens: tuple[int, ...]
    p: tuple[float, ...]
    finish: Literal["stop", "length"]
    answer: str | None = None
    generated: int = 0


@dataclass(frozen=True)
class Truth:
    """What a model with a known law knows about one path.

    posterior: exact label law after each number of kept tokens, shape (n + 1, labels).
    """

    labels: tuple[str, ...]
    posterior: Float[np.ndarray, "rows labels"] = field(repr=False)


@runtime_checkable
class Engine(Protocol):
    """A language model. Implementations are final classes, one file each, in ``blinkscope/engines``."""

    @property
    def name(self) -> str:
        """The spelling after ``--model`` that names these weights."""
        ...

    @property
    def default_sampling(self) -> Sampling:
        """The model's own generation settings."""
        ...

    @property
    def context_window(self) -> int:
        """Most tokens that context and generation may have together."""
        ...

    def encode(self, prompt: str | tuple[Message, ...], *, prefill: str = "") -> Context:
        """Token ids of a prompt. A string is one user turn where the model has a chat template, else raw text."""
        ...

    def encode_reply(self, context: Context, text: str, *, finished: bool) -> Path:
        """A given transcript as a path after ``context``; ``finished`` appends the end-of-turn token."""
        ...

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of generated tokens, without end-of-turn and other special tokens."""
        ...

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Text of each token, for display: special tokens are spelled out, and the pieces together make the text."""
        ...

    def score(self, path: Path, sampling: Sampling) -> Score:
        """One teacher-forced pass over the path."""
        ...

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        """Write continuations and yield each as it finishes, in any order.

        ``sampling.max_new_tokens`` counts from the start of the generation: a job that keeps s tokens has
        ``max_new_tokens - s`` left.
        """
        ...

    def follow_up(self, path: Path, question: str) -> tuple[int, ...]:
        """Ids that end the assistant's turn, ask ``question`` as the user and open the answer."""
        ...


@runtime_checkable
class KnownLaw(Protocol):
    """An engine that brings its own labels and can compute their exact law (the ``toy:`` models)."""

    @property
    def feature(self) -> Feature[Reply]:
        """The feature that reads the model's own labels."""
        ...

    def truth(self, path: Path, sampling: Sampling) -> Truth | None:
        """The exact label posterior along a path; None where computing it is out of reach."""
        ...


@runtime_checkable
class Spelling(Protocol):
    """An engine that knows its tokenizer's marks, and so can spell a context as a trainer's text."""

    def spell(self, context: Context) -> str:
        """The context as text, marks spelled out, which the model's tokenizer turns into ``context.ids`` again.

        The beginning-of-text mark is left out where the tokenizer adds one by itself.
        """
        ...


@runtime_checkable
class Remarking(Protocol):
    """An engine that can say where what it samples differs from what a user may expect."""

    def remarks(self, context: Context) -> tuple[str, ...]:
        """Sentences about how the model read the context, and about settings of the model that are not followed."""
        ...


@runtime_checkable
class Naming(Protocol):
    """An engine that may have to make token ids up, where all that it gets to see of a token is its text."""

    @property
    def names_tokens(self) -> bool:
        """Whether it does; it then has to be told the tokens of an earlier sitting before it is given their ids."""
        ...

    def learn(self, pieces: Iterable[str]) -> None:
        """Texts of tokens, as ``pieces`` gave them."""
        ...


@runtime_checkable
class Stored(Protocol):
    """An engine of weights in files, which may change under their name; those of one file may move."""

    @property
    def identity(self) -> str:
        """The name under which run files know it; of one file, wherever it lies."""
        ...

    @property
    def digest(self) -> str:
        """Of the content of the files; empty where they are not known."""
        ...
