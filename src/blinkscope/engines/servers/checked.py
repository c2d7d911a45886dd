"""A tokenizer on this side in the place of the server's, checked against it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from blinkscope.engines.text import Text
from blinkscope.engines.token_text import TokenText
from blinkscope.errors import MissingExtra, UserError
from blinkscope.language.engine import Context, Message, Path


@dataclass(frozen=True, eq=False)
class CheckedText:
    """A tokenizer of transformers whose prompts have to come out like the server's own.

    ends: ids that end a turn; the same set as that of ``text``.
    """

    name: str
    text: Text
    server: TokenText
    ends: set[int]

    @property
    def closing(self) -> int:
        return self.text.closing

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context:
        ours, theirs = self.text.encode(prompt, prefill), self.server.encode(prompt, prefill)
        if ours.ids != theirs.ids:
            at = next((i for i, pair in enumerate(zip(ours.ids, theirs.ids, strict=False)) if len(set(pair)) > 1), -1)
            where = f"from token {at + 1} on" if at >= 0 else "in its length"
            raise UserError(
                f"the tokenizer {self.name} and the server's disagree about this prompt {where}; name the tokenizer of "
                "the served model, or leave it out."
            )
        return ours

    def encode_reply(self, context: Context, text: str, finished: bool) -> Path:
        return self.text.encode_reply(context, text, finished)

    def decode(self, tokens: Iterable[int]) -> str:
        return self.text.decode(token for token in tokens if token not in self.ends)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return self.text.pieces(tokens)

    def spell(self, context: Context) -> str:
        return self.text.spell(context)

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]:
        return self.text.follow_up(context, question)


def checked(name: str, server: TokenText) -> CheckedText:
    """The tokenizer in a folder, or of a model on the hub that is kept on this machine.

    Raises
    ------
    MissingExtra : transformers is not installed.
    UserError : there is no such tokenizer.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("a tokenizer on this side", "hf") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{name} cannot be read as a tokenizer: {' '.join(str(error).split())[:200]}") from error
    ends = {*server.ends, *([] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)])}
    text = Text(tokenizer, frozenset(ends))
    return CheckedText(name, text, server, ends)
