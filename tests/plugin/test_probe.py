"""An engine whose armed layers do not add, for whatever reason, never starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.plugin.conftest import DEPTH, SIZE
from tests.plugin.small_model import Decoder, LlamaDecoderLayer, engine_of
from trimtab.plugin.errors import StartupError
from trimtab.plugin.model.arming import arm, tables_of
from trimtab.plugin.model.probe import check_layers_add
from trimtab.plugin.model.tables import SteeringTables


class Runner:
    """Runs a dummy batch as vLLM's do, through a model whose layers really are armed."""

    def __init__(self, model: Decoder, last: Callable[[torch.Tensor], torch.Tensor | None] = lambda states: states):
        self.model, self.last, self.runs = model, last, 0

    def _dummy_run(self, num_tokens: int, *, force_attention: bool = False) -> tuple[torch.Tensor | None, object]:
        assert force_attention
        self.runs += 1
        hidden, residual = self.model(torch.ones(num_tokens, SIZE))
        return self.last(hidden + residual), None


@pytest.fixture
def armed(folder: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    monkeypatch.delenv("VLLM_PLUGINS", raising=False)
    found = Decoder()
    arm(found, engine_of(folder, model_folder, found))
    return found


def tables(model: Decoder) -> SteeringTables:
    found = tables_of(model)
    assert found is not None
    return found


def check(runner: Runner) -> None:
    check_layers_add(runner, tables(runner.model))


def buffers(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def test_a_model_that_adds_passes_and_is_left_as_it_was(armed: Decoder) -> None:
    runner, before = Runner(armed), buffers(armed)
    assert len(before) > DEPTH
    check(runner)
    assert runner.runs == 2 + DEPTH
    assert all(torch.equal(tensor, before[name]) for name, tensor in buffers(armed).items())


@pytest.mark.parametrize("layer", range(DEPTH))
def test_an_addition_that_is_lost_stops_the_start(layer: int, armed: Decoder) -> None:
    armed.layers[layer].__class__ = LlamaDecoderLayer
    before = buffers(armed)
    with pytest.raises(StartupError, match=f"layer {layer} is armed and adds nothing"):
        check(Runner(armed))
    assert not tables(armed).tokens.entries.any()  # whoever catches it does not serve probes
    assert len(before) > DEPTH


def test_a_graph_of_before_arming_stops_the_start(armed: Decoder) -> None:
    stale = torch.ones(1, SIZE)
    with pytest.raises(StartupError, match="layer 0 is armed and adds nothing"):
        check(Runner(armed, lambda states: stale))


def test_states_that_move_by_themselves_prove_nothing(armed: Decoder) -> None:
    torch.manual_seed(0)
    with pytest.raises(StartupError, match="by themselves they move by"):
        check(Runner(armed, lambda states: states + 1e6 * torch.randn_like(states)))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_states_that_are_no_numbers_stop_the_start(bad: float, armed: Decoder) -> None:
    with pytest.raises(StartupError, match="not finite before anything is added"):
        check(Runner(armed, lambda states: torch.full_like(states, bad)))
    turn_bad = Runner(armed)
    turn_bad.last = lambda states: states if turn_bad.runs <= 2 else torch.full_like(states, torch.nan)
    with pytest.raises(StartupError, match="adds nothing"):
        check(turn_bad)


def test_a_small_noise_is_no_hindrance(armed: Decoder) -> None:
    torch.manual_seed(0)
    check(Runner(armed, lambda states: states + 1e-3 * torch.randn_like(states)))


def test_a_pipeline_rank_that_hands_its_states_on_is_not_asked(armed: Decoder) -> None:
    runner = Runner(armed, lambda states: None)
    check(runner)
    assert runner.runs == 1
    assert not tables(armed).tokens.entries.any()
