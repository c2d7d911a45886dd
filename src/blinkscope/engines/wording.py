"""What every engine with a tokenizer does between words and token ids, whoever the tokenizer belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from blinkscope.engines.window import ContextWindow
from blinkscope.language.engine import Context, Message, Path


class Words(Protocol):
    """A tokenizer and its chat template."""

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context: ...

    def encode_reply(self, context: Context, text: str, finished: bool) -> Path: ...

    def decode(self, tokens: Iterable[int]) -> str: ...

    def pieces(self, tokens: Iterable[int]) -> list[str]: ...

    def spell(self, context: Context) -> str: ...

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]: ...


W = TypeVar("W", bound=Words)


class Wording(Generic[W]):
    """The part of an ``Engine`` that is about words.

    Parameters
    ----------
    text : what turns words into ids and back.
    window : how many ids there may be.
    """

    def __init__(self, text: W, window: ContextWindow) -> None:
        self._text, self._window = text, window

    @property
    def context_window(self) -> int:
        return self._window.tokens

    def encode(self, prompt: str | tuple[Message, ...], *, prefill: str = "") -> Context:
        return self._window.check_prompt(self._text.encode(prompt, prefill))

    def encode_reply(self, context: Context, text: str, *, finished: bool) -> Path:
        return self._text.encode_reply(context, text, finished)

    def decode(self, tokens: Iterable[int]) -> str:
        return self._text.decode(tokens)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return self._text.pieces(tokens)

    def spell(self, context: Context) -> str:
        return self._text.spell(context)

    def follow_up(self, path: Path, question: str) -> tuple[int, ...]:
        return self._text.follow_up(path.context, question)
