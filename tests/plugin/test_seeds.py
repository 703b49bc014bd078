"""A draw that is taken back leaves the next ones as they would have been without it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab.plugin.runners.seeds import keep_rewindable


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(generator: torch.Generator) -> list[float]:
    return torch.empty(5).exponential_(generator=generator).tolist()


@given(seed=st.integers(0, 2**63 - 1), parts=st.lists(st.booleans(), min_size=1, max_size=8))
def test_steps_whose_draws_are_taken_back_leave_no_trace(seed: int, parts: list[bool]) -> None:
    """As vLLM's runner does it: after each step that did not finish the prompt, `set_offset(get_offset() - 4)`."""
    runner = SimpleNamespace(
        input_batch=SimpleNamespace(generators={1: seeded(seed)}, req_ids=["other", "r"]),
        requests={"r": SimpleNamespace(generator=None)},
    )
    alone, kept = seeded(seed), []
    for is_part in parts:
        keep_rewindable(runner, None, np.ones(2, np.int32))
        generator = runner.input_batch.generators[1]
        drawn = draw(generator)
        if is_part:
            generator.set_offset(generator.get_offset() - 4)
        else:
            kept.append(drawn)
    assert kept == [draw(alone) for _ in kept]
    assert runner.requests["r"].generator is runner.input_batch.generators[1]  # comes back after a preemption
