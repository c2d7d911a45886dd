"""Whether an answer is right: letters and numbers by comparison, formulas by math-verify, puzzles by their own scorer.

math-verify can hang on hostile formulas, so it works in a process of its own that is killed after a time limit (the
same worker that runs ``python:`` features). An answer whose grading fails is counted as such, never as wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

from blinkscope.errors import MissingExtra, UserError
from blinkscope.feature import RESERVED, Feature, Reply
from blinkscope.features import open_feature
from blinkscope.features.python import PythonFunction
from blinkscope.features.reading import as_label, last_box, settled_text

MATH_SECONDS = 10.0
FEATURES = {"letter": "choice", "number": "number"}
ANSWER_IS = "the answer is"


class FinalAnswer:
    """The formula or text that a reply gives as its answer.

    What the last ``\\boxed`` holds, else what stands after the last "The answer is", without its dollar signs and the
    stop at its end.
    """

    name = "final-answer"

    def label(self, sample: Reply) -> str | None:
        text = settled_text(sample)
        box = last_box(text)
        start = text.casefold().rfind(ANSWER_IS)
        if box is not None and box[0] > start:
            return as_label(box[1])
        if start < 0:
            return None
        return as_label(text[start + len(ANSWER_IS) :].strip().split("\n")[0].strip(" :$.*"))


def feature_for_grading(grading: str) -> Feature[Reply]:
    """How the answers to be graded are read from a reply.

    Raises
    ------
    MissingExtra : they could not be graded; said before anything is drawn.
    """
    if grading == "math" and find_spec("math_verify") is None:
        raise MissingExtra("grading formulas", "study")
    return open_feature(FEATURES[grading]) if grading in FEATURES else FinalAnswer()


def grade(label: str, content: Mapping[str, Any]) -> bool | None:
    """Whether a label is the right answer of an item; None where its grading failed.

    Labels for "nothing found" are not right: the model gave no answer.
    """
    if label in RESERVED:
        return False
    grading, answer = str(content["grading"]), str(content["answer"])
    if grading == "letter":
        return label == answer
    if grading == "number":
        right = open_feature("number").label(Reply(f"The answer is {answer}", finished=True))
        return label == right
    if grading == "math":
        return _verified(label, answer)
    return _scored(label, json.loads(str(content["more"])))


def _verified(label: str, answer: str) -> bool | None:
    try:
        said = _math_worker().label(Reply(json.dumps({"gold": answer, "answer": label}), finished=True))
    except UserError:  # it hung, or math-verify raised
        return None
    return None if said is None else said == "right"


@cache
def _math_worker() -> PythonFunction:
    return PythonFunction("blinkscope.studies.formulas", "verdict", time_limit=MATH_SECONDS)


@cache
def _gym_data(name: str, size: int, seed: int) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, size=size, seed=seed)


def _scored(label: str, more: Mapping[str, Any]) -> bool:
    """Only the full score is right."""
    data = _gym_data(str(more["name"]), int(more["size"]), int(more["seed"]))
    return float(data.score_answer(label, data[int(more["index"])])) == 1.0
