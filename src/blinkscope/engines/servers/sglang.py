"""SGLang's server, by its native routes.

Log-probabilities of generated tokens are taken after temperature there, so they are read at temperature 1 only. All
children of a request have its seed, which counts in the server's deterministic mode only: each continuation is a
request of its own. A nucleus is one of all tokens there, not of those that top-k has left (SGLang 0.5:
``srt/layers/sampler.py``, which asks for the "joint" order), so a law with both is refused.
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
from blinkscope.errors import UserError
from blinkscope.language.engine import Message
from blinkscope.language.sampling import Sampling


@dataclass(frozen=True)
class SGLang:
    """The dialect of SGLang."""

    name: str = "sglang"
    seed_bits: int = 31

    def facts(self, ask: Ask, model: str | None) -> Facts | None:
        try:
            info = ask(Call("/get_model_info", None, Reader))
            if not isinstance(info.answer, dict) or "model_path" not in info.answer:
                return None
        except Refused as no:
            if no.status in (401, 403):
                raise
            return None
        served = model_of(ask(Call("/v1/models", None, Reader)), model)
        facts = Facts(str(served["id"]), int(served["max_model_len"]), raw=False)
        try:
            ask(self.template((Message("user", "?"),), facts))
        except Refused:
            return Facts(facts.model, facts.context_window, template=False, raw=False)
        return facts

    def write(self, order: Order, facts: Facts) -> Call[list[Written]]:
        if order.sampling.top_k and order.sampling.top_p < 1:
            raise UserError(
                "SGLang takes top-p of all tokens, not of those that top-k has left, which makes another law than the "
                "usual order; set --top-k 0 or --top-p 1."
            )
        return Call("/generate", _body(order), lambda answer: [_written(answer, order)])

    def read_path(self, ids: Sequence[int], first: int, listed: int, facts: Facts) -> Call[list[Returned]]:
        body = _body(Order(tuple(ids), 1, 1, Sampling(), 0, listed))
        body["logprob_start_len"] = 0
        return Call("/generate", body, lambda answer: _path(answer, ids, first, listed))

    def tokenise(self, text: str, facts: Facts, *, opening: bool) -> Call[tuple[int, ...]]:
        body = {"model": facts.model, "prompt": text, "add_special_tokens": opening}
        return Call("/tokenize", body, lambda answer: Reader(answer).ids("tokens"))

    def plain(self, text: str, facts: Facts) -> Call[tuple[int, ...]]:
        return self.tokenise(text, facts, opening=False)

    def spell(self, ids: Sequence[int], facts: Facts) -> Call[str]:
        body = {"model": facts.model, "tokens": list(ids), "skip_special_tokens": False}
        return Call("/detokenize", body, lambda answer: Reader(answer).get("text", kind=str))

    def template(self, messages: Sequence[Message], facts: Facts) -> Call[str | tuple[int, ...]]:
        body = {"model": facts.model, "messages": messages_of(messages), "add_generation_prompt": True}
        return Call("/tokenize", body, lambda answer: Reader(answer).ids("tokens"))

    def table(self, facts: Facts) -> None:
        return None


def _body(order: Order) -> dict[str, Any]:
    sampling = order.sampling
    body: dict[str, Any] = {
        "input_ids": list(order.ids),
        "sampling_params": {
            "max_new_tokens": order.cap,
            "min_new_tokens": 0,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or -1,
            "min_p": sampling.min_p,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "repetition_penalty": 1.0,
            "n": 1,
            "stop": list(sampling.stop),
            "stop_token_ids": [],
            "ignore_eos": False,
            "sampling_seed": order.seed,
        },
        "return_logprob": bool(order.listed),
        "stream": False,
    }
    if order.listed:
        body |= {"top_logprobs_num": order.listed, "return_text_in_logprobs": False}
    return body


def _written(answer: Any, order: Order) -> Written:
    read = Reader(answer)
    tokens = read.ids("output_ids")
    if len(tokens) > order.cap or len(tokens) != read.get("meta_info", "completion_tokens", kind=int):
        counted = answer["meta_info"]["completion_tokens"]
        raise Malformed(f"it sent {len(tokens)} tokens of the {counted} that it counts")
    reason = read.get("meta_info", "finish_reason", kind=dict)
    ended = reason.get("type") == "stop" and not isinstance(reason.get("matched"), str)
    places = None
    if order.listed:
        own = read.get("meta_info", "output_token_logprobs", kind=list)
        top = read.get("meta_info", "output_top_logprobs", kind=list)
        if not len(own) == len(top) == len(tokens):
            raise Malformed(f"it sent log-probabilities of {len(top)} of {len(tokens)} tokens")
        places = tuple(map(_place, own, top, tokens, [order.listed] * len(tokens)))
    return Written(tokens, ended, read.get("text", kind=str), places)


def _place(own: Sequence[Any], top: Sequence[Sequence[Any]], token: int, most: int) -> Returned:
    if int(own[1]) != token:
        raise Malformed(f"its log-probability is of token {own[1]} where token {token} stands")
    values = {int(entry[1]): float(entry[0]) for entry in top if entry[0] is not None}
    if own[0] is not None:
        values.setdefault(token, float(own[0]))
    return Returned.of(values, most)


def _path(answer: Any, ids: Sequence[int], first: int, listed: int) -> list[Returned]:
    read = Reader(answer)
    own = read.get("meta_info", "input_token_logprobs", kind=list)
    top = read.get("meta_info", "input_top_logprobs", kind=list)
    if not len(own) == len(top) == len(ids):
        raise Malformed(f"it sent log-probabilities of {len(own)} of {len(ids)} tokens")
    return list(map(_place, own[first:], top[first:], ids[first:], [listed] * (len(ids) - first)))
