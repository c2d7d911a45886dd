"""llama.cpp's server, by its native routes.

It tells the raw probabilities of the next token, of any number of tokens, but none of a prompt's: a path is scored
with one request for each of its places, which its prefix cache makes cheap. Its default filters are strong and stand
in another order than everyone else's, so each is sent with every request, and so is the order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from blinkscope.engines.returned import Returned
from blinkscope.engines.servers.dialect import (
    Ask,
    Call,
    Facts,
    Malformed,
    Order,
    Reader,
    Refused,
    Written,
    messages_of,
    model_of,
)
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling

SAMPLERS = ["temperature", "top_k", "top_p", "min_p"]
WHOLE_VOCABULARY = Sampling()


@dataclass(frozen=True)
class LlamaServer:
    """The dialect of ``llama-server``."""

    name: str = "llama-server"
    seed_bits: int = 31

    def facts(self, ask: Ask, model: str | None) -> Facts | None:
        try:
            props = ask(Call("/props", None, Reader))
        except Refused as no:
            if no.status in (401, 403):
                raise
            return None
        if not isinstance(props.answer, dict) or "total_slots" not in props.answer:
            return None
        served = model_of(ask(Call("/v1/models", None, Reader)), model)
        end = str(props.answer.get("eos_token") or "")
        ends: tuple[int, ...] = ask(self.tokenise(end, None, opening=False)) if end else ()
        slots = props.get("total_slots", kind=int)
        return Facts(
            model=str(served["id"]),
            context_window=props.get("default_generation_settings", "n_ctx", kind=int),
            vocabulary=int(served["meta"]["n_vocab"]),
            most_children=slots,
            sequences=2 * slots,  # one set waits while the other is written
            template=bool(props.answer.get("chat_template")),
            ends=frozenset(ends) if len(ends) == 1 else frozenset(),
        )

    def write(self, order: Order, facts: Facts | None) -> Call[list[Written]]:
        sampling = order.sampling
        body: dict[str, Any] = {
            "prompt": list(order.ids),
            "n_predict": order.cap,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "min_p": sampling.min_p,
            "samplers": SAMPLERS,
            "seed": order.seed,
            "n_probs": order.listed,
            "post_sampling_probs": False,
            "cache_prompt": True,
            "return_tokens": True,
            "ignore_eos": False,
            "logit_bias": [],
            "stop": list(sampling.stop),
            "stream": False,
        }
        if order.count > 1:
            body["n_cmpl"] = order.count
        return Call("/completion", body, lambda answer: _written(answer, order))

    def read_path(self, ids: Sequence[int], first: int, listed: int, facts: Facts) -> None:
        return None

    def tokenise(self, text: str, facts: Facts | None, *, opening: bool) -> Call[tuple[int, ...]]:
        return _tokenise(text, opening=opening, marks=True)

    def plain(self, text: str, facts: Facts) -> Call[tuple[int, ...]]:
        return _tokenise(text, opening=False, marks=False)

    def spell(self, ids: Sequence[int], facts: Facts) -> Call[str]:
        return Call("/detokenize", {"tokens": list(ids)}, lambda answer: Reader(answer).get("content", kind=str))

    def template(self, messages: Sequence[Message], facts: Facts) -> Call[str | tuple[int, ...]]:
        body = {"messages": messages_of(messages)}
        return Call("/apply-template", body, lambda answer: Reader(answer).get("prompt", kind=str))

    def table(self, facts: Facts) -> Call[dict[int, bytes]]:
        """One answer about one place, all tokens listed: each comes with its bytes."""
        assert facts.vocabulary is not None
        order = Order((0,), 1, 1, WHOLE_VOCABULARY, 0, facts.vocabulary)
        return Call("/completion", self.write(order, facts).body, lambda answer: _bytes(answer, facts))


def _tokenise(text: str, *, opening: bool, marks: bool) -> Call[tuple[int, ...]]:
    body = {"content": text, "add_special": opening, "parse_special": marks}
    return Call("/tokenize", body, lambda answer: Reader(answer).ids("tokens"))


def _written(answer: Any, order: Order) -> list[Written]:
    if order.count == 1 and isinstance(answer, dict):
        answer = [answer]
    if not isinstance(answer, list) or len(answer) != order.count:
        raise Malformed(f"it was asked for {order.count} continuations and sent another number")
    children = sorted((Reader(child) for child in answer), key=lambda child: int(child.get("index", kind=int)))
    return [_child(child, order) for child in children]


def _child(child: Reader, order: Order) -> Written:
    tokens = child.ids("tokens")
    ended = child.get("stop_type", kind=str) == "eos"
    if len(tokens) > order.cap or len(tokens) != child.get("tokens_predicted", kind=int):
        raise Malformed(f"it sent {len(tokens)} tokens of the {child.answer['tokens_predicted']} that it counts")
    places = None
    if order.listed:
        # Those of a stop text's tokens are cut off with it, though the tokens are there.
        listed = child.get("completion_probabilities", kind=list)
        if len(listed) < len(tokens) and child.answer["stop_type"] != "word":
            raise Malformed(f"it sent probabilities of {len(listed)} of {len(tokens)} tokens")
        places = tuple(_place(Reader(place), order.listed) for place in listed[: len(tokens)])
    return Written(tokens, ended, child.get("content", kind=str), places)


def _place(place: Reader, listed: int) -> Returned:
    top = place.get("top_logprobs", kind=list)
    values = {int(entry["id"]): float(entry["logprob"]) for entry in top}
    values.setdefault(place.get("id", kind=int), float(place.get("logprob", kind=(int, float))))
    return Returned.of(values, min(listed, len(top)))


def _bytes(answer: Any, facts: Facts) -> dict[int, bytes]:
    entries = Reader(answer).get("completion_probabilities", 0, "top_logprobs", kind=list)
    if len(entries) != facts.vocabulary:
        raise Malformed(f"it lists {len(entries)} tokens of the {facts.vocabulary} that it has")
    return {int(entry["id"]): bytes(entry["bytes"]) for entry in entries}
