"""A server's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from blinkscope.engines.servers.dialect import Call, Facts, TextDialect
from blinkscope.language.engine import Message

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ServerTokenizer:
    """A ``Tokenizer`` that is asked over the wire.

    ask: makes requests to the server, several at a time.
    """

    dialect: TextDialect
    facts: Facts
    ask: Callable[[Sequence[Call[T]]], list[T]]

    @property
    def has_template(self) -> bool:
        return self.facts.template

    def ids(self, text: str, *, opening: bool) -> tuple[int, ...]:
        return self._one(self.dialect.tokenise(text, self.facts, opening=opening))

    def plain(self, text: str) -> tuple[int, ...]:
        return self._one(self.dialect.plain(text, self.facts))

    def spell(self, several: Sequence[Sequence[int]]) -> list[str]:
        return self.ask([self.dialect.spell(ids, self.facts) for ids in several])

    def templated(self, messages: Sequence[Message]) -> str | tuple[int, ...]:
        return self._one(self.dialect.template(messages, self.facts))

    def table(self) -> dict[int, bytes] | None:
        call = self.dialect.table(self.facts)
        return None if call is None else self._one(call)

    def _one(self, call: Call[T]) -> T:
        (answer,) = self.ask([call])
        return answer
