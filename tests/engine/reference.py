"""What the served distribution is held against: transformers in float32, and the formulas written down once more.

    h_t ← h_t + Σ_i alpha_i · v_i(h_t)   after block l, at the positions t that profile i steers

Nothing of the plugin is used. Which positions are pictures is read off the input ids; distances are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, scene_of
from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question
from trimtab.vectors import Profile

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Parts = Sequence[tuple[Profile, float]]
Hook = Callable[[Any, Any, Any], Any]


class Reference:
    """A model in transformers, steered by hooks on the outputs of its decoder blocks."""

    def __init__(self, folder: Path) -> None:
        self.reader = Reader(folder, "float32", "cpu")
        self.image_token: int | None = getattr(self.reader.model.config, "image_token_id", None)
        self.margin = math.inf
        """The smallest difference that a gate of the last call had to tell: float32 may err where it is tiny."""
        self.inside: list[bool] = []
        """Of each position that a limited gate of the last call saw: was it near enough?"""

    def prompt(self, ask: Any) -> list[int]:
        """Its tokens, image placeholders included."""
        return [int(token) for token in self._inputs(ask)["input_ids"][0]]

    def positions(self, ask: Ask, kind: str, tokens: int = 0) -> list[int]:
        """The positions that are steered, of a prompt followed by so many tokens."""
        prompt = self.prompt(ask)
        n = len(prompt)
        image = [p for p in range(n) if prompt[p] == self.image_token]
        return {
            "answer": list(range(n - 1, n + tokens)),
            "prompt": list(range(n - 1)),
            "all": list(range(n + tokens)),
            "image": image,
            "text": [p for p in range(n) if p not in image],
        }[kind]

    @torch.inference_mode()
    def logprobs(self, ask: Any, tokens: Sequence[int], profile: Profile | None = None, alpha: float = 0.0) -> Float32:
        """Log-probabilities [n, V] of the positions that predict `tokens`, one after the other, given those before."""
        return self.summed(ask, tokens, [] if profile is None else [(profile, alpha)])

    @torch.inference_mode()
    def summed(self, ask: Ask, tokens: Sequence[int], parts: Parts) -> Float32:
        """`logprobs` under the sum of several profiles, each with its alpha."""
        inputs, length = self._extended(ask, tokens)
        with self._steered(parts, ask, length, len(tokens) - 1):
            logits = self.reader.model(**inputs).logits[0, length - 1 :]
        found: Float32 = torch.log_softmax(logits.float(), dim=-1).numpy()
        return found

    @torch.inference_mode()
    def prompt_logprobs(self, ask: Ask, profile: Profile | None = None, alpha: float = 0.0) -> Float32:
        """Log-probabilities [P - 1, V] of the positions that predict the prompt's own tokens but the first."""
        inputs = self._inputs(ask)
        with self._steered([] if profile is None else [(profile, alpha)], ask, inputs["input_ids"].shape[1], 0):
            logits = self.reader.model(**inputs).logits[0, :-1]
        found: Float32 = torch.log_softmax(logits.float(), dim=-1).numpy()
        return found

    @torch.inference_mode()
    def stream(self, ask: Ask, tokens: Sequence[int], layers: Sequence[int], parts: Parts = ()) -> dict[int, Float32]:
        """The stream [P, D] after blocks, as their gates see it, of the prompt and of all `tokens` but the last."""
        inputs, length = self._extended(ask, tokens)
        found: dict[int, Float32] = {}

        def reading(layer: int) -> Hook:
            def hook(block: Any, inputs: Any, output: Any) -> None:
                h = output if isinstance(output, torch.Tensor) else output[0]
                found[layer] = h[0].numpy().copy()

            return hook

        handles = [self.reader.blocks[layer].register_forward_hook(reading(layer)) for layer in layers]
        try:
            with self._steered(parts, ask, length, len(tokens) - 1):
                self.reader.model(**inputs)
        finally:
            for handle in handles:
                handle.remove()
        return found

    def _extended(self, ask: Ask, tokens: Sequence[int]) -> tuple[dict[str, torch.Tensor], int]:
        inputs = self._inputs(ask)
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens[:-1]], dtype=torch.long)], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return inputs, length

    @contextmanager
    def _steered(self, parts: Parts, ask: Ask, length: int, tokens: int) -> Iterator[None]:
        self.margin, self.inside = math.inf, []
        handles = []
        for layer in sorted({layer for profile, _ in parts for layer in profile.tensors}):
            here = [
                (profile, alpha, self.positions(ask, profile.manifest.positions, tokens))
                for profile, alpha in parts
                if layer in profile.tensors
            ]
            handles.append(self.reader.blocks[layer].register_forward_hook(self._adding(layer, here, length)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _adding(self, layer: int, parts: Sequence[tuple[Profile, float, list[int]]], length: int) -> Hook:
        """A hook that adds to h [1, P, D] what every part makes of the h before any addition of this layer."""

        def hook(block: Any, inputs: Any, output: Any) -> Any:
            h = output if isinstance(output, torch.Tensor) else output[0]
            stream = h[0].numpy().astype(np.float64)
            added = np.zeros_like(stream)
            for profile, alpha, positions in parts:
                gate = profile.manifest.gate
                once = gate is not None and gate.scope == "sequence"
                decided = self._chosen(profile, layer, stream[length - 1]) if once else None
                for position in positions:
                    row = decided if decided is not None else self._chosen(profile, layer, stream[position])
                    added[position] += alpha * row
            changed = h + torch.from_numpy(added).to(h.dtype)
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        return hook

    def _chosen(self, profile: Profile, layer: int, h: Float64) -> Float64:
        """v(h): the coarse vector, or the row of the nearest centroid, or zero where that is too far."""
        arrays = {name: array.astype(np.float64) for name, array in profile.tensors[layer].named.items()}
        if "vector" in arrays:
            return arrays["vector"]
        distances = np.linalg.norm(arrays["centroids"] - h, axis=1)
        nearest = int(np.argmin(distances))
        if len(distances) > 1:
            first, second = np.partition(distances, 1)[:2]
            self.margin = min(self.margin, float(second - first))
        gate = profile.manifest.gate
        assert gate is not None
        own = (gate.limits or {}).get(layer)
        limit = gate.max_distance if own is None or own[nearest] is None else own[nearest]
        if limit is not None:
            distance = distance_of(gate.metric, arrays["centroids"][nearest], h)
            self.margin = min(self.margin, abs(distance - limit))
            self.inside.append(distance <= limit)
            if distance > limit:
                return np.zeros_like(h)
        row: Float64 = arrays["vectors"][nearest]
        return row

    def _inputs(self, ask: Ask) -> dict[str, torch.Tensor]:
        images = [draw(scene_of(seed)).convert("RGB") for seed in ask.pictures]
        if ask.ids is None and len(images) < 2:
            return self.reader.encode([Question(ask.text, images[0] if images else None)])
        ids = list(ask.ids or ()) or self._templated(ask, len(images))
        patches = int(self.reader.model.config.image_seq_length) if images else 0
        spelt = [t for token in ids for t in [token] * (patches if token == self.image_token else 1)]
        inputs = {"input_ids": torch.tensor([spelt], dtype=torch.long)}
        if images:
            seen = self.reader.processor.image_processor(images, return_tensors="pt")
            inputs["pixel_values"] = seen["pixel_values"].to(self.reader.model.dtype)
        return inputs

    def _templated(self, ask: Ask, pictures: int) -> list[int]:
        content = [*[{"type": "image"}] * pictures, {"type": "text", "text": ask.text}]
        text = self.reader.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        return [int(token) for token in self.reader.tokenizer(text, add_special_tokens=False)["input_ids"]]


def distance_of(metric: str, centroid: Float64, h: Float64) -> float:
    """How far h is from a centroid, both [D]."""
    if metric == "cosine":
        return float(1 - centroid @ h / (np.linalg.norm(centroid) * np.linalg.norm(h)))
    return float(np.linalg.norm(centroid - h))
