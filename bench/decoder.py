"""One decode step of a Llama with random weights, in plain torch: what a model of real size does beside steering.

Each sequence decodes its last position against a cache that is full. Layers are compiled one by one, as they are alike
and compiling all of them at once takes minutes. As in vLLM a layer returns (hidden, residual), whose sum is the stream.
That sum is a kernel of its own here, in a steered step and in a plain one. All else is then the same code in both, so
that a step in which nothing acts must give the same bits as a plain one.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from trimtab.plugin.model.forms import add

__all__ = ["POSITIONS", "Decoder", "Seen", "Shape"]

POSITIONS = 512
_CACHE_BYTES = 32e9

Table = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Shape:
    """Of a Llama."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    vocab_size: int


class Layer(NamedTuple):
    """Weights of a layer, [out, in] each."""

    qkv: torch.Tensor
    out: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


class Seen(NamedTuple):
    """What a watched layer gave: the two parts of the stream, and the stream that the next layer reads. [B, D] each."""

    hidden: torch.Tensor
    residual: torch.Tensor
    stream: torch.Tensor


def _norm(x: torch.Tensor) -> torch.Tensor:
    """RMSNorm with weights of 1."""
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype)


def _turned(x: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of x [B, H, 1, d] at one position; angles [d / 2]."""
    one, other = x.float().chunk(2, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((one * cos - other * sin, other * cos + one * sin), -1).to(x.dtype)


def _layer(
    stream: torch.Tensor, layer: Layer, keys: torch.Tensor, values: torch.Tensor, at: torch.Tensor, angles: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, heads, _, size = keys.shape
    q, k, v = F.linear(_norm(stream), layer.qkv).view(batch, 3, heads, 1, size).unbind(1)
    keys.index_copy_(2, at, _turned(k, angles))
    values.index_copy_(2, at, v)
    mixed = F.scaled_dot_product_attention(_turned(q, angles), keys, values)
    residual = stream + F.linear(mixed.reshape(batch, heads * size), layer.out)
    gate, up = F.linear(_norm(residual), layer.gate_up).chunk(2, -1)
    return F.linear(F.silu(gate) * up, layer.down), residual


def _plain(hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    return hidden + residual


def _steered(hidden: torch.Tensor, residual: torch.Tensor, table: Table) -> torch.Tensor:
    hidden, residual = add((hidden, residual), table(hidden, residual))
    return hidden + residual


def _head(stream: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    return F.linear(_norm(stream), head)


class Decoder:
    """A Llama of a shape on a device, with weights in bfloat16.

    Args:
        watched: the layers whose `Seen` a step returns.
        backend: of torch.compile; "eager" only traces.
    """

    def __init__(self, shape: Shape, device: str, watched: frozenset[int], backend: str) -> None:
        self.shape, self.device, self._watched = shape, device, watched
        # A graph for each batch of each of these functions.
        torch._dynamo.config.recompile_limit = 64
        compiled: Any = functools.partial(torch.compile, fullgraph=True, dynamic=False, backend=backend)
        self._layer, self._plain, self._steered, self._head = map(compiled, (_layer, _plain, _steered, _head))
        d, wide = shape.hidden_size, shape.intermediate_size
        self._layers = [
            Layer(self._random(3 * d, d), self._random(d, d), self._random(2 * wide, d), self._random(d, wide))
            for _ in range(shape.num_hidden_layers)
        ]
        self._embed, self._lm_head = (self._random(shape.vocab_size, d) for _ in range(2))
        size = d // shape.num_attention_heads
        frequencies = 10000 ** (-torch.arange(0, size, 2, device=device, dtype=torch.float32) / size)
        self._at = torch.tensor([POSITIONS - 1], device=device)
        self._angles = (POSITIONS - 1) * frequencies

    def _random(self, *size: int, std: float = 0.02) -> torch.Tensor:
        return torch.empty(size, dtype=torch.bfloat16, device=self.device).normal_(std=std)

    def caches(self, batch: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values [batch, heads, POSITIONS, d]: one pair for each layer, or fewer where memory ends. Layers
        then take turns, which moves the same bytes, as each is far larger than a GPU's own cache."""
        shape = self.shape
        size = (batch, shape.num_attention_heads, POSITIONS, shape.hidden_size // shape.num_attention_heads)
        fitting = max(1, int(_CACHE_BYTES / (4 * math.prod(size))))
        return [
            (self._random(*size, std=1), self._random(*size, std=1))
            for _ in range(min(shape.num_hidden_layers, fitting))
        ]

    def tokens(self, batch: int) -> torch.Tensor:
        """A token of each sequence: int64 [batch]."""
        return torch.randint(self.shape.vocab_size, (batch,), device=self.device)

    def step(
        self,
        tokens: torch.Tensor,
        caches: list[tuple[torch.Tensor, torch.Tensor]],
        tables: Mapping[int, Table],
    ) -> tuple[torch.Tensor, dict[int, Seen]]:
        """The logits [batch, vocab] of one step in which `tables` add after their layers, and what was watched."""
        stream = F.embedding(tokens, self._embed)
        seen: dict[int, Seen] = {}
        for number, layer in enumerate(self._layers):
            keys, values = caches[number % len(caches)]
            hidden, residual = self._layer(stream, layer, keys, values, self._at, self._angles)
            table = tables.get(number)
            stream = self._plain(hidden, residual) if table is None else self._steered(hidden, residual, table)
            if number in self._watched:
                seen[number] = Seen(hidden, residual, stream)
        return self._head(stream, self._lm_head), seen
