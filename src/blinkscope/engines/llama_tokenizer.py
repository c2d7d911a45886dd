"""The tokenizer and the chat template of a GGUF file."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import llama_cpp as lib
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from blinkscope.engines.llama_model import LlamaModel
from blinkscope.errors import UserError
from blinkscope.language.engine import Message


@dataclass(frozen=True, eq=False)
class LlamaTokenizer:
    """A ``Tokenizer``.

    A rendered conversation is read as it stands: whether it begins with a beginning-of-text token is the template's
    affair, as it is with transformers.
    """

    model: LlamaModel

    @cached_property
    def _template(self) -> Jinja2ChatFormatter | None:
        template = lib.llama_model_chat_template(self.model.pointer, None)
        if not template:
            return None
        first, last = (
            self.spell([[id_]])[0] if id_ >= 0 else ""
            for id_ in (lib.llama_vocab_bos(self.model.vocab), lib.llama_vocab_eos(self.model.vocab))
        )
        return Jinja2ChatFormatter(template.decode("utf-8"), eos_token=last, bos_token=first)

    @property
    def has_template(self) -> bool:
        return self._template is not None

    def ids(self, text: str, *, opening: bool) -> tuple[int, ...]:
        found = self._tokenise(text, opening=opening, marks=True)
        if opening and lib.llama_vocab_get_add_eos(self.model.vocab) and found[-1:]:
            return found[:-1]  # the text goes on
        return found

    def plain(self, text: str) -> tuple[int, ...]:
        return self._tokenise(text, opening=False, marks=False)

    def spell(self, several: Sequence[Sequence[int]]) -> list[str]:
        return [b"".join(self._piece(id_, marks=True) for id_ in ids).decode("utf-8", "replace") for ids in several]

    def templated(self, messages: Sequence[Message]) -> tuple[int, ...]:
        assert self._template is not None
        turns: list[Any] = [{"role": message.role, "content": message.content} for message in messages]
        try:
            rendered = self._template(messages=turns).prompt
        except Exception as error:  # a template is a program of the model's authors and raises what it likes
            raise UserError(f"the model's chat template refuses this conversation: {error}") from error
        return self._tokenise(rendered, opening=False, marks=True)

    def table(self) -> dict[int, bytes]:
        return {id_: self._piece(id_, marks=False) for id_ in range(self.model.size)}

    def _tokenise(self, text: str, *, opening: bool, marks: bool) -> tuple[int, ...]:
        written = text.encode("utf-8")
        most = len(written) + 2  # a token holds at least one byte, and two may be added
        ids = (lib.llama_token * most)()
        count = lib.llama_tokenize(self.model.vocab, written, len(written), ids, most, opening, marks)
        if count < 0:
            raise UserError("llama.cpp cannot split this text into tokens.")
        return tuple(ids[:count])

    def _piece(self, id_: int, *, marks: bool) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        length = lib.llama_token_to_piece(self.model.vocab, id_, buffer, len(buffer), 0, marks)
        if length < 0:  # the buffer is too small by so much
            buffer = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self.model.vocab, id_, buffer, len(buffer), 0, marks)
        return buffer.raw[: max(length, 0)]
