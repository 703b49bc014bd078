"""Which rows are kept, below the engine: any way of cutting requests into steps gives every wanted row once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plugin.steering_case import ALONE, DEAD, FORMS, SUM
from trimtab.plugin.capture import op as capture_op
from trimtab.plugin.capture import take
from trimtab.plugin.capture.kept import KeptStates
from trimtab.plugin.capture.request import KINDS, CaptureConfig, spans_wanted
from trimtab.vectors.errors import RequestError

SIZE, TOKENS, LAYERS = 3, 40, (1, 4)
PICTURES = ((2, 5), (6, 8))


def stream(layer: int, request: int, positions: np.ndarray[Any, Any]) -> torch.Tensor:
    """A row that tells layer, request and position."""
    return torch.tensor([[layer, request, position] for position in positions], dtype=torch.float32).reshape(-1, SIZE)


def compute(rows: KeptStates, batch: list[tuple[int, int, int]], wires: dict[int, Any], padding: int = 0) -> None:
    """A step of the engine: request, tokens before, tokens now. Padding holds what no request may ever see."""
    before, now = (np.array(column) for column in list(zip(*batch, strict=True))[1:])
    rows.step([(f"r{request}", wires[request]) for request, *_ in batch], before, now)
    for layer, module in rows.layers.items():
        parts = [stream(layer, request, np.arange(c, c + s)) for request, c, s in batch]
        hidden = torch.cat([*parts, torch.full((padding, SIZE), torch.nan)])
        module(hidden - 1, torch.ones_like(hidden))


def wire(request: int, spans: Any) -> dict[str, Any]:
    return {"key": str(request), "spans": spans}


def check(rows: KeptStates, request: int, expected: list[int]) -> None:
    positions, by_layer = rows.take([str(request)])[str(request)]
    assert np.frombuffer(positions, np.int64).tolist() == expected
    for layer in LAYERS:
        found = np.frombuffer(by_layer[str(layer)], np.float32).reshape(-1, SIZE)
        np.testing.assert_array_equal(found, stream(layer, request, np.array(expected)).numpy())


def covered(spans: Any, end: int) -> list[int]:
    return [position for position in range(end) if any(a <= position < b for a, b in spans)]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_wanted_row_is_kept_once_whatever_the_steps(data: st.DataObject) -> None:
    rows = KeptStates(LAYERS, TOKENS, SIZE)
    count = data.draw(st.integers(1, 4))
    kinds = [data.draw(st.sampled_from([None, *KINDS])) for _ in range(count)]
    wires = {r: None if kind is None else wire(r, spans_wanted(kind, 9, PICTURES)) for r, kind in enumerate(kinds)}
    computed = dict.fromkeys(wires, 0)
    furthest = dict(computed)
    for _ in range(data.draw(st.integers(1, 8))):
        chosen = data.draw(st.lists(st.sampled_from(list(wires)), min_size=1, unique=True))
        batch = [(r, computed[r], data.draw(st.integers(1, 7))) for r in chosen]
        compute(rows, batch, wires, padding=data.draw(st.integers(0, 9)))
        for r, before, now in batch:
            computed[r] = before + now
            furthest[r] = max(furthest[r], computed[r])
            if data.draw(st.integers(0, 5)) == 0:
                computed[r] = 0  # preempted
    for r, asked in wires.items():
        if asked is not None and furthest[r]:
            check(rows, r, covered(asked["spans"], furthest[r]))
    assert rows.kept() == {}


def test_what_a_cache_skipped_is_an_error_and_never_a_hole() -> None:
    rows = KeptStates(LAYERS, TOKENS, SIZE)
    compute(rows, [(0, 4, 5)], {0: wire(0, [(0, 9)])})
    with pytest.raises(RequestError, match="came from a cache"):
        rows.take(["0"])
    compute(rows, [(1, 4, 5)], {1: wire(1, [(8, 99)])})
    check(rows, 1, [8])


def test_a_released_request_is_forgotten_by_either_of_its_ids() -> None:
    rows = KeptStates(LAYERS, TOKENS, SIZE)
    wires = {r: wire(r, [(0, 99)]) for r in range(3)}
    compute(rows, [(r, 0, 4) for r in range(3)], wires)
    assert rows.kept() == {str(r): 4 * SIZE * 4 * len(LAYERS) for r in range(3)}
    rows.release(["0", "r1", "no such request"])
    assert list(rows.kept()) == ["2"]
    check(rows, 2, [0, 1, 2, 3])
    assert rows.take(["2"]) == {}


def test_rows_of_steps_that_the_engine_began_too_many_are_left_out() -> None:
    rows = KeptStates(LAYERS, TOKENS, SIZE)
    for computed, scheduled in ((0, 5), (5, 1), (6, 1), (7, 1)):
        compute(rows, [(0, computed, scheduled)], {0: wire(0, spans_wanted("answer", 5))})
    config = SimpleNamespace(
        additional_config=CaptureConfig(LAYERS).to_additional_config(),
        model_config=SimpleNamespace(get_hidden_size=lambda: SIZE),
    )
    llm = SimpleNamespace(
        llm_engine=SimpleNamespace(vllm_config=config), collective_rpc=lambda method, args: [rows.take(*args), {}]
    )
    answer = SimpleNamespace(
        token_ids=[7, 8], text="", finish_reason="stop"
    )  # a stop string was found in it two steps ago
    output = SimpleNamespace(request_id="0", prompt_token_ids=[1, 2, 3, 4, 5], outputs=[answer])
    (taken,) = take(llm, [output])
    assert taken.positions.tolist() == [4, 5]
    for layer in LAYERS:
        np.testing.assert_array_equal(taken.rows[layer], stream(layer, 0, np.array([4, 5])).numpy())
    with pytest.raises(RequestError, match="no rows to take"):
        take(llm, [output])


def test_a_worker_that_keeps_nothing_keeps_nothing() -> None:
    rows = KeptStates(LAYERS, TOKENS, SIZE, keeps=False)
    compute(rows, [(0, 0, 4)], {0: wire(0, [(0, 9)])})
    assert rows.take(["0"]) == {}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("last_prompt", [8]),
        ("prompt", [0, 1, 2, 3, 4, 5, 6, 7]),
        ("answer", [8, 9, 10]),
        ("all", list(range(11))),
        ("image", [2, 3, 4, 6, 7]),
        ("text", [0, 1, 5, 8]),
    ],
)
def test_kinds_stand_for_positions(kind: str, expected: list[int]) -> None:
    assert covered(spans_wanted(kind, 9, PICTURES), 11) == expected


def test_prompts_of_one_token_and_without_pictures_have_their_kinds_too() -> None:
    assert [covered(spans_wanted(kind, 1), 2) for kind in KINDS] == [[0], [], [0, 1], [0, 1], [], [0]]


@given(
    st.lists(st.booleans(), min_size=1, max_size=12),
    st.integers(0, 4),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from(FORMS),
)
def test_both_kernels_copy_the_same_rows_of_every_form(
    wanted: list[bool], padding: int, dtype: torch.dtype, form: str
) -> None:
    hidden, residual = torch.randn(2, len(wanted), SIZE).to(dtype)
    given = {SUM: residual, ALONE: None, DEAD: torch.full_like(residual, torch.nan)}[form]
    summed = torch.tensor([form != DEAD], dtype=torch.uint8)
    count = sum(wanted)
    token_row = torch.full((len(wanted) + padding,), -1, dtype=torch.int32)
    token_row[: len(wanted)][torch.tensor(wanted)] = torch.arange(count, dtype=torch.int32)
    found = []
    for kernel in (capture_op._copy_cpu, capture_op._copy_cuda):
        rows = torch.zeros(TOKENS + 1, SIZE)
        kernel(hidden, given, summed, token_row, rows)
        found.append(rows[:-1])
    stream = hidden.float() + residual.float() if form == SUM else hidden.float()
    expected = stream[torch.tensor(wanted)]
    for rows in found:
        assert torch.equal(rows[:count], expected)
        assert not rows[count:].any()


@pytest.mark.parametrize("residual", [torch.randn(3, SIZE), None])
def test_the_op_is_what_its_schema_says(residual: torch.Tensor | None) -> None:
    token_row = torch.tensor([1, -1, 0], dtype=torch.int32)
    torch.library.opcheck(
        torch.ops.trimtab.copy_rows,
        (torch.randn(3, SIZE), residual, torch.ones(1, dtype=torch.uint8), token_row, torch.zeros(4, SIZE)),
    )
