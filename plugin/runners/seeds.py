"""Sampling with a seed on the CPU, where vLLM's own step ends the engine when a prompt is computed in parts.

vLLM samples after each part of a prompt, throws the token away, and takes the draw back with `Generator.set_offset`,
which a generator of the CPU does not have: the worker's error ends the engine for everybody. A generator that can go
back to where a step began answers such a request as if its prompt had been computed at once.

Leans on vllm/v1/worker/gpu_model_runner.py: GPUModelRunner.sample_tokens takes draws back in this way, of the
generators in `input_batch.generators`, which `requests` keeps through preemption (0.29 to 0.32).
"""

from __future__ import annotations

from typing import Any

import torch

from ..steps.batch import Ints

__all__ = ["Rewindable", "keep_rewindable"]


class Rewindable(torch.Generator):
    """A generator of the CPU that `set_offset` puts back to where `begin` was called last."""

    _begun: torch.Tensor

    @classmethod
    def of(cls, generator: torch.Generator) -> Rewindable:
        """One that goes on with the same draws."""
        made = cls(device="cpu")
        made.set_state(generator.get_state())
        made.begin()
        return made

    def begin(self) -> None:
        """Note where a step begins."""
        self._begun = self.get_state()

    def get_offset(self) -> int:
        """Any number: vLLM only hands it back, less what one step draws on a GPU."""
        return 0

    def set_offset(self, offset: int) -> torch.Generator:
        """Take back what was drawn in this step."""
        self.set_state(self._begun)
        return self


def keep_rewindable(runner: Any, scheduler_output: Any, scheduled: Ints) -> None:
    """Let every seeded request of a step draw from a generator that can be put back. A listener of `v1.on_step`."""
    batch = runner.input_batch
    for index, generator in batch.generators.items():
        if generator.device.type != "cpu":
            return
        if not isinstance(generator, Rewindable):
            generator = Rewindable.of(generator)
            batch.generators[index] = runner.requests[batch.req_ids[index]].generator = generator
        generator.begin()
