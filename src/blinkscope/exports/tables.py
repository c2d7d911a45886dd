"""A run as tables: generations, tokens, curve, windows, draws. Rows are plain dictionaries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from blinkscope.estimate.source import Draw
from blinkscope.exports.generations import StoredGeneration

TABLES = ("generations", "tokens", "curve", "windows", "draws")


def json_line(generation: StoredGeneration) -> dict[str, Any]:
    """The JSON object of ``show --json``, with the item's id and every draw."""
    draws = [_draw(draw) for draw in generation.trace.draws]
    return {"item": generation.item, **generation.trace.to_json(), "draws": draws}


def tables(generations: Iterable[StoredGeneration]) -> dict[str, list[dict[str, Any]]]:
    """The rows of every table; ``item`` joins them."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
    for generation in generations:
        item, said = generation.item, generation.trace.to_json()
        rows["generations"].append(_generation(item, said))
        rows["tokens"] += [
            {"item": item, "position": s, **token} for s, token in enumerate(said["generation"]["tokens"])
        ]
        rows["curve"] += _curve(item, said)
        for window in said["windows"]:
            laws = {end: [{"label": k, "p": p} for k, p in window[end].items()] for end in ("before", "after")}
            rows["windows"].append({"item": item, **window, **laws})
        rows["draws"] += [{"item": item, **_draw(draw)} for draw in generation.trace.draws]
    return rows


def _generation(item: str, said: Mapping[str, Any]) -> dict[str, Any]:
    prompt = said.get("prompt")
    return {
        "item": item,
        "prompt": prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False),
        **{name: said.get(name) for name in ("system", "prefill", "model", "feature", "method", "estimator", "seed")},
        "sampling": json.dumps(said.get("sampling")),
        "text": said["generation"]["text"],
        "final_label": said["final_label"],
        "labels": said["labels"],
        "status": said["status"],
        "error_asked": said["error"]["asked"],
        "error_reached": said["error"]["reached_max"],
        "level": said["curve"]["level"],
        "windows": len(said["windows"]),
        **said["cost"],
    }


def _curve(item: str, said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row for each row and label of the curve."""
    curve = said["curve"]
    return [
        {"item": item, "position": position, "label": label, "mean": mean, "low": low, "high": high}
        for position, *limits in zip(curve["position"], curve["mean"], curve["low"], curve["high"], strict=True)
        for label, mean, low, high in zip(said["labels"], *limits, strict=True)
    ]


def _draw(draw: Draw) -> dict[str, Any]:
    payload = draw.payload
    return {
        "position": draw.stratum,
        "replicate": draw.replicate,
        "token": draw.fork,
        "p": payload.get("p"),
        "label": draw.label,
        "cost": draw.cost,
        **{name: payload.get(name) for name in ("text", "finish", "answer")},
    }
