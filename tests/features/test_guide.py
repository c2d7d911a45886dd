"""The guide's examples run, and it knows every feature."""

import re
from pathlib import Path

from blinkscope.features import FEATURES

GUIDE = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")


def test_the_examples_of_the_guide_are_right():
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert len(blocks) > len(FEATURES)


def test_every_feature_has_a_section():
    sections = set(re.findall(r"^## `(\w+)", GUIDE, re.MULTILINE))
    assert sections == set(FEATURES)
