"""Between words and token ids: chat templates, prefill, transcripts, and the text of each token."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from blinkscope.errors import UserError
from blinkscope.language.engine import Context, Message, Path
from blinkscope.language.reading import Conversation, Transcript

_MARK = "blinkscopereply"  # stands for a reply in a rendered conversation, to find what the template puts after it
_INCOMPLETE = "\ufffd"  # what a decoder writes for bytes that are not, or not yet, a character


@dataclass(frozen=True, eq=False)
class Text:
    """A tokenizer with its chat template.

    end_of_turn: ids of which any ends the model's turn.
    """

    tokenizer: Any
    end_of_turn: frozenset[int]

    @property
    def has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids that are marks, not text."""
        added = {id_ for id_, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset(added | set(self.tokenizer.all_special_ids) | self.end_of_turn)

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context:
        """Ids of a prompt and of the opening of the reply."""
        if isinstance(prompt, str):
            if not prompt.strip():
                raise UserError("the prompt is empty; give the model something to answer.")
            if not self.has_template:
                return self._with_prefill(self._raw(prompt), prefill, ())
            prompt = (Message("user", prompt),)
        if not prompt or not any(message.content.strip() for message in prompt):
            raise UserError("the conversation is empty; give the model something to answer.")
        if not self.has_template:
            raise UserError("this model has no chat template, so it cannot take messages; give the prompt as one text.")
        if prompt[-1].role == "assistant":
            raise UserError("the last message is the assistant's; end the conversation with a user's message.")
        return self._with_prefill(self._ids(self._render(prompt)), prefill, prompt)

    def _with_prefill(self, ids: list[int], prefill: str, messages: tuple[Message, ...]) -> Context:
        return Context((*ids, *self._plain(prefill)), prefill, messages)

    def encode_reply(self, context: Context, text: str, finished: bool) -> Path:
        """A transcript as the path after a context."""
        ids = self._plain(text)
        return Path(context, (*ids, self.closing) if finished else ids)

    def transcript(self, conversation: Conversation, reply: str) -> Transcript:
        """A conversation and a reply, and which positions are what somebody said in it."""
        spelled = conversation.spelled
        if spelled is not None and all(self._is_mark(mark) for mark in spelled.marks):
            ids, own = self._within(spelled.text, spelled.own)
        else:
            context = self.encode(conversation.prompt, conversation.prefill)
            if context.messages:
                rendered = self._render(context.messages)
                ids, own = self._within(rendered, self._contents(rendered, context.messages))
            else:
                ids = list(context.ids[: len(context.ids) - len(self._plain(conversation.prefill))])
                own = [place for place, token in enumerate(ids) if token not in self.special]
            own += range(len(ids), len(context.ids))
            ids = list(context.ids)
        said = self._plain(reply)
        return Transcript((*ids, *said), tuple(own), range(len(ids), len(ids) + len(said)))

    def _is_mark(self, text: str) -> bool:
        """Whether a text is one of this tokenizer's special tokens."""
        ids = self._ids(text)
        return len(ids) == 1 and ids[0] in self.special

    def _within(self, text: str, spans: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]]:
        """Ids of a text with its marks, and the positions of those tokens that lie within one of the spans."""
        if not self.tokenizer.is_fast:
            raise UserError("this model's tokenizer does not say where its tokens lie in a text; it cannot be read.")
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        inside = np.zeros(len(text) + 1, dtype=bool)
        for start, end in spans:
            inside[start:end] = True
        own = [i for i, (start, end) in enumerate(found.offset_mapping) if start < end and inside[start:end].all()]
        return list(found.input_ids), own

    def _contents(self, rendered: str, messages: tuple[Message, ...]) -> list[tuple[int, int]]:
        """Where what the user and the assistant said lies in a rendered conversation.

        The template is rendered once more with a mark in place of each content: what stands between the marks is the
        template's own, and what lies between those pieces is what was said. Some templates trim it.
        """
        marks = [f"{_MARK}{i}x" for i in range(len(messages))]
        turns = tuple(Message(message.role, mark) for message, mark in zip(messages, marks, strict=True))
        first, *pieces = re.split("|".join(marks), self._render(turns))
        pattern = re.escape(first)
        for message, piece in zip(messages, pieces, strict=False):
            said = "|".join(re.escape(text) for text in dict.fromkeys((message.content, message.content.strip())))
            pattern += f"({said}){re.escape(piece)}"
        found = re.fullmatch(pattern, rendered) if len(pieces) == len(messages) else None
        if found is None:
            raise UserError(
                "the model's chat template changes what was said in this conversation, so its own tokens cannot be "
                "told from the template's."
            )
        return [found.span(i) for i, message in enumerate(messages, 1) if message.role != "system"]

    def decode(self, tokens: Iterable[int]) -> str:
        """Text of ids, without special tokens."""
        ids = [token for token in tokens if token not in self.special]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def spell(self, context: Context) -> str:
        """The context as the text that the tokenizer, used as trainers use it, turns into the same ids."""
        ids, first = context.ids, self.tokenizer.bos_token_id
        if first is not None and ids[:1] == (first,) and self.tokenizer("a").input_ids[:1] == [first]:
            ids = ids[1:]
        return str(self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def remarks(self, context: Context, not_followed: Mapping[str, Any]) -> tuple[str, ...]:
        """Sentences about special tokens that a user's own words spell, and about a model's settings.

        not_followed: settings of the model that change the next-token law in ways that ``Sampling`` does not know.
        """
        ids = [id_ for message in context.messages for id_ in self._ids(message.content)] + self._ids(context.prefill)
        marks = [str(self.tokenizer.convert_ids_to_tokens(id_)) for id_ in dict.fromkeys(ids) if id_ in self.special]
        remarks = []
        if marks:
            remarks.append(f"the prompt spells {', '.join(marks)}, which the tokenizer reads as marks, not as text.")
        if settings := [f"{name}={value}" for name, value in not_followed.items()]:
            remarks.append(f"the model's generation config asks for {', '.join(settings)}, which is not followed.")
        return tuple(remarks)

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        """Text of each token. A character that is spread over several tokens belongs to the last of them."""
        pieces: list[str] = []
        window: list[int] = []  # the last tokens that ended on a whole character, then those since
        clean = 0  # how many of them stand before that
        for token in tokens:
            if token in self.special:
                if len(window) > clean:  # bytes that never became a character
                    pieces[-1] += self._ending(window, clean)
                pieces.append(str(self.tokenizer.convert_ids_to_tokens(token)))
                window, clean = [], 0
                continue
            window.append(token)
            piece = self._ending(window, clean)
            if piece.endswith(_INCOMPLETE):
                pieces.append("")
                continue
            pieces.append(piece)
            window = window[clean:]
            clean = len(window)
        if len(window) > clean:
            pieces[-1] += self._ending(window, clean)
        return pieces

    def _ending(self, window: list[int], clean: int) -> str:
        """What the tokens after the first ``clean`` ones add to the text."""
        return self.decode(window)[len(self.decode(window[:clean])) :]

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]:
        """Ids that end the reply, ask the question and open the answer."""
        if not context.messages:
            raise UserError("a follow-up question needs a chat template, and this prompt was taken as raw text.")
        if not question.strip():
            raise UserError("the follow-up question is empty.")
        turns = (*context.messages, Message("assistant", _MARK), Message("user", question))
        return tuple(self._after_mark(self._render(turns)))

    @cached_property
    def closing(self) -> int:
        """The end-of-turn token that the template itself puts after a reply."""
        if not self.end_of_turn:
            raise UserError("this model names no end-of-turn token, so a reply cannot be marked as finished.")
        if self.has_template:
            turns = (Message("user", "?"), Message("assistant", _MARK))
            for id_ in self._after_mark(self._render(turns, open_reply=False)):
                if id_ in self.end_of_turn:
                    return id_
        usual = self.tokenizer.eos_token_id
        return int(usual) if usual in self.end_of_turn else min(self.end_of_turn)

    def _render(self, messages: tuple[Message, ...], *, open_reply: bool = True) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self.tokenizer.apply_chat_template(turns, add_generation_prompt=open_reply, tokenize=False))
        except Exception as error:  # a template is a program of the model's authors and raises what it likes
            raise UserError(f"the model's chat template refuses this conversation: {error}") from error

    def _after_mark(self, rendered: str) -> list[int]:
        _, found, after = rendered.rpartition(_MARK)
        if not found:
            raise UserError("the model's chat template drops replies, so nothing can be asked after one.")
        return self._ids(after)

    def _raw(self, prompt: str) -> list[int]:
        """Ids of a prompt without template, with the beginning-of-text token where the tokenizer adds one."""
        ids = list(self.tokenizer(prompt, verbose=False).input_ids)
        return ids[:-1] if len(ids) > 1 and ids[-1] in self.end_of_turn else ids

    def _plain(self, text: str) -> tuple[int, ...]:
        """Ids of a text that goes on from what stands before it."""
        if not text:
            return ()
        ids = self._ids(text)
        if self.decode(ids) != text:
            # Some tokenizers put a space before a text; after a line break they do not.
            ahead, both = self._ids("\n"), self._ids("\n" + text)
            if both[: len(ahead)] == ahead and self.decode(both) == "\n" + text:
                ids = both[len(ahead) :]
            else:
                warnings.warn(
                    "the model's tokens cannot spell the given text exactly; what is analysed differs from it in "
                    "special marks, spaces or characters.",
                    stacklevel=2,
                )
        return tuple(ids)
