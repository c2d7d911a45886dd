"""The HTML report: what is in the file, what the page does, and what no text in it can make it do."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page

from blinkscope import outputs
from blinkscope.divergence import total_variation
from blinkscope.errors import UserError
from blinkscope.estimate.trace import Step, Target, Trace
from blinkscope.posterior import Posterior
from blinkscope.report import html
from blinkscope.report.html import data_block, finding, report_data, report_html, write_report
from tests.report import sample
from tests.report.browser import chromium, visit

# ---------------------------------------------------------------- the file


class Blocks(HTMLParser):
    """Scripts, styles and the policy of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag in ("script", "style"):
            self.found.append((tag, attributes, ""))
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.found and self.lasttag in ("script", "style"):
            tag, attributes, text = self.found[-1]
            self.found[-1] = (tag, attributes, text + data)

    def handle_endtag(self, tag: str) -> None:
        self.lasttag = ""


def blocks(text: str) -> Blocks:
    parser = Blocks()
    parser.feed(text)
    return parser


def embedded(text: str) -> dict:
    (data,) = [content for tag, attributes, content in blocks(text).found if attributes.get("type")]
    return json.loads(data)


@given(st.text(st.characters(exclude_categories=())))
def test_data_cannot_leave_its_block(text: str) -> None:
    block = data_block({"text": text})
    assert json.loads(block) == {"text": text}
    assert not set("<>&\u2028\u2029") & set(block)
    block.encode("utf-8")


def test_only_our_own_scripts_and_styles_are_admitted() -> None:
    page = blocks(report_html(sample.hostile()))
    policy = dict(part.split(" ", 1) for part in page.policy.split("; "))
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        texts = [content for kind, attributes, content in page.found if kind == tag and not attributes]
        hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in texts]
        assert policy[directive].split() == hashes
    assert policy["default-src"] == "'none'"
    assert [attributes for _, attributes, _ in page.found if attributes] == [{"type": "application/json", "id": "data"}]


def test_the_page_holds_the_result() -> None:
    trace = sample.realistic(truth=True)
    data = embedded(report_html(trace))
    assert np.allclose(data["curve"]["mean"], trace.curve, rtol=1e-4)
    assert np.allclose(data["change"], total_variation(trace.curve[1:], trace.curve[:-1]), rtol=1e-4)
    assert data["settings"]["model"] == "smollm2"
    assert [token["text"] for token in data["generation"]["tokens"]] == [step.text for step in trace.steps]


def test_numbers_that_are_not_finite_become_null() -> None:
    assert json.loads(data_block({"a": [float("nan"), float("inf"), 0.1234567]})) == {"a": [None, None, 0.12346]}


def test_every_continuation_is_counted_and_the_ten_most_frequent_texts_of_a_kind_are_kept() -> None:
    trace = sample.realistic()
    groups = report_data(trace)["continuations"]
    assert [(g["position"], g["token"], g["p"], g["drawn"]) for g in groups] == [
        (f.position, f.token, f.p, f.continuations) for f in trace.forks
    ]
    for group, fork in zip(groups, trace.forks, strict=True):
        assert {trace.labels[k]: n for k, n in group["counts"]} == fork.labels
        for k, n in group["counts"]:
            written = Counter(
                str(draw.payload["text"])
                for draw in trace.draws
                if (draw.stratum, draw.fork, draw.label) == (fork.position, fork.token, trace.labels[k])
            )
            kept = {text["head"]: text["times"] for text in group["texts"] if text["label"] == k}
            assert sum(written.values()) == n
            assert len(kept) == min(len(written), 10)
            assert sorted(kept.values()) == sorted(written.values())[-len(kept) :]
            assert kept.items() <= written.items()


def test_long_continuations_lose_their_middle() -> None:
    trace = sample.long(tokens=60, continuations=200)
    written = {str(draw.payload["text"]) for draw in trace.draws}
    for group in report_data(trace)["continuations"]:
        for text in group["texts"]:
            assert (len(text["head"]), len(text["tail"])) == (300, 200)
            (whole,) = {w for w in written if w.startswith(text["head"]) and w.endswith(text["tail"])}
            assert len(whole) == 500 + text["omitted"]


@pytest.mark.parametrize("text", ["", "\u6587" * 50, "<" * 50])
def test_the_file_stays_small(text: str) -> None:
    """Whatever its 5,000 continuations are made of: three bytes a character, six once escaped."""
    assert len(report_html(sample.long(text=text)).encode("utf-8")) < 8_000_000


# ---------------------------------------------------------------- in words


def steep(rows: list[list[float]], labels: tuple[str, ...], final: str) -> Trace:
    """A trace with an exact curve."""
    base = sample.undecided()
    steps = tuple(Step(f" word{i}", 0.5, 0.5) for i in range(len(rows) - 1))
    posterior = Posterior(np.arange(len(rows), dtype=float), labels, np.array(rows))
    return dataclasses.replace(base, steps=steps, posterior=posterior, final_label=final, draws=())


def test_one_window_in_words() -> None:
    trace = steep([[0.44, 0.56], [0.44, 0.56], [1.0, 0.0]], ("Dog", "Cat"), "Dog")
    assert finding(trace) == "P(Dog) went from 0.44 to 1 at “word1” (token 2)."


def test_several_windows_in_words() -> None:
    law = {"a": [1.0, 0.0, 0.0], "b": [0.0, 1.0, 0.0], "c": [0.002, 0.0, 0.998]}
    rows = [law[name] for name in "ababc"]
    said = finding(steep(rows, ("a", "b", "c"), "c"))
    assert said.startswith("P(a) went from 1 to 0 and P(b) from 0 to 1 at “word0” (token 1), then ")
    assert said.endswith(" 1 smaller window is listed below.")
    assert "P(c) went from 0 to more than 0.99" in finding(steep(rows[-2:], ("a", "b", "c"), "c"))


def test_no_window_in_words() -> None:
    assert "No window" in finding(sample.undecided())
    assert "cannot fork" in finding(sample.decided())


# ---------------------------------------------------------------- writing


def test_a_report_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "report.html"
    target.write_text("<!doctype html>the one before")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(outputs.os, "replace", fail)
        with pytest.raises(UserError, match="Permission denied"):
            write_report(sample.decided(), target)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("report.html", "<!doctype html>the one before")]
    assert write_report(sample.decided(), target) == target
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("nowhere/report.html", "no folder .*nowhere for the report"),
        ("file/report.html", "no folder .*file for the report"),
        ("folder", "folder is a folder"),
    ],
)
def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path, place: str, named: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=named):
        write_report(sample.decided(), tmp_path / place)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["file", "folder"]


# ---------------------------------------------------------------- colours

STYLES = (Path(html.__file__).parent / "assets" / "report.css").read_text(encoding="utf-8")
# Machado, Oliveira, Fernandes (2009), severity 1, on linear sRGB: normal, protan, deutan, tritan.
VISION = np.array(
    [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    ]
)
LMS = np.array([[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]])
OKLAB = np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]])


def colours(scheme: str) -> dict[str, np.ndarray]:
    """Linear sRGB of the colours that a scheme names."""
    light, dark = re.findall(r":root \{(.*?)\n *\}", STYLES, re.S)[:2]
    named = re.findall(r"--([\w-]+): #(\w{6});", light if scheme == "light" else dark)
    values = {name: np.array([int(value[i : i + 2], 16) for i in (0, 2, 4)]) / 255 for name, value in named}
    return {name: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4) for name, v in values.items()}


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG 2 contrast ratio."""
    dark, light = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in (a, b))
    return (light + 0.05) / (dark + 0.05)


def oklab(colour: np.ndarray) -> np.ndarray:
    return np.cbrt(np.clip(VISION @ colour, 0, 1) @ LMS.T) @ OKLAB.T


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_curves_stand_out(scheme: str) -> None:
    of = colours(scheme)
    for text, ground in itertools.product(("ink", "soft"), ("paper", "raised")):
        assert contrast(of[text], of[ground]) >= 4.5
    assert contrast(of["ink"], of["moved-most"]) >= 4.5
    hues = [of[f"label-{name}"] for name in "012345r"]
    assert min(contrast(hue, of["paper"]) for hue in hues) >= 3
    apart = [np.linalg.norm(oklab(a) - oklab(b), axis=1).min() for a, b in itertools.combinations(hues[:6], 2)]
    assert min(apart) > 0.08


# ---------------------------------------------------------------- the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Trace], Path]:
    folder = tmp_path_factory.mktemp("reports")
    numbers = itertools.count()
    return lambda trace: write_report(trace, folder / f"{next(numbers)}.html")


def token(i: int) -> str:
    return f"#text [data-i='{i}']"


@pytest.mark.browser
def test_what_a_hostile_page_does_is_seen(browser: Browser, tmp_path: Path) -> None:
    """The recorder itself: without it the tests below could not fail."""
    page = tmp_path / "page.html"
    page.write_text("<script>alert(1); fetch('http://example.invalid/'); undefined.x</script><img src=missing.png>")
    with visit(browser, page) as seen:
        while not (seen.errors and {"example.invalid", "missing.png"} <= {named(url) for url in seen.requests}):
            seen.page.wait_for_timeout(20)
    assert seen.dialogs == ["1"]
    assert not seen.quiet


def named(url: str) -> str:
    """The host or the file of an address."""
    return url.rstrip("/").rpartition("/")[2]


@pytest.mark.browser
@pytest.mark.parametrize(
    "injected",
    [
        "<script>window.__owned = 1</script>",
        "<img src=x onerror='window.__owned = 1'>",
        "<img src='http://example.invalid/x.png'>",
        "<a id=link href='javascript:void(window.__owned = 1)'>x</a>",
        "<p style='position: fixed'>x</p>",
    ],
)
def test_the_policy_would_stop_what_slipped_through(browser: Browser, tmp_path: Path, injected: str) -> None:
    page = tmp_path / "page.html"
    page.write_text(report_html(sample.decided()).replace("<noscript>", f"{injected}<noscript>"), encoding="utf-8")
    with visit(browser, page) as seen:
        if "link" in injected:
            seen.page.evaluate("document.getElementById('link').click()")
        while not any("Content Security Policy" in error for error in seen.errors):
            seen.page.wait_for_timeout(20)
        assert seen.page.evaluate("window.__owned") is None


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1280, 860), (360, 740)])
@pytest.mark.parametrize("make", [sample.realistic, sample.undecided, sample.decided, sample.grid, sample.hostile])
def test_it_opens_quietly_and_fits(
    browser: Browser,
    written: Callable[[Trace], Path],
    make: Callable[[], Trace],
    size: tuple[int, int],
    scheme: str,
) -> None:
    trace = make()
    with visit(browser, written(trace), size=size, scheme=scheme) as seen:
        assert seen.page.locator("#text [role=option]").count() == len(trace.steps)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= size[0]
        assert seen.page.locator("table.windows tbody tr").count() == len(trace.windows())
    assert seen.quiet, (seen.requests, seen.errors, seen.dialogs)


@pytest.mark.browser
def test_a_run_until_its_windows_are_known_says_how_sure_they_are(
    browser: Browser, written: Callable[[Trace], Path]
) -> None:
    target = Target().changed(until="windows")
    trace = dataclasses.replace(sample.realistic(), target=target, undecided=0.03)
    with visit(browser, written(trace)) as seen:
        said = " ".join(seen.page.inner_text("body").split())
        assert "Windows undecided 0.03 The probability that a change of 0.6 is not listed" in said
        assert "less than 0.4; asked for 0.1." in said
        assert "until windows are known" in said
    assert seen.quiet


@pytest.mark.browser
def test_a_click_shows_forks_and_what_came_of_them(browser: Browser, written: Callable[[Trace], Path]) -> None:
    trace = sample.realistic()
    position = 9
    forks = [fork for fork in trace.forks if fork.position == position]
    with visit(browser, written(trace)) as seen:
        page = seen.page
        page.click(token(position))
        assert page.locator(token(position)).get_attribute("aria-selected") == "true"
        assert page.locator("#panel summary .word").all_inner_texts() == [fork.token for fork in forks]
        assert page.locator("#panel summary .n").all_inner_texts() == [str(fork.continuations) for fork in forks]
        bar = page.locator("#panel summary .bar").nth(1)
        page.click("#panel summary >> nth=1")
        said_in = page.locator("#panel details").nth(1).locator("li")
        said_in.first.wait_for()  # an outcome is rendered once its alternative is open
        said = said_in.all_inner_texts()
        drawn = [d for d in trace.draws if d.stratum == position and d.fork == forks[1].token]
        times = Counter(str(d.payload["text"]).strip().replace("\n", "↵") for d in drawn)
        shown = {f"{text} ({n} times)" if n > 1 else text for text, n in times.items()}
        assert {text.replace("\n", "") for text in said} <= shown
        for label, n in forks[1].labels.items():
            assert f"{label} {n}" in (bar.get_attribute("aria-label") or "")
        page.click("#close")
        assert page.locator("#panel summary").count() == 0
    assert seen.quiet


@pytest.mark.browser
@pytest.mark.parametrize(("text", "shown"), [(" ", "␣"), ("\n\n", "↵↵"), ("", "∅")], ids=["space", "breaks", "nothing"])
def test_a_window_of_white_space_is_seen(
    text: str, shown: str, browser: Browser, written: Callable[[Trace], Path]
) -> None:
    with visit(browser, written(sample.blank(text))) as seen:
        page = seen.page
        assert page.locator("table.windows td[data-name=Text]").inner_text() == shown
        assert f"at “{shown}” (token 13)" in page.inner_text(".lead")
        page.click(token(12))
        assert page.locator("#panel-title").inner_text() == f"Instead of {shown}"
        assert page.locator("#panel .kept .word").inner_text() == shown
    assert seen.quiet


@pytest.mark.browser
def test_where_no_texts_were_recorded_nobody_is_sent_to_them(
    browser: Browser, written: Callable[[Trace], Path]
) -> None:
    trace = sample.realistic()
    bare = [dataclasses.replace(d, payload={k: v for k, v in d.payload.items() if k != "text"}) for d in trace.draws]
    with visit(browser, written(dataclasses.replace(trace, draws=tuple(bare)))) as seen:
        seen.page.click(token(trace.forks[0].position))
        panel = seen.page.inner_text("#panel")
        assert "was not recorded" in panel
        assert "shown" not in panel
        assert "Open an alternative" not in panel
    assert seen.quiet


@pytest.mark.browser
def test_on_a_small_screen_a_legend_that_goes_on_is_shaded(browser: Browser, written: Callable[[Trace], Path]) -> None:
    """What scrolls along with the names covers the shade where they end; the shade itself stays."""
    style = "(() => { const s = getComputedStyle(document.querySelector('.instrument .legend')); return [s.{}]; })()"
    with visit(browser, written(sample.realistic()), size=(500, 740)) as seen:
        (layers,) = seen.page.evaluate(style.replace("{}", "backgroundAttachment"))
        assert layers == "local, local, scroll, scroll"


@pytest.mark.browser
def test_text_and_plot_follow_each_other(browser: Browser, written: Callable[[Trace], Path]) -> None:
    trace = sample.realistic()
    with visit(browser, written(trace)) as seen:
        page = seen.page
        page.hover(token(20))
        assert "token 21" in page.inner_text("#readout")
        law = trace.curve[21, 0]
        assert f"{law:.2f}" in page.locator(".legend .value").first.inner_text()
        over = page.locator(".u-over").bounding_box()
        marker = page.locator(".marker").bounding_box()
        assert over is not None
        assert marker is not None
        assert (marker["x"] - over["x"]) / over["width"] == pytest.approx(20 / 45, abs=0.01)
        page.mouse.move(over["x"] + over["width"] * 30.5 / 45, over["y"] + over["height"] / 2)
        assert page.locator(token(30)).get_attribute("class").split().count("looked") == 1
        assert page.locator("#text .looked").count() == 1
        page.mouse.down()
        page.mouse.up()
        assert page.locator(token(30)).get_attribute("aria-selected") == "true"
        page.mouse.move(over["x"] + over["width"] * 0.25, over["y"] + 20)
        page.mouse.down()
        page.mouse.move(over["x"] + over["width"] * 0.75, over["y"] + 20)
        page.mouse.up()
        page.wait_for_selector("#reset", state="visible")
        page.hover(token(20))
        closer = page.locator(".marker").bounding_box()
        assert closer is not None
        assert closer["width"] == pytest.approx(2 * marker["width"], rel=0.1)
        page.click("#reset")
        page.wait_for_selector("#reset", state="hidden")
        page.set_viewport_size({"width": 900, "height": 860})
        while page.evaluate("document.querySelector('.u-over').clientWidth") >= 850:
            page.wait_for_timeout(20)  # the page's policy forbids Playwright's own way to wait for an expression
        over, marker = page.locator(".u-over").bounding_box(), page.locator(".marker").bounding_box()
        assert over is not None
        assert marker is not None
        assert marker["width"] == pytest.approx(over["width"] / 45, abs=1)
        before = page.locator("#plot canvas").screenshot()
        page.click(".legend button >> nth=0")
        assert page.locator(".legend button").first.get_attribute("aria-pressed") == "false"
        assert page.locator("#plot canvas").screenshot() != before
    assert seen.quiet


@pytest.mark.browser
def test_everything_is_reached_by_keyboard(browser: Browser, written: Callable[[Trace], Path]) -> None:
    with visit(browser, written(sample.realistic()), size=(1280, 860)) as seen:
        page = seen.page

        def focused() -> str | None:
            return page.evaluate("document.activeElement.dataset.i ?? document.activeElement.id")

        for _ in range(20):
            page.keyboard.press("Tab")
            if focused() == "0":
                break
        assert focused() == "0"
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        assert focused() == "12"
        live = page.inner_text("#live")
        assert "Token 13 of 45" in live
        assert "2 forks" in live
        page.keyboard.press("Enter")
        assert focused() == "panel-title"
        assert "Dogs" in page.inner_text("#panel-title")
        page.keyboard.press("Escape")
        assert focused() == "12"
        assert page.locator("#panel summary").count() == 0
        page.keyboard.press("ArrowDown")
        below = int(focused() or 0)
        tops = page.evaluate(f"[12, {below}].map(i => document.querySelector(`[data-i='${{i}}']`).offsetTop)")
        assert tops[1] > tops[0]
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.offsetTop") == tops[0]
        page.keyboard.press("End")
        page.keyboard.press("ArrowRight")
        assert focused() == "44"
    assert seen.quiet


@pytest.mark.browser
def test_on_a_small_screen_the_chosen_token_stays_in_view(browser: Browser, written: Callable[[Trace], Path]) -> None:
    with visit(browser, written(sample.realistic()), size=(360, 740)) as seen:
        page = seen.page
        assert page.locator("#panel").is_hidden()
        page.locator(token(30)).click()
        box, sheet, instrument = (page.locator(name).bounding_box() for name in (token(30), "#panel", "#instrument"))
        assert box
        assert sheet
        assert instrument
        assert instrument["y"] + instrument["height"] <= box["y"]
        assert box["y"] + box["height"] <= sheet["y"]
    assert seen.quiet


@pytest.mark.browser
def test_hostile_text_stays_text(browser: Browser, written: Callable[[Trace], Path]) -> None:
    trace = sample.hostile()
    with visit(browser, written(trace)) as seen:
        page = seen.page
        for summary in page.locator("main > header summary, summary:text('How to read this')").all():
            summary.click()
        for i in range(len(trace.steps)):
            page.locator(token(i)).dispatch_event("click")
            forks = [fork for fork in trace.forks if fork.position == i]
            assert page.locator("#panel .fork").count() == len(forks)
            for fold in page.locator("#panel .fork:not([open]) summary").all():
                fold.dispatch_event("click")
            page.locator("#panel .fork[open] li").first.wait_for()
        for key in page.locator(".legend button").all():
            key.click()
        assert page.evaluate("window.__owned") is None
        # Nothing but the page's own elements: what was written as markup is there as text.
        assert page.locator("main :is(script, style, img, svg, iframe, link, a, b b)").count() == 0
        assert sample.HOSTILE[0] in page.inner_text("h1")
        shown = page.inner_text("body")
    assert seen.quiet, (seen.requests, seen.errors, seen.dialogs)
    acting = set("\u202e\u202c\u2066\u2069\x1b\x00\x07\x7f\x9b\u200b\ufeff")
    assert acting <= set("".join(sample.HOSTILE))
    assert not acting & set(shown)
    for name in ("U+202E", "U+001B", "U+0000", "U+D800", "U+200B", "U+E0041", "U+2028"):
        assert name in shown
    assert "👩\u200d🔬" in shown


@pytest.mark.browser
def test_a_long_generation_opens_and_reacts_at_once(browser: Browser, written: Callable[[Trace], Path]) -> None:
    """2,000 tokens and 5,000 continuations: under 8 MB, open in under 2 s, and pointing costs less than a frame.

    Seconds are those of the page's own thread: whatever else the machine does adds nothing to them.
    """
    trace = sample.long()
    assert len(trace.draws) > 4500
    path = written(trace)
    assert path.stat().st_size < 8_000_000
    with visit(browser, path) as seen:
        assert seen.page.locator("#text .token").count() == 2000
        assert seen.quiet
        seconds = stopwatch(seen.page)
        seen.page.reload()
        opened = seconds()
        seen.page.evaluate(
            """() => {
                const tokens = [...document.querySelectorAll("#text .token")].slice(0, 500);
                for (const token of tokens)
                    token.dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
            }"""
        )
        pointed = (seconds() - opened) / 500
    assert 0 < opened < 2
    assert 0 < pointed < 0.016


def stopwatch(page: Page) -> Callable[[], float]:
    """Tells the seconds that a page's thread has computed since now."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def seconds() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return next(float(metric["value"]) for metric in metrics if metric["name"] == "ThreadTime")

    return seconds
