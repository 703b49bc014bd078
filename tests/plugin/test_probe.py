"""An engine whose armed layers do not add exactly what they are to add, for whatever reason, never starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.plugin.conftest import DEPTH
from tests.plugin.small_model import (
    AloneDecoderLayer,
    DeadDecoderLayer,
    Decoder,
    LlamaDecoderLayer,
    Runner,
    TensorDecoderLayer,
    engine_of,
)
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.arming import arm, layers_of, tables_of
from trimtab.plugin.model.dummy import DummyRuns
from trimtab.plugin.model.kinds import measure
from trimtab.plugin.model.probe import check_layers_add
from trimtab.plugin.model.tables import LayerTable, SteeringTables

Fault = Callable[[Runner], Any]


@pytest.fixture
def make(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Decoder]:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)

    def armed(layer: type[torch.nn.Module] = LlamaDecoderLayer) -> Decoder:
        found = Decoder(layer=layer)
        arm(found, engine_of(folder, model_folder, found))
        return found

    return armed


def tables(model: Decoder) -> SteeringTables:
    found = tables_of(model)
    assert found is not None
    return found


def check(runner: Runner) -> None:
    runs = DummyRuns(runner)
    kinds = measure(runs, layers_of(runner.model))
    runner.runs = runner.eager_runs = 0
    check_layers_add(runs, tables(runner.model), layers_of(runner.model), kinds)


def buffers(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


@pytest.mark.parametrize("layer", [LlamaDecoderLayer, DeadDecoderLayer, AloneDecoderLayer, TensorDecoderLayer])
def test_a_model_that_adds_passes_and_is_left_as_it_was(
    layer: type[torch.nn.Module], make: Callable[..., Decoder]
) -> None:
    runner = Runner(make(layer))
    before = buffers(runner.model)
    assert len(before) > DEPTH
    check(runner)
    assert (runner.runs, runner.eager_runs) == (9 + 2 * DEPTH + 4, 3 + DEPTH + 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(runner.model).items())


def delta_of(change: Callable[[torch.Tensor], torch.Tensor], layer: int | None = None) -> Fault:
    """A serving graph in which what a layer adds is changed on its way."""

    @contextmanager
    def broken(runner: Runner) -> Iterator[None]:
        forward: Any = LayerTable.forward

        def changed(self: LayerTable, *stream: Any) -> torch.Tensor:
            delta = forward(self, *stream)
            return change(delta) if layer in (None, self.layer) else delta

        armed: Any = LayerTable
        armed.forward = changed
        try:
            yield
        finally:
            armed.forward = forward

    return broken


@pytest.mark.parametrize("layer", range(DEPTH))
def test_an_addition_that_is_lost_stops_the_start(layer: int, make: Callable[..., Decoder]) -> None:
    model = make()
    with pytest.raises(StartupError, match=f"layer {layer} is armed and adds nothing"):
        check(Runner(model, delta_of(torch.zeros_like, layer)))
    assert not tables(model).tokens.entries.any()  # whoever catches it does not serve probes
    assert all(table.rows[0].isposinf().all() for table in tables(model).layers.values())


WRONG: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "twice": lambda delta: 2 * delta,
    "half of it": lambda delta: delta / 2,
    "three quarters of it": lambda delta: 0.75 * delta,
    "one number of it left out": lambda delta: delta * torch.tensor([1.0, 1, 1, 0]),
    "with the other sign": lambda delta: -delta,
    "to the next token": lambda delta: delta.roll(1, 0),
    "to every token": lambda delta: delta[:1].expand_as(delta),
    "from the first token on": lambda delta: torch.cat([delta[:1], 0 * delta[1:]]),
}


@pytest.mark.parametrize("layer", range(DEPTH))
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_an_addition_that_is_not_exactly_what_was_to_be_added_stops_the_start(
    wrong: Callable[[torch.Tensor], torch.Tensor], layer: int, make: Callable[..., Decoder]
) -> None:
    with pytest.raises(StartupError, match=f"layer {layer} is armed, and what it adds in the serving graph is not"):
        check(Runner(make(), delta_of(wrong, layer)))


@pytest.mark.parametrize("size", [1, 16])
def test_a_graph_of_another_batch_size_is_checked_too(size: int, make: Callable[..., Decoder]) -> None:
    with pytest.raises(StartupError, match="layer 0, 1, 2 is armed and adds nothing"):
        check(Runner(make(), delta_of(lambda delta: delta * (len(delta) != size))))


def test_an_addition_at_another_layer_stops_the_start(make: Callable[..., Decoder]) -> None:
    model = make()
    model.layers[1].trimtab_table, model.layers[2].trimtab_table = (
        model.layers[2].trimtab_table,
        model.layers[1].trimtab_table,
    )
    with pytest.raises(StartupError, match="layer 1 is armed, and what it adds in the serving graph is not"):
        check(Runner(model))


def test_a_graph_of_before_arming_stops_the_start(make: Callable[..., Decoder]) -> None:
    stale: dict[int, torch.Tensor] = {}
    runner = Runner(make())

    def last(states: torch.Tensor) -> torch.Tensor:
        return stale.setdefault(len(states), states) if runner.runs > runner.eager_runs else states

    run = runner._dummy_run

    def through_the_graph(num_tokens: int, **how: Any) -> Any:
        states, other = run(num_tokens, **how)
        if "cudagraph_runtime_mode" in how:
            return states, other
        return stale.setdefault(num_tokens, states), other  # type: ignore[arg-type]

    runner._dummy_run = through_the_graph  # type: ignore[method-assign]
    with pytest.raises(StartupError, match="layer 0 is armed and adds nothing"):
        check(runner)


def test_states_that_move_by_themselves_prove_nothing(make: Callable[..., Decoder]) -> None:
    runner = Runner(make(TensorDecoderLayer))
    noise = torch.Generator().manual_seed(0)
    runner.last = lambda states: states + 1e6 * torch.randn(states.shape, generator=noise)
    with pytest.raises(StartupError, match="by themselves they move by"):
        check(runner)


def test_states_that_turn_bad_stop_the_start(make: Callable[..., Decoder]) -> None:
    runner = Runner(make(TensorDecoderLayer))
    runner.last = lambda states: states if runner.runs <= 3 else torch.full_like(states, torch.nan)
    with pytest.raises(StartupError, match="adds nothing"):
        check(runner)


def test_a_small_noise_is_no_hindrance(make: Callable[..., Decoder]) -> None:
    runner = Runner(make())
    noise = torch.Generator().manual_seed(0)
    runner.last = lambda states: states + 1e-4 * torch.randn(states.shape, generator=noise)
    check(runner)


def test_a_pipeline_rank_that_hands_its_states_on_is_not_asked(make: Callable[..., Decoder]) -> None:
    runner = Runner(make())
    runner.last = lambda states: None
    check(runner)
    assert runner.runs == 3
    assert not tables(runner.model).tokens.entries.any()
