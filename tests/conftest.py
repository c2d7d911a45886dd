"""Fixtures that several folders of tests share."""

from __future__ import annotations

import pytest

from blinkscope.engines import open_engine
from blinkscope.language.engine import Engine


@pytest.fixture(scope="session")
def smollm2() -> Engine:
    """The embedded model, loaded once for all tests that are marked ``model``."""
    return open_engine("smollm2")
