"""Whether two formulas are the same, by math-verify, in the worker that ``grading.py`` starts.

It is loaded with this module, so that the first answer has as much time as every other one.
"""

from __future__ import annotations

import json
import logging

from math_verify import parse, verify

logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns of the limits that are off on purpose


def verdict(text: str) -> str | None:
    """``right``, ``wrong``, or None where one of the two cannot be read.

    text: a JSON object with the formulas ``gold`` and ``answer``.
    """
    asked = json.loads(text)
    # Its own time limits need the main thread's signals; the worker's limit stands in for them.
    gold, answer = (parse(f"${asked[name]}$", parsing_timeout=None) for name in ("gold", "answer"))
    if not gold or not answer:
        return None
    return "right" if verify(gold, answer, timeout_seconds=None) else "wrong"
