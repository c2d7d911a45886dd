"""The page of a picture: what is in the file, what a browser makes of it, and what no label can make it do."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from blinkscope.diffusion.exact import EmpiricalData
from blinkscope.diffusion.gaussian import GaussianDiffusion
from blinkscope.diffusion.masked import FiniteTexts, MaskedDiffusion
from blinkscope.diffusion.pictures import locate_sample
from blinkscope.diffusion.record import thumbnail
from blinkscope.diffusion.schedules import cosine_times
from blinkscope.estimate.trace import Target, Trace
from blinkscope.report import pictures
from blinkscope.report.html import write_report
from blinkscope.report.picture_page import SHOWN, checked, picture_data
from blinkscope.report.terminal import print_trace
from blinkscope.report.trees import narrowing, picture_tree, stages
from blinkscope.symbols import HIDDEN
from tests.report.browser import chromium, visit

HOSTILE = ("</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>\u202e", "\u200bplain")


@pytest.fixture(scope="module")
def trace() -> Trace:
    """Three pictures in colour that differ in two numbers, their exact denoiser, and labels that are hostile."""
    pictures = np.repeat(np.sign(np.random.default_rng(0).standard_normal((1, 3, 8, 12))), 3, axis=0)
    pictures[[0, 2], 0, 0, [0, 1]] *= -1
    data = EmpiricalData(pictures, HOSTILE)
    diffusion = GaussianDiffusion(data.denoise, cosine_times(16), (3, 8, 12))

    def label(found: np.ndarray) -> list[str]:
        return [HOSTILE[int(np.argmin(((pictures - one) ** 2).sum(axis=(1, 2, 3))))] for one in found]

    return locate_sample(diffusion, label, sample=pictures[1], target=Target(error=0.1, delta=0.3))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def test_the_page_holds_every_level(trace: Trace) -> None:
    data = picture_data(trace)
    assert [level["position"] for level in data["levels"]] == trace.posterior.index.tolist()
    for level in data["levels"]:
        drawn = [draw for draw in trace.draws if draw.stratum == level["position"]]
        assert level["drawn"] == sum(n for _, n in level["counts"]) == len(drawn)
        assert [one["label"] for one in level["became"]] == [d.label for d in drawn][:SHOWN] or len(drawn) > SHOWN
    last = base64.b64decode(data["levels"][-1]["state"]["pixels"])
    assert trace.states is not None
    assert (
        np.frombuffer(last, np.uint8).reshape(8, 12, 3) == np.where(trace.states[-1] > 0, 255, 0).transpose(1, 2, 0)
    ).all()


def test_the_tree_of_a_picture_is_its_branch(trace: Trace) -> None:
    """Three outcomes, alike but for two pixels each: all are open, then only the picture's own is."""
    found = stages(trace)
    assert [len(stage.labels) for stage in found][-1] == 1
    tree = picture_tree(trace)
    assert (tree.root.at, tree.last) == (0, 16)
    leaves = {}
    nodes = [tree.root]
    for node in nodes:
        nodes += node.children
        assert all(child.at > node.at for child in node.children)
        if not node.children:
            assert node.k is not None
            leaves[trace.labels[node.k]] = node.at
    assert set(leaves) == set(found[0].labels)
    assert leaves[trace.final_label] == trace.posterior.index[found[-1].row]
    said = narrowing(trace)
    assert said.startswith("With probability 0.9 or more it becomes one of ")
    assert f"from step {trace.posterior.index[found[-1].row]:.0f} on." in said
    assert "\u202e" not in said


def test_large_pictures_are_averaged_and_latents_left_out() -> None:
    picture = np.full((1, 100, 70), -1.0)
    picture[0, :4, :4] = 1
    small = thumbnail(picture)
    assert small["shape"] == [25, 18, 1]
    pixels = np.frombuffer(base64.b64decode(str(small["pixels"])), np.uint8)
    assert pixels[0] == 255
    assert (pixels[1:] == 0).all()
    assert thumbnail(np.zeros((4, 8, 8))) == {}
    assert thumbnail(np.zeros(3)) == {}


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"shape": [1, 1, 1], "pixels": "!!"},
        {"shape": [2, 1, 1], "pixels": "AA=="},
        {"shape": [1, 1, True], "pixels": "AA=="},
        {"shape": [10**9, 1, 1], "pixels": "AA=="},
        {"shape": "111", "pixels": 3},
    ],
)
def test_what_is_no_thumbnail_is_not_shown(payload: dict[str, object]) -> None:
    assert checked(payload) is None
    assert checked({"shape": [1, 1, 1], "pixels": "AA=="}) is not None


def test_notebook_and_figure_speak_of_a_picture(trace: Trace) -> None:
    page = trace._repr_html_()
    assert "<img" not in page
    assert "script>" not in page.replace("&lt;/script&gt;", "")
    assert "token" not in page
    assert page.count("<tr>") == len(trace.posterior.index) + 1
    for heading in ("OU time", "log-SNR", "-infinite"):
        assert heading in page
    (axes,) = trace.plot().axes
    assert axes.get_xlabel() == "reverse steps taken"
    legend = axes.get_legend()
    assert legend is not None
    assert any(text.get_text().endswith("(this sample)") for text in legend.get_texts())


def test_masked_texts_have_no_ratio_of_signal_to_noise(trace: Trace) -> None:
    masked = replace(trace, times=np.linspace(1, 0, len(trace.posterior.index)), unit="probability")
    assert masked.log_snr is None
    curve = masked.to_json()["curve"]
    assert curve["time_unit"] == "probability"
    assert "log_snr" not in curve
    assert "log-SNR" not in masked._repr_html_()


@pytest.fixture(scope="module")
def text() -> Trace:
    """A text of four symbols, one of two with a single symbol in common, looked into by an exact masked model."""
    texts = FiniteTexts(np.array([[2, 0, 1, 3], [2, 1, 0, 0]]), ("first", "second"), np.array([0.5, 0.5]))
    sampler = MaskedDiffusion(texts.marginals, np.linspace(0, 1, 5), 4)

    def label(found: np.ndarray) -> list[str]:
        return ["first" if one[1] == 0 else "second" for one in found]

    return locate_sample(sampler, label, sample=texts.texts[0], target=Target(error=0.1, delta=0.3))


def test_a_text_of_symbols_is_called_one_and_shown(text: Trace) -> None:
    assert text.states is not None
    spelled = [" ".join("_" if s == HIDDEN else str(s) for s in state) for state in text.states]
    assert (spelled[0], spelled[-1]) == ("_ _ _ _", "2 0 1 3")
    assert [row[-1] for row in pictures.levels(text)] == spelled
    written = io.StringIO()
    print_trace(text, written, width=120)
    for said in (written.getvalue(), text._repr_html_()):
        assert "The text is read as first." in said
        assert "picture" not in said
        assert all(state in said for state in spelled)
    data = picture_data(text)
    assert data["subject"] == "text"
    assert [level["state"]["symbols"] for level in data["levels"]] == spelled
    became = [one["sample"]["symbols"] for level in data["levels"] for one in level["became"]]
    assert set(became) == {"2 0 1 3", "2 1 0 0"}


@pytest.mark.browser
def test_the_page_of_a_text_shows_its_symbols(browser: Browser, text: Trace, tmp_path: Path) -> None:
    with visit(browser, write_report(text, tmp_path / "text.html")) as seen:
        said = seen.page.inner_text("main")
        assert "When was this text decided?" in said
        assert "picture" not in said
        states = seen.page.locator(".levels td > .symbols").all_text_contents()
        assert states == [level["state"]["symbols"] for level in picture_data(text)["levels"]]
        assert seen.page.locator(".became .symbols").count() > 0
    assert seen.quiet


@pytest.mark.browser
@pytest.mark.parametrize(("size", "scheme"), [((1280, 860), "light"), ((360, 740), "dark")])
def test_it_opens_quietly_and_shows_the_pictures(
    browser: Browser, trace: Trace, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    path = write_report(trace, tmp_path / "picture.html")
    with visit(browser, path, size=size, scheme=scheme) as seen:  # type: ignore[arg-type]
        page = seen.page
        assert page.locator(".levels tbody tr").count() == len(trace.posterior.index)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        (window,) = trace.windows()
        index = trace.posterior.index
        assert page.locator("tr.inside").count() == ((index >= window.start) & (index <= window.end)).sum()
        assert "<img src=x" in page.inner_text(".lead")
        assert trace.log_snr is not None
        clock = page.inner_text(".levels tbody tr:nth-child(2) th")
        assert f"log-SNR {trace.log_snr[1]:.2g}"[:10] in clock.replace("\u2212", "-")
        said = set(page.locator(".became figcaption").all_text_contents())
        assert said <= {HOSTILE[0], HOSTILE[1][:-1] + "U+202E", "U+200Bplain"}
        leaves = page.locator(".tree .node > text").all_text_contents()
        assert len(leaves) == len(stages(trace)[0].labels)
        assert all("\u202e" not in leaf for leaf in leaves)
        assert page.locator(".tree .span").count() == len(trace.windows())
        assert page.locator("section[aria-labelledby=tree-title] li").count() == len(stages(trace))
        shown = page.evaluate("[...document.querySelector('.large').getContext('2d').getImageData(0, 0, 12, 8).data]")
        assert trace.states is not None
        expected = np.where(trace.states[-1] > 0, 255, 0).transpose(1, 2, 0)
        assert (np.array(shown).reshape(8, 12, 4)[..., :3] == expected).all()
        pixels = "document.querySelector('#plot canvas').getContext('2d').getImageData(0, 0, 300, 150).data"
        drawn = page.evaluate(f"[...{pixels}]")
        assert len(set(drawn)) > 5
    assert seen.quiet, (seen.requests, seen.errors, seen.dialogs)


@pytest.mark.browser
def test_a_result_without_pictures_to_show_opens_too(browser: Browser, trace: Trace, tmp_path: Path) -> None:
    bare = replace(trace, states=np.zeros((len(trace.posterior.index), 5)), draws=(), notes=("a note",))
    with visit(browser, write_report(bare, tmp_path / "bare.html")) as seen:
        assert seen.page.locator("canvas.picture").count() == 0
        assert "A note" in seen.page.inner_text("main")
    assert seen.quiet
