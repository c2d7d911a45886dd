"""The page of a study: what is in the file, that its tables sort and filter, and what no text in it can make it do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from blinkscope.estimate.trace import Target
from blinkscope.report.html import write_page
from blinkscope.report.study_page import LONGEST_TABLE, SCRIPTS, study_data, study_page
from blinkscope.report.trees import study_tree
from blinkscope.studies.comparison import compare
from blinkscope.studies.study import Findings, StudyResult
from blinkscope.studies.transcripts import Piece, Transcript
from tests.report.browser import chromium, visit
from tests.report.sample import HOSTILE

ITEMS = 12


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def result_of(shift: float = 0.0) -> StudyResult:
    """Twelve generations whose ids, labels, data set, texts and failures are hostile; every third has a window."""
    data = HOSTILE[0]
    rows: list[dict[str, Any]] = [
        {
            "item": f"{i} {HOSTILE[i % len(HOSTILE)]}",
            "question": f"q{i}",
            "data": data,
            "label": HOSTILE[(i + 1) % len(HOSTILE)],
            "right": None if i == 0 else i % 2 == 0,
            "windows": int(i % 3 == 0),
            "largest_jump": min(1.0, 0.08 * i + shift),
            "largest_fall": 0.1,
            "covered": 0.02 * i,
            "tokens": 10 + i,
        }
        for i in range(ITEMS)
    ]
    curves = [
        {"item": row["item"], "fraction": x, "share": min(1.0, x + 0.01 * i)}
        for i, row in enumerate(rows)
        for x in (0.0, 0.5, 1.0)
    ]
    means = [
        {"data": data, "fraction": x, "share": x, "low": x * 0.9, "high": min(1, x + 0.1)} for x in (0.0, 0.5, 1.0)
    ]
    table = [{"data": data, "generations": ITEMS, "dacc": 0.2, "dacc_low": -0.1, "dacc_high": 0.5, "dcw": None}]
    texts = [
        Transcript(
            row["item"],
            row["label"],
            (Piece(HOSTILE[i % len(HOSTILE)], 0.3), Piece(" then ", 0.6, row["windows"]), Piece("\nthe end")),
            HOSTILE[(i + 2) % len(HOSTILE)],
            HOSTILE[(i + 3) % len(HOSTILE)],
        )
        for i, row in enumerate(rows)
    ]
    places = [{"tenth": i + 1, "windows": i % 3} for i in range(10)]
    jumps = [{"jump_from": 0.0, "jump_to": 0.25, "generations": 4, "share": 0.5, "low": 0.1, "high": 0.9}]
    tables = {"table": table, "generations": rows, "jumps": jumps, "places": places, "mean_curves": means}
    return StudyResult(
        study="cot",
        status="interrupted",
        spec={"asking": {"model": HOSTILE[1], "system": HOSTILE[2], "seed": 0}, "items": ITEMS},
        target=Target(),
        items=ITEMS + 1,
        findings=Findings({}, {**tables, "curves": curves}, tuple(HOSTILE[:3]), tuple(texts)),
        failed={HOSTILE[4]: ("engine", HOSTILE[5])},
        cost={"continuations": 5, "generated_tokens": 50},
        waiting=3,
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    first, second = result_of(), result_of(0.05)
    return write_page(study_page(first, compare(first, second)), tmp_path_factory.mktemp("page") / "study.html")


def test_the_file_holds_tables_charts_and_texts() -> None:
    data = study_data(result_of())
    assert [table["name"] for table in data["tables"]] == ["table", "generations", "jumps", "places"]
    assert [len(row) for row in data["charts"]] == [1, 2]
    assert len(data["texts"]) == ITEMS
    assert "".join(piece["text"] for piece in data["texts"][0]["pieces"]).endswith(" then \nthe end")
    json.dumps(data, allow_nan=False)


def test_a_large_study_keeps_its_page_small() -> None:
    """Texts with a window come first when not all fit; a table is cut and says so."""
    result = result_of()
    long = [
        Transcript(str(i), "x", (Piece("word " * 20_000, 0.0, int(i >= 150)),)) for i in range(160)
    ]  # 16 MB of text, of which the last ten have windows
    rows = [{"n": i} for i in range(LONGEST_TABLE + 7)]
    result = replace(result, findings=Findings({}, {**result.findings.tables, "long": rows}, (), tuple(long)))
    data = study_data(result)
    assert {str(i) for i in range(150, 160)} <= {text["item"] for text in data["texts"]}
    assert data["texts_left_out"] == 160 - len(data["texts"]) > 0
    assert data["tables"][-1]["left_out"] == 7
    assert len(study_page(result)) < 8_000_000


def test_its_own_scripts_alone_are_admitted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert "default-src 'none'" in policy[1]
    assert policy[1].count("'sha256-") == len(SCRIPTS) + 2


@pytest.mark.browser
@pytest.mark.parametrize(("size", "scheme"), [((1280, 860), "light"), ((360, 740), "dark")])
def test_it_opens_quietly_and_hostile_text_stays_text(
    browser: Browser, path: Path, size: tuple[int, int], scheme: str
) -> None:
    with visit(browser, path, size=size, scheme=scheme) as seen:  # type: ignore[arg-type]
        page = seen.page
        for fold in page.locator("details > summary").all():
            fold.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert page.evaluate("window.__owned") is None
        assert page.locator("main :is(script, style, img, iframe, link, a, foreignObject)").count() == 0
        assert page.locator(".chart > svg").count() == 6  # three of either run
        assert page.locator(".texts > li").count() == ITEMS
        assert page.locator(".in-window").count() == ITEMS / 3
        shown = page.inner_text("body")
    assert seen.quiet, (seen.requests, seen.errors, seen.dialogs)
    assert HOSTILE[0] in shown
    assert not set("\u202e\u2066\x1b\x00\u200b\ufeff") & set(shown)
    assert f"The study is not finished: {ITEMS - 2} of {ITEMS + 1} items are; the same command goes on" in shown


@pytest.mark.browser
def test_a_window_of_white_space_is_seen(browser: Browser, tmp_path: Path) -> None:
    result = result_of()
    pieces = (Piece("Well"), Piece("\n\n", 0.6, 1), Piece("cats"), Piece(" ", 0.3), Piece("\n"), Piece("purr"))
    texts = (Transcript("1", "cat", pieces),)
    page = study_page(replace(result, findings=replace(result.findings, transcripts=texts)))
    with visit(browser, write_page(page, tmp_path / "study.html")) as seen:
        assert seen.page.locator(".texts .in-window").inner_text().strip() == "1↵↵"
        assert seen.page.locator(".texts p").last.inner_text() == "Well1↵↵\n\ncats \npurr"
    assert seen.quiet


@pytest.mark.browser
def test_tables_sort_and_filter_and_texts_are_found(browser: Browser, path: Path) -> None:
    with visit(browser, path) as seen:
        page = seen.page
        page.locator("summary", has_text="generations (12 rows)").click()
        table = page.locator("details.fold[open]").last
        jump = table.locator("th", has_text="largest jump")
        column = jump.evaluate("th => th.cellIndex")

        def jumps() -> list[float]:
            cells = table.locator("tbody tr").all()
            return [float(row.locator("td").nth(column).inner_text()) for row in cells]

        jump.locator("button").click()
        assert jump.get_attribute("aria-sort") == "ascending"
        assert jumps() == sorted(jumps())
        jump.locator("button").click()
        assert jump.get_attribute("aria-sort") == "descending"
        assert jumps() == sorted(jumps(), reverse=True)
        right = table.locator("th", has_text="right")
        right.locator("button").click()
        cells = [
            row.locator("td").nth(right.evaluate("th => th.cellIndex")).inner_text()
            for row in table.locator("tbody tr").all()
        ]
        assert cells == ["no"] * 6 + ["yes"] * 5 + [""]  # what was not graded comes last
        table.locator("input").fill("windows=1 right=no")
        assert table.locator("tbody tr").count() == 2
        assert "2 of 12 rows" in table.inner_text()

        texts = page.locator("section", has=page.locator("#texts-title"))
        texts.locator("select").first.select_option("with a window")
        assert texts.locator(".texts > li").count() == 4
        texts.locator("select").first.select_option("all")
        texts.locator("input").fill("11 ")
        assert texts.locator(".texts > li").count() == 1
    assert seen.quiet


@pytest.mark.browser
def test_limits_stand_in_the_cell_of_their_number(browser: Browser, path: Path) -> None:
    with visit(browser, path) as seen:
        first = seen.page.locator("#tables-title ~ div table").first
        assert first.locator("th").all_inner_texts() == ["data", "generations", "dacc", "dcw"]
        assert "0.200[-0.100, 0.500]" in first.inner_text().replace(" ", "").replace(",", ", ")
        compared = seen.page.locator("section", has=seen.page.locator("#compared-title"))
        assert "largest_jump" in compared.inner_text()
        assert "12 questions" in compared.inner_text()
    assert seen.quiet


@pytest.mark.browser
def test_the_tree_of_labels_is_drawn(browser: Browser, tmp_path: Path) -> None:
    """A root of three labels, one of them a leaf and two in a node of their own; their names are hostile."""
    one, two, three = HOSTILE[:3]
    shown = [(0, "all", 0), (1, one, 4), (1, "a pair", 6), (2, two, 8), (2, three, 9)]
    tables = {
        "windows": [{"of": one, "outcome": "no-before", "start": None, "end": None}],
        "total_variation": [{"of": one, "kept": kept, "share": 0.5, "low": 0.4, "high": 0.6} for kept in (0, 10)],
        "same": [{"kept": kept, "share": 0.5, "low": 0.4, "high": 0.6} for kept in (0, 10)],
        "tree": [{"depth": depth, "labels": name, "kept": kept} for depth, name, kept in shown],
    }
    findings = Findings({}, tables, (), ())
    result = replace(result_of(), study="distribution", findings=findings, cost={"continuations": 3, "tokens": 7})
    tree = study_tree(result)
    assert tree is not None
    assert [child.at for child in tree.root.children] == [4, 6]
    assert [leaf.name for leaf in tree.root.children[1].children] == [two, three]
    with visit(browser, write_page(study_page(result), tmp_path / "tree.html"), size=(420, 800)) as seen:
        page = seen.page
        assert page.locator(".tree .node > text").count() == 3
        assert page.locator(".tree circle").count() == 5
        assert page.locator(".tree :is(script, img, a)").count() == 0
        dots = page.locator(".tree circle").evaluate_all("all => all.map((one) => Number(one.getAttribute('cx')))")
        left, right = dots[0], dots[4]
        assert dots == pytest.approx([left + (right - left) * at / 9 for _, _, at in shown])
        assert "7 tokens" in page.inner_text(".facts")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
    assert seen.quiet
    assert study_tree(result_of()) is None
