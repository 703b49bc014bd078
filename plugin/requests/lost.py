"""The error of a request whose steering was lost while it was served: what the engine says, and what a caller is told.

Leans on vllm/v1/engine/output_processor.py, which hands the `stop_reason` of an `EngineCoreOutput` to the caller, and
on vllm/exceptions.py: GenerationError, which every door answers with a 500 or an error event (0.29 to 0.32).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

__all__ = ["LOST", "observers", "raise_if_lost"]

LOST = (
    "the steering of this request was lost: its profile had just been unloaded, or what a profile was to add, here or "
    "in cached blocks that it shares, was not a finite number in the model's dtype, so the answer would not have been "
    "steered; ask again, and restart the server if that fails too"
)
"""The `stop_reason` of such a request, whose `finish_reason` is "error"."""


observers: list[Callable[[], None]] = []
"""Told of each such request."""


async def raise_if_lost(outputs: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The `RequestOutput`s of one request as they come.

    Raises:
        GenerationError: it says LOST; vLLM's own would only say that something is wrong with the server.
    """
    async with aclosing(outputs):
        async for output in outputs:
            if any(completion.stop_reason == LOST for completion in output.outputs):
                from vllm.exceptions import GenerationError

                for tell in observers:
                    tell()
                raise GenerationError(LOST)
            yield output
