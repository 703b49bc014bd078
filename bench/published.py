"""The way in which steering and capture are published: transformers' `generate` at batch 1, with a forward hook.

One question at a time, the key-value cache on, no gradients; the hook adds the vector to the output of a block, or
keeps the last row of it, for one layer a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from trimtab.offline.models import Reader
from trimtab.offline.models.reader import Question

__all__ = ["Published"]

Float32 = npt.NDArray[np.float32]


class Published:
    """A model in transformers, in float32 on the CPU."""

    def __init__(self, folder: Path) -> None:
        self._reader = Reader(folder, "float32", "cpu")
        # Answers of a given length: no token ends them.
        self._reader.model.generation_config = transformers.GenerationConfig(
            do_sample=False, use_cache=True, pad_token_id=self._reader.tokenizer.pad_token_id
        )

    def answer(self, questions: Sequence[Question], tokens: int, layer: int, shift: Float32) -> list[list[int]]:
        """Greedy answers of `tokens` tokens, with a vector [D] added to the stream after a layer."""
        vector = torch.from_numpy(shift)

        def add(block: Any, inputs: Any, output: Any) -> Any:
            return output + vector if isinstance(output, torch.Tensor) else (output[0] + vector, *output[1:])

        with self._hooked(layer, add):
            return [self._generate(question, tokens) for question in questions]

    def rows(self, questions: Sequence[Question], tokens: int, layer: int) -> Float32:
        """The rows [questions × tokens, D] after a layer that wrote the tokens of unsteered greedy answers."""
        kept: list[torch.Tensor] = []

        def keep(block: Any, inputs: Any, output: Any) -> None:
            kept.append((output if isinstance(output, torch.Tensor) else output[0])[0, -1].clone())

        with self._hooked(layer, keep):
            for question in questions:
                self._generate(question, tokens)
        found: Float32 = torch.stack(kept).numpy()
        return found

    @torch.inference_mode()
    def _generate(self, question: Question, tokens: int) -> list[int]:
        inputs = self._reader.encode([question])
        output = self._reader.model.generate(**inputs, max_new_tokens=tokens)
        answer: list[int] = output[0, inputs["input_ids"].shape[1] :].tolist()
        return answer

    @contextmanager
    def _hooked(self, layer: int, hook: Callable[[Any, Any, Any], Any]) -> Iterator[None]:
        handle = self._reader.blocks[layer].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()
