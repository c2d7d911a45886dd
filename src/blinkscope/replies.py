"""Replies that go on from given beginnings: what a study draws where no path has to be scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from blinkscope.estimate import streams
from blinkscope.estimate.source import Draw
from blinkscope.feature import Feature, Reply, label_of
from blinkscope.keeper import Keeper
from blinkscope.language.engine import Ask, Context, Engine, Job, Message, Naming, Path
from blinkscope.language.sampling import Sampling
from blinkscope.language.strata import Stopwatch, Writer

__all__ = ["Ask", "Beginning", "Opening", "Path", "Stopwatch", "draw_generation", "draw_replies", "opening_of"]


@dataclass(frozen=True)
class Opening:
    """The beginning of a reply, cut after each of its tokens.

    tokens: text of each token. contexts: the prompt followed by the first 0, 1, 2 ... of them.
    """

    tokens: tuple[str, ...]
    contexts: tuple[Context, ...]


def opening_of(engine: Engine, prompt: str | tuple[Message, ...], text: str, most: int | None = None) -> Opening:
    """A text as the model's tokens after a prompt, cut after each of the first ``most``."""
    bare = engine.encode(prompt)
    ids = engine.encode_reply(bare, text, finished=False).tokens[:most] if text else ()
    contexts = tuple(
        replace(bare, ids=(*bare.ids, *ids[:kept]), prefill=engine.decode(ids[:kept])) for kept in range(len(ids) + 1)
    )
    return Opening(tuple(engine.pieces(ids)), contexts)


@dataclass(frozen=True)
class Beginning:
    """Where a reply goes on from: a path, and how many of its tokens are kept. The length cap counts these."""

    path: Path
    kept: int = 0


def draw_replies(
    engine: Engine,
    beginnings: Mapping[int, Beginning],
    feature: Feature[Reply],
    sampling: Sampling,
    *,
    seed: int,
    count: int,
    keeper: Keeper,
    stopwatch: Stopwatch,
    purpose: int = streams.FREE,
    ask: Ask | None = None,
) -> Mapping[tuple[int, int], Draw]:
    """``count`` labelled replies from every beginning, by (number of the beginning, replicate).

    What the keeper knows already is not drawn again. The feature reads a context's prefill, and the tokens kept, as
    part of the reply. purpose: of the random streams, see ``estimate/streams.py``. ask: a follow-up
    turn whose answer is read instead.
    """
    writer = Writer(
        engine=engine,
        path=next(iter(beginnings.values())).path,
        sampling=sampling,
        label=lambda reply: label_of(feature, reply),
        seed=seed,
        generation=keeper.generation,
        stopwatch=stopwatch,
    )
    wanted = [(number, replicate) for number in beginnings for replicate in range(count)]
    jobs = [
        Job(
            (number, replicate),
            beginnings[number].path,
            beginnings[number].kept,
            stream=(purpose, keeper.generation, abs(number), replicate),
            ask=ask,
        )
        for number, replicate in wanted
        if (number, replicate) not in keeper.known
    ]
    draws = dict(keeper.known)
    for draw in writer.write(jobs, {}):
        if purpose == streams.GENERATION and isinstance(engine, Naming) and engine.names_tokens:
            draw = replace(draw, payload={**draw.payload, "pieces": list(engine.pieces(_tokens(draw)))})
        keeper.add(draw)
        draws[draw.stratum, draw.replicate] = draw
    keeper.settle()
    return {key: draws[key] for key in wanted}


WHOLE = -1
"""Number under which a run keeps the whole generation itself, beside what goes on from its beginnings."""


def draw_generation(
    engine: Engine,
    context: Context,
    feature: Feature[Reply],
    sampling: Sampling,
    *,
    seed: int,
    keeper: Keeper,
    stopwatch: Stopwatch,
) -> tuple[Path, Draw]:
    """A fresh generation and its label; the same one where the keeper knows it."""
    draws = draw_replies(
        engine,
        {WHOLE: Beginning(Path(context, ()))},
        feature,
        sampling,
        seed=seed,
        count=1,
        keeper=keeper,
        stopwatch=stopwatch,
        purpose=streams.GENERATION,
    )
    whole = draws[WHOLE, 0]
    if isinstance(engine, Naming) and engine.names_tokens:
        engine.learn(str(piece) for piece in whole.payload["pieces"])  # type: ignore[union-attr]
    return Path(context, _tokens(whole)), whole


def _tokens(draw: Draw) -> tuple[int, ...]:
    tokens = draw.payload["tokens"]
    assert isinstance(tokens, list)
    return tuple(int(token) for token in tokens)  # type: ignore[arg-type]
