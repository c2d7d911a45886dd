"""What the page of one picture, or of one text of symbols, shows; ``html.page`` makes a file of it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from blinkscope.diffusion.record import LARGEST_THUMBNAIL, small
from blinkscope.estimate.source import Draw
from blinkscope.estimate.trace import Trace
from blinkscope.feature import OTHER
from blinkscope.report import pictures, trees
from blinkscope.report.text import sentence

SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "vendor/htm-preact.standalone.umd.js",
    "assets/common.js",
    "assets/tree.js",
    "assets/picture.js",
)
SHOWN = 16  # finished pictures of a level


def picture_data(trace: Trace) -> dict[str, Any]:
    """The result's JSON, its settings apart, with the states and what became of them: symbols, or small pictures."""
    elsewhere = {*trace.settings, "forks", "comparison", "generation"}
    result = {name: value for name, value in trace.to_json().items() if name not in elsewhere}
    target = trace.target
    return {
        **result,
        "settings": dict(trace.settings),
        "notes": [sentence(note) for note in trace.notes],
        "subject": pictures.subject(trace),
        "answer": pictures.answer(trace),
        "finding": pictures.finding(trace),
        "ends": pictures.ends(trace),
        "method": pictures.method(trace),
        "target": {"delta": target.delta, "max_width": target.max_width, "level": target.level, "ends": target.ends},
        "levels": _levels(trace),
        "tree": asdict(trees.picture_tree(trace)),
        "stages": [asdict(stage) for stage in trees.stages(trace)],
        "open": trees.OPEN,
    }


def _levels(trace: Trace) -> list[dict[str, Any]]:
    at: dict[int, list[Draw]] = {}
    for draw in sorted(trace.draws, key=lambda draw: (draw.stratum, draw.replicate)):
        at.setdefault(draw.stratum, []).append(draw)
    column = {label: k for k, label in enumerate(trace.labels)}
    other = column.get(OTHER, len(trace.labels))
    levels = []
    for row, position in enumerate(trace.posterior.index.astype(int).tolist()):
        draws = at.get(position, [])
        numbers = [column.get(draw.label, other) for draw in draws]
        shown = [
            {"k": k, "label": draw.label, "sample": sample}
            for k, draw in zip(numbers, draws, strict=True)
            if (sample := checked(draw.payload)) is not None
        ]
        levels.append(
            {
                "position": position,
                "state": _state(trace, row),
                "drawn": len(draws),
                "counts": [[k, numbers.count(k)] for k in sorted(set(numbers))],
                "became": shown[:SHOWN],
            }
        )
    return levels


def _state(trace: Trace, row: int) -> dict[str, Any] | None:
    if trace.thumbnails is not None:
        return checked(trace.thumbnails[row])
    assert trace.states is not None
    return dict(small(trace.states[row])) or None


def checked(payload: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a draw shows, if it shows something: a stranger's run file may hold anything."""
    if isinstance(payload.get("symbols"), str):
        return {"symbols": payload["symbols"]}
    shape, pixels = payload.get("shape"), payload.get("pixels")
    if not (isinstance(shape, list) and len(shape) == 3 and isinstance(pixels, str)):
        return None
    whole = all(type(size) is int and 0 < size <= LARGEST_THUMBNAIL for size in shape)
    try:
        size = len(base64.b64decode(pixels, validate=True))
    except (binascii.Error, ValueError):
        return None
    fits = whole and shape[2] in (1, 3) and size == shape[0] * shape[1] * shape[2]
    return {"shape": shape, "pixels": pixels} if fits else None
