"""What a notebook shows of a result, and that no text in it can become markup."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest

from blinkscope.report import notebook
from blinkscope.report.text import visible
from tests.report.sample import decided, hostile, realistic, undecided

STYLES = {
    notebook.CERTAIN,
    notebook.LIKELY,
    notebook.QUIET,
    notebook.BLOCK,
    notebook.CELL,
    notebook.TABLE,
    notebook.NUMBER,
    notebook.PAGE,
    notebook.STRONG,
}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and checks that what is opened is closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data

    def handle_comment(self, data):
        raise AssertionError("a comment got in")

    def handle_decl(self, decl):
        raise AssertionError("a declaration got in")


def test_hostile_text_stays_text():
    trace = hostile()
    page = notebook.notebook_html(trace)
    reader = Reader(page)
    assert set(reader.tags) <= {"div", "span", "sup", "table", "tr", "th", "td"}
    assert {name for name, _ in reader.attributes} <= {"style", "dir"}
    assert {value for name, value in reader.attributes if name == "style"} <= STYLES
    assert "<script>window.__owned = 1" in reader.words, "the text is shown, not dropped"
    assert all(character.isprintable() or character in "\n\t\u200d" for character in reader.words)


def test_the_words_of_a_window_are_marked_and_listed():
    trace = realistic()
    page = trace._repr_html_()
    reader = Reader(page)
    (window,) = trace.windows()
    assert f'<span style="{notebook.CERTAIN}">Dogs</span><sup style="{notebook.NUMBER}">1</sup>' in page
    assert f"{window.start} → {window.end}" in reader.words
    assert f"{window.change:.2f} [{window.low:.2f}, {window.high:.2f}]" in reader.words
    assert f"{trace.cost.continuations:,} continuations" in reader.words
    text = visible("".join(step.text for step in trace.steps))
    assert text.replace("Dogs", "Dogs1") in reader.words, "the whole generation, with the window's number after it"


@pytest.mark.parametrize("trace", [undecided(), decided()], ids=["undecided", "decided"])
def test_without_windows_there_is_no_table_but_an_answer(trace):
    reader = Reader(notebook.notebook_html(trace))
    assert "table" not in reader.tags
    assert "No window" in reader.words
