"""``import blinkscope`` and ``blinkscope --help`` load nothing heavy."""

from __future__ import annotations

import subprocess
import sys

import pytest

import blinkscope

HEAVY = ("scipy", "torch", "transformers", "matplotlib", "rich", "re2", "jaxtyping")


def loaded(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*(m for m in sys.modules if '.' not in m))"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import blinkscope",
        "import contextlib\nimport blinkscope.cli.main as m\nwith contextlib.suppress(SystemExit): m.main(['--help'])",
    ],
    ids=["import", "help"],
)
def test_nothing_heavy_is_loaded(code: str) -> None:
    assert loaded(code).isdisjoint(HEAVY)


def test_locate_on_a_toy_needs_no_torch() -> None:
    code = "import blinkscope; blinkscope.locate('toy:fork', 'hello', error=0.3)"
    assert loaded(code).isdisjoint({"torch", "transformers", "matplotlib"})


def test_every_public_name_resolves_and_none_hides_a_module() -> None:
    import pkgutil

    modules = {module.name for module in pkgutil.iter_modules(blinkscope.__path__)}
    for name in blinkscope.__all__:
        assert getattr(blinkscope, name) is not None
        assert name not in modules
    with pytest.raises(AttributeError, match="nothing"):
        _ = blinkscope.nothing
