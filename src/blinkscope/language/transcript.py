"""A given text as the path to look into."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Engine, Job, Path
from blinkscope.language.sampling import Sampling


def transcript_path(engine: Engine, context: Context, text: str, sampling: Sampling) -> Path:
    """The tokens of a reply that is given as text; an end of turn follows where it is shorter than the cap.

    Raises
    ------
    UserError : the text is longer than the cap, or goes on after what ends a reply with these settings.
    """
    cap = sampling.max_new_tokens
    length = len(engine.encode_reply(context, text, finished=False).tokens)
    if length > cap:
        raise UserError(
            f"the generation has {length} tokens and the cap is {cap}; raise --max-new-tokens to at least {length + 1}."
        )
    path = engine.encode_reply(context, text, finished=length < cap)
    if _over(engine, path, len(path.tokens) - 1, sampling):
        end = bisect_left(range(len(path.tokens)), True, key=lambda kept: _over(engine, path, kept, sampling))
        raise UserError(
            f"the generation goes on after token {end} ({engine.pieces(path.tokens[:end])[-1]!r}), which ends it with "
            "these settings; cut it there."
        )
    return path


def _over(engine: Engine, path: Path, kept: int, sampling: Sampling) -> bool:
    """Whether the first ``kept`` tokens of the path hold the end of the reply. Nothing is generated to find out."""
    if kept < 1:
        return False
    job = Job((), path, kept)
    (done,) = engine.continue_([job], replace(sampling, max_new_tokens=kept), 0)
    return done.finish == "stop"
