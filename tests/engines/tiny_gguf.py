"""The tiny transformers models as GGUF files in single precision, so that the two libraries run the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.engines import tiny

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}

GEMMA2 = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}


def write(file: Path, model: Any, *, template: bool = True, sampling: dict[str, float] | None = None) -> Path:
    """Write a tiny llama or gemma2 model with the tiny tokenizer. sampling: settings that stand in the file."""
    config, writer = model.config, gguf.GGUFWriter(file, model.config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.model_type == "gemma2":
        writer.add_sliding_window(config.sliding_window)
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    for name, value in (sampling or {}).items():
        (writer.add_int32 if name == "top_k" else writer.add_float32)(f"general.sampling.{name}", value)
    tokenizer = tiny.tokenizer()
    words = tokenizer.convert_ids_to_tokens(range(config.vocab_size))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if word.startswith("<|") else gguf.TokenType.NORMAL for word in words]
    )
    writer.add_token_merges([f"{words[0]} {words[1]}"])  # makes no token: there has to be one
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_add_bos_token(False)
    if template:
        writer.add_chat_template(tiny.TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not config.tie_word_embeddings:
            writer.add_tensor(renamed(name, config), arranged(name, tensor.float().numpy(), config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def renamed(name: str, config: Any) -> str:
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    stem = name.removesuffix(".weight")
    if stem in outer:
        return f"{outer[stem]}.weight"
    _, _, layer, inner = stem.split(".", 3)
    names = {**NAMES, **GEMMA2} if config.model_type == "gemma2" else NAMES
    return f"blk.{layer}.{names[inner]}.weight"


def arranged(name: str, weight: np.ndarray, config: Any) -> np.ndarray:
    """The numbers as they stand in a GGUF file.

    Rotary embeddings of llama turn neighbouring numbers there, and halves of a head in transformers; norms of gemma2
    multiply by the weight there, and by one more than it in transformers.
    """
    if config.model_type == "gemma2":
        return weight + 1 if "norm" in name else weight
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for kind, count in heads.items():
        if kind in name:
            split = weight.reshape(count, 2, config.head_dim // 2, -1)
            return np.ascontiguousarray(split.swapaxes(1, 2).reshape(weight.shape))
    return weight
