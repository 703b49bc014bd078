"""The formula of steering written down once more, over the model in transformers: any positions, sums and gates.

It gives the activations that profiles are made of, checks what a request is told alone, and says how close a gate was
to choosing otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from examples.tinyworld.draw import draw
from tests.engine.asking import scene_of
from trimtab.offline.models import Reader
from trimtab.vectors import Gate, Profile

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pass:
    """One sequence of P tokens through the model.

    logits: [P, V]. routing: [P], by how much the closest gate at a position could have missed its choice: half the
    difference of two squared distances, or what lies between a distance and its limit; infinite where none decides.
    streams: layer → [P, D], after that block and before what is added there.
    """

    logits: Float64
    routing: Float64
    streams: dict[int, Float64]


class Formula:
    """The model of a folder, in float32."""

    def __init__(self, folder: Path) -> None:
        self.reader = Reader(folder, "float32", "cpu")
        self.picture_token = int(self.reader.model.config.image_token_index)

    @torch.inference_mode()
    def run(
        self,
        tokens: Sequence[int],
        prompt: int,
        scenes: Sequence[int] = (),
        parts: Sequence[tuple[Profile, float]] = (),
    ) -> Pass:
        """`tokens` hold the placeholders of all pictures; the first `prompt` of them were asked, the rest answered."""
        ids = torch.tensor([list(tokens)])
        inputs: dict[str, torch.Tensor] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if scenes:
            pictures = [draw(scene_of(seed)).convert("RGB") for seed in scenes]
            inputs["pixel_values"] = self.reader.processor.image_processor(pictures, return_tensors="pt")[
                "pixel_values"
            ]
        found = Pass(np.empty(0), np.full(len(tokens), np.inf), {})
        masks = [self._mask(profile.manifest.positions, np.array(tokens), prompt) for profile, _ in parts]
        handles = []
        for layer, block in enumerate(self.reader.blocks):
            here = [
                (profile.tensors[layer].named, alpha, mask, profile.manifest.gate)
                for (profile, alpha), mask in zip(parts, masks, strict=True)
                if layer in profile.layers
            ]
            handles.append(block.register_forward_hook(_hook(layer, here, prompt - 1, found)))
        try:
            logits = self.reader.model(**inputs).logits[0]
        finally:
            for handle in handles:
                handle.remove()
        return Pass(logits.double().numpy(), found.routing, found.streams)

    def _mask(self, positions: str, tokens: npt.NDArray[np.int64], prompt: int) -> Bools:
        place = np.arange(len(tokens))
        asked, picture = place < prompt, (tokens == self.picture_token) & (place < prompt)
        found: dict[str, Bools] = {
            "answer": place >= prompt - 1,
            "prompt": place < prompt - 1,
            "all": place >= 0,
            "image": picture,
            "text": asked & ~picture,
        }
        return found[positions]


def _hook(
    layer: int, here: Sequence[tuple[Any, float, Bools, Gate | None]], last: int, found: Pass
) -> Callable[..., Any]:
    def hook(block: Any, inputs: Any, output: Any) -> Any:
        h = output if isinstance(output, torch.Tensor) else output[0]
        stream: Float64 = h[0].double().numpy()
        found.streams[layer] = stream
        delta = np.zeros_like(stream)
        for arrays, alpha, mask, gate in here:
            if gate is None:
                delta[mask] += alpha * arrays["vector"].astype(np.float64)
            else:
                limits = _limits(gate, layer, len(arrays["centroids"]))
                delta[mask] += alpha * _chosen(stream, arrays, mask, gate, limits, last, found.routing)
        h = h + torch.from_numpy(delta).to(h.dtype)
        return h if isinstance(output, torch.Tensor) else (h, *output[1:])

    return hook


def _limits(gate: Gate, layer: int, count: int) -> Float64:
    """How far each concept of a layer reaches, [count]; infinite where nothing limits it."""
    of_all = np.inf if gate.max_distance is None else gate.max_distance
    own = (gate.limits or {}).get(layer, (None,) * count)
    return np.array([of_all if limit is None else limit for limit in own])


def _chosen(
    stream: Float64, arrays: Any, mask: Bools, gate: Gate, limits: Float64, last: int, routing: Float64
) -> Float64:
    """The rows [n, D] that a fine profile adds at the n positions of `mask`; lowers `routing` where it decides."""
    positions = np.flatnonzero(mask)
    deciding = np.array([last]) if gate.scope == "sequence" else positions
    h, centroids = stream[deciding], arrays["centroids"].astype(np.float64)
    distances = np.linalg.norm(h[:, None] - centroids[None], axis=2)
    nearest = distances.argmin(axis=1)
    best, second = np.sort(distances, axis=1)[:, :2].T
    margin = (second**2 - best**2) / 2
    rows = arrays["vectors"].astype(np.float64)[nearest]
    c = centroids[nearest]
    cosine = 1 - (h * c).sum(axis=1) / (np.linalg.norm(h, axis=1) * np.linalg.norm(c, axis=1))
    distance = cosine if gate.metric == "cosine" else best
    rows[distance > limits[nearest]] = 0
    margin = np.minimum(margin, np.abs(distance - limits[nearest]))
    routing[deciding] = np.minimum(routing[deciding], margin)
    return np.repeat(rows, len(positions), axis=0) if gate.scope == "sequence" else rows
