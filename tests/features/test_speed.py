"""A reply of a million characters, whatever it holds, is labelled in time linear in its length.

The built-in features take about half a second at most for these; anything quadratic takes minutes, so that the limit
tells the two apart on a slow machine too. It is the processor's time that counts: other programs do not add to it.
"""

import time

import pytest

from blinkscope.feature import Reply
from blinkscope.features import open_feature

LENGTH = 1_000_000
SECONDS = 10.0
UNITS = [
    "a", "1", "1,", "1/", "1.", "-", " ", "\n", "(", "{", "\\boxed{", "\\boxed ", "\\text{", "\\frac{1}{", "</think>",
    "B\n", "A) cat\n", "answer is ", "the answer is ", "answer to ", "answer: the one ", "answer is 1+",
    "answer: = 1 = ", "not choose B ", "or B ", "#### 1\n", "I can't ", "i can't x y ", "\ud800", "\u00e9",
]  # fmt: skip


@pytest.mark.parametrize(
    "spec", ["number", "choice", "exact", "refusal", "contains:zz", r"regex:a(.*b)?", r"regex:(?i)answer: (\w+)|\d+"]
)
def test_a_million_characters(spec):
    feature = open_feature(spec)
    for unit in UNITS:
        body = (unit * (LENGTH // len(unit) + 1))[:LENGTH]
        for reply in (Reply(body, finished=True), Reply("answer is (" + body, finished=False)):
            started = time.process_time()
            feature.label(reply)
            assert time.process_time() - started < SECONDS, f"{spec} took too long on {unit!r}"
