"""A decoder small enough to run without an engine, armed by the plugin's own `arm`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase
from vllm.model_executor.models.utils import PPMissingLayer

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.test_features import plain_engine
from trimtab.plugin.config import engine_args

State = tuple[torch.Tensor, torch.Tensor]


class Cache(nn.Module, AttentionLayerBase):
    """Owns a KV cache, as vLLM's attention does."""

    def get_attn_backend(self) -> Any:
        raise NotImplementedError

    def get_kv_cache_spec(self, vllm_config: Any) -> Any:
        raise NotImplementedError


class LlamaDecoderLayer(nn.Module):
    """As vLLM's, it owns a cache and returns (hidden, residual)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(SIZE, SIZE)
        self.attention = Cache()

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> State:
        stream = hidden + residual
        return self.inner(stream), stream


class Decoder(nn.Module):
    """The layers of one pipeline rank; the others' have stand-ins, as vLLM makes them."""

    def __init__(self, here: range = range(DEPTH), layer: type[nn.Module] = LlamaDecoderLayer) -> None:
        super().__init__()
        torch.manual_seed(7)
        stand_in: type[nn.Module] = PPMissingLayer
        self.layers = nn.ModuleList([layer() if n in here else stand_in() for n in range(DEPTH)])
        self.here = here
        self.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> State:
        state = hidden, torch.zeros_like(hidden)
        for n in self.here:
            state = self.layers[n](*state)
        return state


def registered(model: nn.Module) -> dict[str, nn.Module]:
    """What vLLM would hold in its `static_forward_context`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Cache)}


def engine_of(profiles: Path, folder: Path, model: nn.Module, **arm: Any) -> Any:
    """What `arm` reads of vLLM's configuration, where vLLM has built `model` from a folder."""
    engine = plain_engine(
        additional_config=engine_args(profiles, model=folder, **arm)["additional_config"],
        scheduler_config=SimpleNamespace(max_num_batched_tokens=16, max_num_seqs=4),
        compilation_config__max_cudagraph_capture_size=None,
        compilation_config__static_forward_context=registered(model),
        use_v2_model_runner=True,
    )
    engine.model_config.model, engine.model_config.revision = str(folder), None
    engine.load_config.download_dir = None
    engine.model_config.dtype = torch.float32
    engine.model_config.get_hidden_size = lambda: SIZE
    engine.model_config.get_total_num_hidden_layers = lambda: DEPTH
    return engine
