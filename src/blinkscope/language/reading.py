"""Reading whole conversations: which tokens people and models wrote, and how probable each of them was.

Here probabilities are the model's own, at temperature 1 and before any filter: a ratio of two filtered laws is 0/0 at
every token that both filters remove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from blinkscope.language.engine import Engine, Message
from blinkscope.language.sampling import Sampling

RAW = Sampling()
"""The model's own law of the next token: temperature 1 and no filter."""


@dataclass(frozen=True)
class Spelled:
    """A conversation that is already written in some model's marks.

    text: all of it, up to the reply. marks: special tokens that a tokenizer must know to read it as it stands.
    own: character spans of what the user and the assistant said in it, marks, names of roles and system prompts left
    out.
    """

    text: str
    marks: tuple[str, ...]
    own: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Conversation:
    """What stands before a reply.

    prompt: one user turn, or messages that end with a user's. prefill: the beginning of the reply, put there by whoever
    asked. spelled: the same in the marks in which it came; taken by models that know these marks.
    """

    prompt: str | tuple[Message, ...]
    prefill: str = ""
    spelled: Spelled | None = None


@dataclass(frozen=True)
class Transcript:
    """A conversation and a reply as token ids.

    prompt: positions in ``ids`` of tokens that lie within a turn of the user or of the assistant, or in the prefill.
    reply: positions of the reply's tokens; they come last. All other tokens are the template's or a system prompt's.
    """

    ids: tuple[int, ...]
    prompt: tuple[int, ...]
    reply: range


@runtime_checkable
class Reader(Engine, Protocol):
    """An engine that can read a whole conversation, prompts included, and look inside the model while it does."""

    @property
    def layers(self) -> int:
        """Number of the model's layers."""
        ...

    def transcript(self, conversation: Conversation, reply: str) -> Transcript:
        """A conversation and a reply in the model's own template, with the positions of what is not the template's."""
        ...

    def log_probabilities(self, ids: Sequence[int]) -> Float[np.ndarray, " n"]:
        """Natural logarithm of the probability of each token given those before it; NaN for the first one."""
        ...

    def mean_activation(self, ids: Sequence[int], positions: Sequence[int], layer: int) -> Float[np.ndarray, " width"]:
        """Mean over positions of the residual stream after ``layer`` layers; layer 0 is the embedding."""
        ...

    def follow(self, ids: Sequence[int], tokens: Iterable[int]) -> Iterator[float]:
        """Log-probability of each token as it comes, one step of the model for each; ``ids`` stand before them."""
        ...
