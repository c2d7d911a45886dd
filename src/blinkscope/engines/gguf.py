"""A model in a GGUF file, run by llama.cpp with the weights as they lie there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

import numpy as np

from blinkscope.engines.array_logits import ArrayLogits
from blinkscope.engines.continuous_batch import in_order, write
from blinkscope.engines.free_memory import free_bytes
from blinkscope.engines.llama_decoder import MOST_ROWS, TEXTS, LlamaDecoder
from blinkscope.engines.llama_model import LlamaModel, cells
from blinkscope.engines.llama_tokenizer import LlamaTokenizer
from blinkscope.engines.next_token import score_tokens
from blinkscope.engines.rows import Rules
from blinkscope.engines.token_score import TokenScore, score_of
from blinkscope.engines.token_text import TokenText
from blinkscope.engines.window import ContextWindow, most_tokens
from blinkscope.engines.wording import Wording
from blinkscope.errors import UserError
from blinkscope.language.engine import Completion, Context, Job, Path, Score
from blinkscope.language.sampling import Sampling

SCHEME = "gguf:"
ROWS = 96  # most rows that decode together: beyond these a step takes longer in the same proportion


def open_gguf(file: str, batch_bytes: int | None) -> GgufEngine:
    """The engine of a file."""
    return GgufEngine(f"{SCHEME}{file}", LlamaModel(FilePath(file).expanduser()), batch_bytes=batch_bytes)


class GgufEngine(Wording[TokenText]):
    """A llama.cpp model behind the ``Engine`` protocol.

    Parameters
    ----------
    name : the spelling that names these weights.
    batch_bytes : most memory for keys and values; from the free memory where None.
    batch_rows : most rows that decode together.
    """

    def __init__(self, name: str, model: LlamaModel, *, batch_bytes: int | None = None, batch_rows: int = ROWS) -> None:
        if batch_bytes is not None and batch_bytes < 1:
            raise UserError(f"batch-bytes is {batch_bytes}; it must be a positive number of bytes.")
        self._name, self._model = name, model
        super().__init__(
            TokenText(LlamaTokenizer(model), set(model.ends)), ContextWindow(model.context_window, "model")
        )
        self._batch_bytes, self._batch_rows = batch_bytes or free_bytes(), batch_rows
        self._spare: LlamaDecoder | None = None

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return f"{SCHEME}{self._model.file.name}"

    @property
    def digest(self) -> str:
        return self._model.digest

    @property
    def default_sampling(self) -> Sampling:
        """The settings that stand in the file; what it leaves open is off."""

        def setting(name: str, off: float) -> float:
            value = self._model.setting(f"general.sampling.{name}")
            return off if value is None else float(value)

        return Sampling(setting("temp", 1.0), int(setting("top_k", 0)), setting("top_p", 1.0), setting("min_p", 0.0))

    def remarks(self, context: Context) -> tuple[str, ...]:
        if not self._model.rounds:
            return ()
        return (
            "llama.cpp rounds activations where weights are quantised, as in this file, so probabilities differ by "
            "some percent between one reading of a text and the next.",
        )

    def score(self, path: Path, sampling: Sampling) -> Score:
        ids, first = (*path.context.ids, *path.tokens), len(path.context.ids)
        self._window.check(len(ids))
        scores: list[TokenScore] = []
        if path.tokens:
            with self._decoder(len(ids), 1) as decoder:
                for place, logits in decoder.read(ids, first - 1):
                    said = np.array(ids[place + 1 : place + 1 + len(logits)], dtype=np.int64)
                    scores += score_tokens(ArrayLogits(logits), sampling, said)
        return score_of(scores)

    def continue_(self, jobs: Iterable[Job], sampling: Sampling, seed: int) -> Iterator[Completion]:
        jobs = in_order(jobs)
        longest = max((most_tokens(job, sampling) for job in jobs), default=0)
        self._window.check(longest)
        if jobs:
            rules = Rules(sampling, seed, self._model.ends, self.decode)
            with self._decoder(longest, len(jobs)) as decoder:
                for row in write(jobs, rules, decoder, min(decoder.rows, len(jobs))):
                    yield row.completion()

    @contextmanager
    def _decoder(self, tokens: int, rows: int) -> Iterator[LlamaDecoder]:
        """A decoder for so many rows of so many tokens, used by nobody else meanwhile, and kept for the next.

        Where memory is short it has fewer rows.
        """
        decoder, self._spare = self._spare, None
        fit = self._batch_bytes // (self._model.bytes_per_token * cells(tokens)) - TEXTS
        rows = max(1, min(rows, self._batch_rows, fit, MOST_ROWS))
        if decoder is None or decoder.tokens < tokens or decoder.rows < rows:
            decoder = None  # so that two are never there at a time
            decoder = LlamaDecoder(self._model, rows, tokens)
        try:
            yield decoder
        finally:
            decoder.clear()
            self._spare = decoder
