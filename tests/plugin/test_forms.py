"""What a layer returns has the stream in a known place, or is no form; an addition lands in the stream of each form."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch

from trimtab.plugin.model.forms import add, parts

T, D = 3, 4
ROWS, DELTA = torch.randn(2, T, D)
FORMS: dict[str, Any] = {
    "a tensor": ROWS,
    "a tensor with a batch of one": ROWS[None],
    "a tensor, not contiguous": torch.randn(D, T).t(),
    "hidden and no residual": (ROWS, None),
    "hidden and residual": (ROWS, torch.randn(T, D)),
    "hidden and residual with a batch of one": (ROWS[None], torch.randn(1, T, D)),
    "no token": (ROWS[:0], ROWS[:0]),
}


class Named(NamedTuple):
    hidden: torch.Tensor
    residual: torch.Tensor


NO_FORMS: dict[str, Any] = {
    "several streams": torch.randn(4, T, D),
    "one row": ROWS[0],
    "a batch of four dimensions": ROWS[None, None],
    "three values": (ROWS, ROWS, ROWS),
    "one value in a tuple": (ROWS,),
    "a list": [ROWS, ROWS],
    "a tuple with names": Named(ROWS, ROWS),
    "two shapes": (ROWS, ROWS[:, :2]),
    "two dtypes": (ROWS, ROWS.double()),
    "something else beside it": (ROWS, {"kept": ROWS}),
    "nothing": None,
    "no hidden states": (None, ROWS),
}


def stream(out: Any) -> torch.Tensor:
    hidden, residual = (out, None) if isinstance(out, torch.Tensor) else out
    return (hidden if residual is None else hidden + residual).reshape(-1, D)


@pytest.mark.parametrize("out", FORMS.values(), ids=FORMS)
def test_the_parts_of_every_form_sum_up_to_its_stream_and_an_addition_lands_there(out: Any) -> None:
    found = parts(out)
    assert found is not None
    hidden, residual = found
    assert hidden.dim() == 2
    assert torch.equal(hidden if residual is None else hidden + residual, stream(out))
    delta = DELTA[: len(hidden)]
    added = add(out, delta)
    torch.testing.assert_close(stream(added), stream(out) + delta)
    assert type(added) is type(out)
    assert isinstance(out, torch.Tensor) or added[1] is out[1]


@pytest.mark.parametrize("out", NO_FORMS.values(), ids=NO_FORMS)
def test_anything_else_is_no_form(out: Any) -> None:
    assert parts(out) is None


def test_the_form_is_decided_while_torch_compile_traces_for_any_number_of_tokens() -> None:
    traced = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        nonlocal traced
        traced += 1
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=backend)
    def layer(hidden: torch.Tensor, residual: torch.Tensor, delta: torch.Tensor) -> Any:
        pair, alone = (hidden, residual), hidden[None]
        assert parts(pair) is not None
        assert parts(alone) is not None
        return add(pair, delta), add(alone, delta)

    for tokens in (5, 7, 11):
        h, r, d = torch.randn(3, tokens, D)
        (hidden, residual), alone = layer(h, r, d)
        assert torch.equal(hidden, h + d)
        assert torch.equal(residual, r)
        assert torch.equal(alone, (h + d)[None])
    assert traced == 1
