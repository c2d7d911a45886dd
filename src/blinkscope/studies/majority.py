"""``study majority``: do windows help to answer better than a plain vote that costs as many tokens?

Four ways to answer a question are compared: one generation; going back to before its first window and writing on; the
most frequent answer of all its continuations; and the most frequent answer of fresh generations whose tokens together
are about as many as those of the continuations. The paper's authors found the plain vote better than the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON
from blinkscope.estimate.trace import Target, Trace
from blinkscope.feature import RESERVED
from blinkscope.plurals import counted
from blinkscope.replies import Ask, Beginning, Path, draw_replies
from blinkscope.reread import stored_generation
from blinkscope.runs.store import Run
from blinkscope.studies.cot import CotSpec, check_follow_up, looked_into, question_list, texts_of, transcript_of
from blinkscope.studies.grading import feature_for_grading, grade
from blinkscope.studies.intervals import clustered_interval
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem

WAYS = ("single", "before_window", "fork_majority", "plain_vote")


def _items(spec: CotSpec) -> list[StudyItem]:
    if spec.direct:
        raise UserError("study majority does not ask after every token; leave direct out, or take study cot.")
    return question_list(spec)


def _work(desk: Desk) -> Mapping[str, JSON]:
    question, trace = looked_into(desk)
    content, engine = desk.item.content, desk.engine
    path = Path(engine.encode(question.turns), ())
    ask = None if question.ask is None else Ask(engine.follow_up(path, question.ask))
    count = max(1, round(trace.cost.generated_tokens / len(trace.steps)))
    fresh = draw_replies(
        engine,
        {0: Beginning(path)},
        feature_for_grading(str(content["grading"])),
        question.sampling or desk.sampling,
        seed=desk.spec.asking.seed,
        count=count,
        keeper=desk.beside,
        stopwatch=desk.stopwatch,
        ask=ask,
    )
    votes = [draw.label for draw in fresh.values()]
    labels = dict.fromkeys([trace.final_label, *trace.labels, *(draw.label for draw in trace.draws), *votes])
    return {
        "question": content["question"],
        "grades": {label: grade(label, content) for label in labels},
        "votes": votes,  # type: ignore[dict-item]
        "vote_tokens": int(sum(draw.cost for draw in fresh.values())),
    }


def most_frequent(labels: Sequence[str]) -> str | None:
    """The label that most say, the first one seen where several tie; labels for "nothing found" do not vote."""
    counted = Counter(label for label in labels if label not in RESERVED)
    return counted.most_common(1)[0][0] if counted else None


def before_window(trace: Trace, right: Mapping[str, Any]) -> float:
    """Probability of a right answer when the first window is written again; without one the generation is kept."""
    windows = trace.windows()
    if not windows:
        return float(right.get(trace.final_label) is True)
    law = windows[0].before
    return sum(max(p, 0.0) for label, p in law.items() if right.get(label)) / sum(max(p, 0.0) for p in law.values())


def _read(run: Run, number: int, target: Target, outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    trace = stored_generation(run, number, target)
    right = outcome["grades"]
    return {
        **outcome,
        **texts_of(trace),
        "has_window": bool(trace.windows()),
        "tokens": len(trace.steps) + trace.cost.generated_tokens,
        "generation": len(trace.steps),
        "single": float(right.get(trace.final_label) is True),
        "before_window": before_window(trace, right),
        "fork_majority": float(right.get(most_frequent([draw.label for draw in trace.draws])) is True),
        "plain_vote": float(right.get(most_frequent(outcome["votes"])) is True),
    }


def _result(spec: CotSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    outcomes = [outcome for _, outcome in found]
    questions = [outcome["question"] for outcome in outcomes]
    spent = {
        "single": float(np.mean([o["generation"] for o in outcomes])),
        "plain_vote": float(np.mean([o["vote_tokens"] for o in outcomes])),
    }
    analysed = float(np.mean([o["tokens"] for o in outcomes]))
    rows: list[Row] = []
    for way in WAYS:
        values = np.array([outcome[way] for outcome in outcomes])
        limits = clustered_interval(questions, lambda i, v=values: float(v[i].mean()), target.level)  # type: ignore[misc]
        low, high = limits or (None, None)
        tokens = spent.get(way, analysed)
        rows.append({"way": way, "accuracy": float(values.mean()), "low": low, "high": high, "tokens": tokens})
    names = ("question", "has_window", *WAYS)
    items = [{"item": item, **{name: outcome[name] for name in names}} for item, outcome in found]
    summary: dict[str, JSON] = {"analysed": len(found), **{row["way"]: row["accuracy"] for row in rows}}
    best = max(row["accuracy"] for row in rows)
    first = ", ".join(row["way"].replace("_", " ") for row in rows if row["accuracy"] == best)
    over = counted(len(found), "generation")
    doubt = "look at the intervals before you believe it" if rows[0]["low"] is not None else "too few for an interval"
    said = f"Highest accuracy over {over}: {first}; {doubt}." if best else f"None of the ways was right, over {over}."
    transcripts = tuple(transcript_of(item, outcome) for item, outcome in found)
    return Findings(summary, {"ways": rows, "items": items}, (said,), transcripts)


STUDY = Study("majority", CotSpec(), _items, _work, _result, _read, prepare=check_follow_up)
