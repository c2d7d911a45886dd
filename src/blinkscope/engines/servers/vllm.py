"""vLLM's OpenAI-compatible server, with its own extensions: token ids both ways, and log-probabilities of prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from blinkscope.engines.returned import LARGEST_VOCABULARY, Returned
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
from blinkscope.engines.vllm_law import check_law
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling

USUAL_LIMIT = 20  # --max-logprobs where nobody changed it
LISTED_AT_MOST = 4096
_ALLOWED = re.compile(r"max(?:imum)? allowed:? *(\d+)")
_TOKEN = re.compile(r"token_id:(\d+)")


@dataclass(frozen=True)
class VLLM:
    """The dialect of vLLM."""

    name: str = "vllm"
    seed_bits: int = 62

    def facts(self, ask: Ask, model: str | None) -> Facts | None:
        try:
            version = ask(Call("/version", None, Reader))
            if not isinstance(version.answer, dict) or set(version.answer) != {"version"}:
                return None
        except Refused as no:
            if no.status in (401, 403):
                raise
            return None
        served = model_of(ask(Call("/v1/models", None, Reader)), model)
        facts = Facts(str(served["id"]), int(served["max_model_len"]), most_listed=USUAL_LIMIT, most_children=64)
        try:
            ask(self.template((Message("user", "?"),), facts))
            template = True
        except Refused:
            template = False
        return Facts(
            model=facts.model,
            context_window=facts.context_window,
            vocabulary=None,
            most_listed=_limit(ask, self, facts),
            most_children=facts.most_children,
            template=template,
            raw=_is_raw(ask, self, facts),
        )

    def write(self, order: Order, facts: Facts) -> Call[list[Written]]:
        sampling = order.sampling
        check_law(sampling)
        body: dict[str, Any] = {
            "model": facts.model,
            "prompt": list(order.ids),
            "n": order.count,
            "max_tokens": order.cap,
            "min_tokens": 0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "seed": order.seed,
            "stop": list(sampling.stop),
            "stop_token_ids": [],
            "ignore_eos": False,
            "logprobs": order.listed or None,
            "echo": False,
            "stream": False,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
        }
        return Call("/v1/completions", body, lambda answer: _written(answer, order))

    def read_path(self, ids: Sequence[int], first: int, listed: int, facts: Facts) -> Call[list[Returned]]:
        order = Order(tuple(ids), 1, 1, Sampling(), 0)
        body = {**(self.write(order, facts).body or {}), "prompt_logprobs": listed}
        return Call("/v1/completions", body, lambda answer: _path(answer, ids, first, listed))

    def tokenise(self, text: str, facts: Facts, *, opening: bool) -> Call[tuple[int, ...]]:
        body = {"model": facts.model, "prompt": text, "add_special_tokens": opening}
        return Call("/tokenize", body, lambda answer: Reader(answer).ids("tokens"))

    def plain(self, text: str, facts: Facts) -> Call[tuple[int, ...]]:
        return self.tokenise(text, facts, opening=False)

    def spell(self, ids: Sequence[int], facts: Facts) -> Call[str]:
        body = {"model": facts.model, "tokens": list(ids)}
        return Call("/detokenize", body, lambda answer: Reader(answer).get("prompt", kind=str))

    def template(self, messages: Sequence[Message], facts: Facts) -> Call[str | tuple[int, ...]]:
        body = {
            "model": facts.model,
            "messages": messages_of(messages),
            "add_generation_prompt": True,
            "continue_final_message": False,
            "add_special_tokens": False,
        }
        return Call("/tokenize", body, lambda answer: Reader(answer).ids("tokens"))

    def table(self, facts: Facts) -> None:
        return None


def _limit(ask: Ask, dialect: VLLM, facts: Facts) -> int:
    """How many log-probabilities it lists for a token: it says so where it is asked for too many."""
    try:
        ask(dialect.write(Order((0,), 1, 1, Sampling(), 0, LISTED_AT_MOST), facts))
    except Refused as no:
        said = _ALLOWED.search(no.words)
        return int(said.group(1)) if said else USUAL_LIMIT
    return LISTED_AT_MOST


def _is_raw(ask: Ask, dialect: VLLM, facts: Facts) -> bool:
    """Whether log-probabilities of generated tokens are those at temperature 1 whatever the temperature is."""
    ((warm,), (cold,)) = (
        ask(dialect.write(Order((0,), 1, 1, Sampling(temperature), 0, 1), facts)) for temperature in (1.0, 0.5)
    )
    if not warm.places or not cold.places:
        return False
    return bool(abs(warm.places[0].logprobs[0] - cold.places[0].logprobs[0]) < 1e-3)


def _written(answer: Any, order: Order) -> list[Written]:
    choices = Reader(answer).get("choices", kind=list)
    if len(choices) != order.count:
        raise Malformed(f"it was asked for {order.count} continuations and sent {len(choices)}")
    children = sorted((Reader(choice) for choice in choices), key=lambda child: int(child.get("index", kind=int)))
    written = [_child(child, order) for child in children]
    counted = answer.get("usage", {}).get("completion_tokens")
    if counted is not None and counted != sum(len(one.tokens) for one in written):
        raise Malformed(f"it sent {sum(len(one.tokens) for one in written)} tokens of the {counted} that it counts")
    return written


def _child(child: Reader, order: Order) -> Written:
    tokens = child.ids("token_ids")
    if len(tokens) > order.cap:
        raise Malformed(f"it sent {len(tokens)} tokens where {order.cap} were the most")
    ended = child.get("finish_reason", kind=str) == "stop" and not isinstance(child.answer.get("stop_reason"), str)
    places = None
    if order.listed:
        listed = child.get("logprobs", "top_logprobs", kind=list)
        own = child.get("logprobs", "token_logprobs", kind=list)
        if not len(listed) == len(own) == len(tokens):
            raise Malformed(f"it sent log-probabilities of {len(listed)} of {len(tokens)} tokens")
        places = tuple(map(_place, listed, own, tokens, [order.listed] * len(tokens)))
    return Written(tokens, ended, child.get("text", kind=str), places)


def _place(listed: Mapping[str, float], own: float, token: int, most: int) -> Returned:
    values: dict[int, float] = {}
    for name, value in listed.items():
        matched = _TOKEN.fullmatch(name)
        if matched is None:
            raise Malformed("it names tokens by their text, which several may share")
        values[int(matched.group(1))] = float(value)
    values.setdefault(token, float(own))
    return Returned.of(values, most)


def _path(answer: Any, ids: Sequence[int], first: int, listed: int) -> list[Returned]:
    places = Reader(answer).get("choices", 0, "prompt_logprobs", kind=list)
    if len(places) != len(ids):
        raise Malformed(f"it sent log-probabilities of {len(places)} of {len(ids)} tokens")
    found = []
    for place, token in zip(places[first:], ids[first:], strict=True):
        values = {int(id_): float(entry["logprob"]) for id_, entry in place.items()}
        if token not in values or max(values) >= LARGEST_VOCABULARY:
            raise Malformed(f"its log-probabilities leave out token {token} of the prompt")
        found.append(Returned.of(values, listed))
    return found
