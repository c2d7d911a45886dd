"""The matplotlib figure: what it shows, how it holds together with many labels and hostile words."""

from __future__ import annotations

import builtins
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from blinkscope.errors import MissingExtra
from blinkscope.feature import OTHER, TRUNCATED, UNPARSED
from blinkscope.report.figures import curve_figure, label_styles
from tests.report.sample import HOSTILE, blank, hostile, long, realistic, undecided


def drawn(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    return file.getvalue()


def test_every_label_has_its_line_and_band_and_every_window_its_shade_and_words():
    trace = realistic()
    figure = curve_figure(trace)
    (axes,) = figure.axes
    for line, column in zip(axes.lines, trace.curve.T, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), trace.posterior.index)
        np.testing.assert_array_equal(line.get_ydata(), column)
    assert len(axes.collections) == len(trace.labels)
    (window,) = trace.windows()
    (shade,) = axes.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (window.start, window.end)
    assert [text.get_text() for text in axes.texts] == ["Dogs"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["Dog (this text)", "Cat", "(unparsed)"]
    assert drawn(figure).startswith(b"\x89PNG")


def test_the_exact_curve_is_dashed_where_it_is_known():
    trace = realistic(truth=True)
    assert trace.truth is not None
    (axes,) = curve_figure(trace).axes
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert len(dashed) == len(trace.labels)
    for line, column in zip(dashed, trace.truth.T, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), column)
    assert axes.get_legend().get_texts()[-1].get_text() == "exact"


def test_no_window_no_shade():
    (axes,) = curve_figure(undecided()).axes
    assert not axes.patches
    assert not axes.texts


@pytest.mark.parametrize("count", range(1, 13))
def test_all_styles_differ_up_to_twelve_labels_and_can_be_seen_on_white(count):
    labels = [*(str(i) for i in range(count)), UNPARSED, TRUNCATED, OTHER]
    styles = label_styles(labels)
    assert len(set(styles)) == len(styles)
    for colour, _ in styles:
        assert max(np.abs(1 - np.array(to_rgb(colour)))) > 0.25


def test_hostile_words_are_only_ever_words():
    """Neither mathematics nor TeX, whatever the user's own settings are."""
    import matplotlib

    trace = hostile()
    with matplotlib.rc_context({"text.usetex": True, "text.parse_math": True}):
        figure = curve_figure(trace)
        (axes,) = figure.axes
        words = [*axes.texts, *axes.get_legend().get_texts()]
    assert not any(text.get_usetex() or text.get_parse_math() for text in words)
    assert all(text.get_text().isprintable() for text in words)
    assert len(axes.get_legend().get_texts()) == len(trace.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn(figure)
    assert any("\x1b" in text for text in HOSTILE), "the sample has lost its teeth"


def test_words_that_look_like_bad_mathematics_and_private_names_are_drawn():
    from dataclasses import replace

    trace = realistic()
    labels = ("$\\frac{", "_hidden", "\\input{/etc/passwd}")
    posterior = replace(trace.posterior, labels=labels)
    figure = curve_figure(replace(trace, posterior=posterior, final_label=labels[0]))
    names = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert names == ["$\\frac{ (this text)", "_hidden", "\\input{/etc/passwd}"]
    assert drawn(figure)


@pytest.mark.parametrize(("text", "shown"), [(" ", "␣"), ("\n\n\t", "↵↵⇥"), ("", "∅")])
@pytest.mark.filterwarnings("error:Glyph")
def test_a_window_of_white_space_is_named(text, shown):
    figure = curve_figure(blank(text))
    assert [note.get_text() for note in figure.axes[0].texts] == [shown]
    assert drawn(figure)


def test_a_long_text_with_twelve_labels_is_drawn():
    assert drawn(curve_figure(long(400, 400)))


def test_the_figure_belongs_to_no_window_system():
    script = "from sample import realistic; realistic().plot(); import sys; print('matplotlib.pyplot' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "False\n"


def test_a_notebook_is_taught_to_show_figures(monkeypatch):
    from matplotlib import get_backend, pyplot

    backend = get_backend()
    chosen = []
    monkeypatch.setattr(pyplot, "switch_backend", chosen.append)
    curve_figure(realistic())
    assert chosen == []
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    curve_figure(realistic())
    assert chosen == [backend]


def test_without_matplotlib_the_install_line_is_given(monkeypatch):
    original = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ModuleNotFoundError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"plot\(\) needs .* pip install 'blinkscope\[plot\]'"):
        realistic().plot()
