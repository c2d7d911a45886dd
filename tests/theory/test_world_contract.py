"""One contract for every world, and what is written about a world."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import numpy as np
import pytest

from blinkscope.divergence import label_law, mixture_total_variation
from blinkscope.errors import UserError
from blinkscope.worlds import WORLDS, create_world, parameter_readers
from blinkscope.worlds.figure import plot_world, write_plot
from blinkscope.worlds.report import table_markdown, table_row, world_json, worlds_table
from blinkscope.worlds.world import World, drawn_law
from tests.theory.chains import Chain


def times_of(world: World) -> list[float]:
    """Five times across the index set, more of them near its noisy end."""
    if world.index.points is not None:
        last = len(world.index.points) - 1
        return [world.index.points[i] for i in sorted({0, last // 2, last - last // 8, last - 2, last} - {-1, -2})]
    high = min(world.index.high, 6.0)
    return [world.index.low, 0.3 * high, 0.6 * high, 0.9 * high]


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    return create_world(request.param)


def test_names_labels_weights_and_sets(world: World) -> None:
    assert WORLDS[world.name]
    assert len(set(world.labels)) == len(world.labels) == len(world.weights) >= 2
    assert world.weights.sum() == pytest.approx(1)
    assert set(world.after) < set(world.before) <= set(world.labels)
    with pytest.raises(FrozenInstanceError):
        setattr(world, fields(world)[0].name, 1)  # type: ignore[arg-type]


def test_the_law_is_one_of_posteriors_with_the_right_mean(world: World) -> None:
    """E pi_t = w: exactly where the law is complete, within 6 standard errors where it is drawn."""
    for t in times_of(world):
        law = world.law(t)
        pi, mass = law.mean[0], np.full(law.mean.shape[1], 1 / law.mean.shape[1]) if law.mass is None else law.mass[0]
        assert pi.sum(axis=1) == pytest.approx(1)
        assert (pi >= 0).all()
        error = 0 if law.complete else 6 / math.sqrt(len(pi))
        assert mass @ pi == pytest.approx(world.weights, abs=1e-9 + error)


def test_posterior_and_sample_agree_with_the_law(world: World) -> None:
    """Means of pi_t over samples of one label equal E[pi(label) pi] / w_label; 6 standard errors of 3,000 draws."""
    rng, label = np.random.default_rng(21), world.after[0]
    for t in times_of(world):
        y = world.sample(rng, label, t, 3000)
        assert len(y) == 3000
        pi = world.posterior(y, t)
        expected = label_law(world.law(t), (label,))
        error = np.hypot(pi.std(axis=0) / math.sqrt(3000), expected.standard_error[0])
        assert (np.abs(pi.mean(axis=0) - expected.mean[0]) <= 6 * error + 6 / 3000).all()


def test_total_variation_agrees_with_the_law_and_falls(world: World) -> None:
    """The closed form, or the world's own average, against 20,000 draws placed between the sets; 6 standard errors."""
    others = tuple(label for label in world.labels if label not in world.after)
    for a, b in ((world.after, world.before), (world.after, others)):
        values = []
        for t in times_of(world):
            own = world.total_variation(a, b, t)
            drawn = mixture_total_variation(drawn_law(world, t, (a, b), 20_000, seed=3), a, b)[0]
            assert abs(own.value - drawn.value) <= 6 * math.hypot(own.standard_error, drawn.standard_error)
            law = world.law(t)
            if law.complete and own.standard_error == 0:
                assert own.value == pytest.approx(mixture_total_variation(law, a, b)[0].value, abs=1e-9)
            values.append(own.value)
        assert (np.diff(values) <= 1e-9 + 3 * own.standard_error).all()


def test_json_follows_the_contract(world: World) -> None:
    for eps in (0.05, 0.2):
        result = json.loads(json.dumps(world_json(world, eps), allow_nan=False))
        assert list(result)[:15] == [
            "schema", "world", "parameters", "index", "labels", "after", "before", "eps", "method", "outcome",
            "window", "interval", "paper", "theorem2", "certificate",
        ]  # fmt: skip
        assert result["outcome"] in ("window", "no-after", "no-before", "inverted")
        window, certificate = result["window"], result["certificate"]
        if result["outcome"] == "window":
            assert window["t_after"] < window["t_before"]
        assert (result["interval"] is None) == (result["method"] == "exact")
        if certificate is not None:
            assert certificate["at"][0] == window["t_before"]
            slack = 1e-9 if result["method"] == "exact" else 0.02
            assert max(certificate["bound"]) <= result["theorem2"]["sharper"] + slack
            assert result["theorem2"]["sharper"] <= result["theorem2"]["published"] + 1e-12
        if result["inside"] is not None:
            assert result["inside"]["certificate"] <= result["inside"]["sharper"] + 1e-9


def test_the_experiment_stays_below_the_certificate(world: World) -> None:
    """Label laws of forward-reverse at both ends and between them; 6 standard errors."""
    row = table_row(world, 0.2)
    assert (row.width is None) == (row.t_after is None or row.t_before is None)
    places = [found.place for found in row.experiments]
    assert ("T_before" in places, "T_after" in places) == (row.t_before is not None, row.t_after is not None)
    for found in row.experiments:
        # A certificate of draws and the measurement each have an error; 3 standard errors and 6 make less than 1e-6.
        slack = 0.01 if "monte-carlo" in world_json(world, 0.2)["method"] else 1e-9
        assert found.measured.value <= found.certificate + 6 * found.measured.standard_error + slack
        if found.published is None:
            assert found.place == "halfway"
        else:
            assert found.sharper is not None
            assert found.certificate <= found.sharper + slack
            assert found.sharper <= found.published
        if found.target == world.after and len(world.after) == 1:
            # From one label to itself nothing but leaving can go wrong, and labels show all of it.
            assert abs(found.measured.value - found.certificate) <= 6 * found.measured.standard_error + slack


def test_parameters_come_as_text_and_wrong_ones_are_named(world: World) -> None:
    readers = parameter_readers(world.name)
    assert readers
    text = {
        key: str(value)
        for key in readers
        if (value := getattr(world, key.replace("-", "_"))) is not None and not isinstance(value, tuple)
    }
    again = create_world(world.name, text)
    assert all(getattr(again, key.replace("-", "_")) == getattr(world, key.replace("-", "_")) for key in text)
    with pytest.raises(UserError, match="has no parameter 'colour'"):
        create_world(world.name, {"colour": 1})
    with pytest.raises(UserError, match="outside the index set"):
        world.total_variation(world.after, world.before, -1.0)


def test_unknown_worlds_and_unreadable_values() -> None:
    with pytest.raises(UserError, match="no world 'three-gaussians'; the worlds are two-gaussians"):
        create_world("three-gaussians")
    with pytest.raises(UserError, match=r"hamming is '2\.5'; the world masked-strings needs a whole number"):
        create_world("masked-strings", {"hamming": "2.5"})
    with pytest.raises(UserError, match="mean-norm is 'ten'; the world two-gaussians needs a number"):
        create_world("two-gaussians", {"mean_norm": "ten"})


def test_a_plot_shows_both_curves_and_the_window() -> None:
    from matplotlib.figure import Figure

    for name in ("two-gaussians", "critical-token"):
        axes = Figure().add_subplot()
        plot_world(create_world(name), 0.1, axes)
        assert [text.get_text() for text in axes.get_legend().get_texts()][-1] == "critical window"
        assert axes.get_title(loc="left").startswith(f"{name}: from {{")


def test_a_plot_says_why_there_is_no_window() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    plot_world(create_world("topic-drift"), 0.1, axes)
    assert "never surely inside, no $T_{after}$, $T_{before}$ = 2" in axes.get_title(loc="left")
    axes = Figure().add_subplot()
    plot_world(create_world("two-gaussians"), 0.45, axes)
    assert axes.get_legend().get_texts()[-1].get_text() == "inverted: both at once"

    class Blur(Chain):
        before = ("a", "b")

    # Pure noise after one step: a and b mix, but only where they are lost among all labels.
    axes = Figure().add_subplot()
    plot_world(Blur(np.array([0.2, 0.3, 0.5]), np.eye(3), (np.full((3, 3), 1 / 3),)), 0.1, axes)
    assert "never mixed, no $T_{before}$, $T_{after}$ = 0" in axes.get_title(loc="left")
    assert len(axes.get_legend().get_texts()) == 3


def test_a_written_plot_is_the_same_every_time_and_keeps_its_text(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        write_plot(create_world("masked-strings"), 0.1, tmp_path / name)
    written = (tmp_path / "one.svg").read_bytes()
    assert written == (tmp_path / "two.svg").read_bytes()
    assert b">masked-strings: from {first, second} to {first}<" in written
    with pytest.raises(UserError, match=r"its name must end in .svg, .png or .pdf"):
        write_plot(create_world("masked-strings"), 0.1, tmp_path / "plot.txt")
    with pytest.raises(UserError, match="there is no folder"):
        write_plot(create_world("masked-strings"), 0.1, tmp_path / "nowhere" / "plot.png")


def test_the_table_has_every_world_at_every_eps() -> None:
    rows = worlds_table((0.2,))
    assert [row.world for row in rows] == list(WORLDS)
    *lines, blank, note = table_markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert (blank, note) == ("", "`*` marks a published end outside the index set.")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert list(dict.fromkeys(line[0] for line in cells)) == list(WORLDS)
    first = {name: next(line for line in cells if line[0] == name) for name in WORLDS}
    assert first["topic-drift"][2:4] == ["no-after [-, 1]", "[-0.8198*, 3.777]"]
    assert first["random-walk"][3] == "[1804, 1998]"
    assert [line[5] for line in cells if line[0] == "two-gaussians"] == ["T_before", "halfway", "T_after"]
    assert [line[5] for line in cells if line[0] == "permuted-masking"] == ["T_before", "T_after"]
    assert table_markdown(rows[:1]).count("*") == 0


def test_the_theory_loads_no_scipy() -> None:
    modules = (
        "sampler processes posterior divergence critical sampled bounds tree worlds.report worlds.gaussian_mixture"
    )
    code = "; ".join(f"import blinkscope.{name}" for name in modules.split())
    code += "; import sys; print({'scipy', 'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
