"""The op is one opaque, functional node that torch's own checks and torch.compile accept."""

from __future__ import annotations

import pytest
import torch

from tests.plugin.steering_case import Case, expected, make_case
from trimtab.plugin.op import steer

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def case_of(tokens: int, dtype: torch.dtype = torch.float32) -> Case:
    return make_case(tokens, tokens=tokens, size=6, counts=[1, 3, 0], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [0, 5])
def test_torch_finds_nothing_wrong_with_it(tokens: int, dtype: torch.dtype) -> None:
    torch.library.opcheck(torch.ops.trimtab.steer.default, case_of(tokens, dtype).tensors())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_shape_and_dtype_are_known_without_a_value(dtype: torch.dtype) -> None:
    case = case_of(5, dtype)
    delta = steer(*(tensor.to("meta") for tensor in case.tensors()))
    assert delta.is_meta
    assert delta.shape == case.residual.shape
    assert delta.dtype == dtype


def test_a_compiled_function_steers_without_a_graph_break_or_a_second_compilation() -> None:
    compilations = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        nonlocal compilations
        compilations += 1
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=backend)
    def layer(*tensors: torch.Tensor) -> torch.Tensor:
        residual = tensors[1] * 2
        return residual + steer(tensors[0], residual, *tensors[2:])

    for tokens in (17, 29, 12):
        case = case_of(tokens)
        doubled = Case(case.hidden, case.residual * 2, *case.tensors()[2:])
        assert torch.equal(layer(*case.tensors()), doubled.residual + expected(doubled))
    assert compilations == 1


def test_a_table_that_is_written_in_place_steers_the_compiled_function() -> None:
    case = case_of(5)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer() -> torch.Tensor:
        return steer(*case.tensors())

    assert torch.equal(layer(), expected(case))
    case.vectors[1:].mul_(3)
    case.token_slot.fill_(2)
    assert torch.equal(layer(), expected(case))
