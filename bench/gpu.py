"""What steering costs on a GPU, at the shape of a 7B model: `python bench/gpu.py [--shape tiny]`.

A Llama of that shape with random weights is written once, and two engines serve it on the same GPU, one plain and one
with 256 profiles armed; compiled, with CUDA graphs. They take turns; prompts are tokens and answers have a fixed
length, so random weights do as well as real ones. `--shape tiny` is for a machine without a GPU: it shows that this
runs, and its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors.torch import save_file

from bench import profiles
from bench.engine import Engine
from bench.pairs import Run, alternate, estimate, ratios

BATCHES = (1, 8, 64, 256)
TOKENS = 64
PAIRS = 30


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int


SHAPES = {"7b": Shape(4096, 11008, 32, 32, 32000), "tiny": Shape(64, 128, 2, 2, 512)}


def write_model(folder: Path, shape: Shape) -> Path:
    """Random weights in bfloat16, a file a layer."""
    if (folder / "config.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    d, wide = shape.hidden_size, shape.intermediate_size

    def matrix(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.bfloat16).normal_(std=0.02)

    ends = {"model.embed_tokens": matrix(shape.vocab_size, d), "lm_head": matrix(shape.vocab_size, d)}
    ones = torch.ones(d, dtype=torch.bfloat16)
    save_file({f"{k}.weight": v for k, v in {**ends, "model.norm": ones}.items()}, folder / "ends.safetensors")
    for layer in range(shape.num_hidden_layers):
        square = {f"self_attn.{name}_proj": matrix(d, d) for name in "qkvo"}
        mlp = {"mlp.gate_proj": matrix(wide, d), "mlp.up_proj": matrix(wide, d), "mlp.down_proj": matrix(d, wide)}
        norms = {"input_layernorm": ones, "post_attention_layernorm": ones}
        named = {f"model.layers.{layer}.{k}.weight": v for k, v in {**square, **mlp, **norms}.items()}
        save_file(named, folder / f"layer-{layer}.safetensors")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", **asdict(shape)}
    (folder / "config.json").write_text(json.dumps(config))  # last: where it is, all of it is
    return folder


class Host:
    """The commands of an engine, see `bench.engine.Engine`."""

    def __init__(self, model: str, profiles: str | None) -> None:
        from vllm import LLM

        steered: dict[str, Any] = {}
        if profiles is not None:
            from trimtab.plugin import engine_args

            steered = engine_args(profiles, model=model)
        self._llm: Any = LLM(
            model,
            skip_tokenizer_init=True,
            max_model_len=512,
            max_num_seqs=max(BATCHES),
            gpu_memory_utilization=0.4,  # both engines lie on one GPU
            enable_prefix_caching=False,
            **steered,
        )

    def run(self, steerings: list[Any], tokens: int) -> float:
        """Tokens a second of a batch of answers to short prompts."""
        import time

        from vllm import SamplingParams

        params = [
            SamplingParams(
                temperature=0,
                max_tokens=tokens,
                ignore_eos=True,
                detokenize=False,
                extra_args=None if steering is None else {"steering": steering},
            )
            for steering in steerings
        ]
        prompts = [{"prompt_token_ids": [1 + (number * 7 + k) % 400 for k in range(32)]} for number in range(len(params))]
        started = time.perf_counter()
        self._llm.generate(prompts, params, use_tqdm=False)
        return len(params) * tokens / (time.perf_counter() - started)
