"""A decoder small enough to run without an engine, armed by the plugin's own `arm`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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


class DecoderLayer(nn.Module):
    """Owns a cache, and adds to the stream what one matrix makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(SIZE, SIZE)
        self.attention = Cache()


class LlamaDecoderLayer(DecoderLayer):
    """As vLLM's, it returns (hidden, residual), whose sum is the stream."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> State:
        stream = hidden + residual
        return self.inner(stream), stream


class DeadDecoderLayer(DecoderLayer):
    """Its residual is there, and nothing reads it: hidden is the stream."""

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> State:
        return hidden + self.inner(hidden), hidden


class AloneDecoderLayer(DecoderLayer):
    """Returns no residual."""

    def forward(self, hidden: torch.Tensor, residual: None) -> tuple[torch.Tensor, None]:
        return hidden + self.inner(hidden), None


class TensorDecoderLayer(DecoderLayer):
    """Returns the stream, with a batch of one before it, as layers of the Transformers backend do."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        stream: torch.Tensor = hidden + self.inner(hidden)
        return stream


class Decoder(nn.Module):
    """The layers of one pipeline rank; the others' have stand-ins, as vLLM makes them."""

    def __init__(self, here: range = range(DEPTH), layer: type[nn.Module] = LlamaDecoderLayer) -> None:
        super().__init__()
        torch.manual_seed(7)
        stand_in: type[nn.Module] = PPMissingLayer
        self.layers = nn.ModuleList([layer() if n in here else stand_in() for n in range(DEPTH)])
        self.here = here
        self.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> Any:
        first = self.layers[self.here[0]]
        state: Any = (hidden, None if isinstance(first, AloneDecoderLayer) else torch.zeros_like(hidden))
        if isinstance(first, TensorDecoderLayer):
            state = (hidden[None],)
        for n in self.here:
            out = self.layers[n](*state)
            state = out if isinstance(out, tuple) else (out,)
        return state

    def last_states(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [T, D], of length √D each, as after vLLM's last norm."""
        found, *residual = self(hidden)
        is_sum = isinstance(self.layers[self.here[0]], LlamaDecoderLayer)
        stream = found + residual[0] if is_sum else found
        normed: torch.Tensor = stream.reshape(-1, SIZE) / stream.reshape(-1, SIZE).square().mean(1, keepdim=True).sqrt()
        return normed


class Runner:
    """Runs dummy batches as vLLM's do, through a model whose layers really are armed. Its serving graph is the model,
    but for what `broken` does to it."""

    def __init__(self, model: Decoder, broken: Callable[[Runner], AbstractContextManager[Any]] | None = None) -> None:
        self.model, self.broken = model, broken
        self.runs = self.eager_runs = 0
        self.last: Callable[[torch.Tensor], torch.Tensor | None] = lambda states: states
        self.vllm_config = plain_engine(
            scheduler_config=SimpleNamespace(max_num_batched_tokens=16, max_num_seqs=4),
            compilation_config__max_cudagraph_capture_size=None,
            compilation_config__static_forward_context=registered(model),
            device_config__device_type="cpu",
            parallel_config__pipeline_parallel_size=1,
            model_config__dtype=torch.float32,
            use_v2_model_runner=False,
            additional_config={},
        )

    def get_model(self) -> Decoder:
        return self.model

    def _dummy_run(
        self,
        num_tokens: int,
        *,
        force_attention: bool = False,
        cudagraph_runtime_mode: Any = None,
        randomize_inputs: bool = False,
    ) -> tuple[torch.Tensor | None, object]:
        assert force_attention
        assert randomize_inputs
        self.runs += 1
        self.eager_runs += cudagraph_runtime_mode is not None
        is_serving = cudagraph_runtime_mode is None
        with self.broken(self) if self.broken and is_serving else nullcontext():
            return self.last(self.model.last_states(torch.randn(num_tokens, SIZE))), None


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
    engine.model_config.hf_config = SimpleNamespace(architectures=["LlamaForCausalLM"])
    engine.load_config.download_dir = None
    engine.model_config.dtype = torch.float32
    engine.model_config.get_hidden_size = lambda: SIZE
    engine.model_config.get_total_num_hidden_layers = lambda: DEPTH
    return engine
