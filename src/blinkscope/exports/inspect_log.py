"""A run as a log of Inspect AI: one sample a generation, its label as the score, windows in the metadata."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.exports.generations import StoredGeneration
from blinkscope.outputs import Kind, check_file, written

SCORER, GRADE = "blinkscope", "grade"
LOG = Kind("log", "log of Inspect AI", re.compile(rb"PK"))


def check_log(path: Path) -> None:
    """Refuse, before any work, a log that could not be written, or that Inspect would not know.

    Raises
    ------
    UserError : the name does not end in .eval, or the place is refused (``outputs.check_file``).
    MissingExtra : Inspect AI is not installed.
    """
    if path.suffix != ".eval":
        raise UserError(f"{path} does not end in .eval; Inspect knows its logs by that.")
    check_file(path, LOG)
    if find_spec("inspect_ai") is None:
        raise MissingExtra("writing a log of Inspect AI", "inspect")


def write_inspect_log(
    path: Path, generations: Sequence[StoredGeneration], graded: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Write an ``.eval`` log; ``inspect_ai.log.read_eval_log`` and ``inspect view`` read it.

    Parameters
    ----------
    graded : by item, the right ``answer`` and whether the generation's is ``right``, where a study knows; a second
        score then says C or I.
    """
    check_log(path)
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, write_eval_log

    first = generations[0].trace.settings
    known = graded or {}
    samples = [
        _sample(number, generation, known.get(generation.item, {})) for number, generation in enumerate(generations)
    ]
    log = EvalLog(
        status="success",
        eval=EvalSpec(
            created=_now(),
            task="blinkscope",
            dataset=EvalDataset(name="blinkscope", samples=len(samples), sample_ids=[s.id for s in samples]),
            model=str(first.get("model")),
            config=EvalConfig(),
            metadata={name: first.get(name) for name in ("feature", "method", "seed", "sampling")},
        ),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples)),
        samples=samples,
    )
    with written(path, LOG) as file, tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "made.eval")
        write_eval_log(log, str(made), format="eval")
        file.write(made.read_bytes())


def _sample(number: int, generation: StoredGeneration, graded: Mapping[str, Any]) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ModelOutput
    from inspect_ai.scorer import Score

    said = generation.trace.to_json()
    prompt = said.get("prompt")
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt or [])
    if said.get("system"):
        turns.insert(0, {"role": "system", "content": said["system"]})
    if turns and turns[-1]["role"] == "assistant":  # the transcript that was looked into
        turns.pop()
    text = str(said.get("prefill") or "") + said["generation"]["text"]
    messages = [_message(**turn) for turn in turns]
    names = ("windows", "labels", "curve", "error", "cost", "status", "notes")
    return EvalSample(
        id=generation.item,
        epoch=1,
        input=messages,
        target=str(graded.get("answer", "")),
        messages=[*messages, ChatMessageAssistant(content=text)],
        output=ModelOutput.from_content(str(said.get("model")), text),
        scores={
            SCORER: Score(
                value=said["final_label"],
                answer=said["final_label"],
                explanation=_explanation(said["windows"]),
                metadata={name: said[name] for name in names},
            ),
            **_grade(graded.get("right")),
        },
        metadata={"number": number},
    )


def _grade(right: bool | None) -> dict[str, Any]:
    from inspect_ai.scorer import Score

    return {} if right is None else {GRADE: Score(value="C" if right else "I")}


def _message(role: str, content: str) -> Any:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}
    return kinds[role](content=content)


def _explanation(windows: Sequence[dict[str, Any]]) -> str:
    lines = [
        f"tokens {w['start']} to {w['end'] - 1} {json.dumps(w['text'], ensure_ascii=False)}: "
        f"change {w['change']:.2f} [{w['low']:.2f}, {w['high']:.2f}], probability {w['probability']:.2f}"
        for w in windows
    ]
    return "\n".join(lines) or "no window"


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="seconds")
