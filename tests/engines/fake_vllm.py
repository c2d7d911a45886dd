"""A module like ``vllm`` whose model is a toy one: the classes that the engine uses, with the fields they have.

Written from vLLM 0.33's sources: ``entrypoints/llm.py``, ``sampling_params.py``, ``outputs.py``, ``logprobs.py``,
``inputs/llm.py``, ``exceptions.py`` and the order of ``v1/sample/sampler.py``. What the real classes do not take is
refused here, and what they change without a word is changed.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import pytest
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from blinkscope.engines.machine import END, UNKNOWN
from blinkscope.engines.toy_models import open_toy

TOY = "fork?agree=2&width=3&leak=0.1&length=14"
MARKS = ("<user>", "<assistant>", "<system>")
TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


class VLLMError(Exception):
    pass


class VLLMClientError(VLLMError):
    pass


class VLLMServerError(VLLMError):
    pass


class VLLMValidationError(VLLMClientError):
    pass


class TokensPrompt(TypedDict):
    prompt_token_ids: list[int]


@dataclass
class SamplingParams:
    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: Any = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        self.stop, self.stop_token_ids = list(self.stop or ()), list(self.stop_token_ids or ())
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1 or self.top_k < -1 or not 0 <= self.min_p <= 1:
            raise VLLMValidationError("a sampling parameter is out of its range")
        if self.max_tokens is None or self.max_tokens < 1:
            raise VLLMValidationError(f"max_tokens must be at least 1, got {self.max_tokens}.")
        if self.stop and not self.detokenize:
            raise VLLMValidationError("stop strings are only supported when detokenize is True")
        if 0 < self.temperature < 0.01:
            self.temperature = 0.01
        if self.temperature < 1e-5:
            self.top_p, self.top_k, self.min_p = 1.0, 0, 0.0
            if self.n > 1:
                raise VLLMValidationError(f"n must be 1 when using greedy sampling, got {self.n}.")


@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


class RequestOutput:
    def __init__(
        self,
        request_id: str,
        prompt: str | None,
        prompt_token_ids: list[int] | None,
        prompt_logprobs: list[dict[int, Logprob] | None] | None,
        outputs: list[CompletionOutput],
        finished: bool,
    ) -> None:
        self.request_id, self.prompt, self.prompt_token_ids = request_id, prompt, prompt_token_ids
        self.prompt_logprobs, self.outputs, self.finished = prompt_logprobs, outputs, finished


@cache
def tokenizer(words: tuple[str, ...], template: bool = True) -> Any:
    """A token for each word of a toy model, and for the marks of a conversation."""
    vocabulary = {word: id_ for id_, word in enumerate((*words, *MARKS))}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token=words[UNKNOWN]))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r" ?[^\s<]+|\s"), "isolated")
    inner.decoder = decoders.Fuse()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=words[END], unk_token=words[UNKNOWN],
        chat_template=TEMPLATE if template else None,
    )  # fmt: skip
    made.add_special_tokens({"additional_special_tokens": list(MARKS)})
    return made


@dataclass
class Config:
    """The part of ``ModelConfig`` that the engine reads."""

    vocabulary: int
    max_model_len: int
    max_logprobs: int
    logprobs_mode: str
    generation: dict[str, Any]

    def get_vocab_size(self) -> int:
        return self.vocabulary

    def try_get_generation_config(self) -> dict[str, Any]:
        return dict(self.generation)


@dataclass
class Model:
    """What a fake ``LLM`` loads.

    generation: its generation config. broken: raised by ``generate``. requests: all that was asked for, in order.
    """

    toy: str = TOY
    window: int = 4096
    template: bool = True
    generation: dict[str, Any] = field(default_factory=dict)
    broken: Exception | None = None
    requests: list[tuple[list[int], SamplingParams]] = field(default_factory=list)
    calls: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)


LOADED: dict[str, Model] = {}
"""Models by name; a name that is not here cannot be loaded."""


class LLM:
    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        load_format: str = "auto",
        enable_prefix_caching: bool | None = None,
        max_logprobs: int = 20,
        logprobs_mode: str = "raw_logprobs",
        max_model_len: int | None = None,
        generation_config: str = "auto",
    ) -> None:
        if model not in LOADED:
            raise OSError(f"{model} is not a local folder and is not a valid model identifier")
        self.model = LOADED[model]
        self.model.arguments = {
            "dtype": dtype, "load_format": load_format, "trust_remote_code": trust_remote_code,
            "enable_prefix_caching": enable_prefix_caching,
        }  # fmt: skip
        self.machine = open_toy(self.model.toy).machine
        self.size = len(self.machine.words) + len(MARKS)
        self.model_config = Config(
            self.size, max_model_len or self.model.window, max_logprobs, logprobs_mode, self.model.generation
        )

    def get_tokenizer(self) -> Any:
        return tokenizer(tuple(self.machine.words), self.model.template)

    def get_default_sampling_params(self) -> SamplingParams:
        known = {item.name for item in dataclasses.fields(SamplingParams)}
        return SamplingParams(**{name: value for name, value in self.model.generation.items() if name in known})

    def generate(
        self,
        prompts: Sequence[TokensPrompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
        priority: Any = None,
    ) -> list[RequestOutput]:
        if self.model.broken is not None:
            raise self.model.broken
        assert isinstance(sampling_params, list)
        assert len(sampling_params) == len(prompts)
        self.model.calls += 1
        return [self._answer(i, *pair) for i, pair in enumerate(zip(prompts, sampling_params, strict=True))]

    def _answer(self, number: int, prompt: TokensPrompt, asked: SamplingParams) -> RequestOutput:
        assert set(prompt) == {"prompt_token_ids"}
        ids = prompt["prompt_token_ids"]
        self.model.requests.append((ids, asked))
        if not ids or not all(0 <= id_ < self.size for id_ in ids):
            raise VLLMValidationError("The decoder prompt cannot be empty, nor hold token ids out of vocabulary")
        if len(ids) >= self.model_config.max_model_len:
            raise VLLMValidationError(f"The decoder prompt (length {len(ids)}) is longer than the maximum model length")
        for most in (asked.logprobs, asked.prompt_logprobs):
            most = self.size if most == -1 else most or 0
            allowed = self.model_config.max_logprobs
            if most > (self.size if allowed == -1 else allowed):
                raise VLLMValidationError(f"Requested logprobs of {most}, which is greater than max allowed: {allowed}")
        places = None
        if asked.prompt_logprobs is not None:
            laws = [self._law(self._state(ids[:i])) for i in range(1, len(ids))]
            listed = [self._listed(law, id_, asked.prompt_logprobs) for law, id_ in zip(laws, ids[1:], strict=True)]
            places = [None, *listed]
        assert asked.seed is not None
        outputs = [self._child(ids, asked, index, asked.seed + index) for index in range(asked.n)]
        return RequestOutput(str(number), None, ids, places, outputs[::-1], True)  # their order is not promised

    def _child(self, ids: list[int], asked: SamplingParams, index: int, seed: int) -> CompletionOutput:
        random, state, tokens, listed = np.random.default_rng(seed), self._state(ids), [], []
        text, reason, why = "", "length", None
        room = self.model_config.max_model_len - len(ids)
        while len(tokens) < min(asked.max_tokens or 0, room):
            law = self._law(state)
            options, p = filtered(law, asked)
            token = int(options[min(int(np.searchsorted(np.cumsum(p), random.random())), len(p) - 1)])
            tokens.append(token)
            listed.append(self._listed(law, token, asked.logprobs or 0))
            state = self._after(state, token)
            if token == END and not asked.ignore_eos:
                reason = "stop"
                break
            if token in (asked.stop_token_ids or ()):
                reason, why = "stop", token
                break
            text = "".join(self.machine.words[one] for one in tokens) if asked.detokenize else ""
            found = [stop for stop in asked.stop if stop in text]
            if found:
                reason, why, text = "stop", found[0], text.partition(found[0])[0]
                break
        return CompletionOutput(index, text, tokens, None, None if asked.logprobs is None else listed, reason, why)

    def _law(self, state: Any) -> dict[int, float]:
        """Raw log-probabilities, most probable first; impossible tokens have minus infinity."""
        options, logits = (row[0] for row in self.machine.moves(np.asarray(state)[None]))
        logits = logits - np.logaddexp.reduce(logits)
        pairs = sorted(zip(options.tolist(), logits.tolist(), strict=True), key=lambda pair: -pair[1])
        possible = {id_: value for id_, value in pairs if np.isfinite(value)}
        return possible | {id_: float("-inf") for id_ in range(self.size) if id_ not in possible}

    def _listed(self, law: dict[int, float], token: int, most: int) -> dict[int, Logprob]:
        """The token that is there first, then the most probable ones."""
        most = self.size if most == -1 else most
        ranked = list(law)
        shown = [token, *ranked[:most]]
        return {id_: Logprob(law[id_], ranked.index(id_) + 1) for id_ in shown}

    def _state(self, ids: Sequence[int]) -> Any:
        opening = len(self.machine.words) + MARKS.index("<assistant>")
        state, reply = self.machine.start, list(ids)
        for id_ in reply[len(reply) - reply[::-1].index(opening) :] if opening in reply else reply:
            state = self._after(state, id_)
        return state

    def _after(self, state: Any, token: int) -> Any:
        if token >= len(self.machine.words):
            return state
        return self.machine.follow(np.asarray(state)[None], np.array([token]))[0]


def filtered(law: dict[int, float], asked: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """The law that is drawn from: temperature, then min-p, then top-k, then top-p."""
    ids, x = np.array(list(law)), np.array(list(law.values()))
    if asked.temperature == 0:
        return ids[:1], np.ones(1)
    with np.errstate(invalid="ignore"):
        p = np.exp((x - x[0]) / asked.temperature)
    p = np.where(p / p.sum() >= asked.min_p * (p / p.sum()).max(), p, 0)
    if asked.top_k > 0:
        p = np.where(p >= np.sort(p)[::-1][: asked.top_k][-1], p, 0)
    p = p / p.sum()
    p = np.where(np.cumsum(p) - p < asked.top_p, p, 0)
    return ids, p / p.sum()


def module() -> ModuleType:
    made: Any = ModuleType("vllm")
    made.__spec__ = ModuleSpec("vllm", None)
    for name in ("LLM", "SamplingParams", "TokensPrompt", "RequestOutput", "CompletionOutput"):
        setattr(made, name, globals()[name])
    made.exceptions = ModuleType("vllm.exceptions")
    for error in (VLLMError, VLLMClientError, VLLMServerError, VLLMValidationError):
        setattr(made.exceptions, error.__name__, error)
    made.logprobs = SimpleNamespace(Logprob=Logprob)
    return made


def install(patch: pytest.MonkeyPatch) -> None:
    """Let ``import vllm`` find this one."""
    made = module()
    patch.setitem(sys.modules, "vllm", made)
    patch.setitem(sys.modules, "vllm.exceptions", made.exceptions)
