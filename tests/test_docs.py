"""Blocks of code in the documents run, and every command and option is in the guide."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from blinkscope.cli.main import main
from blinkscope.cli.parser import build, parse
from blinkscope.engines.toy_models import open_toy, toy_models
from blinkscope.worlds import WORLDS, create_world
from blinkscope.worlds.report import table_markdown, table_row

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
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["blinkscope"]:
                parse(words[1:])


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


def test_the_table_of_the_worlds_is_what_the_code_says() -> None:
    """Exact worlds only, up to the measured column: draws may differ between versions of numpy."""
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    shown = page.split("<!-- worlds --table -->\n")[1].split("<!-- end -->")[0].splitlines()[:-2]
    documented = [[cell.strip() for cell in line.split("|")[1:-2]] for line in shown]
    named = dict.fromkeys((line[0], line[1]) for line in documented[2:])
    assert list(named) == [(name, eps) for name in WORLDS for eps in ("0.05", "0.1", "0.2")]
    exact = ("two-gaussians", "masked-strings", "critical-token", "random-walk", "permuted-masking", "topic-drift")
    rows = tuple(table_row(create_world(name), eps) for name in exact for eps in (0.05, 0.1, 0.2))
    written = [[cell.strip() for cell in line.split("|")[1:-2]] for line in table_markdown(rows).splitlines()[:-2]]
    assert [line for line in documented if line[0] in ("world", *exact)] == [written[0], *written[2:]]


@pytest.mark.parametrize("name", ["two-gaussians", "masked-strings", "critical-token", "random-walk", "topic-drift"])
def test_the_figures_of_exact_worlds_are_what_their_commands_draw(name: str, tmp_path: Path) -> None:
    """Numbers to a tenth of a point: processors differ in the last digits."""
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    (words,) = re.findall(rf"^blinkscope (world {name} .*--plot )docs/\S+$", page, re.MULTILINE)
    assert main([*shlex.split(words), str(tmp_path / "drawn.svg")]) == 0
    pieces = []
    for file in (ROOT / "docs" / "figures" / f"{name}.svg", tmp_path / "drawn.svg"):
        text = re.sub(r"[mp][0-9a-f]{10}\b", "id", file.read_text(encoding="utf-8"))
        pieces.append(re.split(r"(-?\d+\.\d+)", text))
    assert pieces[0][::2] == pieces[1][::2]
    assert [float(n) for n in pieces[0][1::2]] == pytest.approx([float(n) for n in pieces[1][1::2]], abs=0.1)


def test_every_figure_of_a_world_stands_below_its_command() -> None:
    page = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")
    shown = re.findall(r"^blinkscope world (\S+) .*--plot docs/(\S+)\n```\n\n!\[.+\]\((\S+)\)$", page, re.MULTILINE)
    assert [(name, file) for name, file, _ in shown] == [(name, f"figures/{name}.svg") for name in WORLDS]
    assert all(file == figure for _, file, figure in shown)


def test_the_documents_speak_of_links_that_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
