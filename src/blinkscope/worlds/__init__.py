"""Worlds: models in which the label posterior, the windows and the bounds are computed exactly.

Each is one short file; ``world.py`` says what a world is, ``two_gaussians.py`` is the one to read first.
"""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, get_type_hints

from blinkscope.errors import UserError
from blinkscope.worlds.world import World

WORLDS: Mapping[str, str] = {
    "two-gaussians": "two_gaussians:TwoGaussians",
    "gaussian-mixture": "gaussian_mixture:GaussianMixture",
    "masked-strings": "masked_strings:MaskedStrings",
    "critical-token": "critical_token:CriticalToken",
    "random-walk": "random_walk:RandomWalk",
    "in-context": "in_context:InContext",
    "permuted-masking": "permuted_masking:ProductAlphabet",
    "sparse-regression": "sparse_regression:SparseRegression",
    "topic-drift": "topic_drift:TopicDrift",
    "random-hierarchy": "random_hierarchy:RandomHierarchy",
}


def world_class(name: str) -> type[Any]:
    """The class registered under a name; its fields are the world's parameters."""
    if name not in WORLDS:
        raise UserError(f"there is no world {name!r}; the worlds are {', '.join(WORLDS)}.")
    module, cls = WORLDS[name].split(":")
    found: type[Any] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return found


def create_world(name: str, parameters: Mapping[str, Any] | None = None) -> World:
    """The world registered under ``name``; its parameters by name, as numbers or as text from a command line.

    ``mean-norm`` and ``mean_norm`` are the same parameter. Parameters left out take the world's defaults.
    """
    readers = parameter_readers(name)
    values: dict[str, Any] = {}
    for given, value in (parameters or {}).items():
        key = given.replace("_", "-")
        if key not in readers:
            raise UserError(f"the world {name} has no parameter {given!r}; it has {', '.join(readers)}.")
        needed, read = readers[key]
        try:
            values[key.replace("-", "_")] = read(value)
        except (ValueError, TypeError):
            raise UserError(f"{key} is {value!r}; the world {name} needs {needed} there.") from None
    return world_class(name)(**values)


def parameter_readers(name: str) -> dict[str, tuple[str, Callable[[Any], Any]]]:
    """The parameters of a world that a command line can give: what each needs, in words, and how its text is read.

    Fields of other types (arrays) can be given from Python only.
    """
    world = world_class(name)
    hints = get_type_hints(world)
    listed = [field.name for field in fields(world)]
    return {key.replace("_", "-"): _READERS[hints[key]] for key in listed if hints[key] in _READERS}


def described(name: str) -> tuple[str, tuple[str, ...]]:
    """What a world is, in a line, and its parameters as a command line spells them, with their defaults.

    One that can be left out altogether stands in brackets.
    """
    world = world_class(name)
    module = importlib.import_module(world.__module__)
    defaults = {field.name.replace("_", "-"): field.default for field in fields(world)}
    spelled = (
        f"[--{key} VALUE]" if defaults[key] in (None, "") else f"--{key} {defaults[key]}"
        for key in parameter_readers(name)
    )
    return (module.__doc__ or "").partition("\n")[0].removesuffix("."), tuple(spelled)


def parameter_meanings(name: str) -> dict[str, str]:
    """What each parameter of ``parameter_readers`` means, from the docstring of the world's class.

    There the meaning of a parameter, or of several with commas between them, follows its name and a colon.
    """
    world = world_class(name)
    listed = "|".join(field.name for field in fields(world))
    parts = re.split(rf"(?<!\S)((?:{listed})(?:, (?:{listed}))*): ", " ".join((world.__doc__ or "").split()))
    told = {key: said for keys, said in zip(parts[1::2], parts[2::2], strict=True) for key in keys.split(", ")}
    return {key: told[key.replace("-", "_")].strip().replace("``", "").rstrip(".") for key in parameter_readers(name)}


def _whole(value: Any) -> int:
    return int(value) if isinstance(value, str) else operator.index(value)


def _whole_list(value: Any) -> tuple[int, ...]:
    return tuple(_whole(item) for item in (value.split(",") if isinstance(value, str) else value))


_READERS: Mapping[Any, tuple[str, Callable[[Any], Any]]] = {
    int: ("a whole number", _whole),
    int | None: ("a whole number", _whole),
    float: ("a number", float),
    str: ("text", str),
    tuple[int, ...]: ("whole numbers with commas between them", _whole_list),
    tuple[int, ...] | None: ("whole numbers with commas between them", _whole_list),
}
