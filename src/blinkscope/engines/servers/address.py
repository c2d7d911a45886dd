"""What stands after ``--model`` for a server: addresses, the model's name, settings; and the keys that belong to hosts.

    http://HOST:8000/v1#MODEL
    http://A:8000/v1,http://B:8000/v1?dialect=vllm&concurrency=512#MODEL

A key never stands in an address. It is looked up for the host that a request goes to, in the environment variable
``BLINKSCOPE_KEYS`` (``HOST=KEY``, several with spaces) and in the key file (a line ``HOST KEY`` each), and goes to no
other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from blinkscope.errors import UserError

KEYS_VARIABLE = "BLINKSCOPE_KEYS"
KEY_FILE_VARIABLE = "BLINKSCOPE_KEY_FILE"


@dataclass(frozen=True)
class Address:
    """One server. url: up to where its own routes begin, without ``/v1``. key: sent to this host alone."""

    url: str
    key: str | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class Servers:
    """Servers of one model, and how they are used.

    model: the name by which the servers know it; None where they have one only.
    dialect: the kind of server; found out by asking where None.
    tokenizer: a folder or name with the model's tokenizer, for servers that have none to offer, and to check theirs.
    concurrency: most continuations that one server is given at a time; as many as it says it can take where None.
    timeout: seconds in which a request must be answered.
    patience: seconds for which a server that does not answer is tried again before the run stops.
    """

    addresses: tuple[Address, ...]
    model: str | None = None
    dialect: str | None = None
    tokenizer: str | None = None
    concurrency: int | None = None
    timeout: float = 600.0
    patience: float = 300.0


def read_servers(spec: str, keys: Mapping[str, str] | None = None) -> Servers:
    """The servers that ``--model SPEC`` names.

    keys : by host, in the place of those that this process finds (``read_keys``).

    Raises
    ------
    UserError : an address or a setting makes no sense, or a key stands in it.
    """
    keys = read_keys() if keys is None else keys
    addresses: list[Address] = []
    models: set[str] = set()
    settings: dict[str, str] = {}
    for text in spec.split(","):
        parts = urlsplit(text.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"{_hidden(text)!r} is no address of a server; write http://HOST:PORT/v1#MODEL, several with commas."
            )
        try:
            parts.port  # noqa: B018
        except ValueError:
            raise UserError(f"{_hidden(text)!r} has no port that there is; ports are numbers up to 65535.") from None
        if parts.username is not None or parts.password is not None:
            raise UserError(
                f"a password stands in the address of {parts.hostname}; addresses are written down. Put the key into "
                f"{KEYS_VARIABLE} or the key file (see docs/serving.md)."
            )
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _SETTINGS:
                raise UserError(
                    f"an address has no setting {name!r}; there are {', '.join(_SETTINGS)}. A key belongs into "
                    f"{KEYS_VARIABLE} or the key file."
                )
            settings[name] = value
        if parts.fragment:
            models.add(parts.fragment)
        path = parts.path.rstrip("/").removesuffix("/v1")
        addresses.append(Address(f"{parts.scheme}://{parts.netloc}{path}", keys.get(parts.netloc)))
    if len(models) > 1:
        raise UserError(f"the servers are asked for several models, {' and '.join(sorted(models))}; name one.")
    if len({address.url for address in addresses}) < len(addresses):
        raise UserError("a server is named twice; name each once.")
    model = next(iter(models), None)
    return Servers(tuple(addresses), model, **{name: _SETTINGS[name](name, value) for name, value in settings.items()})


def one_each(spec: str) -> tuple[str, ...]:
    """The spelling of each of the servers alone, with the settings of all."""
    servers = read_servers(spec, {})
    given = {name: getattr(servers, name) for name in _SETTINGS}
    settings = urlencode({name: value for name, value in given.items() if value != getattr(Servers, name)})
    end = f"?{settings}" if settings else ""
    end += f"#{servers.model}" if servers.model else ""
    return tuple(f"{address.url}/v1{end}" for address in servers.addresses)


def _text(name: str, value: str) -> str:
    if not value:
        raise UserError(f"the setting {name} of a server's address is empty; give it a value or leave it out.")
    return value


def _count(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name} is {value!r}; it must be a positive whole number.")
    return int(value)


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise UserError(f"{name} is {value!r}; it must be a positive number of seconds.")
    return seconds


_SETTINGS: Mapping[str, Callable[[str, str], Any]] = {
    "dialect": _text,
    "tokenizer": _text,
    "concurrency": _count,
    "timeout": _seconds,
    "patience": _seconds,
}


def _hidden(text: str) -> str:
    """An address for a message: what stands before an @ may be a password."""
    head, at, rest = text.rpartition("@")
    return f"{head.partition('//')[0]}//***@{rest}" if at else text


def read_keys(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Keys by host (``HOST`` or ``HOST:PORT``, as in the address), those of the environment first.

    Raises
    ------
    UserError : a line or a pair cannot be read, or others on this machine may read the key file.
    """
    environment = os.environ if environment is None else environment
    keys: dict[str, str] = {}
    named = environment.get(KEY_FILE_VARIABLE)
    place = Path(named).expanduser() if named else _usual_place()
    if named and not place.is_file():
        raise UserError(f"there is no key file {named}, which {KEY_FILE_VARIABLE} names.")
    if place.is_file():
        if os.name == "posix" and place.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise UserError(f"others may read the key file {place}; run: chmod 600 {place}")
        for number, line in enumerate(place.read_text(encoding="utf-8").splitlines(), 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) != 2:
                raise UserError(f"line {number} of the key file {place} is not HOST KEY.")
            keys[words[0]] = words[1]
    for pair in environment.get(KEYS_VARIABLE, "").split():
        host, equals, key = pair.partition("=")
        if not (host and equals and key):
            raise UserError(f"{KEYS_VARIABLE} must hold HOST=KEY, several with spaces; one of its entries does not.")
        keys[host] = key
    return keys


def _usual_place() -> Path:
    from platformdirs import user_config_path

    return user_config_path("blinkscope") / "keys"
