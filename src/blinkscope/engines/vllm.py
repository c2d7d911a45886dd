"""vLLM in this process, through ``vllm.LLM.generate``: token ids in, token ids out.

Written against the classes of vLLM 0.33. The law of the next token is made here from raw log-probabilities
(``returned.py``), as it is for a server; a path is read in one request, and places that this does not settle are asked
about once more with more tokens listed. Continuations that share a prefix are children of one request where their seeds
allow it, so that the prefix is computed once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any, TypeVar

from blinkscope.engines.places import is_settled, score_path, to_list
from blinkscope.engines.requests import (
    SEEDS,
    Group,
    before_question,
    completion,
    grouped,
    is_over,
    said,
    up_to_its_end,
)
from blinkscope.engines.returned import Returned
from blinkscope.engines.rows import Rules
from blinkscope.engines.text import Text
from blinkscope.engines.vllm_law import check_law
from blinkscope.engines.weights import OfFiles, local_digest, need_safetensors
from blinkscope.engines.window import ContextWindow, most_tokens
from blinkscope.engines.wording import Wording
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Completion, Context, Job, Path, Score
from blinkscope.language.sampling import Sampling

T = TypeVar("T")

SEED_BITS = 62
AT_A_TIME = 1024  # most continuations in one call; they are handed over when the last of them is written
LISTED_AT_A_TIME = 2**20  # log-probabilities in one call, each of which is an object
_RAW, _GREEDY = Sampling(), Sampling(temperature=0)
_PENALTIES = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}


def open_vllm(name: str, dtype: str) -> VllmEngine:
    """The engine of a folder, or of a name on the Hugging Face hub.

    Weights are read from safetensors only, and code that comes with them is never run.

    Raises
    ------
    UserError : there is no such model, or vLLM does not take it.
    EngineError : vLLM could not be started.
    """
    folder = FilePath(name).expanduser()
    if folder.is_dir():
        need_safetensors(folder)
        name = str(folder)
    # Where nobody has said otherwise: standard output is for the result, and nothing is sent to anyone.
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    import vllm
    from vllm.exceptions import VLLMError

    try:
        llm = vllm.LLM(
            model=name,
            dtype=dtype,
            load_format="safetensors",
            trust_remote_code=False,
            enable_prefix_caching=True,
            max_logprobs=-1,
            logprobs_mode="raw_logprobs",
        )
    except (OSError, ValueError) as error:
        raise UserError(f"vLLM cannot open {name}: {_words(error)}") from error
    except (RuntimeError, VLLMError) as error:
        raise EngineError(f"vLLM could not be started with {name}: {_words(error)}") from error
    return VllmEngine(f"vllm:{name}", llm, digest=local_digest(name))


class VllmEngine(OfFiles, Wording[Text]):
    """A ``vllm.LLM`` behind the ``Engine`` protocol.

    Parameters
    ----------
    name : the spelling that names these weights.
    llm : the ``vllm.LLM``; made by hand where vLLM's own settings are wanted, with ``logprobs_mode="raw_logprobs"`` and
        ``max_logprobs=-1`` (a limit is kept to, and what it leaves unknown is noted).
    digest : of the files that the weights were read from; empty where they are not known.

    Raises
    ------
    UserError : log-probabilities are not raw ones, or may not be asked for.
    """

    def __init__(self, name: str, llm: Any, *, digest: str = "") -> None:
        import vllm

        config = llm.model_config
        if config.logprobs_mode != "raw_logprobs":
            raise UserError(f"this vllm.LLM returns {config.logprobs_mode}; make it with logprobs_mode='raw_logprobs'.")
        self._vocabulary = int(config.get_vocab_size())
        self._most_listed = self._vocabulary if config.max_logprobs == -1 else int(config.max_logprobs)
        if self._most_listed < 1:
            raise UserError("this vllm.LLM lists no log-probabilities; make it with max_logprobs=-1.")
        self._name, self._digest, self._llm, self._vllm = name, digest, llm, vllm
        tokenizer = llm.get_tokenizer()
        self._ends = _ends(config.try_get_generation_config(), tokenizer)
        super().__init__(Text(tokenizer, self._ends), ContextWindow(int(config.max_model_len), "model"))
        self._defaults = llm.get_default_sampling_params()

    @property
    def default_sampling(self) -> Sampling:
        own = self._defaults
        return Sampling(own.temperature, max(own.top_k, 0), own.top_p, own.min_p)  # -1 is off, too

    def remarks(self, context: Context) -> tuple[str, ...]:
        asked = {name: getattr(self._defaults, name) for name in _PENALTIES}
        return self._text.remarks(
            context, {name: asked[name] for name, off in _PENALTIES.items() if asked[name] != off}
        )

    def score(self, path: Path, sampling: Sampling) -> Score:
        check_law(sampling)
        self._window.check(len(path.context.ids) + len(path.tokens))
        places = self._settled(self._read(path, sampling), path, sampling)
        return score_path(places, path.tokens, sampling, self._vocabulary, ())

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        check_law(sampling)
        rules = Rules(sampling, seed, self._ends, self.decode)
        over: list[Job] = []
        waiting: list[Job] = []
        for job in jobs:
            self._window.check(most_tokens(job, sampling))
            (over if is_over(job, rules) else waiting).append(job)
        yield from self._concluded([_Reply(job, ()) for job in over], rules)
        asked = grouped(waiting, sampling, seed, most=SEEDS, bits=SEED_BITS)
        for groups in _portions(asked, lambda group: len(group.jobs), AT_A_TIME):
            yield from self._concluded(self._written(groups, sampling), rules)

    def _written(self, groups: Sequence[Group], sampling: Sampling) -> list[_Reply]:
        asked = []
        for group in groups:
            first = group.jobs[0]
            ids = (*first.path.context.ids, *said(first))
            asked.append(_Request(ids, sampling, group.cap, len(group.jobs), group.seed))
        answers = self._generate(asked)
        return [
            _Reply(job, tuple(child.token_ids))
            for group, answer in zip(groups, answers, strict=True)
            for job, child in zip(group.jobs, answer.outputs, strict=True)
        ]

    def _concluded(self, replies: Sequence[_Reply], rules: Rules) -> Iterator[Completion]:
        """Finished continuations, with the answers to their follow-up questions."""
        ended = [(reply.job, *up_to_its_end(reply.job, reply.tokens, rules)) for reply in replies]
        asked = [
            _Request((*before_question(job, tokens, self._ends), *job.ask.ids), _GREEDY, job.ask.max_new_tokens)
            for job, tokens, _ in ended
            if job.ask is not None
        ]
        answers = iter(self._generate(asked))
        for job, tokens, stopped in ended:
            if job.ask is None:
                yield completion(job, tokens, stopped)
            else:
                answer = tuple(next(answers).outputs[0].token_ids)
                yield completion(job, tokens, stopped, (), self.decode(answer), len(answer))

    def _read(self, path: Path, sampling: Sampling) -> list[Returned]:
        """What is listed at every place of a path, from one pass over it.

        The last token is left out, so that a path may fill the whole window: its place is that of the one token which
        vLLM always writes.
        """
        if not path.tokens:
            return []
        ids, first = (*path.context.ids, *path.tokens), len(path.context.ids)
        listed = to_list(0, sampling, self._most_listed)
        (answer,) = self._generate([_Request(ids[:-1], _RAW, 1, listed=listed, listed_before=listed)])
        before, last = answer.prompt_logprobs, answer.outputs[0].logprobs
        if before is None or len(before) != len(ids) - 1 or not last:
            raise EngineError(f"vLLM sent no log-probabilities of {self._name}, without which nothing can be scored.")
        return [*(_place(place, listed) for place in before[first:]), _place(last[0], listed)]

    def _settled(self, places: Sequence[Returned], path: Path, sampling: Sampling) -> list[Returned]:
        """The same places with more tokens listed, until their laws are settled or there is no more to say."""
        places, ids, first = list(places), (*path.context.ids, *path.tokens), len(path.context.ids)
        asked = [to_list(0, sampling, self._most_listed)] * len(places)
        level = 0
        while True:
            level += 1
            more: dict[int, int] = {}
            for s, (place, token) in enumerate(zip(places, path.tokens, strict=True)):
                if not is_settled(place, token, sampling, self._vocabulary):
                    listed = to_list(level, sampling, self._most_listed, whole=token not in place.ids)
                    if listed > asked[s]:
                        more[s] = asked[s] = listed
            if not more:
                return places
            for some in _portions(more, more.__getitem__, LISTED_AT_A_TIME):
                answers = self._generate([_Request(ids[: first + s], _RAW, 1, listed=more[s]) for s in some])
                for s, answer in zip(some, answers, strict=True):
                    places[s] = places[s].joined(_place(answer.outputs[0].logprobs[0], more[s]))

    def _generate(self, asked: Sequence[_Request]) -> list[Any]:
        """vLLM's answers, each with its children in the order of their seeds."""
        if not asked:
            return []
        from vllm.exceptions import VLLMClientError, VLLMError

        try:
            answers = self._llm.generate(
                [self._vllm.TokensPrompt(prompt_token_ids=list(request.ids)) for request in asked],
                [self._parameters(request) for request in asked],
                use_tqdm=False,
            )
        except VLLMClientError as error:
            raise UserError(f"vLLM refuses this: {_words(error)}") from error
        except (VLLMError, RuntimeError) as error:
            raise EngineError(f"vLLM failed: {_words(error)}") from error
        for request, answer in zip(asked, answers, strict=True):
            answer.outputs.sort(key=lambda child: child.index)
            for child in answer.outputs:
                if child.finish_reason not in ("stop", "length"):
                    raise EngineError(f"vLLM broke off a continuation, for the reason {child.finish_reason!r}.")
            if len(answer.outputs) != request.count:
                raise EngineError(
                    f"vLLM wrote {len(answer.outputs)} continuations where {request.count} were asked for."
                )
        return list(answers)

    def _parameters(self, request: _Request) -> Any:
        """Every field that has to do with the law, so that no default of vLLM's or of the model's acts."""
        sampling = request.sampling
        return self._vllm.SamplingParams(
            n=request.count,
            **_PENALTIES,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=request.seed,
            stop=list(sampling.stop),
            stop_token_ids=sorted(self._ends),
            ignore_eos=False,
            max_tokens=request.cap,
            min_tokens=0,
            logprobs=request.listed,
            prompt_logprobs=request.listed_before,
            detokenize=bool(sampling.stop),
        )


@dataclass(frozen=True)
class _Request:
    """``count`` continuations of ids, child i with the seed ``seed`` + i, of at most ``cap`` tokens each.

    listed, listed_before: log-probabilities to list at each written place, and at each place of the ids.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    cap: int
    count: int = 1
    seed: int = 0
    listed: int | None = None
    listed_before: int | None = None


@dataclass(frozen=True)
class _Reply:
    """What was written for a job."""

    job: Job
    tokens: tuple[int, ...]


def _ends(generation: Mapping[str, Any], tokenizer: Any) -> frozenset[int]:
    """Ids at which vLLM ends a turn: the tokenizer's, and those of the model's generation config."""
    own = generation.get("eos_token_id")
    ids = [own] if isinstance(own, int) else list(own or ())
    return frozenset([*ids, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])])


def _place(listed: Mapping[int, Any], most: int) -> Returned:
    """One place; beside the ``most`` most probable tokens stands the one that is there."""
    return Returned.of({id_: float(entry.logprob) for id_, entry in listed.items()}, most)


def _portions(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Items in order, of which each portion's sizes sum to at most ``limit`` where one alone does."""
    portion: list[T] = []
    held = 0
    for item in items:
        if portion and held + size(item) > limit:
            yield portion
            portion, held = [], 0
        portion.append(item)
        held += size(item)
    if portion:
        yield portion


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
