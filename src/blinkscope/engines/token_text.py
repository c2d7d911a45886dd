"""Between words and token ids for a tokenizer that tells ids, bytes and template, and no more.

Such are those of servers and of llama.cpp; transformers' tokenizers tell more (``text.py``).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Message, Path

_MARK = "blinkscopereply"  # stands for a reply in a rendered conversation, to find what the template puts after it
_ANCHOR = "a"  # a token is spelled after one: some tokenizers drop the space that a text begins with
_INCOMPLETE = "\ufffd"


class Tokenizer(Protocol):
    """What a tokenizer tells of itself.

    has_template: whether it has a chat template.
    """

    @property
    def has_template(self) -> bool: ...

    def ids(self, text: str, *, opening: bool) -> tuple[int, ...]:
        """Ids of a text, marks in it understood; ``opening`` adds what the tokenizer puts before a whole text."""
        ...

    def plain(self, text: str) -> tuple[int, ...]:
        """Ids of a text in which marks are ordinary characters, as far as the tokenizer can do that."""
        ...

    def spell(self, several: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of ids, marks spelled out."""
        ...

    def templated(self, messages: Sequence[Message]) -> str | tuple[int, ...]:
        """A conversation with the opening of the reply, as ids, or as the text of which ids are made as of a prompt."""
        ...

    def table(self) -> Mapping[int, bytes] | None:
        """The bytes of every token, those of marks empty; None where the tokenizer cannot list them."""
        ...


@dataclass(frozen=True, eq=False)
class TokenText:
    """A tokenizer and its chat template.

    ends: ids that are known to end a turn; the engine adds those that it sees doing so.
    """

    tokenizer: Tokenizer
    ends: set[int] = field(default_factory=set)
    _pieces: dict[int, str] = field(default_factory=dict)

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context:
        """Ids of a prompt and of the opening of the reply."""
        if isinstance(prompt, str):
            if not prompt.strip():
                raise UserError("the prompt is empty; give the model something to answer.")
            if not self.tokenizer.has_template:
                return Context((*self.tokenizer.ids(prompt, opening=True), *self._plain(prefill)), prefill)
            prompt = (Message("user", prompt),)
        if not prompt or not any(message.content.strip() for message in prompt):
            raise UserError("the conversation is empty; give the model something to answer.")
        if not self.tokenizer.has_template:
            raise UserError("this model has no chat template, so it cannot take messages; give the prompt as one text.")
        if prompt[-1].role == "assistant":
            raise UserError("the last message is the assistant's; end the conversation with a user's message.")
        return Context((*self._templated(prompt), *self._plain(prefill)), prefill, prompt)

    def encode_reply(self, context: Context, text: str, finished: bool) -> Path:
        """A transcript as the path after a context."""
        ids = self._plain(text)
        return Path(context, (*ids, self.closing) if finished else ids)

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of ids, without those that end a turn and other marks."""
        ids = [token for token in tokens if token not in self.ends]
        if self._table is not None:
            return b"".join(self._table.get(id_, b"") for id_ in ids).decode("utf-8", errors="replace")
        pieces = self._spelled(ids)
        if any(_INCOMPLETE in piece for piece in pieces):
            return self._after_anchor(ids)
        return "".join(pieces)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Text of each token. A character that is spread over several tokens belongs to the last of them."""
        ids = list(tokens)
        marks = self._marks(ids)
        pieces: list[str] = []
        open_: list[int] = []  # tokens whose bytes are not, or not yet, a character
        for id_ in ids:
            if id_ in marks:
                pieces[len(pieces) - 1 :] = [pieces[-1] + self.decode(open_)] if open_ else pieces[len(pieces) - 1 :]
                pieces.append(marks[id_])
                open_ = []
                continue
            open_.append(id_)
            text = self.decode(open_)
            complete = not text.endswith(_INCOMPLETE)
            pieces.append(text if complete else "")
            open_ = [] if complete else open_
        if open_:
            pieces[-1] += self.decode(open_)
        return pieces

    def spell(self, context: Context) -> str:
        """The context as text, marks spelled out."""
        return self.tokenizer.spell([context.ids])[0]

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]:
        """Ids that end the reply, ask a question and open the answer."""
        if not self.tokenizer.has_template:
            raise UserError("this model has no chat template, so it cannot be asked a follow-up question.")
        turns = context.messages or (Message("user", "?"),)
        return self._after_mark((*turns, Message("assistant", _MARK), Message("user", question)))

    @cached_property
    def closing(self) -> int:
        """The token that the template puts after a reply; without a template the one that is known to end a turn."""
        if self.tokenizer.has_template:
            turns = (Message("user", "?"), Message("assistant", _MARK), Message("user", "?"))
            after = self._after_mark(turns)
            return next((id_ for id_ in after if id_ in self.ends), after[0])
        if not self.ends:
            raise UserError(
                "it is not known which token ends a turn, so a reply cannot be marked as finished; of a server's "
                "model name the tokenizer with ?tokenizer=FOLDER after the address."
            )
        return min(self.ends)

    @cached_property
    def _table(self) -> Mapping[int, bytes] | None:
        return self.tokenizer.table()

    def _marks(self, ids: Sequence[int]) -> dict[int, str]:
        """Those ids that are no text, spelled out."""
        table = self._table
        marks = [id_ for id_ in set(ids) if id_ in self.ends or (table is not None and not table.get(id_))]
        return dict(zip(marks, self.tokenizer.spell([[id_] for id_ in marks]), strict=True))

    def _spelled(self, ids: Sequence[int]) -> list[str]:
        """The text of each token, asked for once."""
        new = sorted({id_ for id_ in ids if id_ not in self._pieces})
        if new:
            for id_, text in zip(new, self.tokenizer.spell([(*self._anchor, id_) for id_ in new]), strict=True):
                self._pieces[id_] = text[len(_ANCHOR) :]
        return [self._pieces[id_] for id_ in ids]

    def _after_anchor(self, ids: Sequence[int]) -> str:
        return self.tokenizer.spell([(*self._anchor, *ids)])[0][len(_ANCHOR) :]

    @cached_property
    def _anchor(self) -> tuple[int, ...]:
        return self.tokenizer.plain(_ANCHOR)

    def _templated(self, messages: Sequence[Message]) -> tuple[int, ...]:
        rendered = self.tokenizer.templated(messages)
        return self.tokenizer.ids(rendered, opening=True) if isinstance(rendered, str) else rendered

    def _after_mark(self, messages: Sequence[Message]) -> tuple[int, ...]:
        rendered = self.tokenizer.templated(messages)
        if not isinstance(rendered, str):
            (rendered,) = self.tokenizer.spell([rendered])
        _, found, after = rendered.rpartition(_MARK)
        if not found:
            raise UserError("the model's chat template drops replies, so nothing can be asked after one.")
        return self.tokenizer.ids(after, opening=False)

    def _plain(self, text: str) -> tuple[int, ...]:
        """Ids of a text that goes on from what stands before it."""
        if not text:
            return ()
        ids = self.tokenizer.plain(text)
        if self.decode(ids) != text:
            # Some tokenizers put a space before a text; after a line break they do not.
            ahead, both = self.tokenizer.plain("\n"), self.tokenizer.plain("\n" + text)
            if both[: len(ahead)] == ahead and self.decode(both[len(ahead) :]) == text:
                return both[len(ahead) :]
            warnings.warn(
                "the model's tokens cannot spell the given text exactly; what is analysed differs from it in "
                "special marks, spaces or characters.",
                stacklevel=2,
            )
        return ids
