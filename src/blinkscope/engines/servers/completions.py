"""Any server with an OpenAI-style completions route: text in, text out, and what that leaves unknown.

There are no token ids there. A token is its text, numbered here by a digest of it, so two tokens with the same text
count as one, and whether the server splits a prefix as its model wrote it is checked where
the server tells how it splits a prompt (``echo``). The end of a turn is no text: its probability is known where the
server lists it under one of its usual spellings. Stop texts are found on this side, since the server cuts them away.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blinkscope.engines.returned import Returned
from blinkscope.engines.servers.dialect import (
    Ask,
    Call,
    Drift,
    Facts,
    Malformed,
    Order,
    Reader,
    Refused,
    Written,
    model_of,
)
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Context, Message, Path
from blinkscope.language.sampling import Sampling

END = 0
END_TEXT = "<end of turn>"
NUMBER_BITS = 52  # what every reader of JSON can hold; among 100,000 texts two meet with probability 1e-6
_END_SPELLINGS = re.compile(r"</s>|<\|?(?:end|eos|eot|eot_id|im_end|endoftext|end_of_text|end_of_turn)\|?>")
_USUAL_LIMITS = (20, 5, 1)
_RAW = Sampling()


@dataclass(frozen=True, eq=False)
class Numbers:
    """Token texts and their numbers, which are digests of the texts: the same in every sitting and on every server."""

    texts: dict[int, str] = field(default_factory=lambda: {END: END_TEXT})

    def of(self, text: str) -> int:
        if _END_SPELLINGS.fullmatch(text):
            return END
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        number = 1 + (int.from_bytes(digest, "big") >> (64 - NUMBER_BITS))
        if self.texts.setdefault(number, text) != text:
            raise EngineError(f"two tokens, {text!r} and {self.texts[number]!r}, have the same number here.")
        return number

    def text(self, ids: Iterable[int]) -> str:
        return "".join(self.texts[id_] for id_ in ids if id_ != END)


@dataclass(frozen=True, eq=False)
class Completions:
    """The dialect of a plain completions route."""

    numbers: Numbers = field(default_factory=Numbers)
    name: str = "completions"
    seed_bits: int = 31

    def facts(self, ask: Ask, model: str | None) -> Facts | None:
        try:
            served = model_of(ask(Call("/v1/models", None, Reader)), model)
        except Refused as no:
            if no.status in (401, 403):
                raise
            return None
        window = served.get("max_model_len") or served.get("context_length") or 2**31
        facts = Facts(str(served["id"]), int(window), sequences=32, template=False, ends=frozenset([END]))
        limit = next((limit for limit in _USUAL_LIMITS if self._lists(ask, facts, limit)), None)
        if limit is None:
            raise UserError(
                "the server tells no log-probabilities, so it cannot be said what else could have stood at a token; "
                "use llama-server, vLLM or SGLang, or a completions route with logprobs."
            )
        warm, cold = (ask(self.write(Order((), 1, 1, Sampling(t), 0, 1), facts, "a")) for t in (1.0, 0.5))
        places = [one[0].places or () for one in (warm, cold)]
        raw = all(places) and abs(places[0][0].logprobs[0] - places[1][0].logprobs[0]) < 1e-3
        return Facts(
            facts.model,
            facts.context_window,
            most_listed=limit,
            sequences=facts.sequences,
            template=False,
            ends=facts.ends,
            raw=raw,
            splits=self._echoes(ask, facts),
        )

    def _lists(self, ask: Ask, facts: Facts, limit: int) -> bool:
        try:
            (written,) = ask(self.write(Order((), 1, 1, _RAW, 0, limit), facts, "a"))
        except Refused:
            return False
        return written.places is not None

    def _echoes(self, ask: Ask, facts: Facts) -> bool:
        try:
            return "".join(ask(self.split("a b", facts))) == "a b"
        except Refused:
            return False

    def write(self, order: Order, facts: Facts, text: str | None = None) -> Call[list[Written]]:
        sampling = order.sampling
        body: dict[str, Any] = {
            "model": facts.model,
            "prompt": self.numbers.text(order.ids) if text is None else text,
            "n": 1,
            "max_tokens": order.cap,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": order.seed,
            "stop": [],
            "logprobs": max(order.listed, 1),  # the text of each token comes with its log-probability only
            "echo": False,
            "stream": False,
        }
        return Call("/v1/completions", body, lambda answer: [self._written(answer, order)])

    def read_path(self, ids: Sequence[int], first: int, listed: int, facts: Facts) -> Call[list[Returned]] | None:
        if not facts.splits:
            return None
        body = {**(self.write(Order(tuple(ids), 1, 1, _RAW, 0, listed), facts).body or {}), "echo": True}
        return Call("/v1/completions", body, lambda answer: self._path(answer, ids, first, listed))

    def split(self, text: str, facts: Facts) -> Call[list[str]]:
        """How the server splits a text into tokens."""
        body = {**(self.write(Order((), 1, 1, _RAW, 0, 1), facts, text).body or {}), "echo": True}
        return Call("/v1/completions", body, lambda answer: _split(answer, text))

    def _written(self, answer: Any, order: Order) -> Written:
        child = Reader(Reader(answer).get("choices", 0, kind=dict))
        logprobs = child.answer.get("logprobs")
        if not logprobs:
            return Written((), ended=False, text=child.get("text", kind=str))
        texts = child.get("logprobs", "tokens", kind=list)
        if len(texts) > order.cap or "".join(texts) != child.get("text", kind=str):
            raise Malformed("its tokens do not make its text")
        tokens = tuple(self.numbers.of(text) for text in texts)
        ended = child.get("finish_reason", kind=str) == "stop"
        if ended and tokens[-1:] != (END,) and len(tokens) < order.cap:
            tokens = (*tokens, END)  # it is no text, so it is not among them
        places = self._places(logprobs, range(len(texts)), order.listed) if order.listed else None
        return Written(tokens, ended, child.answer["text"], places)

    def _places(self, logprobs: Mapping[str, Any], which: Iterable[int], listed: int) -> tuple[Returned, ...]:
        places = []
        for i in which:
            values: dict[int, float] = {}
            own = {logprobs["tokens"][i]: logprobs["token_logprobs"][i]}
            for text, value in (own | (logprobs["top_logprobs"][i] or {})).items():
                values[self.numbers.of(text)] = float(value)
            places.append(Returned.of(values, min(listed, len(values))))
        return tuple(places)

    def _path(self, answer: Any, ids: Sequence[int], first: int, listed: int) -> list[Returned]:
        logprobs = Reader(answer).get("choices", 0, "logprobs", kind=dict)
        texts, wanted = logprobs["tokens"], [self.numbers.texts[id_] for id_ in ids if id_ != END]
        before, start = len(self.numbers.text(ids[:first])), 0
        while start < len(texts) and before > 0:
            before -= len(texts[start])
            start += 1
        path = wanted[len([id_ for id_ in ids[:first] if id_ != END]) :]
        if before or texts[start : start + len(path)] != path:
            raise Drift("the server splits the text into other tokens than those that it was written in")
        # The place after the last token, where the turn may end, is that of the one token it was made to write.
        last = min(start + len(ids) - first, len(logprobs["top_logprobs"]))
        return list(self._places(logprobs, range(start, last), listed))


def _split(answer: Any, text: str) -> list[str]:
    found, length = [], 0
    choice = Reader(answer).get("choices", 0, kind=dict)
    for token in (choice.get("logprobs") or {}).get("tokens", ()):
        if length >= len(text):
            break
        found.append(str(token))
        length += len(token)
    return found


@dataclass(frozen=True, eq=False)
class CompletionsText:
    """Between words and numbers: texts are split by the server where it can do that, and else stay whole."""

    dialect: Completions
    facts: Facts
    ask: Any
    ends: set[int] = field(default_factory=lambda: {END})
    closing: int = END

    def encode(self, prompt: str | tuple[Message, ...], prefill: str) -> Context:
        if not isinstance(prompt, str):
            raise UserError(
                "this server applies no chat template, so it cannot take messages; give the prompt as one text."
            )
        if not prompt.strip():
            raise UserError("the prompt is empty; give the model something to answer.")
        return Context((*self._ids(prompt), *self._ids(prefill)), prefill)

    def encode_reply(self, context: Context, text: str, finished: bool) -> Path:
        if not self.facts.splits:
            raise UserError(
                "this server does not tell how it splits a text into tokens (echo), so a given transcript cannot be "
                "looked into; let the model write one."
            )
        return Path(context, (*self._ids(text), *((END,) if finished else ())))

    def decode(self, tokens: Iterable[int]) -> str:
        return self.dialect.numbers.text(tokens)

    def pieces(self, tokens: Iterable[int]) -> list[str]:
        return [self.dialect.numbers.texts[token] for token in tokens]

    def spell(self, context: Context) -> str:
        return self.decode(context.ids)

    def follow_up(self, context: Context, question: str) -> tuple[int, ...]:
        raise UserError("this server applies no chat template, so it cannot be asked a follow-up question.")

    def _ids(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        texts = self.ask([self.dialect.split(text, self.facts)])[0] if self.facts.splits else [text]
        return tuple(map(self.dialect.numbers.of, texts))
