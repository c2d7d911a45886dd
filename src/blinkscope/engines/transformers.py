"""Any causal language model of Hugging Face transformers: from a folder, a GGUF file, the hub, or already in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from transformers.cache_utils import DynamicCache

from blinkscope.engines import reading
from blinkscope.engines.continuous_batch import in_order, write
from blinkscope.engines.free_memory import free_bytes
from blinkscope.engines.key_values import ROOM, KeyValues, can_slice
from blinkscope.engines.next_token import score_tokens
from blinkscope.engines.row_decoder import RowDecoder
from blinkscope.engines.rows import Rules
from blinkscope.engines.text import Text
from blinkscope.engines.token_score import TokenScore, score_of
from blinkscope.engines.torch_logits import TorchLogits
from blinkscope.engines.weights import OfFiles
from blinkscope.engines.window import ContextWindow, most_tokens
from blinkscope.engines.wording import Wording
from blinkscope.errors import EngineError, UserError
from blinkscope.language.engine import Completion, Context, Job, Path, Score
from blinkscope.language.reading import Conversation, Transcript
from blinkscope.language.sampling import Sampling

# Settings of a generation config that would change the next-token law and are not followed, and what turns each off.
_NOT_FOLLOWED = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_new_tokens": 0,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": 1.0,
    "bad_words_ids": [],
    "suppress_tokens": [],
    "begin_suppress_tokens": [],
    "sequence_bias": {},
    "exponential_decay_length_penalty": (),
    "guidance_scale": 1.0,
}
_CPU_ROWS, _GPU_ROWS = 96, 256  # beyond these a step takes longer in the same proportion


class TransformersEngine(OfFiles, Wording[Text]):
    """A transformers model behind the ``Engine`` protocol.

    The model is used as it is: its own forward pass is called, so that adapters, hooks and steering vectors act. The
    keys and values of the last paths are kept; after changing a model that is in memory, make a new engine.

    Parameters
    ----------
    name : the spelling that names these weights.
    model, tokenizer : of transformers; the model in evaluation mode.
    sampling : the model's own settings; read from its generation config where None.
    batch_bytes : most memory for the keys and values of the rows that decode together; from the free memory where None.
    batch_rows : most rows that decode together; where more of them gain nothing on this device if None.
    digest : of the files that the weights were read from; empty where they are not known.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Any,
        *,
        sampling: Sampling | None = None,
        batch_bytes: int | None = None,
        batch_rows: int | None = None,
        digest: str = "",
    ) -> None:
        if model.training:
            raise UserError("the model is in training mode, where dropout changes its law; call model.eval() first.")
        if not can_slice(model):
            raise UserError(
                f"{name} keeps a recurrent state, which cannot be cut at a token; "
                "this engine needs a model with plain attention."
            )
        if batch_bytes is not None and batch_bytes < 1:
            raise UserError(f"batch-bytes is {batch_bytes}; it must be a positive number of bytes.")
        self._name, self._digest, self._model = name, digest, model
        self._end_of_turn = _end_of_turn(model, tokenizer)
        self._sampling = sampling or _generation_settings(model)
        self._batch_bytes = batch_bytes or _free_bytes(model.device)
        self._batch_rows = batch_rows or (_CPU_ROWS if model.device.type == "cpu" else _GPU_ROWS)
        config = model.config.get_text_config()
        most = int(getattr(config, "max_position_embeddings", None) or 2**31)
        super().__init__(Text(tokenizer, self._end_of_turn), ContextWindow(most, "model"))
        self._prefixes: OrderedDict[Path, KeyValues] = OrderedDict()

    @property
    def default_sampling(self) -> Sampling:
        return self._sampling

    def remarks(self, context: Context) -> tuple[str, ...]:
        return self._text.remarks(context, _not_followed(self._model))

    def score(self, path: Path, sampling: Sampling) -> Score:
        self._window.check(len(path.context.ids) + len(path.tokens))
        with _machine_errors():
            return score_of(self._pass_over(path, sampling))

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        jobs = in_order(jobs)
        longest = max((most_tokens(job, sampling) for job in jobs), default=0)
        self._window.check(longest)
        if jobs:
            rules = Rules(sampling, seed, self._end_of_turn, self.decode)
            with _machine_errors():
                capacity = min(self._row_limit(jobs[0].path, longest), len(jobs))
                for row in write(jobs, rules, RowDecoder(self._model, self._prefix, capacity), capacity):
                    yield row.completion()

    @property
    def layers(self) -> int:
        return int(self._model.config.get_text_config().num_hidden_layers)

    def transcript(self, conversation: Conversation, reply: str) -> Transcript:
        return self._text.transcript(conversation, reply)

    def log_probabilities(self, ids: Sequence[int]) -> Float[np.ndarray, " n"]:
        self._window.check(len(ids))
        with _machine_errors():
            return reading.log_probabilities(self._model, ids)

    def mean_activation(self, ids: Sequence[int], positions: Sequence[int], layer: int) -> Float[np.ndarray, " width"]:
        self._window.check(len(ids))
        with _machine_errors():
            return reading.mean_activation(self._model, ids, positions, layer)

    def follow(self, ids: Sequence[int], tokens: Iterable[int]) -> Iterator[float]:
        def within() -> Iterator[int]:
            for length, token in enumerate(tokens, len(ids) + 1):
                self._window.check(length)
                yield token

        with _machine_errors():
            yield from reading.follow(self._model, ids, within())

    def _row_limit(self, path: Path, longest: int) -> int:
        row_bytes = self._prefix(path).bytes_per_token * (longest + ROOM)
        return max(1, min(self._batch_rows, self._batch_bytes // row_bytes))

    def _prefix(self, path: Path) -> KeyValues:
        """Keys and values of a path and its context, from memory where they are still there."""
        if path not in self._prefixes:
            self._pass_over(path, None)
        self._prefixes.move_to_end(path)
        return self._prefixes[path]

    @torch.inference_mode()
    def _pass_over(self, path: Path, sampling: Sampling | None) -> list[TokenScore]:
        """Read a path once: keep its keys and values, and score its tokens where a sampling law is given."""
        ids = (*path.context.ids, *path.tokens)
        first, total = len(path.context.ids), len(ids)
        cache = DynamicCache()
        scores: list[TokenScore] = []
        for start in range(0, total, reading.CHUNK):
            stop = min(start + reading.CHUNK, total)
            # Logits at position i are those of token i + 1; the last token's are nobody's.
            scored = range(max(start, first - 1), min(stop, total - 1)) if sampling is not None else range(0)
            kept = stop - scored.start if scored else 1
            logits = reading.forward(self._model, ids[start:stop], start, cache, logits_to_keep=kept).logits[0]
            if scored and sampling is not None:
                tokens = np.array(path.tokens[scored.start + 1 - first : scored.stop + 1 - first])
                scores += score_tokens(TorchLogits(logits[: len(tokens)]), sampling, tokens)
        self._keep(path, KeyValues.of(cache))
        return scores

    def _keep(self, path: Path, key_values: KeyValues) -> None:
        """Remember a path, and forget the oldest ones where they take more than a quarter of the batch's memory."""
        self._prefixes[path] = key_values
        while len(self._prefixes) > 1 and self._prefix_bytes() > self._batch_bytes // 4:
            self._prefixes.popitem(last=False)

    def _prefix_bytes(self) -> int:
        return sum(x.bytes_per_token * x.tokens for x in self._prefixes.values())


def _end_of_turn(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids that end a turn: those of the generation config, else the tokenizer's."""
    ids = getattr(model.generation_config, "eos_token_id", None)
    if ids is None:
        ids = tokenizer.eos_token_id
    if ids is None:
        return frozenset()
    return frozenset([ids] if isinstance(ids, int) else ids)


def _generation_settings(model: Any) -> Sampling:
    """The settings of the generation config; what it leaves open is off."""
    config = model.generation_config

    def setting(name: str, off: float) -> Any:
        value = getattr(config, name, None)
        return off if value is None else value

    return Sampling(
        temperature=setting("temperature", 1.0),
        top_k=setting("top_k", 0),
        top_p=setting("top_p", 1.0),
        min_p=setting("min_p", 0.0),
    )


def _not_followed(model: Any) -> dict[str, Any]:
    """Settings of the generation config that change the next-token law in ways that ``Sampling`` does not know."""
    settings = {name: getattr(model.generation_config, name, None) for name in _NOT_FOLLOWED}
    return {name: value for name, value in settings.items() if value not in (None, _NOT_FOLLOWED[name])}


def _free_bytes(device: torch.device) -> int:
    """Half of what is free on a GPU."""
    return int(torch.cuda.mem_get_info(device)[0]) // 2 if device.type == "cuda" else free_bytes()


@contextmanager
def _machine_errors() -> Iterator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineError("the device ran out of memory; lower --batch-bytes.") from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # what torch says of ordinary memory
            raise EngineError("the machine ran out of memory; lower --batch-bytes.") from error
        raise
