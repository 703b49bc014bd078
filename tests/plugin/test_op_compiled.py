"""The op is one opaque node that torch's checks and torch.compile accept, and it owns up to its one side effect."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.plugin.steering_case import DEAD, FORMS, SUM, Case, Slot, expected, expected_counts, make_case
from trimtab.plugin.model.op import EUCLIDEAN, steer
from trimtab.plugin.steps.batch import SLOT

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SLOTS = [Slot(), Slot(3), Slot(None), Slot(2, EUCLIDEAN, (6.0, 3.0))]


def case_of(tokens: int, dtype: torch.dtype = torch.float32, form: str = SUM) -> Case:
    return make_case(tokens, tokens=tokens, size=6, slots=SLOTS, dtype=dtype, form=form)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [0, 5])
@pytest.mark.parametrize("form", FORMS)
def test_torch_finds_nothing_wrong_with_it(tokens: int, dtype: torch.dtype, form: str) -> None:
    case = case_of(tokens, dtype, form)
    if form == DEAD:  # opcheck compares its inputs with themselves, and no NaN equals itself
        case = replace(case, residual=torch.full_like(case.hidden, 9.0))
    torch.library.opcheck(torch.ops.trimtab.steer.default, case.tensors())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_shape_and_dtype_are_known_without_a_value(dtype: torch.dtype) -> None:
    case = case_of(5, dtype)
    delta = steer(*(tensor.to("meta") for tensor in case.tensors()))
    assert delta.is_meta
    assert delta.shape == case.hidden.shape
    assert delta.dtype == dtype


def test_a_compiled_function_steers_without_a_graph_break_or_a_second_compilation() -> None:
    compilations = 0

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        nonlocal compilations
        compilations += 1
        return graph.forward

    @torch.compile(fullgraph=True, dynamic=True, backend=backend)
    def layer(*tensors: torch.Tensor) -> torch.Tensor:
        hidden = tensors[0] * 2
        return hidden + steer(hidden, *tensors[1:])

    for tokens in (17, 29, 12):
        case = case_of(tokens)
        doubled = replace(case, hidden=case.hidden * 2)
        (delta, decided, _), counts = expected(doubled), expected_counts(doubled)
        assert torch.equal(layer(*case.tensors()), doubled.hidden + delta)
        assert torch.equal(case.decided, decided)
        assert torch.equal(case.counts, counts)
    assert compilations == 1


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_what_is_decided_and_counted_survives_compilation(backend: str) -> None:
    """Even where nothing in the graph reads it, at two layers with a table each."""
    one, other = case_of(5), replace(case_of(5), decided=case_of(5).decided + 1)

    @torch.compile(fullgraph=True, backend=backend)
    def layers(hidden: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        delta = steer(hidden, residual, *one.tensors()[2:])
        return delta + steer(hidden, residual, *other.tensors()[2:])

    (delta, decided, _), (_, also_decided, _) = expected(one), expected(other)
    counts, also_counted = expected_counts(one), expected_counts(other)
    assert not torch.equal(decided, one.decided)
    layers(one.hidden, one.residual)
    assert torch.equal(one.decided, decided)
    assert torch.equal(other.decided, also_decided)
    assert torch.equal(one.counts, counts)
    assert torch.equal(other.counts, also_counted)
    assert delta.any()


def test_a_table_that_is_written_in_place_steers_the_compiled_function() -> None:
    case = case_of(5)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def layer() -> torch.Tensor:
        return steer(*case.tensors())

    for slot in (1, 2, 4):
        case.tokens[:, SLOT] = slot
        case.rows[1].mul_(3)
        delta, decided, _ = expected(case)
        assert torch.equal(layer(), delta)
        assert torch.equal(case.decided, decided)
