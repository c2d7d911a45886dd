"""A study's settings as TOML."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest

from blinkscope.errors import UserError
from blinkscope.studies.catalogue import STUDIES, find_study
from blinkscope.studies.prefill import PrefillSpec
from blinkscope.studies.specs import from_toml, to_toml


@pytest.mark.parametrize("name", STUDIES)
def test_a_spec_is_read_back_as_it_was_written(name: str) -> None:
    study = find_study(name)
    assert study is not None
    spec = study.default
    odd: dict[str, Any] = {"system": 'say "\x7f\n\\"', "temperature": 1, "stop": ("\n\n", "é"), "seed": 7}
    asking = replace(spec.asking, **{key: value for key, value in odd.items() if hasattr(spec.asking, key)})
    spec = replace(spec, asking=asking)
    text = to_toml(name, spec)
    assert tomllib.loads(text)["study"] == name
    assert from_toml(text, name, study.default) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study = 'repeat'", "not one of study prefill"),
        ("data = ", "not TOML"),
        ("colour = 'red'", "no setting colour"),
        ("items = 'many'", "items is 'many'"),
        ("items = true", "items is True"),
        ("[asking]\nseeds = 3", "no setting asking.seeds"),
        ("asking = 3", "asking. must be a table"),
        ("feature = 'python:evil:run'", "command line too"),
        ("[asking]\nmodel = 'http://elsewhere:8000/v1#m'", "command line too"),
        ("feature = 'judge:strongreject@http://elsewhere:8000/v1#m'", "command line too"),
        ("feature = 'nothing'", "no feature 'nothing'"),
        ("[target]\nerror = 2.0", "error is 2.0"),
    ],
)
def test_what_a_spec_cannot_be_is_said(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        from_toml(text, "prefill", PrefillSpec())


def test_a_table_changes_only_what_it_names() -> None:
    spec = from_toml("[asking]\nseed = 3\n[target]\ndelta = 0.3", "prefill", PrefillSpec())
    assert spec.asking == replace(PrefillSpec().asking, seed=3)
    assert spec.target == replace(PrefillSpec().target, delta=0.3)


def test_code_that_the_command_line_repeats_is_allowed() -> None:
    repeated = frozenset({"python:blinkscope.nothing:run"})
    spec = from_toml("feature = 'python:blinkscope.nothing:run'", "prefill", PrefillSpec(), repeated=repeated)
    assert spec.feature in repeated
