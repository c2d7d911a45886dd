"""Questions with a known answer: the paper's data sets, reasoning-gym, or a user's own file.

Every loader turns a row into the text of the question, with lettered options where it has some, the right answer, and
how an answer is graded: ``letter``, ``number``, ``math`` or ``reasoning-gym``. Logs of Inspect AI bring a conversation
with the generation to look into; see ``logs``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from blinkscope.errors import EngineError, MissingExtra, UserError
from blinkscope.studies.logs import logged_samples
from blinkscope.studies.prompts import load_rows, read_jsonl
from blinkscope.studies.study import StudyItem

LETTERS = "ABCDEFGHIJ"
LOGGED = ("messages", "sampling", "score")
GYM = "reasoning-gym:"
MATH_SUBJECTS = (
    *("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra"),
    "precalculus",
)

EVERYDAY = (
    ("How many days are in a week?", "7"),
    ("How many eggs are in a dozen?", "12"),
    ("How many months are in a year?", "12"),
    ("How many minutes are in an hour?", "60"),
    ("How many hours are in a day?", "24"),
    ("How many letters does the English alphabet have?", "26"),
    ("In which year did the Second World War end?", "1945"),
    ("In which year did people first walk on the Moon?", "1969"),
    ("How many sides does a triangle have?", "3"),
    ("How many legs does a spider have?", "8"),
    ("How many days are in two weeks?", "14"),
    ("How many minutes are in half an hour?", "30"),
    ("How many hours are in two days?", "48"),
    ("How many planets go around the Sun?", "8"),
    ("How many centimetres are in a metre?", "100"),
    ("How many legs do three cats have together?", "12"),
    ("Tom has 3 apples and gets 2 more. How many apples does he have?", "5"),
    ("Ann has 10 coins and gives away 4. How many coins are left?", "6"),
    ("At how many degrees Celsius does water boil?", "100"),
    ("How many wheels does a bicycle have?", "2"),
)
"""Easy questions; a very small model gets the first ten right now and then."""


@dataclass(frozen=True)
class Asked:
    """A question as a model is asked it, the right answer, and how an answer is graded.

    more: what reasoning-gym's own scorer needs. log: messages, sampling and score of a generation that was recorded.
    """

    text: str
    answer: str
    grading: str
    more: Mapping[str, Any] | None = None
    log: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class DataSet:
    """Where a data set lies on the hub, and how its rows are read.

    configurations: all of them are read, one after the other.
    """

    hub: str
    configurations: tuple[str | None, ...]
    split: str
    read: Callable[[Mapping[str, Any], int], Asked]


def lettered(question: str, options: Sequence[str], right: int) -> Asked:
    """A multiple-choice question with the options A, B, C ..."""
    if not 2 <= len(options) <= len(LETTERS):
        raise UserError(f"a question has {len(options)} options; from 2 to {len(LETTERS)} can be lettered.")
    if not 0 <= right < len(options):
        said = LETTERS[right] if 0 <= right < len(LETTERS) else f"number {right + 1}"
        raise UserError(f"the right option is {said}, but there are only {LETTERS[0]} to {LETTERS[len(options) - 1]}.")
    lines = [f"({letter}) {option.strip()}" for letter, option in zip(LETTERS, options, strict=False)]
    return Asked("\n".join([question.strip(), *lines]), LETTERS[right], "letter")


def _place(letter: str) -> int:
    """The place of an option among the lettered ones, from 0 on."""
    if len(letter) != 1 or letter not in LETTERS:
        raise UserError(f"the right option is {letter!r}; it must be a letter from {LETTERS[0]} to {LETTERS[-1]}.")
    return LETTERS.index(letter)


def _arc(row: Mapping[str, Any], seed: int) -> Asked:
    return lettered(row["question"], row["choices"]["text"], list(row["choices"]["label"]).index(row["answerKey"]))


def _aqua(row: Mapping[str, Any], seed: int) -> Asked:
    options = [str(option).partition(")")[2] for option in row["options"]]  # they come as "A)21"
    return lettered(row["question"], options, _place(str(row["correct"])))


def _logiqa(row: Mapping[str, Any], seed: int) -> Asked:
    options = [str(choice).removeprefix(f"({LETTERS[i]})") for i, choice in enumerate(row["choices"])]
    question = str(row["query"]).removeprefix("Q: ").partition(" Answer Choices:")[0]
    return lettered(question, options, int(row["gold"][0]))


def _mmlu(row: Mapping[str, Any], seed: int) -> Asked:
    return lettered(row["question"], row["choices"], int(row["answer"]))


def _truthfulqa(row: Mapping[str, Any], seed: int) -> Asked:
    """The right option stands first in the data, so the options are shuffled, each question by its own stream.

    Where there are more than can be lettered, the last wrong ones are left out.
    """
    choices, labels = row["mc1_targets"]["choices"], list(row["mc1_targets"]["labels"])
    right = labels.index(1)
    kept = [right, *(i for i in range(len(choices)) if i != right)][: len(LETTERS)]
    key = int.from_bytes(hashlib.sha256(str(row["question"]).encode()).digest()[:4], "big")
    order = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,))).permutation(kept)
    return lettered(row["question"], [choices[i] for i in order], [labels[i] for i in order].index(1))


def _math(row: Mapping[str, Any], seed: int) -> Asked:
    from blinkscope.features.reading import last_box

    answer = row.get("answer")
    box = None if answer else last_box(str(row["solution"]))
    if not answer and box is None:
        raise UserError("the solution has no \\boxed answer.")
    return Asked(str(row["problem"]), str(answer or (box and box[1])), "math")


def _gsm8k(row: Mapping[str, Any], seed: int) -> Asked:
    _, mark, answer = str(row["answer"]).rpartition("####")
    if not mark:
        raise UserError("the answer has no line '#### N'.")
    return Asked(str(row["question"]), answer.strip().replace(",", ""), "number")


DATA_SETS: Mapping[str, DataSet] = {
    "arc-challenge": DataSet("allenai/ai2_arc", ("ARC-Challenge",), "test", _arc),
    "arc-easy": DataSet("allenai/ai2_arc", ("ARC-Easy",), "test", _arc),
    "aqua": DataSet("deepmind/aqua_rat", ("raw",), "test", _aqua),
    "logiqa": DataSet("hails/agieval-logiqa-en", (None,), "test", _logiqa),
    "mmlu": DataSet("cais/mmlu", ("all",), "test", _mmlu),
    "truthfulqa": DataSet("truthfulqa/truthful_qa", ("multiple_choice",), "validation", _truthfulqa),
    "math": DataSet("EleutherAI/hendrycks_math", MATH_SUBJECTS, "test", _math),
    "gsm8k": DataSet("openai/gsm8k", ("main",), "test", _gsm8k),
    "math500": DataSet("HuggingFaceH4/MATH-500", (None,), "test", _math),
}


def question_items(
    data: Sequence[str], most: int, samples: int, seed: int, score: str | None = None
) -> list[StudyItem]:
    """The first ``most`` questions of each data set, each ``samples`` times.

    Parameters
    ----------
    data : each ``everyday`` (built in), a name of ``DATA_SETS`` (``NAME:FOLDER`` reads a local copy with the same
        columns), ``reasoning-gym:NAME``, ``FILE.jsonl`` with ``question``, ``answer`` and perhaps ``options`` (then the
        answer is a letter), ``grading`` and ``id``, or ``FILE.eval``, a log of Inspect AI.
    score : which samples of a log are taken; see ``logged_samples``.

    Raises
    ------
    UserError : there is no such data, or it is empty. A row without what it needs is an item that fails.
    EngineError : the only data set cannot be reached. One of several is a single item that says so.
    """
    if not data:
        raise UserError("no data is named; give everyday, for instance.")
    names = [source if source.startswith(GYM) else Path(source.partition(":")[0]).stem for source in data]
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(
                f"{count} of the data sets are called {name!r}; name each once, files under different names."
            )
    items = []
    for source, name in zip(data, names, strict=True):
        try:
            found = list(islice(_questions(source, most, seed, score), most))
        except EngineError as error:
            if len(data) == 1:
                raise
            items.append(StudyItem(name, {"data": name, "unreached": str(error)}))
            continue
        if not found:
            raise UserError(f"{source} holds no question; give it one at least, or leave it out.")
        for id_, question in found:
            place = "" if len(data) == 1 else f"{name} "
            content = _content(question, id_)
            content |= {"question": f"{place}{content['question']}", "data": name}
            numbers = [f" #{sample + 1}" for sample in range(samples)] if samples > 1 else [""]
            items += [StudyItem(f"{place}{id_}{number}", content) for number in numbers]
    return items


def _content(question: Asked | str, id_: str) -> dict[str, Any]:
    if isinstance(question, str):
        return {"question": id_, "problem": question}
    content: dict[str, Any] = {"prompt": question.text, "answer": question.answer, "grading": question.grading}
    if question.more:
        content["more"] = json.dumps(question.more, default=str)
    if question.log is None:
        return {"question": id_, **content}
    # All epochs of a sample are one question.
    return {"question": question.log["question"], **content, "log": {name: question.log[name] for name in LOGGED}}


def _questions(data: str, most: int, seed: int, score: str | None) -> Iterator[tuple[str, Asked | str]]:
    name, _, place = data.partition(":")
    if data.startswith(GYM):
        return _gym(place, most, seed)
    if data == "everyday":
        return ((str(i), Asked(text, answer, "number")) for i, (text, answer) in enumerate(EVERYDAY, 1))
    if name in DATA_SETS:
        return _each(_rows(DATA_SETS[name], place), DATA_SETS[name].read, seed)
    if data.endswith(".jsonl"):
        return _each(read_jsonl(Path(data)), _own, seed)
    if data.endswith(".eval"):
        return _each(logged_samples(Path(data), score), _logged, seed)
    known = f"everyday, {', '.join(DATA_SETS)}, {GYM}NAME, FILE.jsonl or FILE.eval"
    raise UserError(f"there is no data {data!r}; give {known}.")


def _rows(source: DataSet, place: str) -> Iterator[Mapping[str, Any]]:
    for configuration in source.configurations:
        folder = f"{place}/{configuration}" if place and len(source.configurations) > 1 else place
        yield from load_rows(folder or source.hub, configuration, source.split, local=bool(place))


def _each(
    rows: Iterator[Mapping[str, Any]], read: Callable[[Mapping[str, Any], int], Asked], seed: int
) -> Iterator[tuple[str, Asked | str]]:
    """Every row as a question; one that cannot be read as the sentence that says why."""
    for number, row in enumerate(rows, 1):
        id_ = str(row.get("id") or row.get("unique_id") or number)
        try:
            yield id_, read(row, seed)
        except KeyError as error:
            yield id_, f"question {id_} has no column {error}; it has {', '.join(map(str, row))}."
        except (UserError, ValueError, IndexError, TypeError) as error:
            yield id_, f"question {id_} cannot be read: {error}"


def _logged(row: Mapping[str, Any], seed: int) -> Asked:
    """A sample of a log; its answers are letters where it offers choices, else numbers or formulas as its target is."""
    if "problem" in row:
        raise UserError(f"{row['problem']}.")
    target = str(row["target"]).strip()
    if not target:
        raise UserError("it has no target, so its answers cannot be graded.")
    if row["choices"]:
        grading = "letter"
    else:
        grading = "number" if re.fullmatch(r"[-+$]?[0-9][0-9,]*(\.[0-9]+)?%?", target) else "math"
    return Asked(str(row["messages"][-2]["content"]), target, grading, log=row)


def _own(row: Mapping[str, Any], seed: int) -> Asked:
    """A line of a user's file: lettered options with a letter, or a free answer that is a number or a formula."""
    question, answer = str(row["question"]), str(row["answer"]).strip()
    if "options" in row:
        return lettered(question, [str(option) for option in row["options"]], _place(answer))
    grading = str(row.get("grading", "number"))
    if grading not in ("number", "math", "letter"):
        raise UserError(f"its grading is {grading!r}; it can be number, math or letter.")
    return Asked(question, answer, grading)


def _gym(name: str, size: int, seed: int) -> Iterator[tuple[str, Asked | str]]:
    try:
        import reasoning_gym
    except ImportError:
        raise MissingExtra(f"{GYM}{name}", "study") from None
    try:
        data = reasoning_gym.create_dataset(name, size=size, seed=seed)
    except ValueError as error:
        raise UserError(f"reasoning-gym has no generator {name!r}: {error}") from None
    for i, entry in enumerate(data):
        more = {"name": name, "size": size, "seed": seed, "index": i}
        yield f"{name} {i + 1}", Asked(entry["question"], str(entry["answer"]), "reasoning-gym", more)
