"""JSON values as they stand in a run file: plain text where short, compressed where long."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import NoReturn

from blinkscope.errors import UserError
from blinkscope.estimate.source import JSON

LIMIT = 64 * 2**20  # bytes of one value, compressed or not; a file from a stranger must not fill the memory
PLAIN = 512  # bytes below which compressing does not pay
LEVEL = 6


class Unreadable(Exception):
    """A stored value that blinkscope did not write."""


def encode(value: JSON | Mapping[str, JSON]) -> str | bytes:
    """The column value of a JSON value: TEXT, or a BLOB of zlib."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    if len(text) > LIMIT:
        raise UserError(f"a value of {len(text) / 2**20:.0f} MiB is too large for a run file; the limit is 64 MiB.")
    return text if len(text) < PLAIN else zlib.compress(text.encode("ascii"), LEVEL)


def decode(column: object) -> JSON:
    """The JSON value of a column; ``Unreadable`` for anything that ``encode`` cannot have written."""
    try:
        if isinstance(column, bytes):
            inflate = zlib.decompressobj()
            text = inflate.decompress(column, LIMIT).decode("ascii")
            if not inflate.eof:
                raise Unreadable("a compressed value is cut off or larger than 64 MiB")
        elif isinstance(column, str):
            text = column
        else:
            raise Unreadable("a value is neither text nor compressed text")
        value: JSON = json.loads(text, parse_constant=_refuse)
    except (zlib.error, ValueError, RecursionError) as error:
        raise Unreadable(f"a value is not JSON ({error})") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise Unreadable(f"a value holds {constant}")
