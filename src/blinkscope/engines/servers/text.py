"""Between words and token ids where a server has the tokenizer: what it is asked, and what is remembered of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from blinkscope.engines.servers.dialect import Call, Facts, TextDialect
from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Message, Path

T = TypeVar("T")

_MARK = "blinkscopereply"  # stands for a reply in a rendered conversation, to find what the template puts after it
_ANCHOR = "a"  # a token is spelled after one: some tokenizers drop the space that a text begins with
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True, eq=False)
class ServerText:
    """A server's tokenizer and chat template.

    ask: makes requests to it, several at a time.
    ends: ids that are known to end a turn; the engine adds those that it sees doing so.
    """

    dialect: TextDialect
    facts: Facts
    ask: Callable[[Sequence[Call[T]]], list[T]]
    ends: set[int] = field(default_factory=set)
    _pieces: dict[int, str] = field(default_factory=dict)

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context:
        """Ids of a prompt and of the opening of the reply."""
        if isinstance(prompt, str):
            if not prompt.strip():
                raise UserError("the prompt is empty; give the model something to answer.")
            if not self.facts.template:
                return Context((*self._ids(prompt, opening=True), *self._plain(prefill)), prefill)
            prompt = (Message("user", prompt),)
        if not prompt or not any(message.content.strip() for message in prompt):
            raise UserError("the conversation is empty; give the model something to answer.")
        if not self.facts.template:
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
        return self._one(self.dialect.spell(context.ids, self.facts))

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]:
        """Ids that end the reply, ask a question and open the answer."""
        if not self.facts.template:
            raise UserError("this model has no chat template, so it cannot be asked a follow-up question.")
        turns = context.messages or (Message("user", "?"),)
        return self._after_mark((*turns, Message("assistant", _MARK), Message("user", question)))

    @cached_property
    def closing(self) -> int:
        """The token that the template puts after a reply; without a template the one that is known to end a turn."""
        if self.facts.template:
            turns = (Message("user", "?"), Message("assistant", _MARK), Message("user", "?"))
            after = self._after_mark(turns)
            return next((id_ for id_ in after if id_ in self.ends), after[0])
        if not self.ends:
            raise UserError(
                "the server does not say which token ends a turn, so a reply cannot be marked as finished; name the "
                "model's tokenizer with ?tokenizer=FOLDER after the address."
            )
        return min(self.ends)

    @cached_property
    def _table(self) -> dict[int, bytes] | None:
        call = self.dialect.table(self.facts)
        return None if call is None else self._one(call)

    def _marks(self, ids: Sequence[int]) -> dict[int, str]:
        """Those ids that are no text, spelled out."""
        table = self._table
        marks = [id_ for id_ in set(ids) if id_ in self.ends or (table is not None and not table.get(id_))]
        return dict(zip(marks, self.ask([self.dialect.spell([id_], self.facts) for id_ in marks]), strict=True))

    def _spelled(self, ids: Sequence[int]) -> list[str]:
        """The text of each token, asked for once."""
        new = sorted({id_ for id_ in ids if id_ not in self._pieces})
        if new:
            calls = [self.dialect.spell((*self._anchor, id_), self.facts) for id_ in new]
            for id_, text in zip(new, self.ask(calls), strict=True):
                self._pieces[id_] = text[len(_ANCHOR) :]
        return [self._pieces[id_] for id_ in ids]

    def _after_anchor(self, ids: Sequence[int]) -> str:
        return self._one(self.dialect.spell((*self._anchor, *ids), self.facts))[len(_ANCHOR) :]

    @cached_property
    def _anchor(self) -> tuple[int, ...]:
        return self._one(self.dialect.plain(_ANCHOR, self.facts))

    def _templated(self, messages: Sequence[Message]) -> tuple[int, ...]:
        rendered = self._one(self.dialect.template(messages, self.facts))
        return self._ids(rendered, opening=True) if isinstance(rendered, str) else rendered

    def _after_mark(self, messages: Sequence[Message]) -> tuple[int, ...]:
        rendered = self._one(self.dialect.template(messages, self.facts))
        if not isinstance(rendered, str):
            rendered = self._one(self.dialect.spell(rendered, self.facts))
        _, found, after = rendered.rpartition(_MARK)
        if not found:
            raise UserError("the model's chat template drops replies, so nothing can be asked after one.")
        return self._ids(after, opening=False)

    def _ids(self, text: str, *, opening: bool) -> tuple[int, ...]:
        return self._one(self.dialect.tokenise(text, self.facts, opening=opening))

    def _plain(self, text: str) -> tuple[int, ...]:
        """Ids of a text that goes on from what stands before it."""
        if not text:
            return ()
        ids = self._one(self.dialect.plain(text, self.facts))
        if self.decode(ids) != text:
            # Some tokenizers put a space before a text; after a line break they do not.
            ahead = self._one(self.dialect.plain("\n", self.facts))
            both = self._one(self.dialect.plain("\n" + text, self.facts))
            if both[: len(ahead)] == ahead and self.decode(both[len(ahead) :]) == text:
                return both[len(ahead) :]
            warnings.warn(
                "the model's tokens cannot spell the given text exactly; what is analysed differs from it in "
                "special marks, spaces or characters.",
                stacklevel=2,
            )
        return ids

    def _one(self, call: Call[T]) -> T:
        (answer,) = self.ask([call])
        return answer
