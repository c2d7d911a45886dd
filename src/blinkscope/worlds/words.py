"""What ``blinkscope world`` says in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMED = 3  # labels of a set that are written out


def world_text(result: Mapping[str, Any]) -> list[str]:
    """``world_json``'s answer in words, a paragraph a line."""
    after, before = (_braces(result[name]) for name in ("after", "before"))
    low, high = result["index"]["range"]
    lines = [
        " ".join([result["world"], *(f"--{key.replace('_', '-')} {value}" for key, value in _shown(result))]),
        f"eps = {result['eps']:g}; t is {index_words(**result['index'])}, "
        f"from {_number(low)} (data) to {_number(high)} (noise).",
        f"S_after = {after}, S_before = {before}; {len(result['labels'])} labels in all.",
        "",
        _window_words(result),
    ]
    if result["interval"] is not None:
        ends = (f"{end} in {_span(result['interval'][key])}" for key, end in _ENDS.items() if result["interval"][key])
        lines.append(f"Estimated from draws; at level 0.95, {' and '.join(ends)}.")
    if paper := result["paper"]:
        lines.append(f"Paper: {_ends_words(paper, result['index']['range'])}. Certifies: {paper['certifies']}")
    bound, certificate, inside = result["theorem2"], result["certificate"], result["inside"]
    if certificate is not None:
        lines.append(
            f"Theorem 2: at T_before the experiment from S_after gives the outcomes of S_before to within "
            f"{_bound(bound['published'])} as published, {_bound(bound['sharper'])} with the sharper constant."
        )
        at = ", ".join(f"{b:.3f} at t = {t:.4g}" for t, b in zip(*certificate.values(), strict=True))
        lines.append(f"Certificate, from the posteriors: to within {at}.")
    if inside is not None:
        lines.append(f"At T_after it gives the outcomes of S_after to within {inside['certificate']:.3f}.")
    return lines


def _bound(value: float) -> str:
    """A bound on a total variation, which is at most 1 anyway."""
    return f"{value:.3f}{' (which says nothing)' if value >= 1 else ''}"


_ENDS = {"t_after": "T_after", "t_before": "T_before"}


def _window_words(result: Mapping[str, Any]) -> str:
    ends = _ends_words(result["window"])
    said = {
        "window": f"Critical window: {ends}. Sampling runs from T_before, where nothing is decided, down to T_after.",
        "no-after": f"No window: the sampler is never surely inside S_after, TV(after, rest) < 1 - eps^2 ({ends}).",
        "no-before": f"No window: S_after and S_before are never within eps where S_before is set apart ({ends}).",
        "inverted": f"No window: {ends}; already surely inside S_after, the sampler still counts as mixed.",
    }
    return said[result["outcome"]]


def _ends_words(ends: Mapping[str, Any], within: Sequence[Any] = ("-inf", "inf")) -> str:
    """The two times; those that lie outside the index set say so."""
    low, high = map(float, within)
    said = {key: "" if low <= float(ends[key] or 0) <= high else " (outside the index set)" for key in _ENDS}
    found = [f"{_ENDS[key]} = {_number(ends[key])}{said[key]}" for key in _ENDS if ends[key] is not None]
    return ", ".join(found) or "neither time exists"


def _span(interval: Sequence[Any]) -> str:
    return f"[{', '.join('-' if end is None else _number(end) for end in interval)}]"


def _number(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.5g}"


def _braces(names: Sequence[str]) -> str:
    return f"{{{', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}}}"


def _shown(result: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Parameters that a command line could have given."""
    return [item for item in result["parameters"].items() if not isinstance(item[1], Mapping) and item[1] != ""]


def index_words(name: str, unit: str, **_: Any) -> str:
    """What t measures, in words."""
    if unit == "probability":
        return f"probability of being {name}"
    return unit if name in unit else f"{unit} {name}"
