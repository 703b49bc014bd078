"""Tiny checkpoints of text decoders: the class in transformers, and what its configuration needs beside `SIZES`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.architectures.byte_tokens import byte_tokenizer
from tests.architectures.parts import HIDDEN, LAYERS, SIZES, VOCABULARY, chat_template, write

__all__ = ["TEXT", "build", "config_of"]

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_GEMMA = {"head_dim": 32, "tie_word_embeddings": True}
_SCALED = {"residual_multiplier": 0.5, "embedding_multiplier": 2.0, "logits_scaling": 2.0, "attention_multiplier": 0.2}
_IDS = {"bos_token_id": 1, "eos_token_id": 2}
_OLD = {"vocab_size": VOCABULARY, "initializer_range": 0.1, **_IDS}
_MLA = {
    "num_key_value_heads": 2,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 64,
    "v_head_dim": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MAMBA = {"mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}

TEXT: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {},
    "MistralForCausalLM": {"sliding_window": None},
    "MixtralForCausalLM": {**_LOCAL_EXPERTS, "sliding_window": None},
    "Qwen2ForCausalLM": {},
    "Qwen3ForCausalLM": {"head_dim": 32},
    "Qwen3MoeForCausalLM": {
        **_EXPERTS,
        "head_dim": 32,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    },
    "GemmaForCausalLM": _GEMMA,
    "Gemma2ForCausalLM": {**_GEMMA, "query_pre_attn_scalar": 32},
    "Gemma3ForCausalLM": {**_GEMMA, "query_pre_attn_scalar": 32, "sliding_window": 64},
    "Gemma4ForCausalLM": {
        **_GEMMA,
        "global_head_dim": 32,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "num_kv_shared_layers": 0,
        "sliding_window": 64,
    },
    "Gemma3nForCausalLM": {
        **_GEMMA,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "altup_num_inputs": 4,
        "laurel_rank": 8,
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": [0.0] * LAYERS,
        "sliding_window": 64,
    },
    "Phi3ForCausalLM": {"sliding_window": None},
    "PhiForCausalLM": {"num_key_value_heads": 2},
    "OlmoeForCausalLM": {**_EXPERTS, "intermediate_size": 32},
    "Olmo2ForCausalLM": {},
    "GPTNeoXForCausalLM": {"num_key_value_heads": 2},
    "GPT2LMHeadModel": {**_OLD, "n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 2, "n_positions": 512},
    "GPTJForCausalLM": {
        **_OLD,
        "n_embd": HIDDEN,
        "n_layer": LAYERS,
        "n_head": 2,
        "n_positions": 512,
        "rotary_dim": 16,
    },
    "BloomForCausalLM": {**_OLD, "hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": 2},
    "FalconForCausalLM": {
        **_OLD,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "multi_query": True,
        "parallel_attn": True,
        "bias": False,
    },
    "OPTForCausalLM": {"ffn_dim": 96, "word_embed_proj_dim": HIDDEN, "tie_word_embeddings": True},
    "CohereForCausalLM": {"tie_word_embeddings": True},
    "Cohere2ForCausalLM": {"tie_word_embeddings": True},
    "StableLmForCausalLM": {},
    "GraniteForCausalLM": _SCALED,
    "GraniteMoeForCausalLM": {**_LOCAL_EXPERTS, "residual_multiplier": 0.5},
    "GraniteMoeHybridForCausalLM": {
        **_LOCAL_EXPERTS,
        **_MAMBA,
        "layer_types": ["mamba", "attention"] * 2,
        "shared_intermediate_size": 32,
        "mamba_n_heads": 8,
        "mamba_expand": 2,
        "residual_multiplier": 0.5,
        "position_embedding_type": "rope",
    },
    "FalconH1ForCausalLM": {**_MAMBA, "head_dim": 32, "mamba_d_ssm": 64, "mamba_n_heads": 4},
    "Glm4ForCausalLM": {"head_dim": 32},
    "GptOssForCausalLM": {**_LOCAL_EXPERTS, "head_dim": 32, "sliding_window": 64},
    "DeepseekV2ForCausalLM": {**_MLA, "q_lora_rank": None, "topk_method": "greedy", "routed_scaling_factor": 1.0},
    "DeepseekV3ForCausalLM": {
        **_MLA,
        "q_lora_rank": 32,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "routed_scaling_factor": 2.5,
        "norm_topk_prob": True,
    },
    "NemotronForCausalLM": {},
    "Exaone4ForCausalLM": {"sliding_window": 64, "sliding_window_pattern": 4},
    "SmolLM3ForCausalLM": {},
    "Starcoder2ForCausalLM": {"sliding_window": None},
    "ApertusForCausalLM": {},
    "Ernie4_5ForCausalLM": {},
}
"""Architecture of the checkpoint → arguments of its configuration."""


def config_of(architecture: str) -> Any:
    """The configuration of a tiny model."""
    settings = TEXT[architecture]
    sizes = {} if settings.items() >= _OLD.items() else {**SIZES, "tie_word_embeddings": False}
    kind: Any = getattr(transformers, architecture)
    return kind.config_class(**{**sizes, **settings})


def build(architecture: str, folder: Path) -> None:
    """Write a tiny checkpoint of a text decoder."""
    words = byte_tokenizer([])
    words.chat_template = chat_template()
    torch.manual_seed(0)
    write(folder, getattr(transformers, architecture)(config_of(architecture)), words)
