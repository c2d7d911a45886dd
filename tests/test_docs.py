"""Blocks of code in the documents run, and every command and option is in the guide."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from blinkscope.cli.parser import build
from blinkscope.engines.toy_models import open_toy, toy_models

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\S*)( notest)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [m[3] for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m[1] == language and not m[2]]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_commands_are_spelled_right(page: Path) -> None:
    parser = build()
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["blinkscope"]:
                parser.parse_args(words[1:])


def test_every_option_is_in_the_guide() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (commands,) = (action for action in build()._actions if isinstance(action.choices, dict))
    assert isinstance(commands.choices, dict)
    for name, command in commands.choices.items():
        assert re.search(rf"\b{name}\b", guide), name
        for action in command._actions:
            for option in action.option_strings:
                if option not in ("-h", "--help", "--output"):
                    assert f"`{option}" in guide or f"{option} " in guide, f"{name} {option}"


def test_every_toy_model_is_in_the_guide_and_opens_as_spelled_there() -> None:
    guide = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| `toy:(\S+)`", guide, re.MULTILINE)
    assert [spelling.partition("?")[0] for spelling in shown] == list(toy_models())
    for spelling in shown:
        open_toy(spelling)


def test_the_documents_speak_of_links_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
