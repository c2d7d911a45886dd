"""One text under one model: the log-probability of every token that somebody wrote, the template's left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from blinkscope.errors import UserError
from blinkscope.language.engine import Engine, Message, Path
from blinkscope.language.reading import RAW, Conversation, Reader, Transcript


@dataclass(frozen=True)
class Side:
    """One of the two models: an engine, and the system prompt that it is given."""

    engine: Engine
    system: str | None = None

    def conversation(self, conversation: Conversation) -> Conversation:
        """The conversation with this side's system prompt."""
        if self.system is None:
            return conversation
        prompt = conversation.prompt
        turns = (Message("user", prompt),) if isinstance(prompt, str) else prompt
        if turns and turns[0].role == "system":
            raise UserError("the text has a system prompt of its own and another one is given; leave one out.")
        return Conversation((Message("system", self.system), *turns), conversation.prefill)


@dataclass(frozen=True, eq=False)
class Part:
    """The prompt's or the reply's own tokens.

    pieces: the text of each. log_p: natural logarithms of the model's own probabilities, at temperature 1 and
    unfiltered; minus infinity for what it cannot say, NaN where nothing stands before the token. Shorter than
    ``pieces`` where the context window ends inside the part.
    """

    pieces: tuple[str, ...]
    log_p: Float[np.ndarray, " read"]


@dataclass(frozen=True, eq=False)
class Reading:
    """A text under one model.

    activation: mean of the residual stream over the same tokens, where a layer was asked for.
    """

    prompt: Part
    reply: Part
    activation: Float[np.ndarray, " width"] | None = None

    @property
    def unread(self) -> int:
        """Own tokens that lie beyond the context window."""
        return sum(len(part.pieces) - len(part.log_p) for part in (self.prompt, self.reply))


def read(side: Side, conversation: Conversation, reply: str, layer: int | None = None) -> Reading:
    """Read a conversation and its reply up to the end of the model's context window; what lies beyond is not read.

    An engine that is no ``Reader`` gives no probabilities of prompts: its prompt part is empty.

    Raises
    ------
    UserError : the text cannot be spelled for this model, or an activation is asked of an engine that shows none.
    """
    engine, asked = side.engine, side.conversation(conversation)
    if isinstance(engine, Reader):
        return _read_all(engine, asked, reply, layer)
    if layer is not None:
        check_layer(side, layer)
    context = engine.encode(asked.prompt, prefill=asked.prefill)
    path = engine.encode_reply(context, reply, finished=False)
    room = max(engine.context_window - len(context.ids), 0)
    pieces = tuple(engine.pieces(path.tokens))
    if not path.tokens[:room]:
        return Reading(Part((), np.empty(0)), Part(pieces, np.empty(0)))
    score = engine.score(Path(context, path.tokens[:room]), RAW)
    return Reading(Part((), np.empty(0)), Part(pieces, logarithm(score.p)))


def logarithm(p: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Natural logarithm; minus infinity at 0."""
    with np.errstate(divide="ignore"):
        return np.log(p)


def check_layer(side: Side, layer: int) -> Reader:
    """The engine of a side, once it is sure that it shows its activations after so many layers."""
    engine = side.engine
    if not isinstance(engine, Reader):
        raise UserError(f"{engine.name} does not show its activations; a probe needs a transformers model.")
    if not 0 <= layer <= engine.layers:
        raise UserError(f"layer is {layer}; {engine.name} has layers 0 (the embedding) to {engine.layers}.")
    return engine


def mean_activation(side: Side, conversation: Conversation, reply: str, layer: int) -> Float[np.ndarray, " width"]:
    """Mean of the residual stream after ``layer`` layers over the own tokens of a prompt and its reply."""
    engine = check_layer(side, layer)
    return _activation(engine, engine.transcript(side.conversation(conversation), reply), layer)


def _read_all(engine: Reader, asked: Conversation, reply: str, layer: int | None) -> Reading:
    transcript = engine.transcript(asked, reply)
    log_p = engine.log_probabilities(transcript.ids[: engine.context_window])
    activation = None if layer is None else _activation(engine, transcript, layer)
    return Reading(
        _part(engine, transcript, transcript.prompt, log_p),
        _part(engine, transcript, tuple(transcript.reply), log_p),
        activation,
    )


def _part(engine: Reader, transcript: Transcript, places: tuple[int, ...], log_p: Float[np.ndarray, " n"]) -> Part:
    pieces = tuple(engine.pieces([transcript.ids[place] for place in places]))
    return Part(pieces, log_p[[place for place in places if place < len(log_p)]])


def _activation(engine: Reader, transcript: Transcript, layer: int) -> Float[np.ndarray, " width"]:
    window = engine.context_window
    own = [place for place in (*transcript.prompt, *transcript.reply) if place < window]
    if not own:
        raise UserError("no token of the text lies within the model's context window.")
    return engine.mean_activation(transcript.ids[:window], own, layer)
