"""Tiny transformers models with random weights, for every kind of attention that the engine has to get right."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from blinkscope.engines.transformers import TransformersEngine

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # large enough that every earlier token matters
    "bos_token_id": 256,
    "eos_token_id": 258,
    "pad_token_id": 256,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 12}),
    "gemma2": ("Gemma2Config", {"sliding_window": 10, "query_pre_attn_scalar": 8}),
    "qwen3": ("Qwen3Config", {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512, "n_inner": 48}),
    "bloom": ("BloomConfig", {"n_layer": 3, "n_head": 4}),
}


@cache
def tokenizer(template: bool = True) -> Any:
    """One token a byte, and <|start|> = 257, <|end|> = 258; a character outside ASCII is several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken(text, special=True) for text in ("<|pad|>", "<|start|>", "<|end|>")])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|end|>", pad_token="<|pad|>", chat_template=TEMPLATE if template else None
    )


def model(kind: str, seed: int = 0, **changes: Any) -> Any:
    name, extra = KINDS[kind]
    config = getattr(transformers, name)(**{**SIZES, **extra, **changes})
    torch.manual_seed(seed)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def engine(kind: str = "llama", seed: int = 0, **options: Any) -> TransformersEngine:
    return TransformersEngine(f"tiny {kind}", model(kind, seed), tokenizer(), **options)
