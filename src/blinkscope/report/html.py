"""The HTML report: one offline file that a person can mail, open and read.

A page is a template, styles and scripts from this package, and data. Text of a model is hostile input, so three things
hold for every page: data stands in a ``<script type="application/json">`` block in which nothing can end the block; the
page's script puts text into the document as text nodes only; and a Content-Security-Policy admits just the scripts and
styles of this package, by hash, and no network at all.

``report_data`` says what a page of one generation holds and ``page`` makes a file of it; other kinds of result can use
``page`` with data and a script of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from blinkscope.divergence import total_variation
from blinkscope.errors import expect
from blinkscope.estimate.source import Draw
from blinkscope.estimate.trace import Trace
from blinkscope.feature import OTHER, TRUNCATED, UNPARSED
from blinkscope.outputs import Kind, written
from blinkscope.report import picture_page, summary
from blinkscope.report.text import sentence
from blinkscope.window import TokenWindow, default_max_width

STYLES = ("vendor/uPlot.min.css", "assets/report.css")
SCRIPTS = (
    "vendor/uPlot.iife.min.js",
    "vendor/htm-preact.standalone.umd.js",
    "assets/common.js",
    "assets/report.js",
    "assets/instrument.js",
)

PAGE = Kind("report", "HTML page", re.compile(rb"(?i)\s*(<!doctype html|<html)"))

PLACE_WIDTH = 48  # characters of a window's text in a sentence
SIGNIFICANT_DIGITS = 5  # of numbers in the page, which are for looking at; the run file has them all


@dataclass(frozen=True)
class Excerpt:
    """How much of the continuations a page holds: so many texts per fork and label, so many characters of each."""

    texts: int
    head: int
    tail: int


EXCERPTS = (Excerpt(10, 300, 200), Excerpt(3, 150, 100), Excerpt(1, 60, 40))
EXCERPT_BYTES = 6_000_000  # the first excerpt that fits is taken, so that a page stays under 8 MB

# What must not stand literally in the data block: characters that could end it or open a tag, that JavaScript once took
# for line ends, that reorder or hide text in an editor, and lone surrogates, which UTF-8 cannot hold.
_UNSAFE = re.compile(
    "[<>&\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\uffff\ud800-\udfff]"
)


def report_html(trace: Trace) -> str:
    """The report of one generation, a text or a picture, as the text of an HTML file."""
    if trace.states is not None:
        return page(picture_page.picture_data(trace), picture_page.SCRIPTS)
    return page(report_data(trace))


def write_report(trace: Trace, path: str | Path) -> Path:
    """Write the report of one generation; the file appears whole or not at all, and replaces no file but a page.

    Raises
    ------
    UserError : the place is refused (``outputs.check_file``), or nothing can be written there.
    EngineError : the machine could not store the file, for instance because its disk is full.
    """
    expect("trace", trace, Trace, "a Trace, as locate and stored return it")
    return write_page(report_html(trace), path)


def write_page(text: str, path: str | Path) -> Path:
    """Write a page to a file; refused and failing as ``write_report`` is."""
    with written(path, PAGE) as file:
        file.write(text.encode("utf-8"))
    return Path(path)


def page(data: Mapping[str, Any], scripts: Sequence[str] = SCRIPTS, styles: Sequence[str] = STYLES) -> str:
    """One self-contained HTML file that shows ``data`` with the named scripts and styles of this package."""
    script_texts = [_asset(name) for name in scripts]
    style_texts = [_asset(name) for name in styles]
    policy = "; ".join(
        [
            "default-src 'none'",
            "script-src " + " ".join(map(_source_hash, script_texts)),
            "style-src " + " ".join(map(_source_hash, style_texts)),
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
    parts = {
        "policy": policy,
        "styles": "\n".join(f"<style>{text}</style>" for text in style_texts),
        "data": data_block(data),
        "scripts": "\n".join(f"<script>{text}</script>" for text in script_texts),
    }
    # One pass over the template: data that happens to spell a placeholder is never looked at.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _asset("assets/report.html"))


def data_block(data: Mapping[str, Any]) -> str:
    """``data`` as JSON that is safe inside a script element and holds no invisible characters."""
    text = json.dumps(_rounded(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def report_data(trace: Trace) -> dict[str, Any]:
    """What the page of one generation shows: the result's JSON, its settings apart, and texts of the continuations."""
    elsewhere = {*trace.settings, "forks", "comparison"}
    result = {name: value for name, value in trace.to_json().items() if name not in elsewhere}
    agreement = [] if trace.comparison is None else [summary.agreement(trace.comparison)]
    excerpt, continuations = _fitting_excerpts(trace)
    index = trace.posterior.index
    width = trace.target.max_width or default_max_width(len(trace.steps))
    return {
        **result,
        "settings": dict(trace.settings),
        "question": summary.question(trace),
        "notes": [*map(sentence, trace.notes), *agreement],
        "answer": answer(trace),
        "finding": finding(trace),
        "target": {"delta": trace.target.delta, "max_width": width, "level": trace.target.level},
        "change": total_variation(trace.curve[:-1], trace.curve[1:]).tolist() if len(index) > 1 else [],
        "continuations": continuations,
        "excerpt": {"texts": excerpt.texts, "head": excerpt.head, "tail": excerpt.tail},
    }


# ---------------------------------------------------------------- in words


def answer(trace: Trace) -> str:
    """The outcome of this generation, in one sentence."""
    if trace.final_label == UNPARSED:
        return "The generation ended without an answer that could be read."
    if trace.final_label == TRUNCATED:
        return "The generation was cut at its length cap before an answer could be read."
    return f"The answer was {summary.name(trace, trace.final_label)}."


def finding(trace: Trace) -> str:
    """Where the generation was decided, in one or two sentences."""
    windows = trace.windows()
    return _windows_in_words(trace, windows) if windows else summary.answer(trace, windows)


def _windows_in_words(trace: Trace, windows: Sequence[TokenWindow], most: int = 3) -> str:
    """The largest windows, told in the order in which they come."""
    told = sorted(sorted(windows, key=lambda window: -window.change)[:most], key=lambda window: window.start)
    sentence = ", then ".join(_window_in_words(trace, window) for window in told)
    rest = len(windows) - len(told)
    more = f" {rest} smaller {'window is' if rest == 1 else 'windows are'} listed below." if rest else ""
    return f"{sentence}.{more}"


def _window_in_words(trace: Trace, window: TokenWindow) -> str:
    gain = {label: window.after[label] - window.before[label] for label in trace.labels}
    if abs(gain.get(trace.final_label, 0.0)) >= window.change / 2:
        told = [trace.final_label]
    else:
        told = [min(gain, key=gain.__getitem__), max(gain, key=gain.__getitem__)]
    moves = [
        f"P({summary.name(trace, label)}) {'' if k else 'went '}from "
        f"{_number(window.before[label])} to {_number(window.after[label])}"
        for k, label in enumerate(told)
    ]
    return f"{' and '.join(moves)} at {_place(trace, window)}"


def _place(trace: Trace, window: TokenWindow) -> str:
    start, end = window.start, window.end
    tokens = f"token {end}" if end == start + 1 else f"tokens {start + 1} to {end}"
    doubt = "" if window.certain else f"; a window with probability {_number(window.probability)}"
    return f"“{summary.words(trace, window, PLACE_WIDTH)}” ({tokens}{doubt})"


def _number(value: float) -> str:
    """A probability in words: 0 and 1 only where that is exact."""
    if value in (0, 1):
        return f"{value:.0f}"
    if value < 0.005:
        return "less than 0.01"
    return "more than 0.99" if value > 0.995 else f"{value:.2f}"


# ---------------------------------------------------------------- continuations


def _fitting_excerpts(trace: Trace) -> tuple[Excerpt, list[dict[str, Any]]]:
    """The continuations under the most generous excerpt whose JSON keeps the page small."""
    for excerpt in EXCERPTS:
        groups = _continuations(trace, excerpt)
        if len(data_block({"": groups}).encode("utf-8")) <= EXCERPT_BYTES:
            break
    return excerpt, groups


def _continuations(trace: Trace, excerpt: Excerpt) -> list[dict[str, Any]]:
    """What came out of every fork, by position, the most probable first.

    ``p`` is None where the sampler went on freely and the fork was not forced. Labels are column numbers of the curve,
    and one past the last for outcomes that have no column.
    """
    column = {label: k for k, label in enumerate(trace.labels)}
    elsewhere = column.get(OTHER, len(trace.labels))
    groups: dict[tuple[int, str], list[tuple[int, Draw]]] = {}
    for draw in sorted(trace.draws, key=lambda draw: (draw.stratum, draw.replicate)):
        label = column.get(draw.label, elsewhere)
        groups.setdefault((draw.stratum, draw.fork), []).append((label, draw))
    found = [_group(position, token, draws, excerpt) for (position, token), draws in groups.items()]
    return sorted(found, key=lambda group: (group["position"], -(group["p"] or 0.0), -group["drawn"], group["token"]))


def _group(position: int, token: str, draws: list[tuple[int, Draw]], excerpt: Excerpt) -> dict[str, Any]:
    counts: Counter[int] = Counter(label for label, _ in draws)
    return {
        "position": position,
        "token": token,
        "p": draws[0][1].payload.get("p"),
        "drawn": len(draws),
        "counts": sorted(counts.items()),
        "texts": [text for label in sorted(counts) for text in _texts(label, draws, excerpt)],
    }


def _texts(label: int, draws: list[tuple[int, Draw]], excerpt: Excerpt) -> list[dict[str, Any]]:
    """What the draws of one label wrote, the most frequent first; draws that wrote the same are one entry."""
    same = Counter(
        (text, draw.label, draw.payload.get("finish"))
        for own, draw in draws
        if own == label and isinstance(text := draw.payload.get("text"), str)
    )
    return [
        {"label": label, "said": said, "finish": finish, "times": times, **_shortened(text, excerpt)}
        for (text, said, finish), times in same.most_common(excerpt.texts)
    ]


def _shortened(text: str, excerpt: Excerpt) -> dict[str, Any]:
    omitted = len(text) - excerpt.head - excerpt.tail
    if omitted <= 0:
        return {"head": text}
    return {"head": text[: excerpt.head], "omitted": omitted, "tail": text[-excerpt.tail :]}


# ---------------------------------------------------------------- the file


def _asset(name: str) -> str:
    return resources.files("blinkscope.report").joinpath(name).read_text(encoding="utf-8")


def _source_hash(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style: the hash of its text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}'"


def _rounded(value: Any) -> Any:
    """JSON with its numbers shortened for display; what is not a finite number becomes null."""
    if isinstance(value, float):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _rounded(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(entry) for entry in value]
    return value
