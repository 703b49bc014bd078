"""What the served distribution is held against: transformers in float32, and the formula written down once more."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from examples.tinyworld.draw import draw
from tests.engine.asking import Ask, scene_of
from trimtab.offline import Reader
from trimtab.offline.reader import Question
from trimtab.vectors import Profile

Float32 = npt.NDArray[np.float32]


class Reference:
    """A model in transformers, steered by hooks on the outputs of its decoder blocks."""

    def __init__(self, folder: Path) -> None:
        self.reader = Reader(folder, "float32", "cpu")

    def prompt(self, ask: Ask) -> list[int]:
        """Its tokens, image placeholders included."""
        return [int(token) for token in self._inputs(ask)["input_ids"][0]]

    @torch.inference_mode()
    def logprobs(self, ask: Ask, tokens: Sequence[int], profile: Profile | None = None, alpha: float = 0.0) -> Float32:
        """Log-probabilities [n, V] of the positions that predict `tokens`, one after the other, given those before."""
        inputs = self._inputs(ask)
        length = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([tokens[:-1]], dtype=torch.long)], dim=1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        with self._steered(profile, alpha, length):
            logits = self.reader.model(**inputs).logits[0, length - 1 :]
        found: Float32 = torch.log_softmax(logits.float(), dim=-1).numpy()
        return found

    @torch.inference_mode()
    def prompt_logprobs(self, ask: Ask, profile: Profile | None = None, alpha: float = 0.0) -> Float32:
        """Log-probabilities [P - 1, V] of the positions that predict the prompt's own tokens but the first."""
        inputs = self._inputs(ask)
        with self._steered(profile, alpha, inputs["input_ids"].shape[1]):
            logits = self.reader.model(**inputs).logits[0, :-1]
        found: Float32 = torch.log_softmax(logits.float(), dim=-1).numpy()
        return found

    @contextmanager
    def _steered(self, profile: Profile | None, alpha: float, length: int) -> Iterator[None]:
        handles = []
        for layer, tensor in {} if profile is None else profile.tensors.items():
            first = 0 if profile.manifest.positions == "all" else length - 1  # type: ignore[union-attr]
            handles.append(self.reader.blocks[layer].register_forward_hook(_adding(tensor.named, alpha, first)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _inputs(self, ask: Ask) -> dict[str, torch.Tensor]:
        image = None if ask.scene is None else draw(scene_of(ask.scene))
        return self.reader.encode([Question(ask.text, image)])


def _adding(arrays: Any, alpha: float, first: int) -> Callable[[Any, Any, Any], Any]:
    """A hook that adds to the stream h [1, P, D] after a block: alpha · v, or alpha · v of the nearest centroid."""

    def hook(block: Any, inputs: Any, output: Any) -> Any:
        h = output if isinstance(output, torch.Tensor) else output[0]
        h = h.clone()
        for position in range(first, h.shape[1]):
            if "vector" in arrays:
                v = arrays["vector"]
            else:
                distances = np.linalg.norm(arrays["centroids"].astype(np.float64) - h[0, position].numpy(), axis=1)
                v = arrays["vectors"][int(np.argmin(distances))]
            h[0, position] += alpha * torch.tensor(v)
        return h if isinstance(output, torch.Tensor) else (h, *output[1:])

    return hook
