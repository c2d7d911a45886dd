"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

from jaxtyping import config, install_import_hook

from tests import shapes

# Before anything of the package is imported: where arrays are what it is about, annotations are checked at every call.
install_import_hook(shapes.MODULES, f"{shapes.__name__}.checked")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from blinkscope.engines import open_engine  # noqa: E402
from blinkscope.language.engine import Engine  # noqa: E402
from tests.engines import llama  # noqa: E402

# Jobs in a shell's background ignore Ctrl-C, and so would every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more about the machine than about the code. Examples follow from the test, not from
# chance, but for the constants of loaded modules that are mixed in; ``--hypothesis-profile=search`` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile("same")


@pytest.fixture(scope="session")
def smollm2() -> Engine:
    """The embedded model, loaded once for all tests that are marked ``model``."""
    return open_engine("smollm2")


@pytest.fixture(scope="session")
def llama_server() -> Iterator[llama.LlamaProcess]:
    """llama.cpp's own server on the embedded model's file, for tests that are marked ``model``."""
    server = llama.LlamaProcess()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def _misuse(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test marked ``misuse`` hands over what the annotations forbid, to see what a user is told."""
    config.update("jaxtyping_disable", request.node.get_closest_marker("misuse") is not None)
    yield
    config.update("jaxtyping_disable", False)
