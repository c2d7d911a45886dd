"""Replies that go on from given beginnings: what a study draws where no path has to be scored.

Each beginning is a context of its own (a prompt with some of an opening's tokens prefilled), so the length cap counts
from where the model takes over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from blinkscope.estimate import streams
from blinkscope.estimate.source import Draw
from blinkscope.feature import Feature, Reply, label_of
from blinkscope.keeper import Keeper
from blinkscope.language.engine import Context, Engine, Job, Message, Path
from blinkscope.language.sampling import Sampling
from blinkscope.language.strata import Stopwatch, Writer

__all__ = ["Opening", "Stopwatch", "draw_replies", "opening_of"]


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


def draw_replies(
    engine: Engine,
    contexts: Sequence[Context],
    feature: Feature[Reply],
    sampling: Sampling,
    *,
    seed: int,
    count: int,
    keeper: Keeper,
    stopwatch: Stopwatch,
) -> Mapping[tuple[int, int], Draw]:
    """``count`` labelled replies from every context, by (number of the context, replicate).

    What the keeper knows already is not drawn again. The feature reads a context's prefill as part of the reply.
    """
    writer = Writer(
        engine=engine,
        path=Path(contexts[0], ()),
        sampling=sampling,
        label=lambda reply: label_of(feature, reply),
        seed=seed,
        generation=keeper.generation,
        stopwatch=stopwatch,
    )
    wanted = [(place, replicate) for place in range(len(contexts)) for replicate in range(count)]
    jobs = [
        Job((place, replicate), Path(contexts[place], ()), 0, (), (streams.FREE, keeper.generation, place, replicate))
        for place, replicate in wanted
        if (place, replicate) not in keeper.known
    ]
    draws = dict(keeper.known)
    for draw in writer.write(jobs, {}):
        keeper.add(draw)
        draws[draw.stratum, draw.replicate] = draw
    keeper.settle()
    return {key: draws[key] for key in wanted}
