"""A local server of a toy model that speaks like vLLM, SGLang, llama.cpp or a plain completions API, faults included.

Written from the documented shapes of requests and answers. The law of its texts is the toy model's, so that what comes
through a server can be held against the truth. A conversation is marked by tokens of its own, and the toy model writes
what follows the last opening of a reply.

    python -m tests.engines.fake_server [--dialect vllm] [--toy NAME] [--latency SECONDS] [--fail SHARE] [--port PORT]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blinkscope.engines.machine import END, UNKNOWN
from blinkscope.engines.servers.opening import PROBE
from blinkscope.engines.toy_models import open_toy
from blinkscope.language.sampling import NextTokenLaw, Sampling, inverse_cdf, next_token_law

MODEL = "toy-model"
MARKS = ("<user>", "<assistant>", "<system>")
WORD = re.compile(r"<\w+>| ?[^\s<]+|\s")
USUAL = ("Which", " way?", "So?", "?", "a", "\n", "blinkscopereply", *WORD.findall(PROBE))
"""Words of prompts, the same on every server."""
REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests",
    500: "Internal Server Error", 503: "Service Unavailable",
}  # fmt: skip


class No(Exception):
    """A request that the server refuses, with a status and its own words."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


@dataclass
class Vocabulary:
    """Words as tokens. Words of a prompt that the toy model does not know get ids of their own as they come.

    twins: each word of the toy model has a second id with the same text, and half of its probability.
    """

    words: list[str]
    twins: int = 0
    ids: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, machine: Any, twins: bool) -> Vocabulary:
        words = list(machine.words)
        vocabulary = cls([*words, *(words if twins else ()), *MARKS, *USUAL], len(words) if twins else 0)
        for id_, word in enumerate(vocabulary.words):
            vocabulary.ids.setdefault(word, id_)
        return vocabulary

    def tokens(self, text: str) -> list[int]:
        found = []
        for word in WORD.findall(text):
            if word not in self.ids:
                self.ids[word] = len(self.words)
                self.words.append(word)
            found.append(self.ids[word])
        return found

    def text(self, ids: list[int]) -> str:
        return "".join(self.words[id_] for id_ in ids)


@dataclass
class Faults:
    """What goes wrong with requests that write or score, each by its chance, from one stream of random numbers.

    kinds: busy (429), broken (500), cut, malformed, miscounted, slow. most: number of faults after which all goes well.
    after: seconds that one who is busy asks to wait.
    """

    share: float = 0.0
    kinds: tuple[str, ...] = ("busy", "broken", "cut", "malformed", "miscounted")
    slow: float = 1.0
    most: float = float("inf")
    after: float = 0.05
    seed: int = 0
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)

    def next(self) -> str | None:
        if self._random.random() >= self.share or self.seen.total() >= self.most:
            return None
        kind = self.kinds[int(self._random.integers(len(self.kinds)))]
        self.seen[kind] += 1
        return kind


@dataclass
class FakeServer:
    """The server; it runs in a thread and can be stopped in the middle of everything and started again.

    most_listed: log-probabilities that it lists for a token. window: its context window. key: what it wants to be sent.
    stop_after: requests after which it stops, again and again; comes_back: whether it starts again each time.
    requests: bodies by path, in the order in which they came. busy, largest: requests that it has, and most at a time.
    arrived: when each request that writes or scores came, on the monotonic clock. While it is stopped its port is kept,
    so that no other process of the machine gets it.
    """

    dialect: str = "vllm"
    toy: str = "fork?agree=5&width=3&leak=0.1"
    latency: float = 0.0
    faults: Faults = field(default_factory=Faults)
    most_listed: int = 20
    window: int = 4096
    key: str | None = None
    twins: bool = False
    template: bool = True
    processed: bool = False
    echo: bool = True
    canned: bool = False
    stop_after: list[int] = field(default_factory=list)
    comes_back: bool = True
    port: int = 0
    requests: list[tuple[str, Any]] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)
    busy: int = 0
    largest: int = 0

    def __post_init__(self) -> None:
        self.machine = open_toy(self.toy).machine
        self.vocabulary = Vocabulary.of(self.machine, self.twins)
        self._served = 0
        self._laws: dict[Any, dict[int, float]] = {}
        self._filtered: dict[Any, NextTokenLaw] = {}
        self._followed: dict[Any, Any] = {}
        self._writers: set[asyncio.StreamWriter] = set()
        self._canned = json.dumps({"choices": [self._canned_choice()], "usage": {"completion_tokens": 60}}).encode()
        self._loop = asyncio.new_event_loop()
        self._listening: asyncio.Server | None = None
        self._kept = socket.socket()
        self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._kept.bind(("127.0.0.1", self.port))
        self.port = self._kept.getsockname()[1]
        self._answers, self._turn = float("inf"), asyncio.Condition()
        self._back: asyncio.Task[None] | None = None
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self) -> FakeServer:
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def stop(self) -> None:
        """Cut every connection and listen no more."""
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()

    @property
    def connections(self) -> int:
        return len(self._writers)

    def hold(self, answers: float = 0) -> None:
        """Write or score so many more times; all other requests for that wait for ``release``."""
        asyncio.run_coroutine_threadsafe(self._allow(answers), self._loop).result()

    def release(self) -> None:
        self.hold(float("inf"))

    async def _allow(self, answers: float) -> None:
        async with self._turn:
            self._answers = answers
            self._turn.notify_all()

    async def _start(self) -> None:
        self._listening = await asyncio.start_server(self._connected, "127.0.0.1", self.port, backlog=16384)

    async def _stop(self) -> None:
        if self._back is not None:
            self._back.cancel()
        await self._cut()

    async def _cut(self) -> None:
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                await self._answer(head[0].split(" ")[1], headers, body, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> None:
        self.busy += 1
        self.largest = max(self.largest, self.busy)
        try:
            if path in WORK:
                self.arrived.append(time.monotonic())
                async with self._turn:
                    await self._turn.wait_for(lambda: self._answers > 0)
                    self._answers -= 1
            if self.latency:
                await asyncio.sleep(self.latency)
            fault = self.faults.next() if path in WORK else None
            if path in WORK:
                self._served += 1
                if self.stop_after and self._served >= self.stop_after[0]:
                    self.stop_after.pop(0)
                    self._served = 0
                    self._back = self._loop.create_task(self._restart())
                    return
            if fault == "cut":
                writer.transport.abort()
                return
            if fault == "slow":
                await asyncio.sleep(self.faults.slow)
            status, answer, more = self._reply(path, headers, body, fault)
        finally:
            self.busy -= 1
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", "Content-Type: application/json", *more]
        if self.dialect == "llama-server":
            lines.append("Server: llama.cpp")
        writer.write("\r\n".join([*lines, f"Content-Length: {len(answer)}", "", ""]).encode() + answer)
        await writer.drain()

    async def _restart(self) -> None:
        await self._cut()
        if self.comes_back:
            await asyncio.sleep(0.5)
            await self._start()

    def _reply(
        self, path: str, headers: dict[str, str], body: bytes, fault: str | None
    ) -> tuple[int, bytes, tuple[str, ...]]:
        if fault == "busy":
            return 429, b'{"error": {"message": "too many requests"}}', (f"Retry-After: {self.faults.after}",)
        if fault == "broken":
            return 500, b'{"error": {"message": "the engine is dead"}}', ()
        if self.canned and path in WORK and b'"max_tokens":1,' not in body:
            return 200, self._canned, ()
        try:
            if self.key is not None and headers.get("authorization") != f"Bearer {self.key}":
                raise No(401, f"Incorrect API key provided: {headers.get('authorization')}")
            asked = json.loads(body) if body else {}
            self.requests.append((path, asked))
            answer: Any = ROUTES[self.dialect].get(path, _missing)(self, asked)
        except No as no:
            return no.status, json.dumps({"error": {"message": no.words, "code": no.status}}).encode(), ()
        if fault == "miscounted":
            answer = MISCOUNTED[self.dialect](answer)
        text = json.dumps(answer).encode()
        return 200, text[: len(text) // 2] if fault == "malformed" else text, ()

    # The model.

    def law(self, ids: list[int]) -> dict[int, float]:
        """Log-probabilities at temperature 1 of every token that can follow, the most probable first."""
        return self._law(self._state(ids))

    def _law(self, state: Any) -> dict[int, float]:
        key = np.asarray(state).tobytes()
        if key not in self._laws:
            tokens, logits = (row[0] for row in self.machine.moves(np.asarray(state)[None]))
            logits = logits - np.logaddexp.reduce(logits)
            law = {int(token): float(value) for token, value in zip(tokens, logits, strict=True) if np.isfinite(value)}
            if self.vocabulary.twins:
                half = {id_: value - float(np.log(2)) for id_, value in law.items()}
                twin = {id_ + self.vocabulary.twins: half[id_] for id_ in half if id_ not in (END, UNKNOWN)}
                law = half | twin
            self._laws[key] = dict(sorted(law.items(), key=lambda item: -item[1]))
        return self._laws[key]

    def _sampled(self, state: Any, sampling: Sampling) -> NextTokenLaw:
        key = (np.asarray(state).tobytes(), sampling)
        if key not in self._filtered:
            logits = np.array([list(self._law(state).values())])
            p = next_token_law(logits, sampling, vocabulary=logits.shape[1]).p
            self._filtered[key] = NextTokenLaw(p, np.ones(1))
        return self._filtered[key]

    def _state(self, ids: list[int]) -> Any:
        opening = self.vocabulary.ids["<assistant>"]
        state = self.machine.start
        for id_ in ids[len(ids) - ids[::-1].index(opening) :] if opening in ids else ids:
            state = self._after(state, id_)
        return state

    def _after(self, state: Any, id_: int) -> Any:
        twins = self.vocabulary.twins
        word = id_ - twins if twins <= id_ < 2 * twins else id_
        if word >= len(self.machine.words):
            return state
        key = (np.asarray(state).tobytes(), word)
        if key not in self._followed:
            self._followed[key] = self.machine.follow(np.asarray(state)[None], np.array([word]))[0]
        return self._followed[key]

    def write(self, ids: list[int], sampling: Sampling, cap: int, seed: int) -> Written:
        """One continuation, the end of turn included, and the law of each of its places."""
        random = np.random.default_rng(seed)
        state, tokens, laws = self._state(ids), [], []
        while len(tokens) < cap:
            law, sampled = self._law(state), self._sampled(state, sampling)
            tokens.append(list(law)[int(inverse_cdf(sampled, random.random(1))[0])])
            shown = law
            if self.processed:
                shown = dict(zip(law, np.log(np.maximum(sampled.p[0], 1e-300)).tolist(), strict=True))
            laws.append(shown)
            state = self._after(state, tokens[-1])
            if tokens[-1] == END:
                return Written(tokens, laws, "eos")
            text = self.vocabulary.text(tokens) if sampling.stop else ""
            for stop in sampling.stop:
                if stop in text:
                    return Written(tokens, laws, stop)
        return Written(tokens, laws, None)

    def listed(self, law: dict[int, float], most: int) -> list[tuple[int, float]]:
        """The most probable tokens; where there are not so many, impossible ones too."""
        ranked = list(law.items())[:most]
        impossible = (id_ for id_ in range(len(self.vocabulary.words)) if id_ not in law)
        return [*ranked, *((id_, float("-inf")) for _, id_ in zip(range(most - len(ranked)), impossible))]  # noqa: B905

    def check(self, ids: list[int], cap: int) -> None:
        if not ids or not all(isinstance(id_, int) and 0 <= id_ < len(self.vocabulary.words) for id_ in ids):
            raise No(400, "prompt holds token ids that are out of vocabulary")
        if len(ids) + cap > self.window:
            raise No(
                400,
                f"This model's maximum context length is {self.window} tokens. However, you requested "
                f"{len(ids) + cap} tokens",
            )

    def text_of(self, written: Written) -> str:
        tokens = written.tokens[:-1] if written.ended == "eos" else written.tokens
        text = self.vocabulary.text(tokens)
        return text.partition(written.ended)[0] if written.ended not in ("eos", None) else text

    def templated(self, messages: list[dict[str, str]], open_reply: bool = True) -> str:
        if not self.template:
            raise No(400, "this model has no chat template")
        turns = [f"<{m['role']}>{m['content']}{'<end>' if m['role'] == 'assistant' else ''}" for m in messages]
        return "".join(turns) + ("<assistant>" if open_reply else "")

    def _canned_choice(self) -> dict[str, Any]:
        tokens = [2 + i % (len(self.machine.words) - 2) for i in range(59)]
        return {"index": 0, "text": self.vocabulary.text(tokens), "token_ids": [*tokens, END], "finish_reason": "stop"}


@dataclass
class Written:
    """ended: ``eos``, the stop text that ended it, or None at the cap."""

    tokens: list[int]
    laws: list[dict[int, float]]
    ended: str | None


def _missing(server: FakeServer, asked: Any) -> Any:
    raise No(404, "File Not Found")


def _number(value: float) -> float:
    return -9999.0 if value == float("-inf") else value


def _sampling(asked: dict[str, Any], off: int = 0) -> Sampling:
    """Every field has to be there: what is left out would be the server's own default."""
    top_k = asked["top_k"]
    return Sampling(
        asked["temperature"], 0 if top_k == off else top_k, asked["top_p"], asked["min_p"], 10**6, tuple(asked["stop"])
    )


# vLLM.


def _vllm_complete(server: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["model"] != MODEL:
        raise No(404, f"The model `{asked['model']}` does not exist.")
    for field_ in ("logprobs", "prompt_logprobs"):
        if (asked.get(field_) or 0) > server.most_listed:
            raise No(
                400, f"Requested {field_} of {asked[field_]}, which is greater than max allowed: {server.most_listed}"
            )
    ids, sampling = asked["prompt"], _sampling(asked)
    server.check(ids, asked["max_tokens"])
    if asked["n"] > 1 and sampling.temperature == 0:
        raise No(400, "n must be 1 when using greedy sampling")
    choices = []
    for child in range(asked["n"]):
        written = server.write(ids, sampling, asked["max_tokens"], asked["seed"] + child)
        logprobs = None
        if asked["logprobs"]:
            name = (
                (lambda id_: f"token_id:{id_}")
                if asked["return_tokens_as_token_ids"]
                else server.vocabulary.words.__getitem__
            )
            logprobs = {
                "tokens": [name(id_) for id_ in written.tokens],
                "token_logprobs": [_number(law[id_]) for id_, law in zip(written.tokens, written.laws, strict=True)],
                "top_logprobs": [
                    {name(id_): _number(value) for id_, value in server.listed(law, asked["logprobs"])}
                    for law in written.laws
                ],
                "text_offset": [0] * len(written.tokens),
            }
        choice = {
            "index": child,
            "text": server.text_of(written),
            "logprobs": logprobs,
            "finish_reason": "length" if written.ended is None else "stop",
            "stop_reason": None if written.ended == "eos" else written.ended,
            "token_ids": written.tokens if asked["return_token_ids"] else None,
        }
        if child == 0 and asked.get("prompt_logprobs"):
            choice["prompt_logprobs"] = [_vllm_place(server, ids, i, asked["prompt_logprobs"]) for i in range(len(ids))]
        choices.append(choice)
    count = sum(len(choice["token_ids"] or ()) for choice in choices)
    choices.reverse()  # the order of choices is not promised, their index is
    return {"object": "text_completion", "model": MODEL, "choices": choices, "usage": {"completion_tokens": count}}


def _vllm_place(server: FakeServer, ids: list[int], i: int, most: int) -> dict[str, Any] | None:
    if i == 0:
        return None
    law = server.law(ids[:i])
    listed = dict(server.listed(law, most))
    listed.setdefault(ids[i], law.get(ids[i], float("-inf")))
    return {
        str(id_): {"logprob": _number(value), "rank": rank + 1, "decoded_token": server.vocabulary.words[id_]}
        for rank, (id_, value) in enumerate(listed.items())
    }


def _vllm_tokenise(server: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    if "messages" in asked:
        text = server.templated(asked["messages"], asked["add_generation_prompt"])
    else:
        text = asked["prompt"]
    tokens = server.vocabulary.tokens(text)
    return {"count": len(tokens), "max_model_len": server.window, "tokens": tokens}


def _models(server: FakeServer, asked: Any) -> dict[str, Any]:
    meta = {"n_vocab": len(server.vocabulary.words)}
    entry = {"id": MODEL, "object": "model", "owned_by": "me", "max_model_len": server.window, "meta": meta}
    return {"object": "list", "data": [entry]}


# SGLang.


def _sglang_generate(server: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    settings = asked["sampling_params"]
    if settings["top_k"] == 0:
        raise No(400, "top_k must be -1 (disable), or at least 1, got 0.")
    ids, sampling = asked["input_ids"], _sampling(settings, off=-1)
    server.check(ids, settings["max_new_tokens"])
    written = server.write(ids, sampling, settings["max_new_tokens"], settings["sampling_seed"])
    reason: dict[str, Any] = {"type": "length", "length": len(written.tokens)}
    if written.ended is not None:
        reason = {"type": "stop", "matched": END if written.ended == "eos" else written.ended}
    meta: dict[str, Any] = {"finish_reason": reason, "completion_tokens": len(written.tokens)}
    if asked["return_logprob"]:
        most = asked["top_logprobs_num"]
        warm = [_at(law, sampling.temperature) for law in written.laws]
        meta["output_token_logprobs"] = [[law[id_], id_, None] for id_, law in zip(written.tokens, warm, strict=True)]
        meta["output_top_logprobs"] = [_sglang_top(server, law, most) for law in warm]
        if "logprob_start_len" in asked:
            laws = [server.law(ids[:i]) for i in range(1, len(ids))]
            own = [[law.get(id_, -1e30), id_, None] for id_, law in zip(ids[1:], laws, strict=True)]
            meta["input_token_logprobs"] = [[None, ids[0], None], *own]
            meta["input_top_logprobs"] = [None, *(_sglang_top(server, law, most) for law in laws)]
    return {"text": server.text_of(written), "output_ids": written.tokens, "meta_info": meta}


def _at(law: dict[int, float], temperature: float) -> dict[int, float]:
    """Log-probabilities after temperature, which is how SGLang tells those of generated tokens."""
    if temperature in (0, 1):
        return law
    values = np.array(list(law.values())) / temperature
    return dict(zip(law, (values - np.logaddexp.reduce(values)).tolist(), strict=True))


def _sglang_top(server: FakeServer, law: dict[int, float], most: int) -> list[list[Any]]:
    return [[value, id_, None] for id_, value in server.listed(law, most) if value > float("-inf")]


def _sglang_info(server: FakeServer, asked: Any) -> dict[str, Any]:
    return {"model_path": MODEL, "tokenizer_path": MODEL, "is_generation": True}


# llama.cpp.


def _llama_props(server: FakeServer, asked: Any) -> dict[str, Any]:
    return {
        "default_generation_settings": {"n_ctx": server.window},
        "total_slots": 4,
        "chat_template": "x" if server.template else "",
        "eos_token": "<end>",
    }


def _llama_complete(server: FakeServer, asked: dict[str, Any]) -> Any:
    if asked["samplers"] != ["temperature", "top_k", "top_p", "min_p"]:
        raise No(400, "another order of samplers is another law")
    ids, count = asked["prompt"], asked.get("n_cmpl", 1)
    if count > 4:
        raise No(400, f"Field 'n_cmpl': Value must be between 1 <= value <= 4, but got {count}")
    server.check(ids, asked["n_predict"])
    children = []
    for child in range(count):
        written = server.write(ids, _sampling(asked), max(asked["n_predict"], 1), asked["seed"] + child)
        one: dict[str, Any] = {
            "index": child,
            "content": server.text_of(written),
            "tokens": written.tokens if asked["return_tokens"] else [],
            "tokens_predicted": len(written.tokens),
            "stop_type": {None: "limit", "eos": "eos"}.get(written.ended, "word"),
        }
        if asked["n_probs"]:
            one["completion_probabilities"] = [
                {
                    "id": id_,
                    "logprob": law[id_],
                    "top_logprobs": [
                        {"id": other, "logprob": max(value, -1e30), "bytes": _bytes(server, other)}
                        for other, value in server.listed(law, min(asked["n_probs"], len(server.vocabulary.words)))
                    ],
                }
                for id_, law in zip(written.tokens, written.laws, strict=True)
            ][: -1 if one["stop_type"] == "word" else None]  # a stop text's probabilities are cut off with it
        children.append(one)
    return children if count > 1 else children[0]


def _bytes(server: FakeServer, id_: int) -> list[int]:
    word = server.vocabulary.words[id_]
    return [] if re.fullmatch(r"<\w+>", word) else list(word.encode())


# A plain completions route: text in, text out.


def _plain_complete(server: FakeServer, asked: dict[str, Any]) -> dict[str, Any]:
    for name in ("return_token_ids", "prompt_logprobs"):
        if name in asked:
            raise No(400, f"unknown field {name}")
    if (asked["logprobs"] or 0) > server.most_listed:
        raise No(400, f"logprobs must be at most {server.most_listed}")
    if not isinstance(asked["prompt"], str):
        raise No(400, "prompt must be a text")
    if asked["echo"] and not server.echo:
        raise No(400, "echo is not supported")
    ids = server.vocabulary.tokens(asked["prompt"])
    server.check(ids, asked["max_tokens"])
    written = server.write(
        [server.vocabulary.ids["<assistant>"], *_reply(server, ids)],
        _sampling(asked),
        asked["max_tokens"],
        asked["seed"],
    )
    shown = written.tokens[:-1] if written.ended == "eos" else written.tokens
    tokens, laws = [*shown], [*written.laws]
    if asked["echo"]:
        before = [
            {},
            *(server.law([server.vocabulary.ids["<assistant>"], *_reply(server, ids[:i])]) for i in range(1, len(ids))),
        ]
        tokens, laws = [*ids, *tokens], [*before, *laws]
    words = server.vocabulary.words
    logprobs = {
        "tokens": [words[id_] for id_ in tokens],
        "token_logprobs": [
            _number(law.get(id_, float("-inf"))) if law else None for id_, law in zip(tokens, laws, strict=False)
        ],
        "top_logprobs": [
            {words[id_]: _number(value) for id_, value in server.listed(law, asked["logprobs"])} if law else None
            for law in laws[: len(tokens)]
        ],
    }
    text = server.vocabulary.text(tokens)
    reason = "length" if written.ended is None else "stop"
    choice = {"index": 0, "text": text, "logprobs": logprobs if server.most_listed else None, "finish_reason": reason}
    return {"object": "text_completion", "model": MODEL, "choices": [choice]}


def _reply(server: FakeServer, ids: list[int]) -> list[int]:
    """What stands after the prompt: a raw prompt ends with a question mark."""
    ends = [i for i, id_ in enumerate(ids) if server.vocabulary.words[id_].endswith("?")]
    return ids[ends[-1] + 1 :] if ends else []


def _miscount_plain(answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0]["text"] = answer["choices"][0]["text"][:-1]
    return answer


WORK = ("/v1/completions", "/generate", "/completion")
ROUTES: dict[str, dict[str, Any]] = {
    "vllm": {
        "/version": lambda server, asked: {"version": "0.33.0"},
        "/v1/models": _models,
        "/tokenize": _vllm_tokenise,
        "/detokenize": lambda server, asked: {"prompt": server.vocabulary.text(asked["tokens"])},
        "/v1/completions": _vllm_complete,
    },
    "sglang": {
        "/get_model_info": _sglang_info,
        "/v1/models": _models,
        "/tokenize": _vllm_tokenise,
        "/detokenize": lambda server, asked: {"text": server.vocabulary.text(asked["tokens"])},
        "/generate": _sglang_generate,
    },
    "llama-server": {
        "/props": _llama_props,
        "/v1/models": _models,
        "/apply-template": lambda server, asked: {"prompt": server.templated(asked["messages"])},
        "/tokenize": lambda server, asked: {"tokens": server.vocabulary.tokens(asked["content"])},
        "/detokenize": lambda server, asked: {"content": server.vocabulary.text(asked["tokens"])},
        "/completion": _llama_complete,
    },
    "no models at all": {},
    "completions": {"/v1/models": _models, "/v1/completions": _plain_complete},
}


def _miscount_vllm(answer: dict[str, Any]) -> dict[str, Any]:
    answer["choices"][0]["token_ids"] = answer["choices"][0]["token_ids"][:-1]
    return answer


def _miscount_sglang(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"output_ids": answer["output_ids"][:-1]}


def _miscount_llama(answer: Any) -> Any:
    return answer[:-1] if isinstance(answer, list) else answer | {"tokens": answer["tokens"][:-1]}


MISCOUNTED = {
    "completions": _miscount_plain,
    "vllm": _miscount_vllm,
    "sglang": _miscount_sglang,
    "llama-server": _miscount_llama,
}


@contextmanager
def serving(dialect: str, **options: Any) -> Iterator[FakeServer]:
    """A server that is stopped at the end."""
    server = FakeServer(dialect, **options).start()
    try:
        yield server
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--dialect", default="vllm")
    parser.add_argument("--toy", default=FakeServer.toy)
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--fail", type=float, default=0.0)
    parser.add_argument("--canned", action="store_true", help="the same answer to every request")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    server = FakeServer(
        given.dialect, given.toy, given.latency, Faults(given.fail), canned=given.canned, port=given.port
    ).start()
    print(server.url, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
