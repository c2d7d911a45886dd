"""``blinkscope world`` and ``blinkscope worlds`` as a user runs them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scipy.stats import norm

from blinkscope.worlds import WORLDS, parameter_meanings
from tests.e2e.command import blinkscope, result
from tests.test_imports import loaded

SMALL = {
    "gaussian-mixture": ("--components", "3", "--dim", "10"),
    "random-walk": ("--length", "100"),
    "in-context": ("--examples", "40"),
    "sparse-regression": ("--dim", "20"),
    "random-hierarchy": ("--depth", "2"),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_world_answers_as_json(name: str, tmp_path: Path) -> None:
    found = result("world", name, *SMALL.get(name, ()), "--eps", "0.2", cwd=tmp_path)
    assert found["world"] == name
    assert found["schema"] == 1
    assert found["eps"] == 0.2
    window = found["window"]
    if found["outcome"] == "window":
        assert window["t_after"] < window["t_before"]
    else:
        assert found["outcome"] in ("no-after", "no-before", "inverted")
    assert set(found["after"]) < set(found["before"]) <= set(found["labels"])
    if found["certificate"] is not None:
        assert all(bound <= found["theorem2"]["sharper"] + 1e-9 for bound in found["certificate"]["bound"])
    assert found["theorem2"]["sharper"] <= found["theorem2"]["published"]
    assert not list(tmp_path.iterdir())


def test_closed_forms(tmp_path: Path) -> None:
    gaussians = result("world", "two-gaussians", "--mean-norm", "10", "--eps", "0.1", cwd=tmp_path)["window"]
    assert gaussians["t_after"] == pytest.approx(math.log(10 / norm.ppf(1 - 0.005)), rel=1e-6)
    assert gaussians["t_before"] == pytest.approx(math.log(10 / norm.ppf(0.6)), rel=1e-6)
    strings = result("world", "masked-strings", "--hamming", "7", "--eps=0.2", cwd=tmp_path)["window"]
    assert strings["t_after"] == pytest.approx(0.04 ** (1 / 7), rel=1e-6)
    branch = result("world", "critical-token", "--agree", "40", "--width", "3", "--leak", "0.01", cwd=tmp_path)
    assert branch["window"] == {"t_after": 57, "t_before": 60}


def test_words_for_a_person(tmp_path: Path) -> None:
    done = blinkscope("world", "two-gaussians", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Critical window: T_after = 1.3564, T_before = 3.6756." in done.stdout
    assert "Paper: T_after = 0.93853, T_before = 5.2983." in done.stdout
    assert "\x1b" not in done.stdout
    none = blinkscope("world", "topic-drift", cwd=tmp_path)
    assert "(outside the index set), T_before = 4.1241." in " ".join(none.stdout.split())
    assert "No window: the sampler is never surely inside S_after" in none.stdout


def test_other_label_sets(tmp_path: Path) -> None:
    """Strings that begin with 00, among those that begin with 0: the second coordinate's step."""
    asked = ("world", "permuted-masking", "--coordinates", "3", "--alphabet", "2", "--before", "000,001,010,011")
    found = result(*asked, "--after", "000,001", "--plot", "second.svg", cwd=tmp_path)
    assert (found["after"], found["before"]) == (["000", "001"], ["000", "001", "010", "011"])
    assert found["window"] == {"t_after": 1, "t_before": 2}
    assert found["paper"] is None
    assert "from {000, 001, 010, ...}, 4 of 8 to {000, 001}" in (tmp_path / "second.svg").read_text(encoding="utf-8")
    wrong = blinkscope(*asked, "--after", "111", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "'111' is in the smaller set but not in the larger one" in wrong.stderr


def test_a_figure(tmp_path: Path) -> None:
    done = blinkscope("world", "critical-token", "--plot", "token.svg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "token.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_help_on_a_world_says_what_its_parameters_mean(tmp_path: Path) -> None:
    done = blinkscope("world", "masked-strings", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--hamming 10: number h of places in which they differ" in done.stdout
    assert "--plot FILE" in done.stdout
    for name in WORLDS:
        assert all(parameter_meanings(name).values())
    unknown = blinkscope("world", "nowhere", "--help", cwd=tmp_path)
    assert unknown.returncode == 2
    assert "there is no world 'nowhere'" in unknown.stderr


def test_help_without_a_world_loads_no_numpy() -> None:
    code = "import contextlib\nimport blinkscope.cli.main as m\n"
    code += "with contextlib.suppress(SystemExit): m.main(['world', '--help'])"
    assert loaded(code).isdisjoint({"numpy", "scipy", "matplotlib", "jaxtyping"})


def test_the_list_names_every_world_with_its_parameters(tmp_path: Path) -> None:
    done = blinkscope("worlds", cwd=tmp_path)
    assert [line.split()[0] for line in done.stdout.splitlines() if line[:1].strip()] == list(WORLDS)
    assert "--length 100  --agree 40  --width 3  --leak 0.01" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "there is no world 'nowhere'"),
        (("two-gaussians", "--eps", "0"), "eps"),
        (("two-gaussians", "--eps", "1"), "eps"),
        (("two-gaussians", "--eps", "nan"), "eps"),
        (("two-gaussians", "--mean-norm", "-1"), "mean-norm"),
        (("two-gaussians", "--mean-norm", "wide"), "needs a number"),
        (("two-gaussians", "--mean-norm"), "--mean-norm has no value"),
        (("two-gaussians", "--dim", "3"), "it has mean-norm"),
        (("two-gaussians", "wide"), "spelled --name value"),
        (("two-gaussians", "--plot", "figure.doc"), "must end in"),
        (("two-gaussians", "--plot", "nowhere/figure.svg"), "no folder nowhere"),
        (("random-hierarchy", "--depth", "40"), "GiB"),
        (("sparse-regression", "--dim", "100000", "--sparsity", "4"), "GiB"),
        (("permuted-masking", "--order", "0,0,1,2,3,4"), "order"),
    ],
)
def test_mistakes_get_a_sentence(arguments: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = blinkscope("world", *arguments, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


@pytest.mark.slow
def test_the_table(tmp_path: Path) -> None:
    done = blinkscope("worlds", "--table", cwd=tmp_path)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:-2]]
    named = [[name, eps] for name in WORLDS for eps in ("0.05", "0.1", "0.2")]
    assert [list(pair) for pair in dict.fromkeys((row[0], row[1]) for row in rows)] == named
    for row in rows:
        certificate, (value, error) = float(row[8]), map(float, row[9].split(" +- "))
        if row[5] != "halfway":
            published, sharper = map(float, row[6:8])
            assert certificate <= sharper + 5e-4 <= published + 1e-3
        assert value <= certificate + 6 * error + 0.01  # false alarm below 1e-8 a row
    assert not done.stderr
