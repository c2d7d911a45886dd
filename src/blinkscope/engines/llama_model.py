"""llama.cpp through the C interface of llama-cpp-python: a file's model, its vocabulary, and a memory of sequences.

A memory keeps each sequence on its own (``kv_unified=False``), so that rows attend to their own past only. Copying
between sequences then copies all that the source holds, and the copy is cut (``llama.h``; a partial copy aborts the
process). Sequences that decode together have to be numbered without gaps, else they are computed one run after the
other.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections import deque
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np
from jaxtyping import Float

from blinkscope.engines.weights import file_digest
from blinkscope.errors import EngineError, UserError

MOST_SEQUENCES = 256  # that one memory may have
BATCH = 256  # tokens in one call
_CELLS = 256  # the memory of a sequence is a multiple of so many tokens
_MAGIC = b"GGUF"
_WHOLE = (lib.LLAMA_FTYPE_ALL_F32, lib.LLAMA_FTYPE_MOSTLY_F16, lib.LLAMA_FTYPE_MOSTLY_BF16)
_ERROR = 4  # GGML_LOG_LEVEL_ERROR, which the bindings do not name


class LlamaModel:
    """The model in a GGUF file.

    Raises
    ------
    UserError : there is no such file, it is no GGUF file, or llama.cpp cannot read or use its model.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise UserError(f"there is no file {file}.")
        self.file = file
        with file.open("rb") as opened:
            if opened.read(len(_MAGIC)) != _MAGIC:
                raise UserError(f"{file} is no GGUF file; hf: reads other weights.")
        said, _ = _log()
        said.clear()
        settings = lib.llama_model_default_params()
        settings.n_gpu_layers = 0  # a library built for a GPU would otherwise place all of them there
        # Weights stay as they lie in the file: repacked for AMX, by a library that GCC 12 has built, they end the
        # process with an illegal instruction.
        settings.use_extra_bufts = False
        self.pointer = lib.llama_model_load_from_file(os.fsencode(file), settings)
        if not self.pointer:
            reason = "; ".join(dict.fromkeys(said)) or "it does not say why"
            raise UserError(f"llama.cpp cannot read {file}: {reason[:300]}")
        weakref.finalize(self, lib.llama_model_free, self.pointer)
        if lib.llama_model_is_recurrent(self.pointer) or lib.llama_model_is_hybrid(self.pointer):
            raise UserError(
                f"{file} keeps a recurrent state, which cannot be cut at a token; "
                "this engine needs a model with plain attention."
            )
        if lib.llama_model_has_encoder(self.pointer) or lib.llama_model_is_diffusion(self.pointer):
            raise UserError(f"{file} is not a model that writes one token after the other.")
        self.vocab = lib.llama_model_get_vocab(self.pointer)
        self.size = int(lib.llama_vocab_n_tokens(self.vocab))
        self.context_window = int(lib.llama_model_n_ctx_train(self.pointer))

    def setting(self, key: str) -> str | None:
        """A value of the file's metadata, as text."""
        buffer = ctypes.create_string_buffer(4096)
        length = lib.llama_model_meta_val_str(self.pointer, key.encode(), buffer, len(buffer))
        return None if length < 0 else buffer.value.decode("utf-8", errors="replace")

    @cached_property
    def digest(self) -> str:
        """Of the file's content; see ``file_digest``."""
        return file_digest(self.file)

    @cached_property
    def bytes_per_token(self) -> int:
        """Memory that the keys and values of one token take."""
        kind = self.setting("general.architecture")
        heads = int(lib.llama_model_n_head_kv(self.pointer))
        usual = int(lib.llama_model_n_embd(self.pointer)) // max(1, int(lib.llama_model_n_head(self.pointer)))
        widths = sum(int(self.setting(f"{kind}.attention.{x}_length") or usual) for x in ("key", "value"))
        return int(lib.llama_model_n_layer(self.pointer)) * heads * widths * np.dtype(np.float32).itemsize

    @property
    def rounds(self) -> bool:
        """Whether activations are rounded to match quantised weights."""
        return lib.llama_model_ftype(self.pointer) not in _WHOLE

    @cached_property
    def ends(self) -> frozenset[int]:
        """Ids that end a turn, as llama.cpp knows them."""
        return frozenset(id_ for id_ in range(self.size) if lib.llama_vocab_is_eog(self.vocab, id_))


class LlamaMemory:
    """Keys and values of ``sequences`` texts of up to ``tokens`` tokens each, and the model that reads on from them."""

    def __init__(self, model: LlamaModel, sequences: int, tokens: int) -> None:
        self.sequences, self.tokens = sequences, cells(tokens)
        self._model = model
        settings = lib.llama_context_default_params()
        settings.n_ctx, settings.n_seq_max = sequences * self.tokens, sequences
        settings.n_batch = settings.n_ubatch = BATCH
        settings.n_threads = settings.n_threads_batch = _threads()
        # Keys and values as precise as the weights may be; flash attention is slower with them.
        settings.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        settings.type_k = settings.type_v = lib.GGML_TYPE_F32
        settings.kv_unified, settings.swa_full, settings.no_perf = False, True, True
        self._pointer = lib.llama_init_from_model(model.pointer, settings)
        if not self._pointer:
            raise EngineError(f"llama.cpp could not make room for {sequences} sequences of {self.tokens} tokens.")
        weakref.finalize(self, lib.llama_free, self._pointer)
        self._memory = lib.llama_get_memory(self._pointer)
        self._batch = _Batch()

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Let one sequence hold the first ``tokens`` of another, and nothing else."""
        if source != target:
            lib.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.cut(target, tokens)

    def cut(self, sequence: int, tokens: int) -> None:
        """Let a sequence keep its first ``tokens`` only."""
        if not lib.llama_memory_seq_rm(self._memory, sequence, tokens, -1):
            raise EngineError("llama.cpp cannot cut this model's memory at a token.")

    def decode(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[int]
    ) -> Float[np.ndarray, "wanted vocabulary"]:
        """Read tokens, at most ``BATCH``; logits of what follows those at the places ``wanted``, valid until the next.

        ids, positions, sequences: of each token, its id and where it goes.
        """
        failed = lib.llama_decode(self._pointer, self._batch.fill(ids, positions, sequences, wanted))
        if failed:
            raise EngineError(f"llama.cpp could not decode (its code is {failed}); lower --batch-bytes.")
        if not len(wanted):
            return np.empty((0, self._model.size), dtype=np.float32)
        return np.ctypeslib.as_array(lib.llama_get_logits(self._pointer), shape=(len(wanted), self._model.size))


class _Batch:
    """The arrays of a ``llama_batch``, used again and again."""

    def __init__(self) -> None:
        self._tokens, self._positions, self._sequences = (np.zeros(BATCH, dtype=np.int32) for _ in range(3))
        self._counts, self._wanted = np.ones(BATCH, dtype=np.int32), np.zeros(BATCH, dtype=np.int8)
        # Each token's list of sequences is one entry of the same array.
        self._lists = self._sequences.ctypes.data + self._sequences.itemsize * np.arange(BATCH, dtype=np.uintp)

    def fill(
        self, ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int], wanted: Sequence[int]
    ) -> Any:
        count = len(ids)
        self._tokens[:count], self._positions[:count], self._sequences[:count] = ids, positions, sequences
        self._wanted[:count] = 0
        self._wanted[np.asarray(wanted, dtype=np.int64)] = 1
        return lib.llama_batch(
            n_tokens=count,
            token=self._tokens.ctypes.data_as(ctypes.POINTER(lib.llama_token)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(lib.llama_pos)),
            n_seq_id=self._counts.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._lists.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(lib.llama_seq_id))),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )


def cells(tokens: int) -> int:
    """Tokens for which a sequence of ``tokens`` has memory."""
    return -(-tokens // _CELLS) * _CELLS


def _threads() -> int:
    """As many as torch would take: ``OMP_NUM_THREADS``, else one for each processor that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _log() -> tuple[deque[str], Any]:
    """The last errors that llama.cpp reported; from here on it writes nothing to the terminal.

    Beside them what it calls to report, which has to be there for as long as the process lives.
    """
    said: deque[str] = deque(maxlen=4)

    def keep(level: int, text: bytes, _: Any) -> None:
        words = " ".join(text.decode("utf-8", errors="replace").split())
        if level == _ERROR and words:
            said.append(words)

    callback = lib.llama_log_callback(keep)
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    return said, callback
