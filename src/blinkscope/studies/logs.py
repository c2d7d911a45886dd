"""Samples of a log of Inspect AI (``.eval``) as generations to look into.

A log holds texts, not tokens: the conversation is put through the model's chat template again, and its last assistant's
turn is the generation. The settings that it was sampled with are the log's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.studies.prompts import LARGEST_FILE

SETTINGS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "max_tokens": "max_new_tokens",
    "stop_seqs": "stop",
}
"""Inspect's names of sampling settings, and ours."""


def logged_samples(path: Path, score: str | None = None) -> Iterator[Mapping[str, Any]]:
    """The samples of a log, one mapping each.

    Parameters
    ----------
    score : ``NAME=VALUE`` takes the samples to which the scorer NAME gave VALUE, ``VALUE`` those to which any scorer
        did; numbers are compared as numbers.

    Returns
    -------
    samples : ``id``, ``question`` (the id without the epoch), ``messages`` (of which the last is the assistant's),
        ``target``, ``choices``, ``sampling`` (our names), and ``score`` (by scorer). A sample that cannot be used has a
        ``problem`` in place of these.

    Raises
    ------
    UserError : the file cannot be read, no sample has that score, or no scorer that name.
    """
    if find_spec("inspect_ai") is None:
        raise MissingExtra("reading a log of Inspect AI", "inspect")
    from inspect_ai.log import read_eval_log

    try:
        if path.stat().st_size > LARGEST_FILE:
            raise UserError(f"{path} has more than {LARGEST_FILE:,} bytes; give a smaller file.")
        log = read_eval_log(str(path), resolve_attachments=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{path} is no log of Inspect AI: {str(error).splitlines()[0]}.") from None
    sampling = _sampling(log)
    samples = log.samples or []
    chosen = [sample for sample in samples if score is None or _has(sample, score)]
    if not chosen:
        names = sorted({name for sample in samples for name in sample.scores or {}})
        why = "" if score is None else f" with the score {score!r}; its scorers are {', '.join(names) or 'none'}"
        raise UserError(f"{path} holds no sample{why}.")
    epochs = len({sample.epoch for sample in samples}) > 1
    for sample in chosen:
        yield _sample(sample, sampling, f" epoch {sample.epoch}" if epochs else "")


def _sampling(log: Any) -> dict[str, Any]:
    """Settings of the task's plan, and over them those of the model."""
    found: dict[str, Any] = {}
    for config in (log.plan.config, log.eval.model_generate_config):
        given = {ours: getattr(config, theirs, None) for theirs, ours in SETTINGS.items()}
        found |= {name: value for name, value in given.items() if value is not None}
    return found


def _has(sample: Any, score: str) -> bool:
    name, equals, value = score.rpartition("=")
    return any(
        _same(found.value, value) for scorer, found in (sample.scores or {}).items() if not equals or scorer == name
    )


def _same(value: Any, asked: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value) == float(asked)
        except ValueError:
            return False
    return str(value) == asked


def _sample(sample: Any, sampling: Mapping[str, Any], epoch: str) -> Mapping[str, Any]:
    id_ = f"{sample.id}{epoch}"
    messages = [{"role": message.role, "content": _text(message)} for message in sample.messages]
    if any(message["role"] not in ("system", "user", "assistant") for message in messages):
        return {"id": id_, "problem": "it calls tools, whose answers cannot be drawn again"}
    if len(messages) < 2 or messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        return {"id": id_, "problem": "it does not end with an assistant's reply"}
    return {
        "id": id_,
        "question": str(sample.id),
        "messages": messages,
        "target": sample.target if isinstance(sample.target, str) else next(iter(sample.target), ""),
        "choices": list(sample.choices or ()),
        "sampling": dict(sampling),
        "score": {name: str(score.value) for name, score in (sample.scores or {}).items()},
    }


def _text(message: Any) -> str:
    """A message's text. Thinking is part of the generation, and stands before the rest as templates write it."""
    if isinstance(message.content, str):
        return message.content
    parts = []
    for part in message.content:
        if part.type == "reasoning":
            parts.append(f"<think>\n{part.reasoning}\n</think>\n\n")
        elif part.type == "text":
            parts.append(part.text)
    return "".join(parts)
