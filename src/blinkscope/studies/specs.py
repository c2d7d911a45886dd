"""What a study is asked to do, as a frozen dataclass that can be written down and read as TOML."""

from __future__ import annotations

import json
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from typing import Any, TypeVar

from blinkscope.errors import UserError
from blinkscope.question import check_sampling

SpecT = TypeVar("SpecT")

REPEATED = ("python:", "http://", "https://")
"""What a spec from a file may name only together with the command line, because it runs code or sends texts away."""


@dataclass(frozen=True)
class Asking:
    """Which model is asked, and how it samples; None is the model's own setting."""

    model: str = "smollm2"
    system: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        check_sampling(**self.sampling)

    @property
    def sampling(self) -> dict[str, Any]:
        """What is not left to the model's own settings."""
        names = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return given | ({"stop": self.stop} if self.stop else {})


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that asks for nothing."""
    if not prompt.strip():
        raise UserError("the prompt is empty; give the text of a user's turn.")


def to_toml(study: str, spec: Any) -> str:
    """The spec as TOML; what is None is left out, which means the same."""
    plain: dict[str, Any] = {"study": study, **asdict(spec)}
    tables = {name: value for name, value in plain.items() if isinstance(value, dict)}
    lines = _lines({name: value for name, value in plain.items() if name not in tables})
    for name, table in tables.items():
        lines += ["", f"[{name}]", *_lines(table)]
    return "\n".join(lines) + "\n"


def from_toml(text: str, study: str, default: SpecT, *, repeated: frozenset[str] = frozenset()) -> SpecT:
    """The spec that a TOML text spells; what it leaves out is as in ``default``.

    Parameters
    ----------
    repeated : values that the command line names too.

    Raises
    ------
    UserError : it is no TOML, is of another study, has an unknown name or a value of the wrong kind, or names code
        or an address that the command line does not repeat.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"the spec is not TOML: {error}.") from None
    if document.pop("study", study) != study:
        raise UserError(f"the spec is not one of study {study}; its first line says which study it is of.")
    for value in _texts(document):
        judge = value.partition("@")[2] if value.startswith("judge:") else ""
        if (value.startswith(REPEATED) or judge.startswith(REPEATED)) and value not in repeated:
            raise UserError(
                f"the spec names {value!r}, which would run code or send texts to another machine; if that is meant, "
                "say it on the command line too."
            )
    base = asdict(default)  # type: ignore[call-overload]
    for name, value in document.items():
        inner = base.get(name)
        base[name] = {**inner, **value} if isinstance(inner, dict) and isinstance(value, dict) else value
    return spec_from(base, type(default))


def spec_from(document: Mapping[str, Any], kind: type[SpecT], place: str = "") -> SpecT:
    """The dataclass of a plain mapping, as a TOML file or a run file holds it."""
    if not isinstance(document, Mapping):
        raise UserError(f"{place or 'the spec'} must be a table.")
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(document) - set(known))
    if unknown:
        raise UserError(f"the spec has no setting {place}{unknown[0]}; there are {', '.join(known)}.")
    hints = typing.get_type_hints(kind)
    values = {name: _value(document[name], hints[name], f"{place}{name}") for name in document}
    return kind(**values)


def _value(value: Any, hint: Any, name: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return spec_from(value, hint, f"{name}.")
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    for option in options:
        if typing.get_origin(option) is tuple and isinstance(value, list | tuple):
            inner = typing.get_args(option)[0]
            if all(_is(item, inner) for item in value):
                return tuple(inner(item) for item in value)
        elif typing.get_origin(option) is typing.Literal and value in typing.get_args(option):
            return value
        elif isinstance(option, type) and _is(value, option):
            return option(value)
    raise UserError(f"{name} is {value!r} in the spec, which is not a value it can have.")


def _is(value: Any, kind: type) -> bool:
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_literal(value)}" for name, value in table.items() if value is not None]


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_literal, value))}]"
    # JSON's strings are TOML's, but for one control character.
    return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007F")


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inside for text in _texts(item)]
