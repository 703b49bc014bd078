"""A decoder small enough to run without an engine, armed by the plugin's own `arm`."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from vllm.model_executor.models.utils import PPMissingLayer

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.test_features import plain_engine
from trimtab.plugin.config import engine_args

State = tuple[torch.Tensor, torch.Tensor]


class LlamaDecoderLayer(nn.Module):
    """Named as vLLM's, and as vLLM's it returns (hidden, residual)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(SIZE, SIZE)

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
        self.model = nn.Module()
        self.model.layers = self.layers  # where vLLM has them
        self.requires_grad_(False)

    def forward(self, hidden: torch.Tensor) -> State:
        state = hidden, torch.zeros_like(hidden)
        for n in self.here:
            state = self.layers[n](*state)
        return state


def engine_of(profiles: Path, model: Path, **arm: Any) -> Any:
    """What `arm` reads of vLLM's configuration."""
    engine = plain_engine(
        additional_config=engine_args(profiles, model=model, **arm)["additional_config"],
        scheduler_config=SimpleNamespace(max_num_batched_tokens=16, max_num_seqs=4),
        compilation_config__max_cudagraph_capture_size=None,
        use_v2_model_runner=True,
    )
    engine.model_config.architecture = "LlamaForCausalLM"
    engine.model_config.model, engine.model_config.revision = str(model), None
    engine.load_config.download_dir = None
    engine.model_config.dtype = torch.float32
    engine.model_config.get_hidden_size = lambda: SIZE
    return engine
