"""Texts by toy models whose laws are known, and pairs of such models."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

from blinkscope.engines import open_engine
from blinkscope.language.engine import Engine, Job, Path
from blinkscope.language.reading import RAW

ALIGNED, UNALIGNED = "toy:walk?drift=0.05&barrier=6", "toy:walk?drift=0.3&barrier=6"
PROMPT = "Is it solved?"


def replies(model: str | Engine, count: int, seed: int = 0) -> list[str]:
    """Fresh replies at temperature 1, unfiltered."""
    engine = open_engine(model) if isinstance(model, str) else model
    path = Path(engine.encode(PROMPT), ())
    jobs = [Job((i,), path, 0, stream=(i,)) for i in range(count)]
    done = {completion.job.key: completion for completion in engine.continue_(jobs, RAW, seed)}
    return [engine.decode(done[i,].tokens) for i in range(count)]


def rows(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Texts by the unaligned model, of two families, and as many by the aligned one."""
    found = [
        {"prompt": PROMPT, "completion": text, "label": 1, "family": ("odd", "even")[i % 2]}
        for i, text in enumerate(replies(UNALIGNED, count, seed))
    ]
    return found + [{"prompt": PROMPT, "completion": text, "label": 0} for text in replies(ALIGNED, count, seed + 1)]


def write(path: File, texts: list[dict[str, Any]]) -> File:
    path.write_text("".join(json.dumps(row) + "\n" for row in texts), encoding="utf-8")
    return path
