"""``study cot``: windows in chains of thought, and whether they go with wrong answers ([LKC25], Table 1, Figures 4, 5).

Every question is answered step by step; the answer is elicited by a follow-up turn at temperature 0, or read from the
text. The generation is then looked into as ``locate`` does, and its answers are graded.
``study temperature`` is the same over several temperatures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from blinkscope.errors import UserError
from blinkscope.estimate.record import DEFAULT_FRACTIONS, MethodOptions
from blinkscope.estimate.source import JSON, Draw
from blinkscope.estimate.trace import Target, Trace
from blinkscope.plurals import counted
from blinkscope.question import Question, check_sampling, messages
from blinkscope.replies import Ask, Beginning, Path, draw_replies
from blinkscope.reread import stored_generation
from blinkscope.runs.store import Run
from blinkscope.session import locate_item
from blinkscope.studies.accuracy import jump_rows, place_rows, table_one
from blinkscope.studies.curves import POINTS, curve_rows, mean_curve, said_of, window_row
from blinkscope.studies.grading import feature_for_grading, grade
from blinkscope.studies.questions import question_items
from blinkscope.studies.specs import Asking
from blinkscope.studies.study import Desk, Findings, Row, Study, StudyItem
from blinkscope.studies.transcripts import Transcript, pieces_of

SYSTEM = "You are an expert who gives a correct solution to the user's question."
THINK = "\n\nThink it through thoroughly, step by step, and give the answer only after that."
ASK = {
    "letter": "What is the single, most likely answer? Reply in the form: The answer is (LETTER).",
    "number": "What is the single, most likely answer? Reply in the form: The answer is NUMBER.",
    "math": "What is the single, most likely answer, simplified? Reply in the form: The answer is $FORMULA$.",
    "reasoning-gym": "What is the single, most likely answer? Reply in the form: The answer is ANSWER",
}
THINK_TOKENS = 160
"""Cap of a generation where neither the spec nor a log says another one."""
ANSWER_TOKENS = 32
"""Cap of an answer to the follow-up turn."""


@dataclass(frozen=True)
class CotSpec:
    """What ``study cot`` is asked.

    data: see ``question_items``. items: questions of each; samples: generations of each question. score: which samples
    of a log of Inspect are taken. ask: elicit the answer by a follow-up turn. direct: also ask for the answer after
    every token, instead of continuing ([LKC25], Figure 11). method, fractions, resamples: as with ``locate``.
    temperatures: the study is done at each; none takes the one of ``asking``. asking: its system prompt is for
    questions; a log brings the conversation with its own. What it does not say about sampling is as a log recorded it.
    """

    data: tuple[str, ...] = ("everyday",)
    items: int = 10
    samples: int = 1
    score: str | None = None
    ask: bool = True
    direct: bool = False
    method: str = "divergence"
    fractions: tuple[float, ...] = DEFAULT_FRACTIONS
    resamples: int = 100
    temperatures: tuple[float, ...] = ()
    asking: Asking = field(default_factory=lambda: Asking(system=SYSTEM))
    target: Target = field(default_factory=lambda: Target(error=0.15))

    def __post_init__(self) -> None:
        self.options  # noqa: B018  # refuses what there is not
        if self.items < 1 or self.samples < 1:
            raise UserError(f"items and samples are {self.items} and {self.samples}; each must be at least 1.")
        for temperature in self.temperatures:
            check_sampling(temperature=temperature)
        logs = [source.endswith(".eval") for source in self.data]
        if self.score is not None and not any(logs):
            raise UserError(f"score is {self.score!r}, which picks samples of a log; the data names no FILE.eval.")
        if logs and all(logs) and self.asking.system not in (None, SYSTEM):
            raise UserError("a system prompt is given, but a log brings the conversation with its own; leave it out.")

    @property
    def options(self) -> MethodOptions:
        return MethodOptions(self.method, self.fractions, self.resamples)

    @property
    def most_items(self) -> int:
        """As many generations as are asked for; data may hold fewer questions."""
        return len(self.data) * self.items * self.samples * max(1, len(self.temperatures))


def question_list(spec: CotSpec) -> list[StudyItem]:
    """The questions, at each temperature.

    Raises
    ------
    UserError : there is no such data, or one temperature is given and several too.
    """
    if spec.temperatures and spec.asking.temperature is not None:
        each = ", ".join(f"{temperature:g}" for temperature in spec.temperatures)
        raise UserError(
            f"temperature is {spec.asking.temperature:g}, but the study is done at each of the temperatures {each}; "
            "leave --temperature out, or set --temperatures."
        )
    items = question_items(spec.data, spec.items, spec.samples, spec.asking.seed, spec.score)
    if not spec.temperatures:
        return items
    return [
        StudyItem(f"{item.id} at {temperature:g}", {**item.content, "temperature": temperature})
        for temperature in spec.temperatures
        for item in items
    ]


def check_follow_up(spec: CotSpec, engine: Any, options: Mapping[str, Any] | None) -> None:
    """Refuse, before the first item, a model that cannot be asked for its answer."""
    if not spec.ask and not spec.direct:
        return
    try:
        engine.follow_up(Path(engine.encode("Why?"), ()), ASK["number"])
    except UserError as error:
        without = ", without --direct" if spec.direct else ""
        raise UserError(
            f"{error} In a study that is --from-text{without}: the answer is read from the reply."
        ) from None


def looked_into(desk: Desk) -> tuple[Question, Trace]:
    """An item's question as the model is asked it, and the result for one generation."""
    question = _question(desk)
    trace = locate_item(desk.keeper, desk.engine, question, desk.target, stopwatch=desk.stopwatch, watch=desk.watch)
    if trace.status == "interrupted":  # the loop keeps what was drawn; the item is not finished
        raise KeyboardInterrupt
    return question, trace


def _question(desk: Desk) -> Question:
    """What an item asks: a question with a request to think, or a recorded conversation with its own settings."""
    spec: CotSpec = desk.spec
    content, asked = desk.item.content, spec.asking.sampling
    grading = str(content["grading"])
    log: Any = content.get("log")
    recorded: dict[str, Any] = {"max_new_tokens": THINK_TOKENS, **(log["sampling"] if log else {})}
    changes = {name: value for name, value in recorded.items() if name not in asked}  # what was asked for comes first
    if "stop" in changes:
        changes["stop"] = tuple(changes["stop"])
    if "temperature" in content:
        changes["temperature"] = float(content["temperature"])  # type: ignore[arg-type]
    return Question(
        messages(log["messages"]) if log else str(content["prompt"]) + THINK,
        system=None if log else spec.asking.system,
        feature=feature_for_grading(grading),
        ask=ASK[grading] if spec.ask else None,
        sampling=replace(desk.sampling, **changes),
        method=spec.options,
        seed=spec.asking.seed,
    )


def _work(desk: Desk) -> Mapping[str, JSON]:
    question, trace = looked_into(desk)
    content = desk.item.content
    direct = _direct_answers(desk, question, trace) if desk.spec.direct else []
    place = {name: content.get(name) for name in ("question", "data", "answer", "temperature")}
    log: Any = content.get("log")
    if log:
        place["score"] = ", ".join(f"{name}: {value}" for name, value in sorted(log["score"].items()))
    labels = dict.fromkeys([*trace.labels, trace.final_label, *direct])
    grades = {label: grade(label, content) for label in labels}
    return {**place, "grades": grades, "status": trace.status, "direct": direct}  # type: ignore[dict-item]


def _direct_answers(desk: Desk, question: Question, trace: Trace) -> list[str]:
    """The label of the answer at temperature 0 when the model is stopped after 0, 1, 2 ... tokens and asked.

    A length cap of one token stops every reply that keeps some of the path at once, so that all of them are asked after
    the keys and values of the one path. With nothing kept there is no reply to stop, and the question is a prompt.
    """
    engine, context = desk.engine, desk.engine.encode(question.turns)
    tokens = tuple(int(step.id) for step in trace.steps if step.id is not None)
    if trace.text and engine.decode(tokens[-1:]) == "":
        tokens = tokens[:-1]  # the end of the turn, which the follow-up spells itself
    grading = str(desk.item.content["grading"])
    path, ids = Path(context, tokens), engine.follow_up(Path(context, ()), ASK[grading])
    at_once = {0: Beginning(Path(replace(context, ids=(*context.ids, *ids)), ()))}
    stopped = {kept: Beginning(path, kept) for kept in range(1, len(tokens) + 1)}
    draws: dict[tuple[int, int], Draw] = {}
    asked = ((at_once, ANSWER_TOKENS, None), (stopped, 1, Ask(ids, ANSWER_TOKENS)))
    for beginnings, cap, ask in asked if tokens else asked[:1]:
        draws |= draw_replies(
            engine,
            beginnings,
            feature_for_grading(grading),
            replace(desk.sampling, temperature=0.0, max_new_tokens=cap),
            seed=desk.spec.asking.seed,
            count=1,
            keeper=desk.beside,
            stopwatch=desk.stopwatch,
            ask=ask,
        )
    return [draws[kept, 0].label for kept in range(len(tokens) + 1)]


def _read(run: Run, number: int, target: Target, outcome: Mapping[str, Any]) -> Mapping[str, Any]:
    """The outcome with what the curve says, for this target."""
    trace = stored_generation(run, number, target)
    said = {**outcome, **said_of(trace), **texts_of(trace), "right": outcome["grades"].get(trace.final_label)}
    return {**said, "direct_curve": _direct_curve(outcome["direct"], trace)}


def _direct_curve(answers: Sequence[str], trace: Trace) -> list[float]:
    """Whether the direct answer is the final one, at the places of ``curve``; empty where nothing was asked."""
    if not answers:
        return []
    same = [answer == trace.final_label for answer in answers]
    places = np.linspace(0, len(same) - 1, POINTS)
    return [float(same[int(place)]) for place in places]


def texts_of(trace: Trace) -> dict[str, Any]:
    """What the report shows of a generation: the last turn of the user, and the text with its windows."""
    prompt = trace.settings.get("prompt")
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    asked = [str(turn["content"]) for turn in turns if isinstance(turn, dict) and turn.get("role") == "user"]
    shown = asked[-1].removesuffix(THINK) if asked else ""
    return {"label": trace.final_label, "prompt": shown, "pieces": pieces_of(trace)}


def transcript_of(item: str, outcome: Mapping[str, Any]) -> Transcript:
    right = outcome["grades"].get(outcome["label"])
    note = {True: "right", False: "wrong"}.get(right, "not graded")
    return Transcript(item, str(outcome["label"]), outcome["pieces"], outcome["prompt"], note)


def _result(spec: CotSpec, target: Target, found: Sequence[tuple[str, Mapping[str, Any]]]) -> Findings:
    rows = [_row(item, outcome) for item, outcome in found]
    groups = _groups(rows)
    windows = [window_row(item, outcome["tokens"], w) for item, outcome in found for w in outcome["windows"]]
    first = table_one(rows, target.level)
    lines = [table_one(members, target.level, **place) for place, members in groups]
    curves = [row for item, outcome in found for row in _curve(item, outcome)]
    means = [
        {**place, **point}
        for place, members in groups
        for point in mean_curve({row["item"]: row["question"] for row in members}, curves, target.level)
    ]
    tables: dict[str, Sequence[Row]] = {
        "table": lines,
        "generations": rows,
        "windows": windows,
        "jumps": jump_rows(rows, target.level),
        "places": place_rows(windows),
        "mean_curves": means,
        "curves": curves,
    }
    summary: dict[str, JSON] = {"analysed": len(rows), **first}
    if target.until == "error":
        summary["reached_error"] = sum(row["error"] <= target.error for row in rows)
    sentences = _sentences(first)
    if spec.direct:
        direct, resampled = (float(np.mean([row[name] for row in curves])) for name in ("direct", "share"))
        summary |= {"mean_direct": direct, "mean_resampled": resampled}
        sentences.append(
            f"Averaged along the generations, the direct answer is the final one with {direct:.2f}, the answer after "
            f"continuing with {resampled:.2f}."
        )
    return Findings(summary, tables, sentences, tuple(transcript_of(item, outcome) for item, outcome in found))


def _curve(item: str, outcome: Mapping[str, Any]) -> list[Row]:
    rows = curve_rows(outcome["curve"], item=item, data=outcome["data"])
    direct = outcome["direct_curve"]
    return [{**row, "direct": value} for row, value in zip(rows, direct, strict=True)] if direct else rows


def _row(item: str, outcome: Mapping[str, Any]) -> Row:
    names = (
        "question",
        "data",
        "temperature",
        "answer",
        "label",
        "right",
        "tokens",
        "covered",
        "largest_jump",
        "largest_fall",
        "error",
    )
    said = {"item": item, **{name: outcome.get(name) for name in names}, "windows": len(outcome["windows"])}
    return {**said, "score": outcome["score"]} if "score" in outcome else said


def _groups(rows: Sequence[Row]) -> list[tuple[dict[str, Any], list[Row]]]:
    """Generations of one data set and temperature, in the order in which they come."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["data"], row["temperature"]), []).append(row)
    with_temperature = any(temperature is not None for _, temperature in groups)
    return [
        ({"data": data, **({"temperature": temperature} if with_temperature else {})}, members)
        for (data, temperature), members in groups.items()
    ]


def _sentences(line: Mapping[str, Any]) -> list[str]:
    said = [
        f"{line['share_with_window']:.0%} of {counted(line['generations'], 'generation')} have a window; windows cover "
        f"{line['covered']:.1%} of the text."
    ]
    for name, words in (
        ("dacc", "Accuracy of generations without a window, less that of those with one"),
        ("dcw", "Share of generations with a window among wrong answers, less that among right ones"),
    ):
        if line[name] is None:
            said.append(f"{words}: not defined here, one of the two groups is empty.")
        else:
            low, high = line[f"{name}_low"], line[f"{name}_high"]
            interval = "" if low is None else f" [{low:.2f}, {high:.2f}]"
            said.append(f"{words}: {line[name]:.2f}{interval}.")
    if line["ungraded"]:
        said.append(f"{counted(line['ungraded'], 'answer')} could not be graded; no accuracy counts them.")
    return said


STUDY = Study("cot", CotSpec(), question_list, _work, _result, _read, prepare=check_follow_up)
TEMPERATURE = replace(STUDY, name="temperature", default=CotSpec(temperatures=(0.1, 0.4, 0.7, 1.0)))
